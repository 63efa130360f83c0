"""One worker per store: what takes the seat, what frees it, and who is told."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import pytest
from attrs import evolve
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.errors import DiskError
from turnfold_adapters.stores import processes
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.ownership import (
    POLL_S,
    Claim,
    FileOwnership,
    _is_locked,
)
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_cli import app
from turnfold_model.checks.store_kit import head_of

WORKER = """
import sys
from turnfold.ports.store import now
from turnfold_adapters.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1], flush="loop")
now(store.open())
owner = now(store.ownership().take())
print(owner.id if owner else "none", flush=True)
sys.stdin.read()
now(store.close())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    yield store
    await store.close()


class Worker:
    """Another process that takes the seat if it can, and keeps it until told."""

    def __init__(self, path: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.owner = self.process.stdout.readline().strip()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.case("F01")
async def test_while_another_process_owns_the_store_it_cannot_be_taken(
    store: SqliteStore,
) -> None:
    with Worker(store.path) as worker:
        current = await store.ownership().current()
        assert current is not None
        assert (current.id, current.pid) == (worker.owner, worker.process.pid)
        assert processes.is_alive(current)
        assert await store.ownership().take() is None
        assert (await head_of(store)).position == 0
        worker.process.communicate("")
        assert await store.ownership().take() is not None


@pytest.mark.case("P03")
async def test_a_stopped_owner_is_not_replaced(store: SqliteStore) -> None:
    with Worker(store.path) as worker:
        assert not store.ownership().stopped
        worker.kill(signal.SIGSTOP)
        await _until(lambda: store.ownership().stopped)
        assert await store.ownership().take() is None
        worker.kill(signal.SIGCONT)
        await _until(lambda: not store.ownership().stopped)


@pytest.mark.case("P03", "S14")
async def test_others_see_that_the_owner_is_stopped_and_what_to_do(
    store: SqliteStore,
) -> None:
    async with Kernel(store.path):
        pass  # a store with a record
    with Worker(store.path) as worker:
        worker.kill(signal.SIGSTOP)
        await _until(lambda: store.ownership().stopped)
        wakes = f"kill -CONT {worker.process.pid}"
        async with Kernel(SqliteStore(store.path)) as standby:
            assert "kill -CONT" in standby.health()["standing_by"]
            assert "process is stopped" in "; ".join(standby.is_well().reasons)
        for command in ("worker", "health", "status"):
            words = [command, store.path]
            done = await asyncio.to_thread(CliRunner().invoke, app(words), words)
            assert wakes in done.output
        worker.kill(signal.SIGCONT)


@pytest.mark.case("F06")
async def test_an_owner_that_nobody_has_reaped_is_dead(store: SqliteStore) -> None:
    """Its parent lives and does not ask for its end: a supervisor that hangs. Its lock is
    gone, and its process id is not free."""
    with Worker(store.path) as worker:
        current = await store.ownership().current()
        assert current is not None
        worker.kill()
        stat = Path(f"/proc/{worker.process.pid}/stat")
        await _until(lambda: ") Z " in stat.read_text())
        assert not processes.is_alive(current)
        assert await store.ownership().taken() is False
        _remove_lock_file(store)
        assert await store.ownership().take() is not None


def _remove_lock_file(store: SqliteStore) -> None:
    """Then the lock alone cannot tell whether the last owner lives."""
    Path(f"{store.path}.worker").unlink()


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass within 5 s")


async def test_the_standby_takes_over_as_soon_as_the_owner_is_killed(
    store: SqliteStore,
) -> None:
    waits = []
    for _ in range(5):
        with Worker(store.path) as worker:
            assert worker.owner != "none"
            waiting = asyncio.create_task(store.ownership().wait())
            await asyncio.sleep(0.02)
            assert not waiting.done()
            worker.kill()
            start = time.perf_counter()
            await waiting
            owner = await store.ownership().take()
            waits.append(time.perf_counter() - start)
            assert owner is not None
            store.ownership().release()
    # About 1 ms where the owner's death can be watched, the poll elsewhere.
    limit = POLL_S / 2 if hasattr(os, "pidfd_open") else POLL_S * 2
    assert statistics.median(waits) < limit


async def test_waiting_ends_by_itself_while_the_owner_lives(store: SqliteStore) -> None:
    with Worker(store.path):
        start = time.perf_counter()
        await store.ownership().wait()
        assert time.perf_counter() - start < POLL_S * 4


async def test_waiting_can_be_cancelled(store: SqliteStore) -> None:
    with Worker(store.path):
        assert await store.ownership().current() is not None
        before = _descriptors()
        waiting = asyncio.create_task(store.ownership().wait())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert _descriptors() == before


@pytest.mark.parametrize("way", ["store.db", "link.db", "sub/../store.db"])
async def test_a_second_take_in_the_same_process_is_refused(
    store: SqliteStore, tmp_path: Path, way: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "store.db")
    assert await store.ownership().take() is not None
    other = SqliteStore(tmp_path / way)
    await other.open()
    assert await other.ownership().take() is None
    before = _descriptors()
    assert [await other.ownership().take() for _ in range(5)] == [None] * 5
    assert _descriptors() == before, "the lock file was opened again"
    await other.close()
    with Worker(store.path) as worker:
        assert worker.owner == "none", "closing the other handle dropped the lock"


async def test_a_forked_child_does_not_have_the_seat(store: SqliteStore) -> None:
    assert await store.ownership().take() is not None
    child = os.fork()
    if child == 0:  # only the lock is looked at: a connection does not survive a fork
        ownership = store.ownership()
        refused = ownership._lock() is None and not ownership.held
        ownership.release()
        os._exit(0 if refused else 1)
    assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222  nothing else runs
    assert store.ownership().held
    with Worker(store.path) as worker:
        assert worker.owner == "none", "the child's release reached its parent"


@pytest.mark.case("X02")
async def test_a_process_that_let_go_and_lives_on_is_no_worker(
    store: SqliteStore,
) -> None:
    """Asked by another process, and by this one, which opens no lock file twice."""
    ownership = store.ownership()
    assert await ownership.taken() is False
    assert await ownership.take() is not None
    assert (_seen_by_a_child(ownership), await ownership.taken()) == (True, True)
    assert ownership.held
    ownership.release()
    assert await ownership.current() is not None
    assert (_seen_by_a_child(ownership), await ownership.taken()) == (False, False)
    assert await ownership.take() is not None, "the question kept the lock"


def _seen_by_a_child(ownership: FileOwnership) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(int(_is_locked(ownership._file) is True))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


async def test_a_child_that_outlives_its_parent_does_not_keep_the_seat(
    store: SqliteStore,
) -> None:
    forks = WORKER.replace(
        "sys.stdin.read()",
        "import os, signal\n"
        "if os.fork() == 0: signal.pause()\n"
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    words = ["setsid", sys.executable, "-c", forks, store.path]
    with subprocess.Popen(  # noqa: ASYNC220  nothing else runs
        words, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() != "none"
        parent.wait()
        assert await store.ownership().take() is not None
        os.killpg(parent.pid, signal.SIGKILL)


async def test_an_unlinked_lock_file_does_not_make_two_owners(
    store: SqliteStore,
) -> None:
    with Worker(store.path) as worker:
        _lock(store).unlink()
        assert await store.ownership().take() is None, "the owner is still alive"
        worker.kill()
        worker.process.wait()
        assert await store.ownership().take() is not None


async def test_an_owner_notices_that_its_lock_file_is_gone(store: SqliteStore) -> None:
    assert await store.ownership().take() is not None
    assert store.ownership().held
    _lock(store).unlink()
    assert not store.ownership().held
    assert await store.ownership().take() is None
    store.ownership().release()
    assert await store.ownership().take() is not None


@pytest.mark.case("F06")
async def test_a_reused_process_id_is_not_the_owner(store: SqliteStore) -> None:
    me = processes.this_process()
    assert processes.is_alive(me)
    for stranger in (
        evolve(me, started=me.started - 1),
        evolve(me, boot="another boot"),
        evolve(me, host="another host"),
        evolve(me, pid=2**22 + 1),
    ):
        assert not processes.is_alive(stranger)
        claim = Claim(owner=stranger, store=_id(store.path), lock="1:1")
        store.record_claim(claim)
        assert await store.ownership().take() is not None, f"held up by {stranger}"
        store.ownership().release()


@pytest.mark.case("F06")
async def test_an_owner_that_cannot_be_read_counts_as_alive(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = processes.this_process()
    monkeypatch.setattr(processes, "start_time", lambda _: processes.UNKNOWN)
    assert processes.is_alive(evolve(me, started=me.started - 1))
    store.record_claim(Claim(owner=me, store=_id(store.path), lock="1:1"))
    assert await store.ownership().take() is None


async def test_a_copy_of_a_store_has_a_seat_of_its_own(
    store: SqliteStore, tmp_path: Path
) -> None:
    with Worker(store.path):
        copy = tmp_path / "copy.db"
        store._writer.execute("VACUUM INTO ?", (str(copy),))  # type: ignore[union-attr]
        other = SqliteStore(copy)
        await other.open()
        assert await other.ownership().take() is not None
        await other.close()


async def test_a_lock_file_that_is_a_link_is_refused(
    store: SqliteStore, tmp_path: Path
) -> None:
    _lock(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError):
        await store.ownership().take()
    assert not (tmp_path / "elsewhere").exists()


async def test_a_take_that_cannot_be_recorded_holds_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise DiskError(path=store.path, problem="injected")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record_claim", refuse)
        with pytest.raises(DiskError):
            await store.ownership().take()
    with Worker(store.path) as worker:
        assert worker.owner != "none"


async def test_taking_the_seat_is_no_event_and_wakes_nobody_as_one(
    store: SqliteStore,
) -> None:
    assert await store.ownership().take() is not None
    assert (await head_of(store)).position == 0
    assert list(await store.log()) == []


async def test_a_bell_rung_in_another_process_is_heard_at_once(
    store: SqliteStore,
) -> None:
    heard = asyncio.Event()
    stop = store.doorbell().listen(heard.set)
    script = (
        "import sys, time\n"
        "from turnfold_adapters.stores.sqlite import SqliteStore\n"
        "bell = SqliteStore(sys.argv[1]).doorbell()\n"
        "for _ in sys.stdin: bell.ring()\n"
    )
    words = [sys.executable, "-c", script, store.path]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)  # noqa: ASYNC220  starts once
    assert child.stdin is not None
    waits = []
    for _ in range(20):
        start = time.perf_counter()
        child.stdin.write("\n")
        child.stdin.flush()
        async with asyncio.timeout(10):
            await heard.wait()
        waits.append(time.perf_counter() - start)
        heard.clear()
    child.communicate()
    stop()
    stop()
    assert statistics.median(waits) < 0.05


async def test_many_rings_are_one_wake_up_and_none_blocks(store: SqliteStore) -> None:
    wakes = []
    stop = store.doorbell().listen(lambda: wakes.append(1))
    bell = store.doorbell()
    for _ in range(2000):  # more than a socket takes
        bell.ring()
    await asyncio.sleep(0.01)
    stop()
    assert 1 <= len(wakes) < 10
    bell.ring()
    await asyncio.sleep(0.01)
    assert len(wakes) < 10


async def test_a_second_listener_is_told_that_it_hears_nothing(
    store: SqliteStore,
) -> None:
    stop = store.doorbell().listen(lambda: None)
    second = store.doorbell()
    second.listen(lambda: None)()
    assert isinstance(second.failure, OSError)
    stop()
    third = store.doorbell()
    third.listen(lambda: None)()
    assert third.failure is None


async def test_the_memory_store_wakes_standby_and_listener() -> None:
    disk = MemoryDisk()
    one, two = MemoryStore(disk), MemoryStore(disk)
    await one.open()
    await two.open()
    assert await one.ownership().take() is not None
    heard = asyncio.Event()
    stop = one.doorbell().listen(heard.set)
    two.doorbell().ring()
    await asyncio.wait_for(heard.wait(), 1)
    stop()
    waiting = asyncio.create_task(two.ownership().wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await one.close()
    await asyncio.wait_for(waiting, 1)
    assert await two.ownership().take() is not None
    await two.close()


async def test_a_fork_of_a_memory_disk_has_no_living_owner() -> None:
    store = MemoryStore()
    await store.open()
    owner = await store.ownership().take()
    other = store.fork()
    await other.open()
    assert await other.ownership().current() == owner
    assert await other.ownership().take() is not None
    assert await store.ownership().current() == owner


def _lock(store: SqliteStore) -> Path:
    return Path(f"{store.path}.worker")


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def _id(path: str) -> str:
    status = Path(path).stat()
    return f"{status.st_dev}:{status.st_ino}"


async def test_a_lock_that_cannot_be_looked_at_is_not_held(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ownership = store.ownership()
    assert await ownership.take() is not None
    assert ownership.held

    def unreachable(_: Path) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", unreachable)
        assert not ownership.held
    assert ownership.held
