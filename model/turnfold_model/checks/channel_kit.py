"""The parts of the checks of a channel: the harness of its author, and a bench that
calls a channel as the kernel does.

No test library is needed, so that an adapter's author can run the checks anywhere.
"""

import asyncio
import inspect
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Protocol

from attrs import define, field, frozen

from turnfold._decide.plan import default_plan
from turnfold._runtime.calls import CallResult, end_of
from turnfold._runtime.channel import AttachedChannel
from turnfold.enums import DeliveryClass, Kind
from turnfold.messages import File, Payload, Route, Text
from turnfold.ports.channel import (
    Attempt,
    Outcome,
    Part,
    PlanContext,
    PlannedPart,
    Rejected,
    Verdict,
)
from turnfold_model.checks.store_kit import CheckFailedError, same, true

__all__ = [
    "Bench",
    "CheckFailedError",
    "Factory",
    "Fault",
    "Harness",
    "NotApplicableError",
    "Seen",
    "same",
    "true",
]

CALL_S = 30.0  # the most that a call of a channel under test may take
_SETTLE_MAX_MS = 5_000


class Fault(StrEnum):
    """The faults of a visible call that a harness can make."""

    CUT_AFTER = "cut_after"  # accepted, then the connection breaks
    CUT_BEFORE = "cut_before"  # the connection breaks; nothing is accepted
    SILENT = "silent"  # accepted at once; no answer for a minute
    REFUSED = "refused"  # no connection can be made, by anything; until heal()
    RATE_LIMITED = "rate_limited"  # "slow down"; nothing is accepted
    REJECTED = "rejected"  # refused for good; nothing is accepted


@frozen(kw_only=True)
class Seen:
    """One visible message that the platform accepted. `id`: as in its receipt. `key`:
    the idempotency key, if the platform (or the harness) sees it. `text`: its visible
    words, or the name of the file. `marked`: the reader sees a mark that it may be a
    duplicate; None: `text` contains the mark."""

    id: str
    key: str | None = None
    text: str = ""
    marked: bool | None = None


class Harness(Protocol):
    """The platform behind the channel under test, new for each check.

    `faults`: those that it can make; a check that needs another one is left out, and
    the report names the check. `route`: a conversation for the parts.
    """

    faults: Collection[Fault]
    route: Route

    def channel(self) -> object:
        """Another adapter to this platform, as after a restart of the process. Give it
        the shortest `settle_ms` that the platform guarantees; the kit waits for it.
        """

    async def witness(self) -> Sequence[Seen]:
        """The accepted messages at `route` so far, oldest first."""

    async def calls(self) -> int:
        """How many visible calls have reached the platform, accepted or not."""

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        """Let `skip` visible calls pass; the next `times` meet this."""

    async def heal(self) -> None:
        """End every fault."""


Factory = Callable[[], AbstractAsyncContextManager[Harness]]


class NotApplicableError(Exception):
    """The check needs something that this channel or its harness does not offer."""


@define
class Bench:
    """One check's harness and channels. Texts are unique, so that messages can be told
    apart even on a platform without visible keys."""

    harness: Harness
    opened: list[AttachedChannel] = field(factory=list)

    def desk(self) -> AttachedChannel:
        """A new channel, attached. Raises ContractError."""
        name = self.harness.route.channel
        desk = AttachedChannel(name, "default", self.harness.channel(), "hold")
        self.opened.append(desk)
        return desk

    async def end(self) -> None:
        for desk in self.opened:
            await close(desk.channel)

    # --- requirements of a check ---

    def needs(self, *faults: Fault) -> None:
        for fault in faults:
            if fault not in self.harness.faults:
                raise NotApplicableError(f"the harness cannot make {fault}")

    def needs_class(self, desk: AttachedChannel, wanted: DeliveryClass) -> None:
        if wanted not in desk.capabilities.of("text").classes:
            raise NotApplicableError(f"the channel does not claim {wanted}")

    # --- parts ---

    def text(self, about: str = "part") -> Text:
        return Text(f"{about} {uuid.uuid4().hex[:12]}")

    def file(self) -> File:
        name = f"{uuid.uuid4().hex[:12]}.txt"
        return File(data=name.encode() * 10, name=name, mime="text/plain")

    def payloads(self, desk: AttachedChannel) -> list[Payload]:
        """One payload of each kind that the channel declares and the kit can make."""
        files: list[Payload] = (
            [self.file()] if "file" in desk.capabilities.parts else []
        )
        return [self.text(), *files]

    def part(self, desk: AttachedChannel, payload: Payload) -> Part:
        """The part of a payload by the kernel's plan, under a new key."""
        parts = self.parts(desk, payload)
        same(len(parts), 1, f"parts of {payload!r:.60}")
        return parts[0]

    def parts(
        self, desk: AttachedChannel, payload: Payload, entry: str | None = None
    ) -> list[Part]:
        entry = entry or f"entry:{uuid.uuid4().hex}"
        route = self.harness.route
        plan = desk.plan([payload], route, Kind.NOTICE, entry)
        made = pieces(desk, payload, route, entry)
        same(len(made), len(plan.parts), "the number of parts, planned again")
        return [
            Part(
                entry_id=entry,
                index=index,
                count=len(plan.parts),
                kind=piece.kind,
                payload=piece.payload,
                key=planned.key,
                route=route,
            )
            for index, (piece, planned) in enumerate(zip(made, plan.parts, strict=True))
        ]

    # --- the kernel's calls for a part ---

    async def prepared(self, desk: AttachedChannel, part: Part) -> Any:
        """The result of prepare(); a Rejected if it fails."""
        if not desk.prepares(part.kind):
            return None
        ready = desk.prepared(await _ended(desk.prepare(part), "prepare()"))
        return ready if isinstance(ready, Rejected) else ready.value

    async def deliver(
        self,
        desk: AttachedChannel,
        part: Part,
        *,
        number: int = 1,
        marked: bool = False,
    ) -> Outcome:
        """Prepare, send, and check the answer against the contract."""
        ready = await self.prepared(desk, part)
        if isinstance(ready, Rejected):
            return ready
        sending = self.start(desk, part, ready, number, marked=marked)
        return desk.outcome(await _ended(sending, "send()"))

    async def sending(
        self, desk: AttachedChannel, part: Part, ready: Any
    ) -> CallResult:
        """The end of one send()."""
        return await _ended(self.start(desk, part, ready), "send()")

    def start(
        self,
        desk: AttachedChannel,
        part: Part,
        ready: Any,
        number: int = 1,
        *,
        marked: bool = False,
    ) -> asyncio.Task[CallResult]:
        """The task of one send()."""
        at = Attempt(number=number, at_ms=now_ms(), prepared=ready, marked=marked)
        return asyncio.ensure_future(desk.send(part, at))

    async def ask(self, desk: AttachedChannel, part: Part) -> Verdict:
        """Look a part up, as of an attempt a moment ago."""
        call = desk.reconcile(part, now_ms() - 60_000)
        return desk.verdict(await _ended(call, "reconcile()"))

    # --- the messages of the platform ---

    async def shown(self, part: Part) -> list[Seen]:
        """The messages of a part that the platform accepted."""
        return [seen for seen in await self.harness.witness() if is_of(seen, part)]

    async def shows_once(self, part: Part, when: str) -> Seen:
        found = await self.shown(part)
        true(len(found) == 1, f"{when}, the platform shows the part {len(found)} times")
        return found[0]


def pieces(
    desk: AttachedChannel, payload: Payload, route: Route, entry: str
) -> Sequence[PlannedPart]:
    """The parts of a payload, by the adapter's plan or the plain one."""
    planner = getattr(desk.channel, "plan", None)
    if planner is None:
        return default_plan(payload, desk.capabilities)
    context = PlanContext(entry_id=entry, kind=Kind.NOTICE)
    made: Sequence[PlannedPart] = planner(payload, route, Kind.NOTICE, context)
    return made


def token(payload: Payload) -> str:
    """The words by which a payload is found where no keys are seen."""
    if isinstance(payload, Text):
        return payload.text
    return payload.name if isinstance(payload, File) else ""


def is_of(seen: Seen, part: Part) -> bool:
    if seen.key is not None:
        return seen.key == part.key
    return token(part.payload) in seen.text


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def settle_s(desk: AttachedChannel) -> float:
    """How long an old request may still take effect, by the channel's declaration."""
    offers = desk.capabilities.parts.values()
    longest = max((offer.settle_ms for offer in offers), default=0)
    hint = (
        f"the checks wait for it, so give them a channel with at most {_SETTLE_MAX_MS}: "
        "PartClass(..., settle_ms=50)"
    )
    true(longest <= _SETTLE_MAX_MS, f"settle_ms is {longest}: {hint}")
    return longest / 1000


async def close(channel: object) -> None:
    ended = getattr(channel, "aclose", lambda: None)()
    if inspect.isawaitable(ended):
        await ended


async def _ended(
    call: Coroutine[Any, Any, CallResult] | asyncio.Task[CallResult], what: str
) -> CallResult:
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=CALL_S)
    if not task.done():
        task.cancel()
        raise CheckFailedError(f"{what} has no end after {CALL_S:.0f} s")
    return end_of(task)
