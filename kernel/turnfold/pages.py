"""All of a store, page by page: the loops around the calls of the port that page.

Each page is one call, so whoever reads a whole store awaits once for many rows.
"""

from collections.abc import AsyncIterator, Sequence

from attrs import evolve

from turnfold.ports.store import Body, BodyRef, Listing, Store, Summary
from turnfold.records import Record

RECORDS = 1_000
BODIES = 100  # each may have 64 KiB and more
KEYS = 1_000
SUMMARIES = 1_000


async def records(store: Store, after: int = 0) -> AsyncIterator[Sequence[Record]]:
    """The log after a position."""
    while page := await store.log(after, RECORDS):
        yield page
        after = page[-1].position


async def summaries(
    store: Store, listing: Listing, size: int = SUMMARIES
) -> AsyncIterator[Sequence[Summary]]:
    """All summaries that pass a filter, newest first; its `limit` does not count."""
    want = evolve(listing, limit=size)
    while page := await store.list(want):
        yield page
        if len(page) < size:
            return
        want = evolve(want, before=page[-1].order)


async def bodies(store: Store) -> AsyncIterator[Sequence[Body]]:
    """All bodies that are kept."""
    after: BodyRef | None = None
    while page := await store.bodies(after, BODIES):
        yield page
        after = page[-1].stream, page[-1].number


async def keys(store: Store) -> AsyncIterator[Sequence[tuple[str, str]]]:
    """All dedupe keys with their streams."""
    after = ""
    while page := await store.keys(after, KEYS):
        yield page
        after = page[-1][0]
