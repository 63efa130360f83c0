"""The records of a store, page by page, into an auditor. A page costs one call, two
when streams come back that the auditor has dropped."""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from turnfold import pages
from turnfold.audit.auditor import Auditor
from turnfold.audit.findings import Rule
from turnfold.codec import decode
from turnfold.errors import CorruptLogError
from turnfold.events import Event
from turnfold.names import TURN
from turnfold.ports.store import Store, Wanted
from turnfold.records import Record

_GIVE_UP = 100  # positions that cannot be read, one after the other


async def walk(
    auditor: Auditor, store: Store, progress: Callable[[int], None] | None = None
) -> None:
    """Feed the whole log. `progress` is told the position after each page."""
    async for page in _readable(auditor, store):
        auditor.trim()
        await _bring_back(auditor, store, page)
        auditor.feed(page)
        if progress is not None:
            progress(page[-1].position)


async def _readable(auditor: Auditor, store: Store) -> AsyncIterator[Sequence[Record]]:
    """All pages that the store can read. Around damage they are smaller, and a position
    that cannot be read alone is passed."""
    after, size, failed = 0, pages.RECORDS, 0
    while failed < _GIVE_UP:
        try:
            page = await store.log(after, size)
        except CorruptLogError as exc:
            if size > 1:
                size = max(1, size // 10)
                continue
            if not failed:
                auditor.findings.add(Rule.DECODE, str(exc), after + 1)
            after, failed = after + 1, failed + 1
            continue
        if not page:
            return
        yield page
        after, size, failed = page[-1].position, min(size * 10, pages.RECORDS), 0
    text = f"{failed} positions in a row cannot be read; the audit of the log ends here"
    auditor.findings.add(Rule.DECODE, text, after)


async def _bring_back(auditor: Auditor, store: Store, page: Sequence[Record]) -> None:
    """Dropped streams that move in this page, turns with their entries."""
    streams = auditor.missing(page)
    if not streams:
        return
    turns = frozenset(name for name in streams if name.startswith(TURN))
    if turns:
        found = await store.fetch(Wanted(children=turns))
        children = [name for names in found.children.values() for name in names]
        streams |= auditor.states.missing(children)
    found = await store.fetch(Wanted(streams=frozenset(streams)))
    end = page[0].position
    for stream, records in found.streams.items():
        auditor.bring_back(stream, [r for r in records if r.position < end])


class Wrong(NamedTuple):
    """Something beside the log that does not fit it. `position`: of the record that
    speaks of it; 0 for none."""

    position: int
    stream: str
    text: str


async def streams_at(store: Store, positions: Iterable[int]) -> set[str]:
    """The streams of the records at these positions."""
    wanted, found = sorted(set(positions)), set[str]()
    at = 0
    while at < len(wanted):
        page = await store.log(wanted[at] - 1, pages.RECORDS)
        last = page[-1].position if page else wanted[-1]
        end = bisect_right(wanted, last, at)
        here = set(wanted[at:end])
        found |= {r.stream for r in page if r.position in here}
        at = max(end, at + 1)
    return found


Told = tuple[int, Event]  # the position of an event's record, and the event


def told(records: Iterable[Record]) -> Sequence[Told]:
    """The events of a stream. Raises CorruptLogError."""
    return [(r.position, event) for r in records for event in decode(r)]
