"""Plays a day: one life after the other on one store, while the world goes wrong."""

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from turnfold import Inbound, Kernel, Unreadable
from turnfold._decide.operator import REASON
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.enums import Phase
from turnfold.errors import TurnfoldError
from turnfold.ports.store import Listing
from turnfold_model.day.life import Inboxes, Life, raw, read, texts_of
from turnfold_model.day.plan import (
    ACCOUNTS,
    HOUR,
    SECOND,
    Death,
    Jump,
    Outage,
    Plan,
    Update,
)
from turnfold_model.day.platform import Platform
from turnfold_model.testing.peek import Peek, at_rest
from turnfold_model.testing.virtual_time import Machine

_PUSHES_S = 20.0  # how often a platform pushes unacknowledged messages again
_DIES_WITHIN_S = 120.0
_RESTS_WITHIN_MS = 30 * HOUR
_PERSON = "somebody"


@define
class Gap:
    """The losses of a restore from a copy, as seen from outside. `acked`: pushed
    messages that were acknowledged after the copy. `keys`: of parts that came to a
    platform after it. `answered`: messages that were answered then."""

    acked: set[str] = field(factory=set)
    keys: set[str] = field(factory=set)
    answered: set[str] = field(factory=set)


@define(eq=False)
class Day:
    """`folder`: for the store. The fields hold the results."""

    plan: Plan
    folder: Path
    machine: Machine
    platform: Platform
    inboxes: Inboxes
    rng: random.Random
    life: Life | None = None
    acked: list[str] = field(factory=list)  # pushed messages, in order
    acted: int = 0  # acts of a person
    kills: int = 0
    restores: int = 0
    jumps: int = 0
    outages: int = 0
    rested: bool = False
    gap: Gap = field(factory=Gap)
    _copied: tuple[int, int] = (0, 0)  # how much was acked and shown at the copy

    @property
    def path(self) -> Path:
        return self.folder / "day.db"

    async def play(self) -> None:
        """From the first start to the rest after the last message."""
        pushes = [asyncio.create_task(self._push(account)) for account in ACCOUNTS]
        await self._start()
        try:
            for at, act in sorted(self._acts(), key=lambda pair: pair[0]):
                await self._at(at)
                await self._do(act)
            await self._at(self.plan.length_ms)
            await self._rest(pushes)
        finally:
            for task in pushes:
                task.cancel()
        await self._kernel().close()
        await self.platform.quiet()

    def _acts(self) -> Iterator[tuple[int, object]]:
        for death in self.plan.deaths:
            yield death.at, death
        troubles: list[Outage | Jump] = [*self.plan.outages, *self.plan.jumps]
        for trouble in troubles:
            yield trouble.at, trouble
            yield trouble.until, ("over", trouble)

    async def _at(self, at: int) -> None:
        """Until this time of the day, or now if it is over. A process that dies of
        itself on the way is started again."""
        while True:
            left = self.plan.start_ms + at - self.machine.true_ms()
            if left <= 0:
                return
            life = self._living()
            try:
                async with asyncio.timeout(left / 1000):
                    await life.dead.wait()
            except TimeoutError:
                return
            await self._bury(Death(at=at))

    async def _do(self, act: object) -> None:
        match act:
            case Outage():
                self.outages += 1
                self.platform.account(act.channel, act.account).outages.append(act)
            case "over", Outage() as over:
                self.platform.account(over.channel, over.account).outages.remove(over)
            case Jump():
                self.jumps += 1
                self.machine.wrong_ms = act.by_ms
            case "over", Jump():
                self.machine.wrong_ms = 0
            case Death():
                await self._end(act)
            case _:
                raise AssertionError(act)

    # --- lives ---

    async def _start(self) -> None:
        """Start a process; if it dies at its start, another one follows."""
        while True:
            life = Life(self.path, self.inboxes, self.platform, self.rng)
            if await life.does(life.kernel.open()):
                self.life = life
                return
            self.kills += 1
            await life.die()

    async def _end(self, death: Death) -> None:
        life = self._living()
        if death.orderly and await life.does(life.kernel.close()):
            await self._away(death)
            return
        life.after = death.after or None
        if death.after:
            try:
                async with asyncio.timeout(_DIES_WITHIN_S):
                    await life.dead.wait()
            except TimeoutError:
                pass  # nothing happens in it: it dies where it stands
        await self._bury(death)

    async def _bury(self, death: Death) -> None:
        self.kills += 1
        await self._living().die()
        await self._away(death)

    async def _away(self, death: Death) -> None:
        self.life = None
        if death.copies:
            self._copy()
        await asyncio.sleep(death.away_ms / 1000)
        if death.reboots:
            self.machine.reboot()
        if death.restores:
            self._put_back()
        await self._start()
        if death.restores:
            await self._kept_after()

    # --- the copy ---

    def _files(self) -> Iterator[tuple[Path, Path]]:
        for suffix in ("", "-wal"):
            name = f"{self.path.name}{suffix}"
            yield self.folder / name, self.folder / f"copy-{name}"

    def _copy(self) -> None:
        """Of a store that nobody has open, without the mark beside it."""
        self._copied = len(self.acked), len(self.platform.messages)
        for file, kept in self._files():
            if file.exists():
                shutil.copy(file, kept)

    def _put_back(self) -> None:
        self.restores += 1
        acked, shown = self._copied
        self.gap.acked = set(self.acked[acked:])
        later = self.platform.messages[shown:]
        self.gap.keys = {message.key for message in later}
        self.gap.answered = {message.text.partition(" ")[0] for message in later}
        for file, kept in self._files():
            file.unlink(missing_ok=True)
            if kept.exists():
                shutil.copy(kept, file)

    async def _kept_after(self) -> None:
        """A process that dies meanwhile is followed by another."""
        while not await self._living().does(self._look_after()):
            await self._bury(Death(at=0))

    async def _look_after(self) -> None:
        """A person decides on everything that waits after a restore, by looking at the
        platform."""
        kernel = self._kernel()
        peek = Peek(kernel.store)
        for row in peek.list(Listing(prefix="turn:", open=True, limit=1_000_000)):
            turn = peek.state(row.stream)
            if isinstance(turn, Turn) and turn.held:
                await self._free(kernel, turn)
        parked = Listing(phases=(Phase.PARKED,), open=True, limit=1_000_000)
        for row in peek.list(parked):
            if row.reason == REASON:
                await self._resolve(kernel, row.stream)

    async def _free(self, kernel: Kernel, turn: Turn) -> None:
        self.acted += 1
        texts = {message.text for message in self.platform.messages}
        if texts.issuperset(texts_of(self.plan.update(turn.message_id))):
            await kernel.discard(turn.stream, by=_PERSON, why="it is answered")
        else:
            await kernel.unhold(turn.stream, by=_PERSON, why="it is not answered")

    async def _resolve(self, kernel: Kernel, stream: str) -> None:
        peek = Peek(kernel.store)
        while True:
            entry = peek.state(stream)
            if not isinstance(entry, Entry) or entry.phase is not Phase.PARKED:
                return
            self.acted += 1
            shown = self.platform.shows(stream, entry.part)
            verdict = "delivered" if shown else "not_sent"
            await kernel.resolve(
                stream, verdict, by=_PERSON, why="the platform says so"
            )

    # --- pushes ---

    async def _push(self, account: str) -> None:
        """The blind platform brings its messages itself, until they are acknowledged."""
        queue = self.inboxes.queues.get(("blind", account), [])
        for update in queue:
            await asyncio.sleep(self._until_ms(update.at) / 1000)
            while not await self._acknowledged(update.id):  # noqa: ASYNC110  it pushes again
                await asyncio.sleep(_PUSHES_S)

    def _until_ms(self, at: int) -> int:
        return max(0, self.plan.start_ms + at - self.machine.true_ms())

    async def _acknowledged(self, name: str) -> bool:
        life = self.life
        if life is None or not life.kernel.working or life.dead.is_set():
            return False
        try:
            well = await life.does(life.kernel.accept(_pushed(self.plan.update(name))))
        except TurnfoldError:  # it closes just now
            return False
        if well:
            self.acked.append(name)
        return well

    # --- rest ---

    async def _rest(self, pushes: list[asyncio.Task[None]]) -> None:
        """Without further faults, wait until all comes to rest."""
        end = self.plan.length_ms + _RESTS_WITHIN_MS
        while self._until_ms(end) > 0:
            await self._at(self.machine.true_ms() - self.plan.start_ms + 30 * SECOND)
            if all(task.done() for task in pushes) and await self._all_read():
                await self._kept_after()  # a part that was on the wire at the copy
                if at_rest((await self._kernel().store.load()).open):
                    self.rested = True
                    return

    async def _all_read(self) -> bool:
        """Every source is at its end."""
        kernel = self._kernel()
        for (channel, account), queue in self.inboxes.queues.items():
            name = f"cursor:{channel}/{account}"
            cursor = Peek(kernel.store).state(name)
            if channel != "blind" and getattr(cursor, "value", None) != str(len(queue)):
                return False
        return True

    def _living(self) -> Life:
        assert self.life is not None  # noqa: S101  _start made one
        return self.life

    def _kernel(self) -> Kernel:
        return self._living().kernel


def _pushed(update: Update) -> Inbound | Unreadable:
    """The update that a handler of webhooks passes to its kernel."""
    try:
        return read(raw(update))
    except KeyError as exc:
        error = f"no {exc}"
        return Unreadable(
            update.channel, account=update.account, raw=raw(update), error=error
        )
