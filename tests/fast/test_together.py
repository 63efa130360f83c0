"""Calls of many callers go as one, and each caller gets an answer of its own."""

import asyncio
from collections.abc import Sequence

import pytest

from turnfold._runtime.together import Together
from turnfold.errors import BusyError, FateUnknownError, InvalidInputError


class Book:
    """Notes each call; an item below zero is no valid input."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(items))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        if any(item < 0 for item in items):
            raise InvalidInputError(field="item", problem="below zero")
        return [2 * item for item in items]


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def together(book: Book) -> Together[int, int]:
    return Together(book, "the book", most=3)


async def _all(together: Together[int, int], *items: int) -> list[object]:
    asked = (together.ask(item) for item in items)
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_items_of_one_tick_go_in_calls_of_bounded_size(book, together) -> None:
    assert await _all(together, 1, 2, 3, 4) == [2, 4, 6, 8]
    assert book.calls == [[1, 2, 3], [4]]


async def test_what_comes_while_a_call_is_under_way_goes_in_the_next_one(
    book, together
) -> None:
    book.open.clear()
    first = asyncio.ensure_future(together.ask(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = asyncio.ensure_future(_all(together, 2, 3))
    await asyncio.sleep(0.01)
    book.open.set()
    assert (await first, await rest) == (2, [4, 6])
    assert book.calls == [[1], [2, 3]]
    assert await together.ask(5) == 10


async def test_an_invalid_item_spoils_no_other_one(book, together) -> None:
    one, bad, two = await _all(together, 1, -1, 2)
    assert (one, two) == (2, 4)
    assert isinstance(bad, InvalidInputError)
    assert book.calls == [[1, -1, 2], [1], [-1], [2]]


async def test_another_error_is_the_answer_for_all_of_its_call(book, together) -> None:
    book.error = BusyError(path="the book", waited_ms=1)
    assert await _all(together, 1, 2) == [book.error, book.error]
    book.error = None
    assert await together.ask(3) == 6


async def test_a_cancelled_caller_takes_nothing_from_the_others(book, together) -> None:
    book.open.clear()
    one = asyncio.ensure_future(together.ask(1))
    two = asyncio.ensure_future(together.ask(2))
    await asyncio.sleep(0.01)
    one.cancel()
    book.open.set()
    assert await two == 4
    assert one.cancelled()


async def test_a_call_that_is_cut_off_has_an_unknown_fate_and_later_ones_go_on(
    book, together
) -> None:
    book.open.clear()
    first = asyncio.ensure_future(_all(together, 1, 2, 3))
    await asyncio.sleep(0.01)
    later = asyncio.ensure_future(together.ask(4))
    await asyncio.sleep(0.01)
    assert together._task is not None
    together._task.cancel()
    errors = await asyncio.wait_for(first, 1)
    assert [type(error) for error in errors] == [FateUnknownError] * 3
    book.open.set()
    assert await asyncio.wait_for(later, 1) == 8
