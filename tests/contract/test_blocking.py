"""The blocking facade: the same kernel, from threads that know nothing of asyncio."""

from concurrent.futures import ThreadPoolExecutor
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from turnfold import BlockingKernel, Kernel, Settings
from turnfold.api.commands import Commands
from turnfold.errors import NotAStoreError, NotOpenError
from turnfold_model.testing.gateway import inbound, route
from turnfold_model.testing.platform import Platform, PlatformChannel


def made(path: Path, platform: Platform) -> BlockingKernel:
    kernel = Kernel(path, settings=Settings(drain_ms=1_000))
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")

    @kernel.on_turn
    async def answer(turn):
        await turn.reply(f"re: {turn.inbound.text}")

    return BlockingKernel(kernel)


def test_a_message_is_accepted_answered_and_settled(tmp_path: Path) -> None:
    platform = Platform()
    with made(tmp_path / "g.db", platform) as kernel:
        turn = kernel.accept(inbound(text="hello"))
        assert turn.new
        assert turn.settled(5_000) == "replied"
        assert not kernel.accept(inbound(text="hello")).new
        sent = kernel.enqueue(route("7"), "by the way", key="k")
        kernel.settled(sent.entry_id, 5_000)
        assert kernel.ask(lambda k: k.health()["open_entries"]) == 0
    assert [m.content for m in platform.messages] == ["re: hello", "by the way"]


def test_many_threads_share_it(tmp_path: Path) -> None:
    platform = Platform()
    with made(tmp_path / "g.db", platform) as kernel, ThreadPoolExecutor(8) as pool:
        sent = list(
            pool.map(lambda n: kernel.enqueue(route(str(n % 4)), str(n)), range(40))
        )
        for entry in sent:
            kernel.settled(entry.entry_id, 5_000)
    assert sorted(int(m.content) for m in platform.messages) == list(range(40))


def test_outside_of_with_it_says_so(tmp_path: Path) -> None:
    kernel = made(tmp_path / "g.db", Platform())
    with pytest.raises(NotOpenError):
        kernel.enqueue(route(), "too early")
    with kernel:
        pass
    with pytest.raises(NotOpenError):
        kernel.enqueue(route(), "too late")


def test_what_opening_raises_comes_out_and_the_thread_ends(tmp_path: Path) -> None:
    (tmp_path / "g.db").write_text("not a database, but some text " * 100)
    kernel = made(tmp_path / "g.db", Platform())
    with pytest.raises(NotAStoreError):
        kernel.open()
    assert kernel._thread is None


def test_every_command_of_a_kernel_has_a_blocking_twin() -> None:
    commands = {n for n in vars(Commands) if iscoroutinefunction(vars(Commands)[n])}
    public = {name for name in commands if not name.startswith("_")} - {"intend"}
    assert public <= vars(BlockingKernel).keys()
