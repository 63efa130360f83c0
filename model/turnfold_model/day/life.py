"""One process of the gateway: its kernel, its adapters, its handler, and its death.

A dead process does nothing more: each of its tasks stops at its next commit or call of
a platform. So it can die between any two of them, as by SIGKILL.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

from attrs import define, field

from turnfold import Inbound, Kernel, Never, NotNow, Settings, TurnHandle
from turnfold.enums import DeliveryClass, Flush, Kind, Status
from turnfold.ports.store import Command, Posted, Refused, Store, Stored, Write
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.day.plan import ACCOUNTS, CLASSES, MINUTE, Plan, Update
from turnfold_model.day.platform import DayChannel, Platform, preview_of
from turnfold_model.testing.gateway import crash
from turnfold_model.testing.virtual_time import Machine

SETTINGS = Settings(run_deadline_ms=5 * MINUTE)
_NEVER_S = 86_400.0
_AGAIN = 0.02  # of the messages come once more, with a cursor that is behind
_WAL_BYTES = 256 * 1024


@define(eq=False)
class Inboxes:
    """The sent messages of people, by account, in order, as platforms keep them.
    `seen`: how often a handler was called with a message."""

    plan: Plan
    machine: Machine
    queues: dict[tuple[str, str], list[Update]] = field(factory=dict)
    tries: Counter[str] = field(factory=Counter)

    def __attrs_post_init__(self) -> None:
        for update in self.plan.updates:
            place = (update.channel, update.account)
            self.queues.setdefault(place, []).append(update)


class Life:
    """From a start to a death. `after`: how many more commits and calls it lives."""

    def __init__(
        self, path: Path, inboxes: Inboxes, platform: Platform, rng: random.Random
    ) -> None:
        self._inboxes, self._rng = inboxes, rng
        self.dead = asyncio.Event()
        self.after: int | None = None
        disk = SqliteStore(path, flush=Flush.LOOP, wal_bytes=_WAL_BYTES)
        self.kernel = Kernel(
            cast("Store", _MortalStore(disk, self)),
            settings=SETTINGS,
            clock=inboxes.machine.clock(lambda: rng.randint(0, 1000)),
            entropy=rng,
        )
        for delivery in CLASSES:
            for account in ACCOUNTS:
                channel = DayChannel(platform, delivery, account, self.alive)
                self.kernel.attach(
                    delivery.value,
                    channel,
                    account=account,
                    on_unknown=_policy(delivery),
                )
        self.kernel.on_turn(resume=True)(self._answer)
        for delivery in CLASSES:
            for account in ACCOUNTS if delivery is not DeliveryClass.BLIND else ():
                self._pulls(delivery.value, account)

    # --- life and death ---

    async def alive(self) -> None:
        """Called at each commit or call; in a dead process it never returns."""
        if self.after is not None:
            self.after -= 1
            if self.after <= 0:
                self.dead.set()
        if self.dead.is_set():
            await asyncio.get_running_loop().create_future()

    async def does(self, what: Coroutine[Any, Any, object]) -> bool:
        """Run some work to its end; False if the process died before. Raises the errors
        of the work."""
        task, dead = (
            asyncio.ensure_future(what),
            asyncio.ensure_future(self.dead.wait()),
        )
        await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED)
        well = task.done() and not self.dead.is_set()
        for one in (task, dead):
            one.cancel()
        if well:
            task.result()
        return well

    async def die(self) -> None:
        self.dead.set()
        await crash(self.kernel)

    # --- inbound messages ---

    def _pulls(self, channel: str, account: str) -> None:
        async def stream(cursor: str | None) -> AsyncIterator[Any]:
            queue = self._inboxes.queues.get((channel, account), [])
            position = int(cursor or 0)
            while True:
                await asyncio.sleep(self._quiet_s(queue, position))
                await self._wobble()
                if position and self._rng.random() < _AGAIN:
                    yield raw(queue[position - 1]), str(position - 1)
                update, position = queue[position], position + 1
                yield raw(update), str(position)

        self.kernel.source(channel, stream, account=account, read=read)

    def _quiet_s(self, queue: Sequence[Update], position: int) -> float:
        """How long until the next message comes."""
        if position == len(queue):
            return _NEVER_S
        at = self._inboxes.plan.start_ms + queue[position].at
        return max(0, at - self._inboxes.machine.true_ms()) / 1000

    async def _wobble(self) -> None:
        """A source fails from time to time, each time in another way."""
        dice = self._rng.random()
        if dice < 0.005:
            raise ConnectionResetError("by the platform")
        if dice < 0.008:
            raise asyncio.CancelledError("by a client library")
        if dice < 0.010:
            raise SystemExit(1)

    # --- answers ---

    async def _answer(self, turn: TurnHandle) -> None:
        update = self._inboxes.plan.update(turn.inbound.message_id or "")
        self._inboxes.tries[update.id] += 1
        await asyncio.sleep(update.think_ms / 1000)
        if self._inboxes.tries[update.id] <= update.times:
            await self._misbehave(update)
        said = [s for s in await turn.previous() if s.kind is Kind.BLOCK]
        if update.block and all(s.status is Status.ABORTED for s in said):
            await turn.block(f"{update.id} wait")
        if not update.live:
            await turn.reply(*texts_of(update))
            return
        async with turn.live() as live:
            live.append(preview_of(update.id))
            await asyncio.sleep(update.think_ms / 1000)
            await live.seal(*texts_of(update))

    async def _misbehave(self, update: Update) -> None:
        match update.mood:
            case "hangs":
                await asyncio.sleep(3 * SETTINGS.attempt_deadline_ms)
            case "not_now":
                raise NotNow("the model is busy", retry_after_ms=7_000)
            case "never":
                raise Never("nobody can answer this")
            case "kills_itself":
                self.dead.set()
                await self.alive()
            case _:
                raise AttributeError(update.id)


def _policy(delivery: DeliveryClass) -> str:
    """In class editable only an empty placeholder may come twice, never an answer."""
    return "resend" if delivery is DeliveryClass.EDITABLE else "hold"


def raw(update: Update) -> dict[str, Any]:
    """A message as its platform brings it. A poisoned one has no chat."""
    known = {"id": update.id, "text": update.id}
    whole = {**known, "account": update.account, "channel": update.channel}
    return whole if update.poison else {**whole, "chat": update.conversation}


def read(given: dict[str, Any]) -> Inbound:
    """The `read` of a gateway's author. Raises KeyError for a poisoned update."""
    return Inbound(
        given["channel"],
        account=given["account"],
        conversation=given["chat"],
        message_id=given["id"],
        body=given,
    )


def texts_of(update: Update) -> list[str]:
    """The texts of the answer to a message that a reader must see, in order."""
    return [f"{update.id} {n + 1}/{update.parts}" for n in range(update.parts)]


class _MortalStore:
    """A store whose process may die before and after each commit."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store, self._life = store, life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        if not any(write.records for write in writes):
            return await self._store.commit(writes)
        await self._life.alive()
        answers = await self._store.commit(writes)
        await self._life.alive()
        return answers

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        await self._life.alive()
        posted = await self._store.post(commands)
        await self._life.alive()
        return posted
