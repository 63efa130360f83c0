"""Copying a whole store into an empty one, through the port alone.

The copy has the records, bodies, dedupe keys, summaries and waiting commands of its
source, under the same running hash. No worker may run on the source meanwhile. An
unfinished copy is thrown away, never continued: its source may have erased bodies
since.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from turnfold.errors import DiskError, InvalidInputError
from turnfold.ports.store import (
    BLANK,
    Head,
    Listing,
    Refused,
    Store,
    Summary,
    Write,
    body_pages,
    key_pages,
    record_pages,
    summary_pages,
)

_COMMANDS = 1_000_000
_EVERYTHING = Listing(prefix="")
Tell = Callable[[int, int], None]


@frozen(kw_only=True)
class Copied:
    """The numbers of copied rows by kind; `head`: the end of both logs."""

    head: Head
    records: int
    bodies: int
    keys: int
    commands: int


async def check_copyable(source: Store) -> None:
    """Raises InvalidInputError for a pruned store: the port cannot write records
    without their events."""
    async for page in record_pages(source):
        if any(record.pruned for record in page):
            problem = "it was pruned, and a pruned store cannot be copied"
            raise InvalidInputError(field="source", problem=problem)


async def copy_all(source: Store, target: Store, tell: Tell) -> Copied:
    """`target` is empty and owned by the caller, `source` is owned and does not move."""
    end = (await source.load()).head
    head, records = BLANK, 0
    async for page in record_pages(source):
        head = await _stored(target, Write(base=head, records=page))
        records += len(page)
        tell(records, end.position)
    if head != end:
        problem = f"its log ends at {end.position} with another hash than its records"
        raise InvalidInputError(field="source", problem=problem)
    bodies = keys = 0
    async for found in body_pages(source):
        await _stored(target, Write(base=head, bodies=found))
        bodies += len(found)
    async for pairs in key_pages(source):
        await _stored(target, Write(base=head, keys=pairs))
        keys += len(pairs)
    await _summaries(source, target, head)
    commands = await source.inbox(_COMMANDS)
    await target.post(commands)
    return Copied(
        head=head, records=records, bodies=bodies, keys=keys, commands=len(commands)
    )


async def _summaries(source: Store, target: Store, head: Head) -> None:
    """Parents come before their children, so that each finds its parent."""
    rows: list[Summary] = []
    async for page in summary_pages(source, _EVERYTHING):
        rows += page
    rows.reverse()
    for start in range(0, len(rows), 1_000):
        await _stored(target, Write(base=head, summaries=rows[start : start + 1_000]))


async def _stored(target: Store, write: Write) -> Head:
    (answer,) = await target.commit([write])
    if isinstance(answer, Refused):
        raise DiskError(path=target.address, problem=str(answer.why))
    return answer.head
