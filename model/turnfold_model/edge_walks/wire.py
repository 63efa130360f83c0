"""The platform of a walk, and its time: both stand still until the next word."""

import asyncio
import selectors
from typing import Any, Final

from attrs import define, field

from turnfold.enums import DeliveryClass
from turnfold.ports.channel import (
    Attempt,
    Capabilities,
    Part,
    PartClass,
    Receipt,
    Rejected,
)

_CLASSES: Final = {
    "keyed": (DeliveryClass.KEYED,),
    "lookup": (DeliveryClass.LOOKUP,),
    "editable": (DeliveryClass.EDITABLE,),
    "blind": (),
}

Ask = tuple[str, "asyncio.Future[Any]"]


@define(eq=False)
class Wire:
    """A channel whose calls wait in `asked`. `deaf`: a call that is given up goes on."""

    deaf: bool
    asked: list[Ask] = field(factory=list)
    over: bool = False

    async def wait(self, what: str) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append((what, answer))
        while not answer.done():
            try:
                await asyncio.shield(answer)
            except asyncio.CancelledError:
                if self.over or not self.deaf:
                    raise
        return answer.result()

    def latest(self) -> Ask | None:
        waiting = (ask for ask in reversed(self.asked) if not ask[1].done())
        return next(waiting, None)

    def waits_for(self, what: str) -> bool:
        """The newest call is one of these."""
        latest = self.latest()
        return latest is not None and latest[0] == what

    def give(self, answer: Any) -> None:
        """Answer the newest call; prepare() raises its refusal."""
        latest = self.latest()
        if latest is None:
            raise AssertionError
        what, future = latest
        if what == "prepare" and isinstance(answer, Rejected):
            future.set_exception(_RefusedError(answer))
        else:
            future.set_result(answer)

    def end(self) -> None:
        self.over, self.deaf = True, False
        for _, future in self.asked:
            future.cancel()


class _RefusedError(Exception):
    """An error as a client library raises it; `classify` knows its meaning."""


def _classify(exc: BaseException) -> Any:
    refused = exc.__cause__ if isinstance(exc.__cause__, _RefusedError) else exc
    return refused.args[0] if isinstance(refused, _RefusedError) else None


class Channel:
    """The adapter of a walk; it has the optional methods only if they are needed."""

    def __init__(self, wire: Wire, kind: str, *, prepares: bool) -> None:
        offer = PartClass(classes=_CLASSES[kind], settle_ms=0)
        kinds = ("text", "file", "native")
        self.capabilities = Capabilities(parts=dict.fromkeys(kinds, offer))
        self.classify = _classify
        self._wire = wire
        if prepares:
            self.prepare = self._prepare
        if kind == "lookup":
            self.reconcile = self._reconcile
        if kind == "editable":
            self.edit = self._edit

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        del part, key, attempt
        return await self._wire.wait("send")

    async def _edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Any:
        del handle
        return await self.send(part, key, attempt)

    async def _prepare(self, part: Part) -> Any:
        del part
        return await self._wire.wait("prepare")

    async def _reconcile(self, part: Part, since_ms: int) -> Any:
        del part, since_ms
        return await self._wire.wait("reconcile")


class Loop(asyncio.SelectorEventLoop):
    """A sleeper wakes up at once if nobody else has anything to do meanwhile."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class _Jumping(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0 if timeout else timeout)
        if not found and timeout:
            self.now += timeout
        return found
