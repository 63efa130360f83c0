"""Values of odd kinds, and files that never end: each is taken or refused at once."""

import asyncio
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from turnfold import File, Inbound, Native
from turnfold.errors import InvalidInputError
from turnfold_model.testing.gateway import Gateway, inbound, route, spin


class Evil(str):
    """As ids from a parser or an array library are: text, of a class of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise SystemExit(1)

    def __hash__(self) -> int:
        raise SystemExit(2)


@pytest.mark.case("T10")
@pytest.mark.parametrize("name", ["conversation", "message_id", "thread", "sender"])
async def test_an_id_of_a_class_of_its_own_is_its_text(
    lone: Gateway, name: str
) -> None:
    async def echo(turn: Any) -> str:
        return str(turn.inbound.text)

    lone.handler = echo
    kernel = await lone.start()
    given: dict[str, Any] = {"conversation": "7", "message_id": "8", name: Evil("9")}
    made = Inbound("t", body={"text": "hi"}, **given)
    assert type(getattr(made, name)) is str
    turn = await kernel.accept(made)
    assert await turn.settled(5_000) == "replied"


@pytest.mark.case("T10", "Z06")
def test_an_integer_without_a_text_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="conversation"):
        Inbound("t", conversation=10**5_000, message_id="1")


@pytest.mark.case("V15", "Z06")
def test_a_native_with_files_that_holds_itself_is_refused() -> None:
    ring: dict[str, Any] = {}
    ring["a"] = ring
    with pytest.raises(InvalidInputError, match="nested deeper"):
        Native(ring, {"f": File(data=b"x")})


@pytest.mark.case("V15", "Z06")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
async def test_a_file_that_may_never_end_is_refused_and_keeps_nobody_waiting(
    lone: Gateway, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    kernel = await lone.start()
    async with asyncio.timeout(5):
        with pytest.raises(InvalidInputError, match="no regular file"):
            await kernel.enqueue(route(), File(pipe))


@pytest.mark.case("V15", "W11")
async def test_a_disk_that_hangs_keeps_no_large_body_waiting(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free, path = threading.Event(), tmp_path / "f"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", lambda _: free.wait(10) and b"x")
    kernel = await lone.start()
    waits = [
        asyncio.ensure_future(kernel.enqueue(route(), File(path))) for _ in range(3)
    ]
    await spin()  # the reads have begun
    try:
        async with asyncio.timeout(5):
            await kernel.accept(inbound(text="x" * 300_000))
        assert not any(wait.done() for wait in waits)
    finally:
        free.set()
    await asyncio.gather(*waits)


@pytest.mark.case("R05", "Z03")
async def test_a_length_of_time_that_no_log_can_carry_is_refused_by_name(
    lone: Gateway,
) -> None:
    kernel, much = await lone.start(), 2**53 - 1
    with pytest.raises(InvalidInputError, match="debounce_ms"):
        await kernel.accept(inbound(), debounce_ms=much)
    with pytest.raises(InvalidInputError, match="ttl_ms"):
        await kernel.enqueue(route(), "x", ttl_ms=2**52)
    with pytest.raises(InvalidInputError, match="not_before"):
        await kernel.enqueue(route(), "x", not_before=much)


@pytest.mark.case("S14")
async def test_a_drained_kernel_says_that_it_sends_nothing(lone: Gateway) -> None:
    kernel = await lone.start()
    assert kernel.is_well()
    await kernel.drain(100)
    await kernel.enqueue(route(), "waits")
    assert kernel.health()["state"] == "drained"
    (reason,) = kernel.is_well().reasons
    assert "close the kernel and open it again" in reason


class EvilNumber(int):
    def __le__(self, other: object) -> bool:
        raise SystemExit(3)

    __ge__ = __lt__ = __gt__ = __le__


@pytest.mark.case("S06", "U06")
@pytest.mark.parametrize("asked", [timedelta(seconds=1), EvilNumber(1)])
async def test_a_wait_of_an_odd_kind_is_read(lone: Gateway, asked: object) -> None:
    runs = []

    class OverloadedError(Exception):
        retry_after = asked

    async def handler(turn: Any) -> str:
        runs.append(turn.run)
        if len(runs) == 1:
            raise OverloadedError
        return "done"

    lone.handler = handler
    kernel = await lone.start()
    turn = await kernel.accept(inbound())
    await spin()
    await lone.advance(2_000)
    assert await turn.settled(5_000) == "replied"
    assert kernel.health()["foreign_bugs"]["handler"] == 0
