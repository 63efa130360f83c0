"""A stage on which a kernel is walked along the edges of its machines, word by word.

Every call to the platform and every run of the handler waits until a word ends it,
the clock stands still, and the account's gate is open only while the word
`go` lets something start: so between two words nothing moves. The effects of a word go
through the kernel's public commands and the platform's answers, nothing else.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from attrs import frozen

from turnfold._decide import importing
from turnfold._decide.importing import Foreign
from turnfold._log.bodies import pack
from turnfold._log.events import GateClosed
from turnfold._log.ids import ENTRY, reply_entry
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.api.kernel import Kernel
from turnfold.api.live import Live
from turnfold.enums import FailureClass, Kind
from turnfold.inbound import Unreadable
from turnfold.messages import Text
from turnfold.ports.channel import (
    Absent,
    Accepted,
    CannotTell,
    Found,
    Receipt,
    Rejected,
    Unknown,
)
from turnfold.ports.store import Store
from turnfold.settings import Settings
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model import reference
from turnfold_model.edge_walks.wire import Channel, Loop, Wire
from turnfold_model.reference.kinds import Record
from turnfold_model.testing.gateway import (
    Gateway,
    NoJitter,
    entry,
    inbound,
    peek,
    route,
    spin,
    turn,
    until,
)

_DAY_MS: Final = 24 * 3_600_000
_PATIENCE_MS: Final = 40_000  # more than any back-off on the way
_DEADLINE_S: Final = 70  # a call is cancelled after a minute, and then has a second


@frozen
class Walk:
    """`words` are methods of Stage. `kind` of channel: keyed, lookup, editable or blind. `hangs`:
    a send outlives its deadline and ends when the word `late` says so."""

    words: str
    kind: str = "keyed"
    parts: int = 1
    prepares: bool = False
    hangs: bool = False
    runs: int = 3
    yields: bool = False  # a head that waits for its retry lets others pass

    @property
    def settings(self) -> Settings:
        return Settings(max_runs=self.runs, yield_retryable=self.yields)

    @property
    def name(self) -> str:
        marks = [self.kind, f"{self.parts}p"]
        marks += ["prepares"] * self.prepares + ["yields"] * self.yields
        return f"{' '.join(marks)}: {self.words}"


class Stage:
    """One walk. Words are its methods; `play` gives the log that they made. Its times
    are those of a clock that stands still, its ids those of `seed`."""

    def __init__(self, walk: Walk, seed: int) -> None:
        self.walk = walk
        self.disk, self._kept = MemoryDisk(), MemoryDisk()
        self.wire = Wire(deaf=walk.hangs)
        entropy = NoJitter(seed)
        self.gateway = Gateway(
            store=self._store, settings=walk.settings, entropy=entropy
        )
        channel = Channel(self.wire, walk.kind, prepares=walk.prepares)
        self.gateway.channels = {("t", "default"): channel}
        self._receipts = 0
        self._entry = self._turn = ""
        self._grown: Live | None = None
        self._runs: list[tuple[Any, asyncio.Future[Any]]] = []

    def _store(self) -> Store:
        return MemoryStore(self.disk)

    @property
    def kernel(self) -> Kernel:
        return self.gateway.alive[-1]

    @property
    def entry(self) -> Entry:
        """The entry that is walked: the one that was queued, or the turn's final."""
        if not self._entry:
            self._entry = self.turn.finals[0]
        return entry(self.kernel, self._entry)

    @property
    def turn(self) -> Turn:
        return turn(self.kernel, self._turn)

    async def play(self) -> list[Record]:
        """Say every word; gives the log, as an export has it."""
        self.gateway.handler = self._handle
        await self.gateway.start()
        await self._shut()
        try:
            for word in self.walk.words.split():
                self.gateway.clock.pass_ms(1)  # each word has a moment of its own
                await getattr(self, word)()
                await spin()
            return self._log()
        finally:
            if self._grown is not None:  # its previews end with their run
                over = asyncio.CancelledError()
                await self._grown.__aexit__(type(over), over, None)
            self.wire.end()
            for _, end in self._runs:
                end.cancel()
            await self.gateway.end()

    def _log(self) -> list[Record]:
        """The log so far, as an export has it."""
        records = peek(self.kernel).log()
        return [e for r in records for e in reference.as_events(r)]

    async def _handle(self, handle: Any) -> None:
        end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._runs.append((handle, end))
        await end

    # --- towards the wire ---

    async def queue(self) -> None:
        done = await self.kernel.enqueue(route(), *["x"] * self.walk.parts)
        self._entry = done.entry_id

    async def bring(self) -> None:
        """The queue of another gateway brings it: nobody knows if it was sent."""
        foreign = Foreign(
            entry=f"{ENTRY}brought",
            route=route(),
            kind=Kind.FINAL,
            packed=tuple([pack(Text("x"))] * self.walk.parts),
            key="import:1",
            origin="elsewhere",
        )
        decision = partial(importing.bring_in, foreign=foreign)
        self._entry = await self.kernel.append(decision)

    async def remind(self) -> None:
        """Queued for later."""
        later = self.gateway.clock.now() + 1_000
        done = await self.kernel.enqueue(route(), "x", not_before=later)
        self._entry = done.entry_id

    async def _shut(self) -> None:
        """Hold everything, over a restart too: a new worker tries an account that was
        disconnected, and keeps a wait that the platform asked for."""
        limit = GateClosed(reason="rate_limited", until=None)
        await self.kernel.append(lambda draft: draft.emit("gate:t/default", limit))

    async def go(self) -> None:
        """Everything that was due goes; then the gate is shut again."""
        before = len(self.wire.asked)
        await self.gateway.advance(_PATIENCE_MS)
        await self.kernel.connected("t")
        await until(lambda: len(self.wire.asked) > before)
        await self._shut()

    async def dispatch(self) -> None:
        self.wire.give("prepared")
        await until(lambda: self.wire.waits_for("send"))

    # --- answers of the platform ---

    def _receipt(self) -> Receipt:
        self._receipts += 1
        return Receipt(ids=(f"m{self._receipts}",))

    async def accept(self) -> None:
        self.wire.give(Accepted(receipt=self._receipt()))

    async def lose(self) -> None:
        self.wire.give(Unknown(cause="cut"))

    async def refuse(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.CANCELLED))

    async def limit(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.NOT_CONNECTED))

    async def bar(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.INVALID_PAYLOAD))

    async def shun(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.TARGET_GONE))

    async def undress(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.DECORATION))

    async def gone(self) -> None:
        self.wire.give(Rejected(failure=FailureClass.HANDLE_GONE))

    async def find(self) -> None:
        self.wire.give(Found(receipt=self._receipt()))

    async def miss(self) -> None:
        self.wire.give(Absent())

    async def shrug(self) -> None:
        self.wire.give(CannotTell())

    async def hang(self) -> None:
        """The deadline of the call passes; it goes on all the same."""
        await asyncio.sleep(_DEADLINE_S)
        await until(lambda: self.entry.doubt)

    async def wait(self) -> None:
        """As long as a call that hangs is listened to before its part goes out again."""
        await self.gateway.advance(_DEADLINE_S * 1_000)

    async def late(self) -> None:
        """The call that hung ends well after all."""
        sends = [
            future
            for what, future in self.wire.asked
            if what == "send" and not future.done()
        ]
        sends[0].set_result(Accepted(receipt=self._receipt()))
        known = len(self._log())
        await until(lambda: len(self._log()) > known)

    # --- time, and decisions of people ---

    async def expire(self) -> None:
        await self.gateway.advance(_DAY_MS)

    async def abort(self) -> None:
        await self.kernel.abort(self._turn or self._entry)

    async def abort_reply(self) -> None:
        await self.kernel.abort(self.entry.stream)

    async def delivered(self) -> None:
        await self.kernel.resolve(self.entry.stream, "delivered", by="me")

    async def not_sent(self) -> None:
        await self.kernel.resolve(self.entry.stream, "not_sent", by="me")

    async def resend(self) -> None:
        await self.kernel.resolve(self.entry.stream, "resend", by="me")

    async def give_up(self) -> None:
        await self.kernel.resolve(self.entry.stream, "give_up", by="me")

    async def redrive(self) -> None:
        await self.kernel.redrive(self.entry.stream, by="me", accept_duplicate=True)

    async def reschedule(self) -> None:
        due = self.gateway.clock.now() + 500
        await self.kernel.reschedule(self.entry.stream, due, by="me")

    async def acknowledge(self) -> None:
        await self.kernel.acknowledge(self.entry.stream, by="me")

    async def bounce(self) -> None:
        await self.kernel.bounced(self.entry.stream)

    async def pause(self) -> None:
        """A person holds a conversation back; nothing of this walk waits behind it."""
        await self.kernel.hold_back("t/default/elsewhere", by="me", why="x")

    async def resume(self) -> None:
        await self.kernel.let_go("t/default/elsewhere", by="me")

    async def redact(self) -> None:
        await self.kernel.redact(self._turn or self._entry, by="me")

    # --- deaths ---

    async def crash(self) -> None:
        """SIGKILL, and the next process."""
        await self.gateway.restart(self.kernel)

    async def restore(self) -> None:
        """A copy is put back, beside the mark of the life that went on after it."""
        await self.gateway.crash(self.kernel)
        self._kept = self.disk.fork()
        handler, self.gateway.handler = self.gateway.handler, None
        kernel = await self.gateway.start()
        for number in range(9):
            await kernel.enqueue(route("elsewhere"), f"{number}")
        await self.gateway.end()
        newest, self.disk = self.disk.mark, self._kept.fork()
        self.disk.mark = newest
        self.gateway.handler = handler
        await self.gateway.start()

    async def shut(self) -> None:
        """A shutdown without time to drain, and the next process."""
        await self.gateway.end()
        await self.gateway.start()

    # --- turns ---

    async def ask(self) -> None:
        """A message comes in; its run begins at once."""
        self._turn = (await self.kernel.accept(inbound())).turn_id
        await until(lambda: self._runs)

    async def unreadable(self) -> None:
        """An unreadable update comes in."""
        update = Unreadable("t", raw=b"?", error="odd")
        self._turn = (await self.kernel.accept(update)).turn_id

    async def ask_nobody(self) -> None:
        """A message comes in where no handler is."""
        await self.gateway.end()
        self.gateway.handler = None
        await self.gateway.start()
        self._turn = (await self.kernel.accept(inbound())).turn_id

    async def join(self) -> None:
        """Another message comes in, and joins the turn that waits."""
        await self.kernel.accept(inbound("2"), busy="join")

    async def leave_open(self) -> None:
        await self._runs[-1][0].later(3_600_000)

    async def answer(self) -> None:
        await self.kernel.answer(self._turn, "x")

    async def reply(self) -> None:
        await self._runs[-1][0].reply(*["x"] * self.walk.parts)

    async def block(self) -> None:
        await self._runs[-1][0].block("b")

    async def grow(self) -> None:
        """A live reply begins: its placeholder is queued."""
        live = self._runs[-1][0].live()
        self._grown = await live.__aenter__()
        self._entry = reply_entry(self._turn, Kind.FINAL, self.turn.run, "final")

    async def seal(self) -> None:
        assert self._grown is not None  # noqa: S101  `grow` comes before it
        await self._grown.seal(*["x"] * self.walk.parts)

    async def silent(self) -> None:
        await self._runs[-1][0].silent("not_addressed")

    async def step(self) -> None:
        await self._runs[-1][0].step("s", _nothing)

    async def stop(self) -> None:
        """The handler comes back."""
        self._runs[-1][1].set_result(None)

    async def fail(self) -> None:
        """The handler raises."""
        self._runs[-1][1].set_exception(ValueError("no"))

    async def run_again(self) -> None:
        """Time passes until the next run."""
        before = len(self._runs)
        await self.gateway.advance(_PATIENCE_MS)
        await until(lambda: len(self._runs) > before)

    async def unhold(self) -> None:
        await self.kernel.unhold(self._turn, by="me")

    async def resubmit(self) -> None:
        await self.kernel.resubmit(self._turn, by="me")


async def _nothing() -> str:
    return "done"


def logs(walks: Iterable[Walk], seed: int = 0) -> Iterator[tuple[Walk, list[Record]]]:
    """The log of each walk, the same for the same seed, each in an event loop of its own. Its time passes only
    when nothing else is left to do."""
    for walk in walks:
        with _hushed(), asyncio.Runner(loop_factory=Loop) as runner:
            log = runner.run(Stage(walk, seed).play())
        yield walk, log


@contextmanager
def _hushed() -> Iterator[None]:
    """Failures and parked entries are intended here; standard error need not show them."""
    deaf, told = logging.NullHandler(), logging.getLogger("turnfold")
    told.addHandler(deaf)
    try:
        yield
    finally:
        told.removeHandler(deaf)
