"""The first hour with a kernel: plain functions, waiting for rest."""

import asyncio
import functools
import threading
from typing import Any

import pytest

from turnfold import InvalidInputError, Kernel
from turnfold_model.testing.gateway import Gateway, inbound, route
from turnfold_model.testing.platform import unknown


class _Callable:
    async def __call__(self, turn: Any) -> None:
        await turn.reply(f"re: {turn.inbound.text}")


class _PlainCallable:
    def __call__(self, turn: Any) -> str:
        return f"re: {turn.inbound.text}"


async def _two(extra: str, turn: Any) -> str:
    return f"{extra} {turn.inbound.text}"


def _plain(turn: Any) -> str:
    assert threading.current_thread() is not threading.main_thread()
    return f"re: {turn.inbound.text}"


def _wrapped(turn: Any) -> Any:
    return _two("re:", turn)


_HANDLERS = [
    _plain,
    _wrapped,
    _Callable(),
    _PlainCallable(),
    functools.partial(_two, "re:"),
]


@pytest.mark.case("Y10")
@pytest.mark.parametrize(
    "handler",
    _HANDLERS,
    ids=["plain", "wrapped", "object", "plain object", "partial"],
)
async def test_anything_that_can_be_called_with_a_turn_is_a_handler(
    lone: Gateway, handler: Any
) -> None:
    lone.handler = handler
    kernel = await lone.start()
    await kernel.accept(inbound("1", text="hi"))
    await kernel.at_rest(5_000)
    assert lone.platform.contents == ["re: hi"]


@pytest.mark.case("Y10")
async def test_a_plain_handler_calls_its_turn_through_a_portal(lone: Gateway) -> None:
    """It blocks its own thread, never the loop."""
    kernel = await lone.start()

    @kernel.on_turn
    def answer(turn: Any) -> None:
        kernel.portal().call(turn.block, "one")
        kernel.portal().call(turn.reply, "two")

    await kernel.accept(inbound("1", text="hi"))
    await kernel.at_rest(5_000)
    assert lone.platform.contents == ["one", "two"]


@pytest.mark.case("Z02")
@pytest.mark.parametrize(
    "handler",
    [lambda: None, lambda a, b: None, _Callable, None, "x", 5],
    ids=["no argument", "two arguments", "a class", "None", "a text", "a number"],
)
async def test_a_handler_that_cannot_be_called_with_a_turn_is_refused(
    handler: Any,
) -> None:
    with pytest.raises(InvalidInputError, match="handler"):
        Kernel("memory:").on_turn(resume=False)(handler)


@pytest.mark.case("Y14")
async def test_rest_is_when_nothing_goes_on_without_a_person(lone: Gateway) -> None:
    async def answer(turn: Any) -> None:
        await asyncio.sleep(0.05)
        await turn.reply("answer")

    lone.handler = answer
    lone.platform.plays(unknown())
    kernel = await lone.start()
    await kernel.at_rest(1_000)
    await kernel.enqueue(route("9"), "parked")
    for number in range(5):
        await kernel.accept(inbound(str(number)))
    await kernel.at_rest(5_000)
    assert lone.platform.contents.count("answer") == 5
    assert kernel.health()["parked"] == 1
    await kernel.enqueue(route("9", "not attached"), "waits")
    with pytest.raises(TimeoutError):
        await kernel.at_rest(50)
