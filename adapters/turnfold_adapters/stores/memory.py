"""A store in memory, for tests: the same rules as a database, without one.

A `MemoryDisk` is what survives; a `MemoryStore` is one process's handle on it. Several
handles on one disk play several processes; `MemoryDisk.fork()` is the image that a
crash leaves behind. Every value on a disk is immutable, so a fork copies only the outer
containers: a crash explorer makes them by the hundred thousand.
"""

from __future__ import annotations  # `list` is a method of the port, too

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest

from turnfold.canonical import EMPTY_HEAD, next_head
from turnfold.codec import Record
from turnfold.errors import (
    BusyError,
    ConflictError,
    MissingBodyError,
    NotAStoreError,
    NotOpenError,
    ReadOnlyError,
)
from turnfold.ports.store import Append, Body, Head, Listing, Mark, Summary
from turnfold_adapters.stores.checking import (
    advance,
    check_projection,
    check_shape,
    check_summary,
    no_stream,
)
from turnfold_adapters.stores.memory_ownership import (
    MemoryDoorbell,
    MemoryOwnership,
    Room,
)

_BUSY_S = 5.0


class MemoryDisk:
    """What is durable, and (in `room`) the processes that look at it."""

    __slots__ = (
        "bodies",
        "created",
        "generation",
        "head",
        "keys",
        "lock",
        "log",
        "mark",
        "room",
        "streams",
        "summaries",
    )

    def __init__(self) -> None:
        self.created = False
        self.generation = 0  # counts the workers there were, for their ids
        self.head = Head(0, EMPTY_HEAD)
        self.log: list[Record] = []
        self.streams: dict[str, tuple[Record, ...]] = {}
        self.summaries: dict[str, Summary] = {}
        self.bodies: dict[str, Body] = {}
        self.keys: dict[str, str] = {}
        self.mark: Mark | None = None
        self.lock = threading.Lock()
        self.room = Room()

    def fork(self) -> MemoryDisk:
        """A copy of all that was committed, with no process alive on it.

        Costs one shallow copy of each table; either disk then goes its own way.
        """
        new = MemoryDisk()
        new.created = self.created
        new.generation = self.generation
        new.head = self.head
        new.log = self.log.copy()
        new.streams = self.streams.copy()
        new.summaries = self.summaries.copy()
        new.bodies = self.bodies.copy()
        new.keys = self.keys.copy()
        new.mark = self.mark
        new.room.record = self.room.record
        return new


class MemoryStore:
    """The store port over a `MemoryDisk`; a fresh one if none is given.

    Closing keeps the data on the disk. Every call but `open`, `close`, `ownership` and
    `doorbell` raises NotOpenError when the store is not open.
    """

    def __init__(
        self, disk: MemoryDisk | None = None, *, address: str = "memory:"
    ) -> None:
        self.disk = MemoryDisk() if disk is None else disk
        self._address = address
        self._state = "not open"
        self._seen = 0
        self._writing = False
        self._ownership = MemoryOwnership(self.disk, self._writable)

    @property
    def address(self) -> str:
        return self._address

    def fork(self) -> MemoryStore:
        """A handle, not open, on a fork of the disk."""
        return MemoryStore(self.disk.fork(), address=self._address)

    @property
    def reads_while_writing(self) -> bool:
        """A commit changes what others read, step by step."""
        return False

    def open(self, *, read_only: bool = False) -> None:
        """Opening twice is opening once. Raises NotAStoreError for an empty disk that
        may not be written."""
        if read_only and not self.disk.created:
            raise NotAStoreError(path=self._address, problem="it does not exist")
        self.disk.created = True
        self._state = "open for reading only" if read_only else "open"
        self._seen = self.disk.head.position

    def close(self) -> None:
        """Ends this handle as the end of its process would; harmless when closed."""
        self._ownership.release()
        self._state = "closed"

    def reopen(self) -> None:
        """As if the connection to a database had been lost and made again."""
        self.open(read_only=self._state == "open for reading only")

    @property
    def head(self) -> Head:
        return self._disk().head

    def read(self, stream: str) -> Sequence[Record]:
        return self._disk().streams.get(stream, ())

    def since(self, position: int) -> Sequence[Record]:
        return self._disk().log[position:]

    def log(self, after: int = 0) -> Iterator[Record]:
        return iter(self._disk().log[after:])

    def lookup(self, key: str) -> str | None:
        return self._disk().keys.get(key)

    def summary(self, stream: str) -> Summary | None:
        return self._disk().summaries.get(stream)

    def list(self, listing: Listing) -> Sequence[Summary]:
        return select(tuple(self._disk().summaries.values()), listing)

    def open_streams(self) -> Iterator[Summary]:
        rows = [s for s in tuple(self._disk().summaries.values()) if s.open]
        rows.sort(key=lambda s: s.order)
        return iter(rows)

    def body(self, digest: str) -> bytes:
        return self._body(digest).data

    def salt(self, digest: str) -> bytes:
        return self._body(digest).salt

    def bodies(self, digests: Sequence[str]) -> Iterator[Body]:
        return filter(None, map(self._disk().bodies.get, digests))

    def summaries(self, streams: Sequence[str]) -> Iterator[Summary]:
        return filter(None, map(self._disk().summaries.get, streams))

    @contextmanager
    def write(self) -> Iterator[MemoryTx]:
        disk = self._writable()
        if self._writing:  # by this very handle
            raise BusyError(path=self._address, waited_ms=0)
        if not disk.lock.acquire(timeout=_BUSY_S):
            raise BusyError(path=self._address, waited_ms=int(_BUSY_S * 1000))
        self._writing = True
        tx = MemoryTx(disk)
        alone = self._seen == disk.head.position
        try:
            yield tx
            tx.commit()
            if alone:  # then the change is this handle's own
                self._seen = disk.head.position
        finally:
            tx.over = True
            self._writing = False
            disk.lock.release()

    def rebuild(self, summaries: Iterable[Summary]) -> None:
        disk = self._writable()
        with disk.lock:
            fresh: dict[str, Summary] = {}
            for summary in summaries:
                check_summary(summary)
                records = disk.streams.get(summary.stream)
                if records is None:
                    raise no_stream("summary.stream", summary.stream)
                check_projection(summary, records[-1].version, records[0].position)
                fresh[summary.stream] = summary
            disk.summaries = fresh

    def changed(self) -> bool:
        position = self._disk().head.position
        changed = position != self._seen
        self._seen = position
        return changed

    def checkpoint(self) -> bool:
        """There is nothing to move in memory."""
        self._writable()
        return True

    def sweep(self) -> int:
        """There is nothing that a crash could leave behind."""
        self._writable()
        return 0

    def mark(self, store: str) -> None:
        disk = self._writable()
        disk.mark = Mark(store=store, head=disk.head)

    def marked(self) -> Mark | None:
        return self._disk().mark

    def had(self, head: Head) -> bool:
        log = self._disk().log
        if head.position > len(log):
            return False
        digest = EMPTY_HEAD
        for record in log[: head.position]:
            digest = next_head(digest, record.hash)
        return digest == head.hash

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

    def _body(self, digest: str) -> Body:
        body = self._disk().bodies.get(digest)
        if body is None:
            raise MissingBodyError(digest=digest)
        return body


class MemoryTx:
    """A write transaction: an overlay over the disk, merged into it at the commit."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self.over = False
        self._head = disk.head
        self._log: list[Record] = []
        self._streams: dict[str, tuple[Record, ...]] = {}
        self._summaries: dict[str, Summary] = {}
        self._bodies: dict[str, Body | None] = {}  # none: erased
        self._keys: dict[str, str] = {}

    @property
    def head(self) -> Head:
        return self._head

    def read(self, stream: str) -> Sequence[Record]:
        own = self._streams.get(stream)
        return self._disk.streams.get(stream, ()) if own is None else own

    def since(self, position: int) -> Sequence[Record]:
        below = self._disk.log
        if position <= len(below):
            return below[position:] + self._log
        return self._log[position - len(below) :]

    def lookup(self, key: str) -> str | None:
        own = self._keys.get(key)
        return self._disk.keys.get(key) if own is None else own

    def summary(self, stream: str) -> Summary | None:
        own = self._summaries.get(stream)
        return self._disk.summaries.get(stream) if own is None else own

    def list(self, listing: Listing) -> Sequence[Summary]:
        merged = self._disk.summaries | self._summaries
        return select(merged.values(), listing)

    def append(self, append: Append) -> None:
        """All checks come first, so a refused append leaves no trace."""
        if self.over:
            raise NotOpenError(state="past the end of this transaction")
        check_shape(append)
        versions, head = advance(append.records, self._head, self._version)
        streams = self._grown(append.records)
        for key, stream in append.keys:
            if (taken := self.lookup(key)) is not None:
                actual = versions.get(taken) or self._version(taken)
                raise ConflictError(stream=taken, expected=0, actual=actual)
            if stream not in streams and not self.read(stream):
                raise no_stream("key.stream", stream)
        keys = dict(append.keys)
        if len(keys) != len(append.keys):
            raise ConflictError(stream=append.keys[0][1], expected=0, actual=1)
        for summary in append.summaries:
            self._check(summary, streams)
        self._head = head
        self._log.extend(append.records)
        self._streams.update(streams)
        self._summaries.update((s.stream, s) for s in append.summaries)
        self._bodies.update((b.digest, b) for b in append.bodies)
        self._bodies.update(dict.fromkeys(append.erase))
        self._keys.update(keys)

    def commit(self) -> None:
        """Merge; the head comes last, so that a reader never sees it run ahead."""
        self.over = True
        disk = self._disk
        for digest, body in self._bodies.items():
            if body is not None:
                disk.bodies[digest] = body
            else:
                disk.bodies.pop(digest, None)
        disk.keys.update(self._keys)
        disk.streams.update(self._streams)
        disk.summaries.update(self._summaries)
        disk.log.extend(self._log)
        disk.head = self._head

    def _version(self, stream: str) -> int:
        records = self.read(stream)
        return records[-1].version if records else 0

    def _grown(self, records: Sequence[Record]) -> dict[str, tuple[Record, ...]]:
        streams: dict[str, list[Record]] = {}
        for record in records:
            streams.setdefault(record.stream, []).append(record)
        return {name: (*self.read(name), *new) for name, new in streams.items()}

    def _check(self, summary: Summary, grown: dict[str, tuple[Record, ...]]) -> None:
        records = grown.get(summary.stream) or self.read(summary.stream)
        if not records:
            raise no_stream("summary.stream", summary.stream)
        check_projection(summary, records[-1].version, records[0].position)
        parent = summary.parent
        if parent is not None and parent not in grown and not self.read(parent):
            raise no_stream("summary.parent", parent)


def select(rows: Iterable[Summary], listing: Listing) -> Sequence[Summary]:
    """The filter of a `Listing` over summaries, newest first."""
    tests = _tests(listing)
    found = (s for s in rows if all(test(s) for test in tests))
    return nlargest(listing.limit, found, key=lambda s: s.order)


def _tests(want: Listing) -> list[Callable[[Summary], bool]]:
    since, until, before = want.since, want.until, want.before
    tests: list[Callable[[Summary], bool]] = [
        lambda s: s.stream.startswith(want.prefix)
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
    if before is not None:
        tests.append(lambda s: s.order < before)
    return tests
