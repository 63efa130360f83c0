"""Calls of many callers that go to a store as one: each call costs it a sync, or a round
trip."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from turnfold.errors import FateUnknownError, InvalidInputError

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Asked = tuple[_In, asyncio.Future[_Out]]


class Together(Generic[_In, _Out]):
    """`call` takes items and returns their answers, in their order. Items of one tick of
    the loop, and those that come while a call is under way, go in one call. `most`: the
    items of one call.

    An item that is no valid input spoils no other one: then each is asked for alone. Any
    other error is the answer for all items of its call.
    """

    def __init__(
        self,
        call: Callable[[Sequence[_In]], Awaitable[Sequence[_Out]]],
        address: str,
        most: int = 100,
    ) -> None:
        self._call, self._address, self._most = call, address, most
        self._queue: list[_Asked[_In, _Out]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: _In) -> _Out:
        """The answer for one item. A caller that is cancelled takes nothing back.

        Raises the errors of `call`, and FateUnknownError if the call was cut off.
        """
        answer: asyncio.Future[_Out] = asyncio.get_running_loop().create_future()
        self._queue.append((item, answer))
        self._begin()
        return await answer

    def _begin(self) -> None:
        if self._task is None:  # no context variable of a caller reaches others
            self._task = asyncio.Task(self._run(), context=Context())
            self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        """Whoever cancelled the task does not speak for those who came later."""
        self._task = None
        if not task.cancelled():
            task.result()
        if self._queue:
            self._begin()

    async def _run(self) -> None:
        while self._queue:
            some = self._queue[: self._most]
            del self._queue[: self._most]
            try:
                await self._answer(some)
            except BaseException:  # somebody has cancelled this task
                problem = "the call was cut off"
                _refuse(some, FateUnknownError(path=self._address, problem=problem))
                raise

    async def _answer(self, some: Sequence[_Asked[_In, _Out]]) -> None:
        try:
            answers = await self._call([item for item, _ in some])
        except InvalidInputError as exc:
            if len(some) == 1:
                _refuse(some, exc)
                return
            for one in some:
                await self._answer((one,))
        except Exception as exc:  # noqa: BLE001  each caller gets it
            _refuse(some, exc)
        else:
            for (_, answer), found in zip(some, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)


def _refuse(some: Sequence[_Asked[_In, _Out]], error: Exception) -> None:
    for _, answer in some:
        if not answer.done():
            answer.set_exception(error)
