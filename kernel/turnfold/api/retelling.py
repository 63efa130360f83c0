"""The mark of the news that hooks have heard, so that a death leaves no news untold.

The mark is a cursor in the log: hooks have heard all news up to its position. It is
written after the hooks were called, so after a death the later news are told again. A
repeat has the same id. A kernel without hooks writes no mark.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from attrs import frozen

from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log.codec import decode
from turnfold._log.events import CursorAdvanced, Event
from turnfold._log.ids import CURSOR
from turnfold._state.fold import Cursor, State
from turnfold.errors import CorruptLogError, NotOpenError, StoreError
from turnfold.logs import lines
from turnfold.ports.store import Record

MARK = f"{CURSOR}hooks"
FAR = 10_000  # records between the mark and the end of the log
_PAGE = 500
_LOG = lines()

Decision = Callable[[UnitOfWork], Any]


@frozen
class News:
    """One event for hooks, and the state it belongs to. `id`: the same for each
    repeat."""

    id: str
    stream: str
    event: Event
    state: State | None


def news_id(stream: str, version: int) -> str:
    return f"{stream}#{version}"


def _mark(draft: UnitOfWork) -> int | None:
    cursor = draft.state(MARK)
    value = cursor.value if isinstance(cursor, Cursor) else None
    return None if value is None else int(value)


def advance_mark(draft: UnitOfWork, position: int) -> None:
    """Move the mark forward; it never goes back."""
    before = _mark(draft)
    if before is None or before < position:
        draft.emit(MARK, CursorAdvanced(cursor=str(position)))


@frozen
class Retelling:
    """The means of a worker: to append, to ask folded state, to read its log."""

    append: Callable[[Decision], Awaitable[Any]]
    look: Callable[[Decision], Awaitable[Any]]
    log: Callable[[int, int], Awaitable[Sequence[Record]]]

    async def mark(self) -> int | None:
        found: int | None = await self.look(_mark)
        return found

    async def note(self, position: int) -> bool:
        """Write that hooks have heard all news up to here. False if the mark cannot be
        written now: hooks will hear the news again."""
        try:
            await self.append(partial(advance_mark, position=position))
        except (StoreError, NotOpenError) as exc:
            _LOG.warning(
                "the mark of hooks is not written, so they get the news again: %s", exc
            )
            return False
        return True

    async def page(self, span: range, kinds: Collection[Any]) -> tuple[list[News], int]:
        """The news in the next records of a span, and the position of the last of them.
        What lies behind the span is of this life, and told as it happens."""
        after = span.start
        read = await self.log(after, _PAGE)
        records = [record for record in read if record.position <= span.stop]
        found = []
        for record in records:
            try:
                events = decode(record)
            except CorruptLogError:
                continue  # set aside, shown by health
            for number, event in enumerate(events):
                if type(event) in kinds:
                    version = record.version - len(events) + 1 + number
                    found.append(await self._news(record.stream, version, event))
        return found, records[-1].position if records else after

    async def _news(self, stream: str, version: int, event: Event) -> News:
        try:
            state: State | None = await self.look(lambda draft: draft.state(stream))
        except CorruptLogError:
            state = None  # set aside, shown by health
        return News(news_id(stream, version), stream, event, state)
