"""Copying a whole store into an empty one, through the port alone.

A pruned record has no events left. The copy gets it as a record of a stream that stands
for all that one prune has removed, and is then pruned in the same way: its position and
hash stay, and the running hash is the same.

The copy has the records, bodies, dedupe keys, summaries and waiting commands of its
source, under the same running hash. No worker may run on the source meanwhile. An
unfinished copy is thrown away, never continued: its source may have erased bodies
since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from turnfold.errors import DiskError, InvalidInputError
from turnfold.ports.store import (
    BLANK,
    Count,
    Head,
    Keeping,
    Listing,
    Prune,
    Record,
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


async def copy_all(source: Store, target: Store, tell: Tell) -> Copied:
    """`target` is empty and owned by the caller, `source` is owned and does not move."""
    pruned = _Pruned()
    head = await _records(source, target, pruned, tell)
    bodies = keys = 0
    async for found in body_pages(source):
        await _stored(target, Write(base=head, bodies=found))
        bodies += len(found)
    async for pairs in key_pages(source):
        await _stored(target, Write(base=head, keys=pairs))
        keys += len(pairs)
    await _prune(source, target, head, pruned)
    await _summaries(source, target, head)
    commands = await source.inbox(_COMMANDS)
    await target.post(commands)
    counts = {"bodies": bodies, "keys": keys, "commands": len(commands)}
    return Copied(head=head, records=head.position, **counts)


async def _records(source: Store, target: Store, pruned: _Pruned, tell: Tell) -> Head:
    """Returns the end of both logs."""
    end = (await source.load()).head
    head = BLANK
    async for page in record_pages(source):
        records = [pruned.stand_in(record) for record in page]
        head = await _stored(target, Write(base=head, records=records))
        tell(head.position, end.position)
    if head != end:
        problem = f"its log ends at {end.position} with another hash than its records"
        raise InvalidInputError(field="source", problem=problem)
    return head


class _Pruned:
    """The streams that stand for pruned records, one for each prune. `versions`: how
    many records each has so far, by the position of its prune."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self._at = 0

    def stand_in(self, record: Record) -> Record:
        """The record itself, or for a pruned one a record with its hash."""
        if not record.pruned:
            self._at = record.at
            return record
        by = record.version  # of a pruned record: the position of the prune
        version = self.versions[by] = self.versions.get(by, 0) + 1
        name, place = _stream(by), record.position
        return Record(place, name, version, 1, self._at, b"[]", record.hash)


def _stream(by: int) -> str:
    return f"pruned:{by}"


async def _prune(source: Store, target: Store, head: Head, pruned: _Pruned) -> None:
    for by in pruned.versions:
        prune = Prune(by=by, streams=[_stream(by)])
        await _stored(target, Write(base=head, prune=prune))
    counts = await _counts(source)
    if counts:
        prune = Prune(by=0, streams=(), counts=counts)
        await _stored(target, Write(base=head, prune=prune))


async def _counts(source: Store) -> Sequence[Count]:
    maintenance = source.maintenance
    if isinstance(maintenance, Keeping):
        return await maintenance.pruned()
    return ()


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
