"""The platforms of a day: they live outside of every process of the gateway.

`messages` holds the accepted messages, independent of the gateway's log: this is the
witness. A request that has left the gateway goes on here when its sender dies.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field, frozen

from turnfold.enums import DeliveryClass, FailureClass, GateScope, PartAct
from turnfold.messages import Route, Text
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)
from turnfold_model.day.plan import HOUR, MINUTE, Outage
from turnfold_model.testing.virtual_time import Machine

SETTLE_MS = MINUTE
WINDOW_MS = 24 * HOUR  # half of it outlasts the outages of a day
SKEW_MS = 10 * MINUTE
_RATE_MS = 200  # a message each, in good times
_BURST = 10
_SLOW_MS = MINUTE
_FAILURES = {
    "down": FailureClass.NOT_CONNECTED,
    "failing": FailureClass.TRANSIENT,
    "auth": FailureClass.AUTH,
}
_LONGEST_MS = 40_000  # that a request may take before it lands


@frozen(kw_only=True)
class Message:
    """A visible message. `at`: by the clock of the platform."""

    id: str
    at: int
    channel: str
    conversation: str
    text: str
    key: str
    entry: str
    part: int


@define(eq=False)
class Account:
    """One account on one platform, and how it fares."""

    channel: str
    room: float = _BURST
    filled_at: int = 0
    outages: list[Outage] = field(factory=list)

    def how(self) -> str:
        return self.outages[-1].how if self.outages else ""

    def refused_for_ms(self, now: int) -> int:
        """0 if there is room for one more message now."""
        every = _SLOW_MS if self.how() == "slow" else _RATE_MS
        burst = 1 if self.how() == "slow" else _BURST
        self.room = min(burst, self.room + (now - self.filled_at) / every)
        self.filled_at = now
        if self.room >= 1:
            self.room -= 1
            return 0
        return int((1 - self.room) * every) + 1


@define(eq=False)
class Platform:
    """All platforms. `skew_ms`: by how much their clock is ahead."""

    machine: Machine
    rng: random.Random
    skew_ms: int
    messages: list[Message] = field(factory=list)
    requests: int = 0
    refused: int = 0
    wrongly_signed: int = 0
    accounts: dict[tuple[str, str], Account] = field(factory=dict)
    placeholders: set[str] = field(factory=set)  # that show nothing of an answer yet
    _made: int = 0
    _keys: dict[str, Message] = field(factory=dict)
    _parts: defaultdict[tuple[str, int], list[Message]] = field(
        factory=lambda: defaultdict(list)
    )
    _by_id: dict[str, int] = field(factory=dict)  # edited messages, their places
    _flying: set[asyncio.Task[Any]] = field(factory=set)

    def account(self, channel: str, name: str) -> Account:
        return self.accounts.setdefault((channel, name), Account(channel))

    def now(self) -> int:
        """By the clock of the platform."""
        return self.machine.true_ms() + self.skew_ms

    # --- a request ---

    async def take(
        self, account: Account, part: Part, attempt: Attempt, edited: str = ""
    ) -> Outcome:
        """One request and its answer; it outlives its caller. `edited`: the message
        that shows the part from now on."""
        self._check_signature(attempt)
        lands = partial(self._land, part, attempt.act, edited)
        request = asyncio.get_running_loop().create_task(self._serve(account, lands))
        self._flying.add(request)
        request.add_done_callback(self._flying.discard)
        return await asyncio.shield(request)

    def _check_signature(self, attempt: Attempt) -> None:
        """Check the signed time: an adapter signs with the given time, which must be
        the present time of the machine's wall clock, right or wrong."""
        wall = self.machine.true_ms() + self.machine.wrong_ms
        self.wrongly_signed += abs(attempt.at_ms - wall) > 1_000

    async def _serve(self, account: Account, lands: Callable[[], str]) -> Outcome:
        self.requests += 1
        trouble = self._trouble(account)
        if trouble is not None:
            self.refused += 1
            return trouble
        await asyncio.sleep(self._way_ms() / 1000)
        dice = self.rng.random()
        if dice < 0.005:
            return Unknown(cause="reset", detail="the request never arrived")
        identity = lands()
        if not identity:
            return Rejected(failure=FailureClass.HANDLE_GONE)
        if dice < 0.01:
            return Unknown(cause="reset", detail="the answer never arrived")
        if dice < 0.013:
            await asyncio.sleep(self.rng.choice((50, 90)))  # beyond the deadline
        return Accepted(receipt=Receipt(ids=(identity,)))

    def _way_ms(self) -> int:
        """How long the request is under way."""
        slow = self.rng.random() < 0.01
        return self.rng.randint(20, _LONGEST_MS if slow else 800)

    def _trouble(self, account: Account) -> Rejected | None:
        whole = GateScope.ACCOUNT
        failure = _FAILURES.get(account.how())
        if failure is not None:
            return Rejected(failure=failure, detail=account.how(), scope=whole)
        wait = account.refused_for_ms(self.machine.true_ms())
        if not wait:
            return None
        limited = FailureClass.RATE_LIMITED
        return Rejected(failure=limited, retry_after_ms=wait, scope=whole)

    def _land(self, part: Part, act: PartAct, edited: str) -> str:
        """The id of the message; empty if the one to edit is gone."""
        if edited:
            return self._edit(part, edited)
        if act is PartAct.PLACEHOLDER:
            self.placeholders.add(identity := self._new_id())
            return identity
        known = self._keys.get(part.key)
        honoured = part.route.channel == DeliveryClass.KEYED
        if honoured and known is not None and self.now() - known.at < WINDOW_MS:
            return known.id
        message = self._message(part, self._new_id())
        self.messages.append(message)
        self._keys[part.key] = message
        self._parts[part.entry_id, part.index].append(message)
        return message.id

    def _edit(self, part: Part, identity: str) -> str:
        message, shown = self._message(part, identity), self._by_id.get(identity)
        if shown is not None:
            # Assumed (`Quiet` in specs/Live.tla): a preview that nobody waits for lands
            # before the seal, or never.
            late = previews(message.text) and not previews(self.messages[shown].text)
            self.messages[shown] = self.messages[shown] if late else message
        elif identity in self.placeholders:
            self.placeholders.discard(identity)
            self._by_id[identity] = len(self.messages)
            self.messages.append(message)
            self._parts[part.entry_id, part.index].append(message)
        else:
            return ""
        return identity

    def take_back(self, identity: str) -> None:
        """Delete a placeholder."""
        self.placeholders.discard(identity)

    def _new_id(self) -> str:
        self._made += 1
        return f"p{self._made}"

    def _message(self, part: Part, identity: str) -> Message:
        return Message(
            id=identity,
            at=self.now(),
            channel=part.route.channel,
            conversation=part.route.conversation,
            text=part.payload.text if isinstance(part.payload, Text) else "",
            key=part.key,
            entry=part.entry_id,
            part=part.index,
        )

    # --- reading ---

    def look_up(self, account: Account, part: Part, since_ms: int) -> Verdict:
        """By the clock of the platform, as its search does it."""
        failure = _FAILURES.get(account.how())
        if failure is not None:
            return CannotTell(detail=account.how(), failure=failure)
        for message in self._parts[part.entry_id, part.index]:
            if message.at >= since_ms:
                return Found(receipt=Receipt(ids=(message.id,)))
        return Absent()

    def shows(self, entry: str, part: int) -> bool:
        return bool(self._parts[entry, part])

    def doubled(self) -> list[Message]:
        """Messages that came although an earlier one had brought the same part."""
        return [m for some in self._parts.values() for m in some[1:]]

    async def quiet(self) -> None:
        """Until nothing is under way."""
        while self._flying:
            await asyncio.wait(set(self._flying))


def preview_of(name: str) -> str:
    """The preview of an answer."""
    return f"{name} grows"


def previews(text: str) -> bool:
    return text.endswith(" grows")


class DayChannel:
    """The adapter to one account. `alive()` never returns in a process that is dead."""

    def __init__(
        self, platform: Platform, delivery: DeliveryClass, account: str, alive: Any
    ) -> None:
        self._platform, self._alive = platform, alive
        self._account = platform.account(delivery.value, account)
        window = WINDOW_MS if delivery is DeliveryClass.KEYED else None
        classes = () if delivery is DeliveryClass.BLIND else (delivery,)
        offer = PartClass(classes=classes, key_window_ms=window, settle_ms=SETTLE_MS)
        self.capabilities = Capabilities(parts={"text": offer}, skew_ms=SKEW_MS)
        if delivery is DeliveryClass.LOOKUP:
            self.reconcile = self._reconcile
        if delivery is DeliveryClass.EDITABLE:
            self.edit, self.retract = self._edit, self._retract

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:  # noqa: ARG002  the contract's signature
        """The contract's `send`."""
        await self._alive()
        outcome = await self._platform.take(self._account, part, attempt)
        await self._alive()
        return outcome

    async def _edit(
        self,
        handle: Receipt,
        part: Part,
        key: str,  # noqa: ARG002  the contract's signature
        attempt: Attempt,
    ) -> Outcome:
        await self._alive()
        outcome = await self._platform.take(
            self._account, part, attempt, edited=handle.ids[0]
        )
        await self._alive()
        return outcome

    async def _retract(self, handle: Receipt, route: Route) -> None:  # noqa: ARG002  the contract's signature
        await self._alive()
        self._platform.take_back(handle.ids[0])

    async def _reconcile(self, part: Part, since_ms: int) -> Verdict:
        await self._alive()
        return self._platform.look_up(self._account, part, since_ms)
