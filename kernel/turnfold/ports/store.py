"""The kernel's view of a store (specs/design.md, 7). `turnfold_model.check_store` tests
a store against it.

A store keeps records, one summary row per stream, bodies, dedupe keys and an inbox. It
decides nothing: only the kernel interprets a record. Records, bodies, keys and the
inbox are primary data; summaries can be rebuilt from the log.

The port is asynchronous and has no interactive transaction. A decision reads memory;
missing streams are fetched in one call, and the decision runs again. Only the owner of
the store commits; every other process posts commands. A store decides itself if a call
suspends: SQLite answers at once or waits for a thread behind the same call, and the
loop never waits for the disk.
"""

from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from attrs import Factory, evolve, frozen
from msgspec import Struct

from turnfold._log.canonical import (
    BLANK,
    Body,
    BodyRef,
    Head,
    Record,
    head_after,
    tombstone,
)
from turnfold.clock import Lived
from turnfold.errors import ConflictError, InvalidInputError

__all__ = [
    "BLANK",
    "COUNT_BY",
    "Answer",
    "Body",
    "BodyRef",
    "Command",
    "Count",
    "Doorbell",
    "Found",
    "Head",
    "Keeping",
    "Listing",
    "Loaded",
    "Maintenance",
    "Owner",
    "Ownership",
    "Posted",
    "Prune",
    "Record",
    "Refused",
    "Store",
    "Stored",
    "Summary",
    "Wanted",
    "Watermark",
    "Write",
    "body_pages",
    "head_after",
    "key_pages",
    "now",
    "record_pages",
    "summary_pages",
    "tombstone",
]

_T = TypeVar("_T")


class Summary(Struct, frozen=True, gc=False):
    """The projection of one stream: enough to schedule and to list without a fold.

    `open`: the stream may still move by itself. `order`: position of its first record;
    `created` never falls with it. `parent`: for an entry its turn's stream. `failure`:
    the class of its latest failure, or "tried" while it is planned or looked up.
    `person`: the stream waits for a person's decision.
    """

    stream: str
    version: int
    open: bool
    phase: str
    order: int
    created: int  # log ms of the first event
    updated: int  # log ms of the last event
    lane: str | None = None
    parent: str | None = None
    kind: str | None = None
    due: int | None = None
    expires: int | None = None
    reason: str | None = None
    failure: str | None = None
    person: bool = False


@frozen(kw_only=True)
class Watermark:
    """The head of a log, noted outside of it. `store`: the id in its first event.
    `failover`: the server's present history, if it differs from the history at the time
    of the note: then commits after the note may be lost."""

    store: str
    head: Head
    lived: Lived | None = None  # the time of the life that noted it
    failover: str | None = None


@frozen(kw_only=True)
class Command:
    """A request in the inbox, of a process that does not own the store.

    `id`: unique, made by the caller; posting the same id again is harmless. `stream`:
    the turn or entry that the command makes or changes. `key`: a dedupe key that must
    be new in the log and in the inbox, or None. `at`: wall ms. `data`: canonical JSON
    of the arguments. `bodies`: bytes that belong to it. `answer`: the caller waits for
    an answer of the owner. A store ignores `seals`, which the owner makes of the bodies
    before it decides.
    """

    id: str
    kind: str  # "accept", "enqueue", "abort" or an operator's act
    stream: str
    at: int
    data: bytes
    key: str | None = None
    bodies: tuple[bytes, ...] = ()
    answer: bool = False
    seals: tuple[Any, ...] = ()


@frozen(kw_only=True)
class Posted:
    """`new` is False when the key or the id was there before; `stream` then holds the
    key. `new` is None where only the owner can know."""

    stream: str
    new: bool | None


@frozen(kw_only=True)
class Answer:
    """The owner's answer to a command. `data`: canonical JSON, written once."""

    id: str
    at: int
    data: bytes


class Prune(Struct, frozen=True, kw_only=True):
    """Whole streams that leave the log. `by`: the position of the `store.pruned`
    record.

    Of each of their records the position, the hash and `by` stay (`Record.pruned`), so
    that the running hash can still be checked. Their summaries and bodies go for good.
    `keys`: dedupe keys that go with them. `counts`: by COUNT_BY; `count` adds them to
    its result.
    """

    by: int
    streams: Sequence[str]
    keys: Sequence[str] = ()
    counts: Sequence["Count"] = ()


class Write(Struct, frozen=True, kw_only=True):
    """The records of one commit to one shard; all of them are stored, or none.

    The log must end at `base`; positions follow it. The records of one stream follow
    its version. `keys`: (dedupe key, stream), each new: no stream of the log holds it,
    and no command in the inbox, except those of `done` and those of the same stream.
    `erase`: bodies that the COMMIT erases for good, with their salts; a missing one is
    no error. `done`: ids of commands that this commit takes out of the inbox; a missing
    one is no error. `answers`: for waiting callers. `prune`: applied before `keys`.
    """

    base: Head
    records: Sequence[Record] = ()
    summaries: Sequence[Summary] = ()
    bodies: Sequence[Body] = ()
    keys: Sequence[tuple[str, str]] = ()
    erase: Sequence[BodyRef] = ()
    done: Sequence[str] = ()
    answers: Sequence[Answer] = ()
    prune: Prune | None = None
    shard: int = 0


class Stored(Struct, frozen=True):
    """The write is durable; the log of its shard now ends at `head`."""

    head: Head


@frozen
class Refused:
    """The write is refused as a whole. `why` names the stream that has moved, the key
    that is taken, or the position at which the log ends instead of `base`."""

    why: ConflictError


@frozen(kw_only=True)
class Loaded:
    """The owner's starting point: the head, the time of the last record, and the
    summaries of all open streams and of the stream `store`, by `order`."""

    head: Head
    last_at: int
    open: Sequence[Summary]
    store: Summary | None


@frozen(kw_only=True)
class Wanted:
    """All state that one tick needs, fetched in one call."""

    streams: frozenset[str] = frozenset()  # all records of each
    summaries: frozenset[str] = frozenset()
    # Asks for the stream that holds each key, in the log or in the inbox.
    keys: frozenset[str] = frozenset()
    bodies: frozenset[BodyRef] = frozenset()
    children: frozenset[str] = frozenset()  # the entries of each turn, in order
    answers: frozenset[str] = frozenset()  # of commands, by id


@frozen(kw_only=True)
class Found:
    """The answer to a Wanted: each wanted name is a key of its mapping, with an empty
    sequence or None where nothing is stored.

    `waiting`: the commands of `answers` that are still in the inbox. The store does not
    check a body against its digest: only the caller knows the digest.
    """

    streams: Mapping[str, Sequence[Record]] = Factory(dict)
    summaries: Mapping[str, Summary | None] = Factory(dict)
    keys: Mapping[str, str | None] = Factory(dict)
    bodies: Mapping[BodyRef, Body | None] = Factory(dict)
    children: Mapping[str, Sequence[str]] = Factory(dict)
    answers: Mapping[str, Answer | None] = Factory(dict)
    waiting: frozenset[str] = frozenset()


@frozen(kw_only=True)
class Listing:
    """A filter for summaries; newest first, at most `limit`, before `before`.

    `ending`: of the stream name. `lanes`: prefixes of lanes, each a whole channel and
    account (`t/a/`) or a whole conversation (`t/a/c/`). `reasons`: the reason or the
    failure class is one of them. `oldest`: the oldest first.
    """

    prefix: str = "entry:"  # of the stream name
    ending: str = ""
    phases: tuple[str, ...] = ()
    open: bool | None = None
    lane: str | None = None
    parent: str | None = None
    lanes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    person: bool | None = None
    since: int | None = None  # created at or after, log ms
    until: int | None = None  # created before, log ms
    before: int | None = None  # only orders below this: the next page
    limit: int = 100
    oldest: bool = False


# The values to count summaries by: the hour of `created` in hours since 1970, the
# family of the stream, the first two parts of the lane, and four fields unchanged.
COUNT_BY = ("hour", "family", "place", "kind", "phase", "reason", "failure")


@frozen
class Count:
    """How many summaries have these values. `values` are in the wanted order; None or
    an empty text means no value."""

    values: tuple[int | str, ...]
    count: int


class Store(Protocol):
    """A log with its side tables. Not open until `open()`; opening writes nothing to a
    store that exists. Calls come from one event loop, and several may be under way."""

    @property
    def address(self) -> str:
        """This store's name for people: a path or an address without secrets."""

    async def open(self, *, read_only: bool = False) -> None:
        """Raises NewerSchemaError, NotAStoreError, UnsafeStoreError, DiskError."""

    async def close(self) -> None:
        """Release all resources of this handle, its ownership too. A commit that is
        under way ends first. Harmless when closed."""

    async def reopen(self) -> None:
        """Forget every connection and open anew; ownership stays. For use after
        FateUnknownError."""

    # --- the owner -------------------------------------------------------------------

    async def load(self) -> Loaded:
        """The end of the log and the open streams."""

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        """Compare and store, one answer for each write; at most one write per shard.

        A cancelled caller does not cancel a commit that has begun. Raises
        InvalidInputError for a value that cannot be stored, BusyError and DiskError
        when surely nothing was stored, FateUnknownError when the COMMIT failed and may
        have reached the disk (then reopen, load, decide again), ReadOnlyError,
        NotOpenError.
        """

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        """The oldest commands in the inbox, in the order in which they became durable.
        Cheap when there are none: a worker asks a few times a second."""

    # --- everybody -------------------------------------------------------------------

    async def post(self, commands: Sequence[Command]) -> Sequence[Posted]:
        """Put commands into the inbox: durable when this returns, each once.

        A command is not stored again if the log or the inbox holds its key. Raises the
        errors of `commit`; after FateUnknownError posting the same ids again is safe.
        """

    async def fetch(self, wanted: Wanted) -> Found:
        """The committed rows, in one round trip. A damaged row is returned unchanged:
        the reader of a record or a body reports the damage."""

    async def log(self, after: int = 0, limit: int = 1000) -> Sequence[Record]:
        """The records after a position, in order, at most `limit`; pruned ones, too."""

    async def list(self, listing: Listing) -> Sequence[Summary]:
        """The summaries that pass the filter."""

    async def count(self, listing: Listing, by: Sequence[str] = ()) -> Sequence[Count]:
        """How many summaries with a lane pass the filter, grouped by names of COUNT_BY;
        in no order, without zeros. `limit`, `before` and `oldest` are ignored. Pruned
        streams are counted by whole hours, if the filter uses only values of
        COUNT_BY."""

    async def places(self) -> Sequence[str]:
        """The first two parts of every lane with a stream, in order."""

    async def last(self) -> Record | None:
        """The last record of the log."""

    async def bodies(
        self, after: BodyRef | None = None, limit: int = 100
    ) -> Sequence[Body]:
        """All stored bodies, in an order of the store's own, a page at a time: `after`
        is the last body of the page before. For audits and exports."""

    async def keys(
        self, after: str = "", limit: int = 1000, part: str = ""
    ) -> Sequence[tuple[str, str]]:
        """All dedupe keys with their streams, by key, a page at a time. `part`: only
        keys of inbound messages with this fourth part: the id of the message, or the
        key that its channel gave it."""

    # --- parts of a store
    # --------------------------------------------------------------

    @property
    def maintenance(self) -> "Maintenance | None":
        """The maintenance of this store; None if it needs none."""

    def facts(self) -> Mapping[str, object]:
        """Facts for `health()`, such as where commits run and how long the disk takes."""

    def ownership(self) -> "Ownership":
        """The right to be the worker of this store."""

    def doorbell(self) -> "Doorbell":
        """The way to wake the worker of this store."""


class Maintenance(Protocol):
    """Calls for idle moments of the owner. None of them blocks the loop."""

    async def checkpoint(self) -> bool:
        """Move the written pages to their final place. True if nothing is left to do;
        then no bytes of erased bodies are left. Does not raise for a failing disk: a
        later call tries again."""

    async def sweep(self) -> int:
        """Remove unnamed files that a crash left behind; returns their number."""

    async def rebuild(self, summaries: Iterable[Summary]) -> None:
        """Replace all summaries in one transaction: they are projections."""

    async def note_watermark(self, store: str, lived: Lived | None = None) -> None:
        """Note the head outside the log, and the server's history, if it has one. So an
        older copy in the place of the store is noticed. The note may lag behind, but is
        never ahead of the durable log. Raises DiskError."""

    async def watermark(self) -> Watermark | None:
        """The last note, if it can be read."""

    async def contains_head(self, head: Head) -> bool:
        """True if a commit of this log ended with exactly this head."""

    async def integrity(self) -> Sequence[str]:
        """The database's findings about its own files, a line each."""


@runtime_checkable
class Following(Protocol):
    """A store that may be a copy which follows another server."""

    async def as_of(self) -> int | None:
        """The time of the last commit that this copy has for certain, in ms UTC; None if
        it is no copy."""


@runtime_checkable
class Keeping(Protocol):
    """The maintenance of a store that can be pruned, measured and copied. A store
    without it does not support `Write.prune`."""

    async def pruned(self) -> Sequence[Count]:
        """The counts of pruned streams, by COUNT_BY."""

    async def reclaim(self) -> bool:
        """Reuse the room of pruned streams for new ones, a bounded piece at a time.
        True if nothing is left to do. Only the owner calls it."""

    async def size(self) -> Mapping[str, int]:
        """Bytes of each part: each file, each table of the database, its free
        pages."""

    async def copy(
        self, target: Path, tell: Callable[[int, int], None], *, text: bool = True
    ) -> None:
        """Write the commits up to now to a new store at `target`, while others go on
        writing. `tell` gets the number of copied pages and of all pages. No file is at
        `target` before the copy is durable. The mark beside the store is not copied.
        Without `text` the copy has no bodies and no commands, and is read-only: its
        `facts` say `text` is False."""


@frozen(kw_only=True)
class Owner:
    """The identity of a worker, for people. The lock alone decides the ownership."""

    id: str  # short and unique, used in events
    boot: str
    pid: int
    started: int  # start time of the process in clock ticks since boot
    host: str


class Ownership(Protocol):
    """One worker per store at a time, decided by the operating system or database."""

    async def take(self) -> Owner | None:
        """Become the owner, or None while another one lives."""

    async def current(self) -> Owner | None:
        """The last known owner's record, alive or not."""

    async def taken(self) -> bool | None:
        """Is a process the owner now, which has not released the store? None where this
        host cannot know. It takes no lock."""

    def release(self) -> None:
        """Release the ownership, if held, after a commit that is under way."""

    @property
    def held(self) -> bool:
        """Is this handle the owner, and has it not lost the lock?"""

    @property
    def ended(self) -> bool:
        """True if the owner is a kernel of this process whose event loop is closed."""

    @property
    def stopped(self) -> bool:
        """True if the owner's process is stopped on this host, by SIGSTOP or a debugger."""

    async def wait(self) -> None:
        """Return when it may be worth trying `take` again."""


class Doorbell(Protocol):
    def ring(self) -> None:
        """Wake the worker, if there is one. Never raises, never blocks."""

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` in the running asyncio loop at every ring; returns a stop."""


def now(call: Coroutine[Any, Any, _T]) -> _T:
    """The result of a call that does not suspend, for callers without an event loop.
    Raises RuntimeError if the call suspends; the call is then closed."""
    try:
        call.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    call.close()
    msg = f"{call!r:.200} waits for something; run it in an event loop"
    raise RuntimeError(msg)


# --- Finding a store by its address, through entry points: the kernel imports no adapter ---


GROUP = "turnfold.stores"


def factory_at(address: str | Path) -> tuple[Callable[..., Store], str]:
    """The factory of a store of this kind, and the rest of the address."""
    from importlib.metadata import entry_points  # noqa: PLC0415  26 ms, only at open

    scheme, colon, rest = str(address).partition(":")
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if rest.startswith("//") and scheme not in known and isinstance(address, str):
        kinds = ", ".join(sorted(known))
        problem = (
            f"no store of the kind {scheme!r:.40}; there are {kinds}, and file names"
        )
        raise InvalidInputError(field="address", problem=problem)
    if not colon or len(scheme) == 1 or scheme not in known:
        scheme, rest = "sqlite", str(address)
    if scheme not in known:
        problem = "no store is installed for it; install turnfold as a package"
        raise InvalidInputError(field="address", problem=problem)
    return cast("Callable[..., Store]", known[scheme].load()), rest


def store_at(address: str | Path) -> Store:
    """The store at an address, not open yet. Raises InvalidInputError for an unknown
    kind of address."""
    factory, rest = factory_at(address)
    try:
        return factory(rest) if rest else factory()
    except TypeError as exc:
        problem = f"no address of a store of its kind: {address}"
        raise InvalidInputError(field="address", problem=problem) from exc


# --- Whole contents of a store: loops over the paged calls of the port ---


RECORDS = 1_000
BODIES = 100  # each may have 64 KiB and more
KEYS = 1_000
SUMMARIES = 1_000


async def record_pages(store: Store, after: int = 0) -> AsyncIterator[Sequence[Record]]:
    """The log after a position."""
    while page := await store.log(after, RECORDS):
        yield page
        after = page[-1].position


async def summary_pages(
    store: Store, listing: Listing, size: int = SUMMARIES
) -> AsyncIterator[Sequence[Summary]]:
    """All summaries that pass a filter, newest first; its `limit` is ignored."""
    want = evolve(listing, limit=size)
    while page := await store.list(want):
        yield page
        if len(page) < size:
            return
        want = evolve(want, before=page[-1].order)


async def body_pages(store: Store) -> AsyncIterator[Sequence[Body]]:
    """All stored bodies."""
    after: BodyRef | None = None
    while page := await store.bodies(after, BODIES):
        yield page
        after = page[-1].stream, page[-1].number


async def key_pages(store: Store) -> AsyncIterator[Sequence[tuple[str, str]]]:
    """All dedupe keys with their streams."""
    after = ""
    while page := await store.keys(after, KEYS):
        yield page
        after = page[-1][0]
