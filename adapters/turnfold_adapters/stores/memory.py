"""A store in memory, for tests: the same rules as a database, without one.

A `MemoryStore` is the handle of one process on a `MemoryDisk`. Several handles on one
disk act as several processes; `MemoryDisk.fork()` is the disk after a crash. No call
suspends, so a caller without an event loop can use `ports.store.now`.
"""

from __future__ import annotations  # `list` is a method of the port, too

from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest, nsmallest
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from turnfold.clock import Lived
from turnfold.errors import (
    ConflictError,
    InvalidInputError,
    NotAStoreError,
    NotOpenError,
    ReadOnlyError,
)
from turnfold.ports.store import (
    BLANK,
    Body,
    BodyRef,
    Command,
    Count,
    Found,
    Head,
    Listing,
    Loaded,
    Posted,
    Prune,
    Record,
    Refused,
    Stored,
    Summary,
    Wanted,
    Watermark,
    Write,
    head_after,
    tombstone,
)
from turnfold_adapters.stores.checking import (
    KEPT_ANSWERS,
    body_there,
    check_command,
    check_number,
    check_projection,
    check_shards,
    check_summary,
    check_values,
    key_taken,
    log_moved,
    no_events,
    no_stream,
    off_the_head,
    stream_moved,
    wrong_shard,
)
from turnfold_adapters.stores.memory_disk import (
    MemoryDisk,
    MemoryDoorbell,
    MemoryOwnership,
)
from turnfold_adapters.stores.pruned_counts import of_pruned

__all__ = ["MemoryDisk", "MemoryStore"]


class MemoryStore:
    """The store port over a `MemoryDisk`; a fresh one if none is given.

    Closing keeps the data on the disk. Every call but `open`, `close`, `ownership` and
    `doorbell` raises NotOpenError while the store is not open.
    """

    def __init__(
        self, disk: MemoryDisk | None = None, *, address: str = "memory:"
    ) -> None:
        if isinstance(disk, str):
            problem = "no address of a store in memory; it is `memory:` alone"
            raise InvalidInputError(field="address", problem=problem)
        self.disk = MemoryDisk() if disk is None else disk
        self._address = address
        self._state = "not open"
        self._ownership = MemoryOwnership(self.disk, self._writable)

    @property
    def address(self) -> str:
        return self._address

    def fork(self) -> MemoryStore:
        """A handle, not open, on a fork of the disk."""
        return MemoryStore(self.disk.fork(), address=self._address)

    # --- life ------------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        """A second open has no effect. Raises NotAStoreError for an empty disk that may
        not be written."""
        if read_only and not self.disk.created:
            raise NotAStoreError(path=self._address, problem="it does not exist")
        self.disk.created = True
        self._state = "open for reading only" if read_only else "open"

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """End this handle as the end of its process would; harmless when closed."""
        self._ownership.release()
        self._state = "closed"

    async def reopen(self) -> None:
        await self.open(read_only=self._state == "open for reading only")

    # --- the owner -------------------------------------------------------------------

    async def load(self) -> Loaded:
        disk = self._disk()
        summaries = tuple(disk.summaries.values())
        rows = sorted((s for s in summaries if s.open), key=lambda s: s.order)
        last_at = disk.log[-1].at if disk.log else 0
        store = disk.summaries.get("store")
        return Loaded(head=disk.head, last_at=last_at, open=rows, store=store)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        disk = self._writable()
        check_shards(writes)
        with disk.lock:
            return [_commit(disk, write) for write in writes]

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        inbox = self._disk().inbox
        return tuple(inbox.values())[:limit] if inbox else ()

    # --- everybody -------------------------------------------------------------------

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        disk = self._writable()
        for command in commands:
            check_command(command)
        with disk.lock:
            return [_post(disk, command) for command in commands]

    async def fetch(self, wanted: Wanted) -> Found:
        d, w = self._disk(), wanted
        return Found(
            streams={name: d.streams.get(name, ()) for name in w.streams},
            summaries={name: d.summaries.get(name) for name in w.summaries},
            keys={key: _holder(d, key) for key in w.keys},
            bodies={ref: d.bodies.get(ref) for ref in w.bodies},
            children=_children(d, w.children) if w.children else {},
            answers={name: d.answers.get(name) for name in w.answers},
            waiting=frozenset(name for name in w.answers if name in d.inbox),
        )

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        return self._disk().log[after : after + limit]

    async def list(self, listing: Listing) -> Sequence[Summary]:
        return select(tuple(self._disk().summaries.values()), listing)

    async def count(self, listing: Listing, by: Sequence[str] = ()) -> Sequence[Count]:
        tests = _tests(listing)
        found = Counter(
            _values(s, by)
            for s in tuple(self._disk().summaries.values())
            if s.lane is not None and all(test(s) for test in tests)
        )
        found.update(of_pruned(listing, by, _pruned(self._disk())))
        return [Count(values, number) for values, number in found.items()]

    async def places(self) -> Sequence[str]:
        rows = tuple(self._disk().summaries.values())
        return sorted({_place(s.lane) for s in rows if s.lane is not None})

    async def last(self) -> Record | None:
        log = self._disk().log
        return log[-1] if log else None

    async def bodies(
        self, after: BodyRef | None = None, limit: int = 100
    ) -> Sequence[Body]:
        kept = tuple(self._disk().bodies.items())
        refs = sorted(ref for ref, body in kept if body is not None)
        rest = (ref for ref in refs if after is None or ref > after)
        found = dict(kept)
        return [b for ref in islice(rest, limit) if (b := found[ref]) is not None]

    async def keys(
        self, after: str = "", limit: int = 1000, part: str = ""
    ) -> Sequence[tuple[str, str]]:
        rows = sorted(self._disk().keys.items())
        fits = (
            row
            for row in rows
            if row[0] > after and part in ("", *_behind_the_place(row[0]))
        )
        return tuple(islice(fits, limit))

    # --- its means -------------------------------------------------------------------

    @property
    def maintenance(self) -> MemoryMaintenance:
        return MemoryMaintenance(self._disk, self._writable)

    def facts(self) -> Mapping[str, object]:
        return {}

    def ownership(self) -> MemoryOwnership:
        return self._ownership

    def doorbell(self) -> MemoryDoorbell:
        return MemoryDoorbell(self.disk.room)

    def _disk(self) -> MemoryDisk:
        if self._state not in ("open", "open for reading only"):
            raise NotOpenError(state=self._state)
        return self.disk

    def _writable(self) -> MemoryDisk:
        disk = self._disk()
        if self._state != "open":
            raise ReadOnlyError(path=self._address)
        return disk


class MemoryMaintenance:
    """The maintenance of a store in memory; most calls have no work."""

    def __init__(
        self, disk: Callable[[], MemoryDisk], writable: Callable[[], MemoryDisk]
    ) -> None:
        self._disk, self._writable = disk, writable

    async def checkpoint(self) -> bool:
        """No work: memory has only one place for data."""
        self._writable()
        return True

    async def sweep(self) -> int:
        """No work: a crash leaves no files."""
        self._writable()
        return 0

    async def rebuild(self, summaries: Iterable[Summary]) -> None:
        disk = self._writable()
        with disk.lock:
            fresh: dict[str, Summary] = {}
            for summary in summaries:
                check_summary(summary)
                _check_fits(summary, disk.streams)
                fresh[summary.stream] = summary
            disk.summaries = fresh

    async def note_watermark(self, store: str, lived: Lived | None = None) -> None:
        disk = self._writable()
        disk.mark = Watermark(store=store, head=disk.head, lived=lived)

    async def watermark(self) -> Watermark | None:
        return self._disk().mark

    async def contains_head(self, head: Head) -> bool:
        log = self._disk().log
        if not 0 <= head.position <= len(log):
            return False
        return head_after(BLANK, log[: head.position]) == head

    async def integrity(self) -> Sequence[str]:
        self._disk()
        return ()

    async def pruned(self) -> Sequence[Count]:
        return _pruned(self._disk())

    async def reclaim(self) -> bool:
        """No work: pruned streams free their memory at once."""
        self._writable()
        return True

    async def size(self) -> Mapping[str, int]:
        """The bytes of records and bodies; other rows are not counted."""
        disk = self._disk()
        log = sum(len(record.events) for record in disk.log)
        kept = filter(None, disk.bodies.values())
        return {"log": log, "body": sum(len(body.data) for body in kept)}

    async def copy(
        self, target: Path, tell: Callable[[int, int], None], *, text: bool = True
    ) -> None:
        """Refused: a store in memory is not copied to a file."""
        del tell, text
        raise InvalidInputError(
            field="target", problem=f"a store in memory is not copied to {target}"
        )


def _behind_the_place(key: str) -> Sequence[str]:
    return key.split("/")[3:4] if key.startswith("in:") else ()


def _pruned(disk: MemoryDisk) -> Sequence[Count]:
    return [Count(values, number) for values, number in disk.pruned.items()]


# --- a write -------------------------------------------------------------------------

_Streams = Mapping[str, tuple[Record, ...]]


def _commit(disk: MemoryDisk, write: Write) -> Stored | Refused:
    """Check the whole write first, so a refused write leaves no trace."""
    if write.base != disk.head:
        return Refused(log_moved(write.base, disk.head))
    check_values(write)
    try:
        grown = _grown(disk, write)
        streams = ChainMap(grown, disk.streams)
        keys = _new_keys(disk, write, streams)
    except ConflictError as exc:
        return Refused(exc)
    for summary in write.summaries:
        _check_fits(summary, streams)
    bodies = _new_bodies(disk, write, streams)
    if write.prune is not None:
        _prune(disk, write.prune)
    disk.streams.update(grown)
    disk.keys.update(keys)
    disk.bodies.update(bodies)
    disk.summaries.update((s.stream, s) for s in write.summaries)
    _answer(disk, write)
    disk.log.extend(write.records)
    disk.head = head_after(write.base, write.records)
    return Stored(disk.head)


def _prune(disk: MemoryDisk, prune: Prune) -> None:
    missing = [name for name in prune.streams if name not in disk.streams]
    if missing:
        raise no_stream("prune.streams", missing[0])
    gone = {*prune.streams}
    for name in gone:
        for r in disk.streams.pop(name):
            disk.log[r.position - 1] = tombstone(r.position, r.hash, prune.by)
        disk.summaries.pop(name, None)
    for ref in [ref for ref in disk.bodies if ref[0] in gone]:
        del disk.bodies[ref]
    for key in prune.keys:
        disk.keys.pop(key, None)
    for count in prune.counts:
        disk.pruned[count.values] = disk.pruned.get(count.values, 0) + count.count


def _grown(disk: MemoryDisk, write: Write) -> dict[str, tuple[Record, ...]]:
    """All records of the growing streams. Raises ConflictError for a stream whose
    version a record does not follow."""
    grown: dict[str, tuple[Record, ...]] = {}
    position = write.base.position
    for record in write.records:
        before = grown.get(record.stream) or disk.streams.get(record.stream, ())
        if record.before != _version(before):
            raise stream_moved(record, _version(before))
        if record.count < 1:
            raise no_events(record)
        position += 1
        if record.position != position:
            raise off_the_head(record, position)
        if record.shard != write.shard:
            raise wrong_shard(record)
        grown[record.stream] = (*before, record)
    return grown


def _version(records: Sequence[Record]) -> int:
    return records[-1].version if records else 0


def _new_keys(disk: MemoryDisk, write: Write, streams: _Streams) -> dict[str, str]:
    new: dict[str, str] = {}
    gone = () if write.prune is None else write.prune.keys
    for key, stream in write.keys:
        kept = None if key in gone else disk.keys.get(key)
        holder = new.get(key) or kept or _promised(disk, write, key)
        if holder is not None:
            raise key_taken(key, holder, _version(streams.get(holder, ())))
        if stream not in streams:
            raise no_stream("key.stream", stream)
        new[key] = stream
    return new


def _promised(disk: MemoryDisk, write: Write, key: str) -> str | None:
    """The stream to which a command in the inbox promised this key, unless this write
    takes the command out."""
    done, own = {*write.done}, {stream for name, stream in write.keys if name == key}
    waiting = (c for c in disk.inbox.values() if c.key == key and c.id not in done)
    return next((c.stream for c in waiting if c.stream not in own), None)


def _check_fits(summary: Summary, streams: _Streams) -> None:
    records = streams.get(summary.stream)
    if not records:
        raise no_stream("summary.stream", summary.stream)
    check_projection(summary, records[-1].version, records[0].position)
    if summary.parent is not None and summary.parent not in streams:
        raise no_stream("summary.parent", summary.parent)


def _new_bodies(
    disk: MemoryDisk, write: Write, streams: _Streams
) -> dict[BodyRef, Body | None]:
    """The new bodies and, as None, the erased ones."""
    new: dict[BodyRef, Body | None] = {}
    for body in write.bodies:
        ref = (body.stream, body.number)
        check_number(body.number)
        if body.stream not in streams:
            raise no_stream("body.stream", body.stream)
        if ref in new or ref in disk.bodies:
            raise body_there(ref)
        new[ref] = replace(body, origin=None)
    there = ChainMap(new, disk.bodies)
    new.update(dict.fromkeys(ref for ref in write.erase if ref in there))
    return new


def _answer(disk: MemoryDisk, write: Write) -> None:
    for name in write.done:
        disk.inbox.pop(name, None)
    for answer in write.answers:
        disk.answers.setdefault(answer.id, answer)
    surplus = len(disk.answers) - KEPT_ANSWERS
    if surplus > 0:
        for name in tuple(islice(disk.answers, surplus)):
            del disk.answers[name]


# --- commands and queries ------------------------------------------------------------


def _post(disk: MemoryDisk, command: Command) -> Posted:
    waiting = disk.inbox.get(command.id)
    if waiting is not None:
        return Posted(stream=waiting.stream, new=False)
    if command.id in disk.answers:
        return Posted(stream=command.stream, new=False)
    holder = None if command.key is None else _holder(disk, command.key)
    if holder is not None:
        return Posted(stream=holder, new=False)
    disk.inbox[command.id] = command
    return Posted(stream=command.stream, new=True)


def _holder(disk: MemoryDisk, key: str) -> str | None:
    """The stream that holds a key, in the log or by a command in the inbox."""
    waiting = (c.stream for c in disk.inbox.values() if c.key == key)
    return disk.keys.get(key) or next(waiting, None)


def _children(disk: MemoryDisk, turns: frozenset[str]) -> dict[str, tuple[str, ...]]:
    rows = [s for s in tuple(disk.summaries.values()) if s.parent in turns]
    rows.sort(key=lambda s: s.order)
    return {turn: tuple(s.stream for s in rows if s.parent == turn) for turn in turns}


def select(rows: Iterable[Summary], listing: Listing) -> Sequence[Summary]:
    """The summaries that pass a `Listing`, in its order."""
    tests = _tests(listing)
    if listing.before is not None:
        before = listing.before
        tests = [*tests, lambda s: s.order < before]
    found = (s for s in rows if all(test(s) for test in tests))
    first = nsmallest if listing.oldest else nlargest
    return first(listing.limit, found, key=lambda s: s.order)


def _place(lane: str) -> str:
    return "/".join(f"{lane}//".split("/")[:2])


def _values(s: Summary, by: Sequence[str]) -> tuple[int | str, ...]:
    known: dict[str, int | str] = {
        "hour": s.created // 3_600_000,
        "family": s.stream.partition(":")[0],
        "place": _place(s.lane or ""),
        "kind": s.kind or "",
        "phase": s.phase,
        "reason": s.reason or "",
        "failure": s.failure or "",
    }
    return tuple(known[name] for name in by)


def _tests(want: Listing) -> Sequence[Callable[[Summary], bool]]:
    since, until = want.since, want.until
    tests: list[Callable[[Summary], bool]] = [
        lambda s: s.stream.startswith(want.prefix) and s.stream.endswith(want.ending)
    ]
    if want.phases:
        tests.append(lambda s: s.phase in want.phases)
    if want.open is not None:
        tests.append(lambda s: s.open == want.open)
    if want.lane is not None:
        tests.append(lambda s: s.lane == want.lane)
    if want.parent is not None:
        tests.append(lambda s: s.parent == want.parent)
    if since is not None:
        tests.append(lambda s: s.created >= since)
    if until is not None:
        tests.append(lambda s: s.created < until)
    return [*tests, *_more_tests(want)]


def _more_tests(want: Listing) -> Sequence[Callable[[Summary], bool]]:
    tests: list[Callable[[Summary], bool]] = []
    if want.lanes:
        tests.append(lambda s: s.lane is not None and s.lane.startswith(want.lanes))
    if want.kinds:
        tests.append(lambda s: s.kind in want.kinds)
    if want.reasons:
        tests.append(lambda s: bool({s.reason, s.failure} & {*want.reasons}))
    if want.person is not None:
        tests.append(lambda s: s.person == want.person)
    return tests
