"""A store that was restored from an older copy: its open turns and entries wait for a person.

A test plays two histories from one copy: the one that went on and is lost, and the one
after the copy was put back beside the mark of the other.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from attrs import define, field

from turnfold import Kernel
from turnfold._decide import operator
from turnfold._log.events import GateClosed, Restored
from turnfold._runtime.worker import Upkeep
from turnfold.audit import audit_store
from turnfold.enums import (
    DeliveryClass,
    FailureClass,
    Phase,
    Reason,
    TurnPhase,
)
from turnfold.errors import BusyError, RuleBrokenError
from turnfold.ports.channel import Rejected
from turnfold.ports.store import Store, Watermark
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model import reference
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.peek import Peek
from turnfold_model.testing.platform import PlatformChannel, answers, hang, unknown


class Backups(Protocol):
    """A place for one store, of which copies can be taken and put back."""

    def store(self) -> Store: ...

    def copy(self) -> None: ...

    def put_back(self, *, mark: bool = False) -> None:
        """`mark`: the side file that was there with the copy, too."""

    def hide_mark(self) -> None: ...

    def show_mark(self) -> None:
        """The mark that was hidden, over whatever is there now."""


@define
class MemoryBackups:
    disk: MemoryDisk = field(factory=MemoryDisk)
    kept: MemoryDisk = field(factory=MemoryDisk)
    hidden: Watermark | None = None

    def store(self) -> Store:
        return MemoryStore(self.disk)

    def copy(self) -> None:
        self.kept = self.disk.fork()

    def put_back(self, *, mark: bool = False) -> None:
        newest, self.disk = self.disk.mark, self.kept.fork()
        if not mark:
            self.disk.mark = newest

    def hide_mark(self) -> None:
        self.hidden, self.disk.mark = self.disk.mark, None

    def show_mark(self) -> None:
        self.disk.mark = self.hidden


@define
class FileBackups:
    folder: Path

    def store(self) -> Store:
        return SqliteStore(self.folder / "g.db")

    def copy(self) -> None:
        for name in ("g.db", "g.db.mark"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, self.folder / f"{name}.kept")

    def put_back(self, *, mark: bool = False) -> None:
        (self.folder / "g.db-wal").unlink(missing_ok=True)
        shutil.copy(self.folder / "g.db.kept", self.folder / "g.db")
        if mark:
            shutil.copy(self.folder / "g.db.mark.kept", self.folder / "g.db.mark")

    def hide_mark(self) -> None:
        (self.folder / "g.db.mark").rename(self.folder / "g.db.mark.hidden")

    def show_mark(self) -> None:
        (self.folder / "g.db.mark.hidden").replace(self.folder / "g.db.mark")


@pytest.fixture(params=["memory", "sqlite"])
def backups(request: pytest.FixtureRequest, tmp_path: Path) -> Backups:
    return MemoryBackups() if request.param == "memory" else FileBackups(tmp_path)


@pytest.fixture
async def play(backups: Backups) -> Any:
    gateway = Gateway(store=backups.store)
    yield gateway
    await gateway.end()
    await _judged(backups.store())


async def _hold(kernel: Kernel) -> None:
    """A hold that a new worker keeps: the platform itself has asked for it."""
    limit = GateClosed(reason="rate_limited", until=None)
    await kernel.append(lambda draft: draft.emit("gate:t/default", limit))


async def _judged(store: Store) -> None:
    """The log keeps every rule, by both readers of logs."""
    await store.open()
    try:
        report = await audit_store(store)
        records = list(Peek(store).log())
        events = (e for r in records for e in reference.as_events(r))
        breaches = list(reference.audit(events))
    finally:
        await store.close()
    assert report.passed, report.first
    assert breaches == []


Change = Callable[[Kernel], Any]


async def _until_copy(play: Gateway, backups: Backups, before: Change) -> Any:
    """Do something, then crash, and keep a copy of what is then there."""
    kernel = await play.start()
    found = await before(kernel)
    await spin()
    await play.crash(kernel)
    backups.copy()
    return found


async def _lost(play: Gateway, backups: Backups, rounds: int = 1) -> None:
    """The history that goes on and is lost: its mark is all that stays of it."""
    for _ in range(rounds):
        kernel = await play.start()
        await kernel.connected("t")
        await spin()
        await kernel.enqueue(route("other"), "more")
        await spin()
        await play.end()
    backups.put_back()


def _restorations(kernel: Kernel) -> list[Restored]:
    return [e for e in events(kernel, "store") if isinstance(e, Restored)]


async def _waiting(kernel: Kernel) -> str:
    await _hold(kernel)
    return (await kernel.enqueue(route(), "x")).entry_id


async def test_what_was_queued_in_the_copy_is_parked_and_told(
    play: Gateway, backups: Backups, caplog: pytest.LogCaptureFixture
) -> None:
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    assert play.platform.contents == ["x", "more"]
    told: list[Any] = []
    made = Kernel(backups.store(), clock=play.clock)
    made.attach("t", PlatformChannel(play.platform), on_unknown="hold")
    made.hooks.on_parked(lambda e: told.append(e.stream))
    made.hooks.on_restored(lambda e: told.append(e.position_seen - e.position_found))
    play.alive.append(made)
    await made.open()
    await made.connected("t")
    await spin()
    assert play.platform.contents == ["x", "more"]
    found = entry(made, name)
    assert (found.phase, found.doubt, found.yielded) == (Phase.PARKED, True, True)
    assert story(made, name)[-2:] == ["doubted", "lane_yielded"]
    assert len(told) == 2
    assert told[0] > 0
    assert told[1] == name
    told_of = [r.levelno for r in caplog.records if not hasattr(r, "gate")]
    assert told_of == [logging.ERROR, logging.WARNING]


async def test_a_hook_is_told_of_a_restoring_once(
    play: Gateway, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there in each life, so its mark is in the copy."""
    told: list[Restored] = []
    plain = Kernel.attach

    def attach(kernel: Kernel, *args: Any, **more: Any) -> None:
        plain(kernel, *args, **more)
        kernel.hooks.on_restored(told.append)

    monkeypatch.setattr(Kernel, "attach", attach)
    await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    kernel = await play.start()
    await spin()
    assert told == _restorations(kernel)
    assert len(told) == 1


async def _retrying(kernel: Kernel) -> str:
    return (await kernel.enqueue(route(), "x")).entry_id


@pytest.mark.parametrize("prepares", [False, True])
async def test_an_attempt_of_the_copy_is_in_doubt_even_before_its_dispatch(
    play: Gateway, backups: Backups, prepares: bool
) -> None:
    """A dead owner in A has sent nothing; the one of the lost history may have."""
    stuck = asyncio.Event()
    channel = PlatformChannel(play.platform, prepares=prepares)
    real = channel._prepare

    async def prepare(part: Any) -> Any:
        await stuck.wait()
        return await real(part)

    if prepares:
        channel.prepare = prepare  # type: ignore[attr-defined]
    play.channels = {("t", "default"): channel}
    play.platform.plays(*([] if prepares else [hang()]))
    name = await _until_copy(play, backups, _retrying)
    stuck.set()
    play.platform._script.clear()
    await _lost(play, backups)
    assert play.platform.contents.count("x") <= 1
    calls = len(play.platform.calls)
    kernel = await play.start()
    assert entry(kernel, name).phase is Phase.PARKED  # a blind channel holds its doubts
    assert story(kernel, name)[-3] == "unknown"
    assert len(play.platform.calls) == calls


async def test_a_retry_of_the_copy_is_parked(play: Gateway, backups: Backups) -> None:
    refused = Rejected(failure=FailureClass.CANCELLED)
    play.platform.plays(answers(refused))
    name = await _until_copy(play, backups, _retrying)
    await _lost(play, backups)
    kernel = await play.start()
    await play.advance(60_000)
    assert entry(kernel, name).phase is Phase.PARKED
    assert play.platform.contents == ["more"]


async def test_a_later_part_of_a_doubtful_one_is_doubtful_too(
    play: Gateway, backups: Backups
) -> None:
    """The first part is found by a look-up; the second was sent in the lost history."""
    channel = PlatformChannel(play.platform, DeliveryClass.LOOKUP, limit=3)
    play.channels = {("t", "default"): channel}
    play.platform.plays(unknown(lands=True))

    async def before(kernel: Kernel) -> str:
        return (await kernel.enqueue(route(), "abcdef")).entry_id

    kernel = await play.start()
    name = (await kernel.enqueue(route(), "abcdef")).entry_id
    await play.crash(kernel)  # the outcome of the first part is never recorded
    backups.copy()
    kernel = await play.start()
    await until(lambda: len(play.platform.messages) == 2 or play.clock.pass_ms(10_000))
    await play.look_again()
    await kernel.settled(name, 5_000)
    assert play.platform.contents == ["abc", "def"]
    await play.end()
    backups.put_back()
    kernel = await play.start()
    for _ in range(5):
        await play.advance(200_000)
    assert play.platform.contents == ["abc", "def"]
    found = entry(kernel, name)
    assert (found.phase, found.part) == (Phase.PARKED, 1)
    await kernel.resolve(name, "delivered", by="me")
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_a_placeholder_of_the_copy_is_not_made_again(
    play: Gateway, backups: Backups
) -> None:
    """In the lost history it was placed, and shows the answer."""
    channel = PlatformChannel(play.platform, DeliveryClass.EDITABLE)
    play.channels = {("t", "default"): channel}
    play.platform.plays(unknown(lands=False))
    kernel = await play.start()
    name = (await kernel.enqueue(route(), "hi")).entry_id
    await play.crash(kernel)
    backups.copy()
    kernel = await play.start()
    await until(lambda: play.platform.contents == ["hi"] or play.clock.pass_ms(10_000))
    await kernel.settled(name, 5_000)
    await play.end()
    backups.put_back()
    kernel = await play.start()
    for _ in range(5):
        await play.advance(200_000)
    found = entry(kernel, name)
    assert (found.phase, found.reason) == (Phase.PARKED, operator.REASON)
    assert play.platform.contents == ["hi"]
    await kernel.resolve(name, "delivered", by="me")
    assert entry(kernel, name).phase is Phase.DELIVERED


# --- turns ---------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
async def test_a_turn_of_the_copy_is_held_until_a_person_lets_it_go(
    play: Gateway, backups: Backups, running: bool
) -> None:
    runs: list[str] = []

    async def stuck(handle: Any) -> None:
        await asyncio.Event().wait()

    async def answer(handle: Any) -> None:
        runs.append(handle.inbound.text)
        await handle.reply(handle.inbound.text)

    async def before(kernel: Kernel) -> str:
        return (await kernel.accept(inbound(text="first"))).turn_id

    play.handler = stuck if running else None
    name = await _until_copy(play, backups, before)
    play.handler = answer
    await _lost(play, backups)
    assert runs == ["first"]
    kernel = await play.start()
    held: list[str] = []
    kernel.hooks.on_held(lambda t: held.append(t.stream))
    assert (turn(kernel, name).phase, turn(kernel, name).held) == (
        TurnPhase.ACCEPTED,
        True,
    )
    later = await kernel.accept(inbound("2", text="second"))
    await later.settled(5_000)
    assert runs == ["first", "second"]  # it holds nobody back
    await kernel.unhold(name, by="me")
    await kernel.settled(name, 5_000)
    assert runs == ["first", "second", "first"]
    with pytest.raises(RuleBrokenError) as caught:
        await kernel.unhold(name, by="me")
    assert caught.value.rule == "held"


async def test_a_turn_that_is_let_go_waits_for_the_one_that_passed_it(
    play: Gateway, backups: Backups
) -> None:
    go, runs = asyncio.Event(), []

    async def answer(handle: Any) -> None:
        runs.append(handle.inbound.text)
        if handle.inbound.text == "second":
            await go.wait()
        await handle.reply(handle.inbound.text)

    async def before(kernel: Kernel) -> str:
        return (await kernel.accept(inbound(text="first"))).turn_id

    name = await _until_copy(play, backups, before)
    await _lost(play, backups)
    play.handler = answer
    kernel = await play.start()
    later = await kernel.accept(inbound("2", text="second"))
    await spin()
    await kernel.unhold(name, by="me")
    await spin()
    assert runs == ["second"]
    go.set()
    await later.settled(5_000)
    await kernel.settled(name, 5_000)
    assert runs == ["second", "first"]


async def test_a_held_turn_can_be_aborted(play: Gateway, backups: Backups) -> None:
    async def before(kernel: Kernel) -> str:
        return (await kernel.accept(inbound())).turn_id

    name = await _until_copy(play, backups, before)
    await _lost(play, backups)
    kernel = await play.start()
    assert (await kernel.abort(name, by="me")).aborted
    assert turn(kernel, name).phase is TurnPhase.ABORTED


# --- what is noticed, and what is not -------------------------------------------------


async def test_it_is_noticed_once(play: Gateway, backups: Backups) -> None:
    await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    for _ in range(3):
        kernel = await play.start()
        assert len(_restorations(kernel)) == 1
        done = await kernel.enqueue(route("new"), "fresh")
        await kernel.connected("t")
        await kernel.settled(done.entry_id, 5_000)
        await play.end()


async def test_a_copy_that_others_have_appended_to_is_noticed_all_the_same(
    play: Gateway, backups: Backups
) -> None:
    """The new history is longer than the mark; its hash is another."""
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    backups.hide_mark()
    kernel = await play.start()
    for number in range(20):
        await kernel.enqueue(route("other"), str(number))
    head = peek(kernel).head
    await play.end()
    backups.show_mark()
    kernel = await play.start()
    mark = _restorations(kernel)[0].position_seen
    assert head.position > mark
    assert len(_restorations(kernel)) == 1
    assert entry(kernel, name).phase is Phase.PARKED


async def test_only_a_worker_goes_on_with_a_copy(
    play: Gateway, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that finds no worker would call an entry unsent that may have arrived.
    The next worker doubts it first, and then does what the client asked for."""
    monkeypatch.setattr("turnfold.api.client.PATIENCE_S", 0.05)
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    client = await play.start(work=False)
    head = peek(client).head
    asked = await client.abort(name)
    assert (asked.aborted, asked.status) == (False, "requested")
    assert peek(client).head == head
    kernel = await play.start()
    await until(lambda: not peek(kernel).inbox())
    found = entry(kernel, name)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.OUTCOME_UNKNOWN)
    assert play.platform.contents == ["x", "more"]  # both in the lost history


async def test_a_copy_with_many_open_streams_is_taken_up(
    play: Gateway, backups: Backups
) -> None:
    """None of them is in memory before the store is doubted: one fetch brings all."""

    async def before(kernel: Kernel) -> list[str]:
        await _hold(kernel)
        done = [await kernel.enqueue(route(str(n)), "x") for n in range(120)]
        turns = [await kernel.accept(inbound(str(n), str(n))) for n in range(20)]
        return [e.entry_id for e in done] + [t.turn_id for t in turns]

    names = await _until_copy(play, backups, before)
    await _lost(play, backups)
    kernel = await play.start()
    assert all(entry(kernel, name).doubt for name in names[:120])
    assert all(turn(kernel, name).held for name in names[120:])


async def test_the_same_copy_put_back_again_is_noticed_again(
    play: Gateway, backups: Backups
) -> None:
    name = await _until_copy(play, backups, _waiting)
    for _ in range(3):
        await _lost(play, backups, rounds=2)
        kernel = await play.start()
        assert len(_restorations(kernel)) == 1
        assert entry(kernel, name).phase is Phase.PARKED
        await play.end()


async def test_a_copy_with_its_own_mark_cannot_be_told_from_the_original(
    play: Gateway, backups: Backups
) -> None:
    kernel = await play.start()
    await _hold(kernel)
    name = (await kernel.enqueue(route(), "x")).entry_id
    await play.end()
    backups.copy()
    await _lost(play, backups)
    backups.put_back(mark=True)
    kernel = await play.start()
    assert _restorations(kernel) == []
    assert entry(kernel, name).phase is Phase.QUEUED


@pytest.mark.case("W01", "X05")
async def test_the_mark_of_another_store_is_a_leftover_that_the_log_tells_of(
    play: Gateway, backups: Backups, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file may have been lost or emptied, with all that waited in it."""
    backups.copy() if isinstance(backups, MemoryBackups) else None
    await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    if isinstance(backups, MemoryBackups):
        fresh = MemoryDisk()
        fresh.mark, backups.disk = backups.disk.mark, fresh
    else:
        assert isinstance(backups, FileBackups)
        (backups.folder / "g.db").unlink()
    kernel = await play.start()
    assert _restorations(kernel) == []
    assert peek(kernel).head.position == 1
    assert "this is another store than the last one here" in caplog.text


async def test_no_crash_looks_like_a_copy(play: Gateway, backups: Backups) -> None:
    """Whatever dies whenever: the mark is never ahead of the log."""
    for number in range(12):
        kernel = await play.start()
        await kernel.enqueue(route(), str(number))
        if number % 3 == 0:
            assert kernel._worker is not None
            await kernel._worker.upkeep.note_watermark()
        await spin(number)
        if number % 4 == 1:
            await play.end()
        else:
            await play.crash(kernel)
    kernel = await play.start()
    assert _restorations(kernel) == []


@pytest.mark.case("N10")
async def test_a_worker_that_finds_nothing_to_do_leaves_the_log_as_it_is(
    play: Gateway, backups: Backups
) -> None:
    """INV-13: opened twice, idle, as the worker."""
    kernel = await play.start()
    done = await kernel.enqueue(route(), "x")
    await kernel.settled(done.entry_id, 5_000)
    before = list(peek(kernel).log())
    await play.end()
    for _ in range(2):
        kernel = await play.start()
        assert kernel.working
        assert kernel._worker is not None
        await kernel._worker.upkeep.look(0.0, 1)
        await kernel._worker.upkeep.look(9.0, 1)
        await play.end()
    store = backups.store()
    await store.open()
    assert list(Peek(store).log()) == before
    await store.close()


# --- crashes between the steps -------------------------------------------------------


class Cut(BaseException):
    """The process dies here."""


async def test_a_crash_before_the_commit_repeats_it(
    play: Gateway, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)
    real = operator.restored

    def dies(*_: Any, **__: Any) -> None:
        raise Cut

    monkeypatch.setattr(operator, "restored", dies)
    with pytest.raises(Cut):
        await play.start()
    monkeypatch.setattr(operator, "restored", real)
    kernel = await play.start()
    assert len(_restorations(kernel)) == 1
    assert entry(kernel, name).phase is Phase.PARKED


async def test_a_crash_after_the_commit_dooms_nothing_that_is_new(
    play: Gateway, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark still speaks of the lost history, but that was dealt with."""
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)

    async def dies(_: Upkeep) -> bool:
        raise Cut

    async def skips(_: Upkeep) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Upkeep, "note_watermark", dies)
        with pytest.raises(Cut):
            await play.start()
    with monkeypatch.context() as patch:
        patch.setattr(Upkeep, "note_watermark", skips)
        kernel = await play.start()
        client = await play.start(work=False)
        fresh = (await kernel.enqueue(route("new"), "fresh")).entry_id
        lost = peek(kernel).watermark()
        await play.crash(kernel)
        posted = (await client.enqueue(route("new"), "posted")).entry_id
        await play.end()
    kernel = await play.start()
    assert entry(kernel, fresh).phase is Phase.QUEUED
    await kernel.connected("t")
    await kernel.settled(fresh, 5_000)
    await kernel.settled(posted, 5_000)
    assert len(_restorations(kernel)) == 1
    assert entry(kernel, name).phase is Phase.PARKED
    assert peek(kernel).watermark() != lost


async def test_a_store_that_is_busy_just_then_is_not_worked_on(
    play: Gateway, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await _until_copy(play, backups, _waiting)
    await _lost(play, backups)

    def busy(*_: Any, **__: Any) -> None:
        raise BusyError(path="p", waited_ms=1)

    with monkeypatch.context() as patch:
        patch.setattr(operator, "restored", busy)
        with pytest.raises(BusyError):
            await play.start()
    kernel = await play.start()
    assert kernel.working
    assert entry(kernel, name).phase is Phase.PARKED
