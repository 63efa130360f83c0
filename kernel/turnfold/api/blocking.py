"""The Kernel for programs without asyncio: the same one, in a thread of its own.

Handlers and channels stay `async def`; they run in that thread. Every call here waits
for the COMMIT of what it says, as its async twin does.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from attrs import frozen

from turnfold._decide.operator import Abortion
from turnfold._decide.outbox import Enqueued
from turnfold._decide.turns import SourceCursor
from turnfold.api.handle import AcceptedTurn
from turnfold.api.kernel import Kernel
from turnfold.enums import (
    BlindPolicy,
    Kind,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import NotOpenError
from turnfold.messages import Inbound, Payload, Route

_T = TypeVar("_T")


@frozen(kw_only=True)
class BlockingTurn:
    """An accepted turn; `settled()` waits for its end."""

    turn_id: str
    status: TurnPhase
    new: bool | None
    _owner: "BlockingKernel"

    def settled(self, timeout_ms: int | None = None) -> TurnOutcome | None:
        """Raises TimeoutError."""
        return self._owner.settled(self.turn_id, timeout_ms)


class BlockingKernel:
    """Wraps a Kernel that is not open. Use it as `with BlockingKernel(kernel):`; its
    methods may be called from any thread but the kernel's own."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start the thread and open the kernel in it. Raises what opening raises."""
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="turnfold", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        try:
            self.call(self.kernel.open())
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _run(started: "Future[asyncio.AbstractEventLoop]") -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            started.set_result(loop)
            loop.run_forever()

    def close(self) -> None:
        """Drain and close, as `async with` does at its end."""
        if self._loop is None:
            return
        try:
            self.call(self.kernel.close())
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run any coroutine of the kernel in its thread and wait for it."""
        if self._loop is None:
            work.close()
            raise NotOpenError(state="not open")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def accept(
        self, inbound: Inbound, *, cursor: SourceCursor | None = None
    ) -> BlockingTurn:
        done: AcceptedTurn = self.call(self.kernel.accept(inbound, cursor=cursor))
        return BlockingTurn(
            turn_id=done.turn_id, status=done.status, new=done.new, owner=self
        )

    def enqueue(
        self,
        route: Route,
        *payloads: Payload | str,
        key: str | None = None,
        kind: Kind = Kind.NOTICE,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Enqueued:
        return self.call(
            self.kernel.enqueue(
                route,
                *payloads,
                key=key,
                kind=kind,
                policy=policy,
                ttl_ms=ttl_ms,
                not_before=not_before,
            )
        )

    def abort(self, stream: str, *, by: str | None = None) -> Abortion:
        return self.call(self.kernel.abort(stream, by=by))

    def supersede(self, turn: str, *, by: str | None = None) -> Abortion:
        return self.call(self.kernel.supersede(turn, by=by))

    def connected(self, channel: str, *, account: str = "default") -> None:
        self.call(self.kernel.connected(channel, account=account))

    def settled(self, stream: str, timeout_ms: int | None = None) -> TurnOutcome | None:
        return self.call(self.kernel.settled(stream, timeout_ms))

    def ask(self, question: Callable[[Kernel], Any]) -> Any:
        """Run a function of the kernel in its thread: queries, health."""

        async def asked() -> Any:
            return question(self.kernel)

        return self.call(asked())
