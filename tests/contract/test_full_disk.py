"""A disk that takes small commits and no large ones, as one that is nearly full: a
computed answer is kept, and no run is counted. A real limit of the operating system, too."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from turnfold import Settings, TurnfoldError
from turnfold.api import callbacks
from turnfold.api.keeping import Pruning
from turnfold.audit import audit_store
from turnfold.enums import TurnOutcome
from turnfold.errors import DiskError, FateUnknownError
from turnfold.ports.store import Refused, Store, Stored, Write, now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, spin, story, until

pytestmark = pytest.mark.case("W10", "Q03", "S09")
DAY_MS = 86_400_000
LARGE = "y" * 50_000


@define
class NearlyFull:
    """`landed`: a large commit is stored all the same, and its caller is not told."""

    inner: Store
    full: bool = False
    landed: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        size = sum(len(body.data) for write in writes for body in write.bodies)
        if not self.full or size < len(LARGE):
            return await self.inner.commit(writes)
        if self.landed:
            self.full = False
            await self.inner.commit(writes)
            raise FateUnknownError(path=self.inner.address, problem="I/O error")
        raise DiskError(path=self.inner.address, problem="disk full")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_KEPT_S", 0.01)


async def _stage(gateway: Gateway, handler: Callable[..., Any]) -> tuple[Any, Any]:
    disks: list[NearlyFull] = []
    gateway.handler = handler
    kernel = await gateway.start(
        wrap=lambda store: disks.append(NearlyFull(store, full=True)) or disks[0]
    )
    return kernel, disks[0]


async def test_an_answer_that_was_returned_is_kept_until_there_is_room(
    lone: Gateway,
) -> None:
    runs: list[int] = []

    async def answer(turn: Any) -> str:
        runs.append(turn.run)
        return LARGE

    kernel, disk = await _stage(lone, answer)
    accepted = await kernel.accept(inbound("1"))
    await until(lambda: kernel.health()["append_error"])
    await asyncio.sleep(0.1)
    assert "the store took no append" in "; ".join(kernel.is_well().reasons)
    disk.full = False
    assert await accepted.settled(5_000) is TurnOutcome.REPLIED
    assert (runs, lone.platform.contents) == ([1], [LARGE])
    assert kernel.is_well()


async def test_an_answer_that_was_stored_after_all_is_said_once(lone: Gateway) -> None:
    async def answer(turn: Any) -> str:
        return LARGE

    kernel, disk = await _stage(lone, answer)
    disk.landed = True
    accepted = await kernel.accept(inbound("1"))
    assert await accepted.settled(5_000) is TurnOutcome.REPLIED
    assert lone.platform.contents == [LARGE]
    assert (await audit_store(kernel.store)).passed


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_handler_that_ends_with_the_error_of_the_store_is_not_counted(
    lone: Gateway, wrapped: bool
) -> None:
    """More often than a handler may fail. It waits longer from run to run."""
    lone.settings = Settings(max_runs=3)

    async def answer(turn: Any) -> None:
        try:
            await turn.reply(LARGE)
        except TurnfoldError as exc:
            if wrapped:
                raise RuntimeError("my own words") from exc
            raise

    kernel, disk = await _stage(lone, answer)
    accepted = await kernel.accept(inbound("1"))
    for _ in range(8):
        await lone.advance(60_000)
        await spin()
    told = story(kernel, accepted.turn_id)
    assert (told.count("released") >= 8, told.count("run_failed")) == (True, 0)
    disk.full = False
    await lone.advance(60_000)
    assert await accepted.settled(5_000) is TurnOutcome.REPLIED
    assert lone.platform.contents == [LARGE]


async def test_the_error_of_another_store_is_the_handlers_own(lone: Gateway) -> None:
    async def answer(turn: Any) -> None:
        raise DiskError(path="/elsewhere", problem="full")

    kernel, _ = await _stage(lone, answer)
    accepted = await kernel.accept(inbound("1"))
    for _ in range(4):
        await lone.advance(60_000)
    told = story(kernel, accepted.turn_id)
    assert told.count("run_failed") == 2
    assert await accepted.settled(5_000) is TurnOutcome.FAILED


async def test_an_answer_is_kept_no_longer_than_a_run_may_take(lone: Gateway) -> None:
    """Then the run is over, uncounted: its place is free for other turns."""
    lone.settings = Settings(run_deadline_ms=100)

    async def answer(turn: Any) -> str:
        return LARGE

    kernel, disk = await _stage(lone, answer)
    accepted = await kernel.accept(inbound("1"))
    await until(lambda: "released" in story(kernel, accepted.turn_id))
    assert "run_failed" not in story(kernel, accepted.turn_id)
    disk.full = False
    await lone.advance(60_000)
    assert await accepted.settled(5_000) is TurnOutcome.REPLIED


_LIMITED = """
import asyncio, resource, sys
from turnfold import Accepted, Inbound, Kernel, Receipt, TurnfoldError

class Channel:
    said = []
    async def send(self, part, key, attempt):
        self.said.append(part.payload.text)
        return Accepted(receipt=Receipt(ids=(str(len(self.said)),)))

def limit(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

async def main(path):
    kernel, taken, refused = Kernel(path), [], set()
    kernel.attach("t", Channel(), on_unknown="hold")
    @kernel.on_turn
    async def answer(turn):
        return turn.inbound.message_id + ":" + "y" * 3_000
    async with kernel:
        limit(400_000)
        for number in range(60):
            try:
                await kernel.accept(Inbound("t", conversation=str(number % 7),
                    message_id=str(number), body="z" * 3_000))
                taken.append(str(number))
            except TurnfoldError as exc:
                refused.add(exc.code)
            await asyncio.sleep(0)
        ill = "; ".join(kernel.is_well().reasons)
        limit(resource.RLIM_INFINITY)
        await kernel.at_rest(20_000)
        said = sorted(text.partition(":")[0] for text in Channel.said)
        assert taken and said == sorted(taken), (taken, said)
        assert refused and refused <= {"store.disk", "store.fate_unknown"}, refused
        assert "the store took no append" in ill, ill
        for _ in range(100):
            if kernel.is_well():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(kernel.is_well().reasons)

asyncio.run(main(sys.argv[1]))
"""


def test_a_limit_of_the_operating_system_for_the_size_of_files_loses_nothing(
    tmp_path: Path,
) -> None:
    """RLIMIT_FSIZE, as a service manager sets it. Python ignores SIGXFSZ, so writes
    fail with EFBIG."""
    script, path = tmp_path / "limited.py", tmp_path / "g.db"
    script.write_text(_LIMITED)
    words = [sys.executable, str(script), str(path)]
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert _passed(path)


def _passed(path: Path) -> bool:
    store = SqliteStore(path, flush="loop")
    now(store.open(read_only=True))
    try:
        return now(audit_store(store)).passed
    finally:
        now(store.close())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4_096)):
            pass


@pytest.mark.parametrize("after", [0, 5])
async def test_a_disk_that_fills_up_while_a_store_is_pruned(
    small_disk: Path, after: int
) -> None:
    """`after`: so many batches. Each is one commit: a refused one takes nothing away,
    and the next call goes on. The refusal is typed, and health says so."""
    gateway = Gateway(store=in_file(small_disk / "g.db"))
    gateway.settings, ballast = Settings(dedupe_ms=DAY_MS), small_disk / "ballast"

    async def answer(turn: Any) -> str:
        return "y" * 20_000

    gateway.handler = answer
    kernel = await gateway.start()
    for number in range(30):
        taken = await kernel.accept(inbound(str(number)))
        await taken.settled(5_000)
    await gateway.advance(3 * DAY_MS)
    seen = [Pruning()]

    def tell(done: Pruning) -> None:
        seen.append(done)
        if len(seen) > after:
            _fill(ballast)

    if not after:
        _fill(ballast)
    with pytest.raises(DiskError, match="full; nothing of this call was stored"):
        await kernel.prune(older_ms=DAY_MS, by="me", batch=1, tell=tell)
    assert "the store took no append" in "; ".join(kernel.is_well().reasons)
    assert (await audit_store(kernel.store)).passed
    ballast.unlink()
    rest = await kernel.prune(older_ms=DAY_MS, by="me", batch=1)
    assert rest.streams + seen[-1].streams == 30 * 2
    assert await (await kernel.accept(inbound("new"))).settled(5_000)
    assert kernel.is_well()
    assert (await audit_store(kernel.store)).passed
    await gateway.end()
