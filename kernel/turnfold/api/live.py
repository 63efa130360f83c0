"""A reply that readers see while it grows: `async with turn.live() as live`."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from turnfold._decide import turns
from turnfold._log.ids import reply_entry
from turnfold._runtime.calls import report
from turnfold._runtime.programs import Decision
from turnfold.api.sent import Sent
from turnfold.enums import BlindPolicy, FailureClass, Format, Kind
from turnfold.errors import AlreadyRepliedError, InvalidInputError, StaleRunError
from turnfold.logs import lines
from turnfold.messages import Payload, Text, check_text
from turnfold.ports.channel import Accepted, Outcome, Rejected

if TYPE_CHECKING:
    from turnfold.api.handle import TurnHandle
    from turnfold.api.store_kernel import StoreKernel

_LOG = lines()
_QUIET_S = 2.0  # how long a preview of unknown outcome may still take effect


class Live:
    """The reply of a turn while it grows.

    Where the channel can edit, a placeholder goes out at the beginning, and shows the
    text as it grows: at most one preview in `Capabilities.preview_ms`, the newest one.
    Where it cannot, readers see nothing before the seal. Leaving the block without an
    error seals the reply: the outbox then owns the text, as with `turn.reply`.

    After an error, or the death of the process, the next run of the turn goes on with
    the same message; it begins with an empty text.
    """

    def __init__(
        self,
        kernel: "StoreKernel",
        turn: "TurnHandle",
        append: Callable[[Decision], Awaitable[Any]],
        format: Format,  # noqa: A002  the name of Text's own argument
        policy: BlindPolicy | None,
        ttl_ms: int | None,
    ) -> None:
        self._kernel, self._turn, self._append = kernel, turn, append
        self._format = format
        self._policy, self._ttl_ms = policy, ttl_ms
        self._text: list[str] = []
        self._shown = ""
        self._entry: str | None = None  # None: the channel cannot edit
        self._news, self._wire = asyncio.Event(), asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._pace_s = 1.0
        self._unsure = False
        self._sealed: Sent | None = None
        self._entered = self._left = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def has_unsent_text(self) -> bool:
        """Is its block still open, with a text that nothing would send?"""
        over = self._left or self._sealed is not None
        return not over and bool(self.text.strip())

    def append(self, more: str) -> None:
        """Add text to the end. It is shown by the next preview. Never waits.

        Raises InvalidInputError before `async with`,
        AlreadyRepliedError once the reply is sealed, and StaleRunError after a block
        that an error has ended."""
        self._check_entered()
        self._text.append(check_text("more", more))
        self._news.set()

    def replace(self, text: str) -> None:
        """Replace the whole text. Never waits. Raises as `append`."""
        self._check_entered()
        self._text = [check_text("text", text)]
        self._news.set()

    def _check_entered(self) -> None:
        if not self._entered:
            problem = "use it as `async with turn.live() as live:`"
            raise InvalidInputError(field="live", problem=problem)
        turn = self._turn
        if self._sealed is not None:
            raise AlreadyRepliedError(turn=turn.id, entry=self._sealed.entry_id)
        if self._left:
            why = "an error ended the block of its live reply"
            raise StaleRunError(turn=turn.id, run=turn.run, why=why)

    async def seal(self, *payloads: Payload | str) -> Sent:
        """End the reply and hand it over to the outbox, once; a second call returns the
        same Sent. `payloads`: the whole answer, which begins with a text; the text so
        far by default.

        Raises StaleRunError if the run may no longer speak for its turn, and
        InvalidInputError before `async with`."""
        if self._sealed is None:
            if not self._entered:
                self._check_entered()
            await self.end_previews()
            answer = payloads or (Text(self.text, format=self._format),)
            self._sealed = await self._turn.reply(
                *answer, policy=self._policy, ttl_ms=self._ttl_ms
            )
        return self._sealed

    async def __aenter__(self) -> Self:
        if self._entered:
            problem = "it was entered before; a turn has one live reply"
            raise InvalidInputError(field="live", problem=problem)
        self._entered = True
        kernel, turn = self._kernel, self._turn
        intent = kernel.intend_live(
            entry=reply_entry(turn.id, Kind.FINAL, turn.run, "final"),
            route=turn.inbound.route,
            turn=turn.id,
            policy=self._policy,
            ttl_ms=self._ttl_ms,
        )
        if intent is not None:
            decision = partial(
                turns.begin_live, stream=turn.id, run=turn.run, intent=intent
            )
            self._entry = await self._append(decision)
            self._pace_s = kernel.preview_ms(turn.inbound.route) / 1_000
            self._task = asyncio.create_task(self._show())
        turn.growing.append(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.seal()
        else:
            self._left = True
            await self.end_previews()

    # --- previews: edits outside the log, without a waiting caller ---

    async def _show(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            text = self.text
            if text.strip() and text != self._shown:
                async with self._wire:
                    if not self._goes_on(text, await self._preview(text)):
                        return
            await asyncio.sleep(self._pace_s)

    async def _preview(self, text: str) -> Outcome | None:
        assert self._entry is not None  # noqa: S101  else there is no such task
        return await self._kernel.preview(self._entry, text)

    def _goes_on(self, text: str, outcome: Outcome | None) -> bool:
        match outcome:
            case Accepted():
                self._shown = text
            case Rejected(failure=FailureClass.RATE_LIMITED, retry_after_ms=wait):
                self._pace_s = max(self._pace_s * 2, (wait or 0) / 1_000)
                self._news.set()
            case Rejected(failure=failure):
                _LOG.info("%s: no more previews: %s", self._entry, failure)
                return False  # the seal meets the failure itself
            case None:
                self._news.set()  # no placeholder yet
            case _:
                self._unsure = True
                _LOG.info(
                    "%s: no more previews: nobody knows if the last one was shown; "
                    "the seal waits %s s for it",
                    self._entry,
                    _QUIET_S,
                )
                return False
        return True

    async def end_previews(self) -> None:
        """Call at the seal and at the end of the run. No preview may overwrite the text
        that follows: the last one has to end first."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with self._wire:
                task.cancel()
        finally:
            task.cancel()
            await asyncio.wait({task})
        _forget(task)
        if self._unsure:
            await asyncio.sleep(_QUIET_S)

    def drop_previews(self) -> None:
        """End them at once; the last one may still take effect. For a kernel that stops:
        it does not wait for the platform."""
        if self._task is not None:
            self._task.cancel()


def _forget(task: "asyncio.Task[Any]") -> None:
    """An error of previews does not end the reply; it is only logged."""
    if not task.cancelled() and (error := task.exception()) is not None:
        report("previews of a live reply ended", error)
