"""A forked child that goes on with the kernel of its parent gets an error that says so."""

import asyncio
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turnfold import BlockingKernel, Kernel
from turnfold_model.testing.gateway import inbound, route

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def _in_child(work: Callable[[], Any]) -> str:
    """What `work` raised in a forked child, or its result; HANGS after ten seconds."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
        pid = os.fork()
    if pid == 0:
        os.write(write, _told(work).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def _told(work: Callable[[], Any]) -> str:
    told = ["HANGS"]

    def run() -> None:
        try:
            told[0] = f"returned {work()!r}"
        except BaseException as exc:  # noqa: BLE001  this is what is asked for
            told[0] = f"{type(exc).__name__}: {exc}"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    return told[0]


async def _awaited(call: Callable[[], Any]) -> Any:
    found = call()
    return await found if asyncio.iscoroutine(found) else found


@pytest.mark.case("U06", "Z03")
async def test_every_call_of_a_forked_child_names_the_fork(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "g.db")
    await kernel.open()
    calls: dict[str, Callable[[], Any]] = {
        "accept": lambda: kernel.accept(inbound("1")),
        "enqueue": lambda: kernel.enqueue(route(), "x"),
        "health": kernel.health,
        "inspect": lambda: kernel.inspect,
        "open": kernel.open,
        "close": kernel.close,
        "drain": kernel.drain,
        "portal": lambda: kernel.portal().submit(kernel.health),
    }
    for name, call in calls.items():
        said = _in_child(lambda call=call: asyncio.run(_awaited(call)))
        assert said.startswith("NotOpenError"), (name, said)
        assert f"open in process {os.getpid()}" in said, (name, said)
        assert "fork; make a new Kernel here" in said, (name, said)
    assert (await kernel.accept(inbound("2"))).new
    await kernel.close()


@pytest.mark.case("U06", "Z03")
def test_a_forked_child_of_a_blocking_kernel_does_not_wait_for_ever(
    tmp_path: Path,
) -> None:
    with BlockingKernel(Kernel(tmp_path / "g.db")) as kernel:
        for call in (
            lambda: kernel.accept(inbound("1")),
            lambda: kernel.ask(Kernel.health),
            kernel.close,
        ):
            said = _in_child(call)
            assert said.startswith("NotOpenError"), said
            assert "fork" in said
        assert kernel.accept(inbound("2")).new


async def test_a_forked_child_may_open_a_kernel_of_its_own(tmp_path: Path) -> None:
    async def child() -> tuple[bool, bool | None]:
        async with Kernel(tmp_path / "g.db") as own:
            return own.working, (await own.accept(inbound("1"))).new

    async with Kernel(tmp_path / "g.db"):
        said = _in_child(lambda: asyncio.run(child()))
    assert said == "returned (False, True)"


async def test_a_kernel_that_is_closed_is_not_the_parents(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "g.db")
    async with kernel:
        pass

    async def child() -> bool:
        async with kernel:
            return kernel.working

    assert _in_child(lambda: asyncio.run(child())) == "returned True"
