"""What a store is to the kernel (specs/design.md 7). `turnfold_model.check_store` is its test.

A store keeps records, one summary row per stream, bodies and keys. It decides nothing:
the kernel says what a record means. Everything but records, bodies and keys can be
rebuilt from the log. All calls are synchronous and belong to one thread at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from attrs import field

from turnfold.codec import Record
from turnfold.frozen import frozen


@frozen
class Head:
    """Where the log ends: the last position and the running hash up to it."""

    position: int
    hash: bytes


@frozen(kw_only=True)
class Summary:
    """The projection of one stream: enough to schedule and to list without a fold.

    `open`: the stream may still move by itself. `order`: position of its first event.
    `parent`: for an entry its turn's stream.
    """

    stream: str
    version: int
    open: bool
    phase: str
    order: int
    created: int  # wall ms of the first event
    updated: int  # wall ms of the last event
    lane: str | None = None
    parent: str | None = None
    kind: str | None = None
    due: int | None = None
    expires: int | None = None
    reason: str | None = None


@frozen(kw_only=True)
class Body:
    """Bytes beside the log under their salted digest (canonical.body_digest). Not for
    stores is `origin`, what the bytes were made of."""

    digest: str
    salt: bytes
    data: bytes
    origin: object = field(default=None, eq=False, repr=False)


@frozen(kw_only=True)
class Mark:
    """How far a log had got, noted outside of it. `store`: the id in its first event."""

    store: str
    head: Head


@frozen(kw_only=True)
class Append:
    """All or nothing: records of any number of streams with what belongs to them.

    The records of one stream follow its current version without a gap; positions
    follow `Tx.head`. `keys`: (dedupe key, stream), each new. `erase`: digests of bodies
    that are gone for good after the COMMIT, their salts too; one that is not there is
    no error.
    """

    records: Sequence[Record] = ()
    summaries: Sequence[Summary] = ()
    bodies: Sequence[Body] = ()
    keys: Sequence[tuple[str, str]] = ()
    erase: Sequence[str] = ()


@frozen(kw_only=True)
class Listing:
    """A filter for summaries; newest first, at most `limit`, before `before`."""

    prefix: str = "entry:"  # of the stream name
    phases: tuple[str, ...] = ()
    open: bool | None = None
    lane: str | None = None
    parent: str | None = None
    since: int | None = None  # created at or after, wall ms
    until: int | None = None  # created before, wall ms
    before: int | None = None  # order less than: the page after an earlier one
    limit: int = 100


class Reads(Protocol):
    """What can be read, inside a write transaction or outside one."""

    @property
    def head(self) -> Head: ...

    def read(self, stream: str) -> Sequence[Record]:
        """All records of a stream in order; nothing for a stream that is not there."""

    def since(self, position: int) -> Sequence[Record]:
        """All records after a position, in order: what others appended."""

    def lookup(self, key: str) -> str | None:
        """The stream that a dedupe key belongs to."""

    def summary(self, stream: str) -> Summary | None: ...

    def list(self, listing: Listing) -> Sequence[Summary]: ...


class Tx(Reads, Protocol):
    """An open write transaction: exclusive, so what it reads stays true in it."""

    def append(self, append: Append) -> None:
        """Take an append into this transaction.

        Raises ConflictError, naming stream and versions, if a stream is not where the
        records expect it or a key is taken; then nothing of this append is in the
        transaction and the appends before it are untouched.
        """


class Store(Reads, Protocol):
    """A log with its side tables. Not open until `open()`; opening writes nothing to
    a store that exists."""

    @property
    def address(self) -> str:
        """What a person calls this store: a path or an address without secrets."""

    @property
    def reads_while_writing(self) -> bool:
        """One thread may read while another one ends a transaction."""

    def open(self, *, read_only: bool = False) -> None:
        """Raises NewerSchemaError, NotAStoreError, UnsafeStoreError, DiskError."""

    def close(self) -> None:
        """Ends everything this handle has, its ownership too."""

    def reopen(self) -> None:
        """Forget every connection and open anew; ownership stays. For use after
        FateUnknownError."""

    def write(self) -> AbstractContextManager[Tx]:
        """BEGIN on entering, COMMIT on leaving, ROLLBACK when an exception passes.

        Raises BusyError before anything was read; DiskError when surely nothing was
        stored; FateUnknownError when COMMIT itself failed and may have reached the
        disk (then close, open and read). ReadOnlyError if it was opened so.
        """

    def log(self, after: int = 0) -> Iterator[Record]:
        """Every record after a position, streamed."""

    def open_streams(self) -> Iterator[Summary]:
        """The summaries of all open streams by `order`."""

    def body(self, digest: str) -> bytes:
        """Raises MissingBodyError."""

    def salt(self, digest: str) -> bytes:
        """The salt of a body, to compare other bytes with it. MissingBodyError."""

    def bodies(self, digests: Sequence[str]) -> Iterator[Body]:
        """Those of these bodies that can be read, in any order and unchecked, and
        quicker than one by one. Why one is not among them, `body` says."""

    def summaries(self, streams: Sequence[str]) -> Iterator[Summary]:
        """The summaries of those of these streams that have one, in any order."""

    def rebuild(self, summaries: Iterable[Summary]) -> None:
        """Replace all summaries in one transaction (they are projections)."""

    def changed(self) -> bool:
        """True if another process may have appended since the last call; cheap."""

    def checkpoint(self) -> bool:
        """Work that can wait for an idle moment, such as moving what was written to
        its final place. True if none is left; and then nothing is left of what was
        erased. Never raises for a disk that fails: it is tried again later."""

    def sweep(self) -> int:
        """Remove what a crash left behind and nothing names; how much that was."""

    def mark(self, store: str) -> None:
        """Note the head outside the log, so that an older copy put in its place is
        noticed. May lag behind; is never ahead of what is durable. DiskError."""

    def marked(self) -> Mark | None:
        """What was noted last, if it can be read."""

    def had(self, head: Head) -> bool:
        """True if a transaction of this log ended with just this head."""

    def ownership(self) -> "Ownership":
        """The right to be the worker of this store."""

    def doorbell(self) -> "Doorbell":
        """The way to wake the worker of this store."""


@frozen(kw_only=True)
class Owner:
    """Who a worker is. The lock decides; this only explains."""

    id: str  # short and unique, stands in events
    boot: str
    pid: int
    started: int  # start time of the process in clock ticks since boot
    host: str


class Ownership(Protocol):
    """One worker per store at a time, decided by the operating system or database."""

    def take(self) -> Owner | None:
        """Become the owner, or None while another one lives."""

    def current(self) -> Owner | None:
        """The last known owner's record, alive or not."""

    def release(self) -> None: ...

    @property
    def held(self) -> bool:
        """True while this handle is the owner and nobody else could become it: false
        when the lock was taken away under it."""

    async def wait(self) -> None:
        """Return when it may be worth trying `take` again."""


class Doorbell(Protocol):
    def ring(self) -> None:
        """Wake the worker, if there is one. Never raises, never blocks."""

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` in the running asyncio loop at every ring; returns a stop."""
