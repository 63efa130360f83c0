"""The tools of the checks of a store: a place, records, and plain comparison.

No test library is needed, so that the author of a store can run the checks anywhere.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen
from msgspec.structs import replace

from turnfold._log import canonical
from turnfold._log.canonical import BLANK, hash_of
from turnfold.errors import ConflictError
from turnfold.ports.store import (
    Body,
    Command,
    Head,
    Maintenance,
    Record,
    Refused,
    Store,
    Stored,
    Summary,
    Wanted,
    Write,
    record_pages,
)

MANY = 2500  # records; more than any store is likely to read in one piece


class CheckFailedError(AssertionError):
    """The store breaks the contract of the port."""


def _nothing() -> None:
    """The `clean` of a place without leftovers."""


def checks_in(module: Mapping[str, Any]) -> tuple[Callable[..., Awaitable[None]], ...]:
    """The checks of a module, given its `globals()`: each public async function that it
    defines, in their order. So no check can be forgotten."""
    return tuple(
        found
        for name, found in module.items()
        if inspect.iscoroutinefunction(found)
        and found.__module__ == module["__name__"]
        and not name.startswith("_")
    )


@frozen(kw_only=True)
class Place:
    """A new, empty place for the data of one store, made by the factory of a store.

    `handle`: another handle on that data, not open. `several`: two handles may be open
    at once and see each other's commits. `clean`: takes the place away again.

    `kill`: ends a handle as the death of its process would, without a goodbye; None:
    closing it looks the same. `cut`: makes the next commit or post of an open handle
    end in FateUnknownError, after it was stored if the second argument is true, else
    before. `pass_ms`: lets time pass for the store, so that a dead owner's lease runs
    out; None: a store without leases. A check that needs one that is None is left out.
    """

    handle: Callable[[], Store]
    several: bool = True
    clean: Callable[[], None] = _nothing
    kill: Callable[[Store], Awaitable[None]] | None = None
    cut: Callable[[Store, bool], None] | None = None
    pass_ms: Callable[[int], Awaitable[None]] | None = None
    opened: list[Store] = field(factory=list, init=False)

    async def store(self, *, read_only: bool = False) -> Store:
        """An open handle; it is closed when its check is over."""
        store = self.handle()
        self.opened.append(store)
        await store.open(read_only=read_only)
        return store

    async def reopened(self, store: Store) -> Store:
        await store.close()
        return await self.store()

    async def killed(self, store: Store) -> None:
        """Kill the process of this handle, and let time pass until its death is
        certain."""
        await (store.close() if self.kill is None else self.kill(store))
        if self.pass_ms is not None:
            await self.pass_ms(60_000)

    async def end(self) -> None:
        """Close every handle and remove the place."""
        for store in self.opened:
            await store.close()
        self.clean()


# --- comparison ----------------------------------------------------------------------


def same(actual: object, wanted: object, what: str) -> None:
    """Raises CheckFailedError unless both are equal."""
    if actual != wanted:
        message = f"{what}: {actual!r:.300} instead of {wanted!r:.300}"
        raise CheckFailedError(message)


def true(condition: bool, what: str) -> None:
    if not condition:
        raise CheckFailedError(what)


@contextmanager
def refused(*kinds: type[Exception], what: str) -> Iterator[list[Any]]:
    """The block must raise one of these; the list then holds the exception."""
    caught: list[Any] = []
    try:
        yield caught
    except kinds as exc:
        caught.append(exc)
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    message = f"{what}: no {names} was raised"
    raise CheckFailedError(message)


# --- values --------------------------------------------------------------------------


def record(
    position: int,
    stream: str,
    version: int,
    value: object = None,
    *,
    count: int = 1,
    **fields: Any,
) -> Record:
    """A record with the right hash; `value`: in the data of its only event."""
    kind = "outbox.queued" if version == count else "outbox.attempted"
    data = {"n": position} if value is None else value
    events = canonical.dumps([[kind, 1, data]] * count)
    at = fields.pop("at", 1000)
    blank = Record(position, stream, version, count, at, events, b"", **fields)
    return replace(blank, hash=hash_of(blank))


def summary(stream: str, version: int, order: int, **fields: Any) -> Summary:
    """A summary with defaults for the fields that are not given."""
    known: dict[str, Any] = {
        "open": True,
        "phase": "queued",
        "created": 1000 + order,
        "updated": 1000 + order + version,
    }
    return Summary(stream=stream, version=version, order=order, **(known | fields))


def body(
    stream: str, number: int, data: bytes, salt: bytes = b"salt-of-16-bytes"
) -> Body:
    return Body(stream=stream, number=number, salt=salt, data=data)


def command(name: str, stream: str = "turn:t", **fields: Any) -> Command:
    """A command with defaults for the fields that are not given."""
    known: dict[str, Any] = {"kind": "accept", "at": 1000, "data": b"{}"}
    return Command(id=name, stream=stream, **(known | fields))


def noise(size: int) -> bytes:
    """Bytes that no disk compresses, the same in every run."""
    return hashlib.shake_128(b"%d" % size).digest(size)


def running(records: Sequence[Record], head: Head = BLANK) -> Head:
    """The head after these records, computed without the store."""
    position, digest = head.position, head.hash
    for item in records:
        digest = hashlib.sha256(digest + item.hash).digest()
        position = item.position
    return Head(position, digest)


# --- short forms of calls ------------------------------------------------------------


async def head_of(store: Store) -> Head:
    return (await store.load()).head


async def attempt(
    store: Store, *, base: Head | None = None, **fields: Any
) -> Stored | Refused:
    """One write on the head that the log has now, or on `base`."""
    base = await head_of(store) if base is None else base
    answers = await store.commit([Write(base=base, **fields)])
    same(len(answers), 1, "answers to one write")
    return answers[0]


async def write(store: Store, *, base: Head | None = None, **fields: Any) -> Head:
    """As `attempt`; a write that is refused raises its ConflictError."""
    answer = await attempt(store, base=base, **fields)
    if isinstance(answer, Refused):
        raise answer.why
    return answer.head


async def conflict(
    store: Store, *, base: Head | None = None, **fields: Any
) -> ConflictError:
    """As `attempt`; the write must be refused, and this is the reason."""
    answer = await attempt(store, base=base, **fields)
    if not isinstance(answer, Refused):
        message = f"stored instead of refused: {fields!r:.300}"
        raise CheckFailedError(message)
    return answer.why


async def put(store: Store, *streams: str, **fields: Any) -> list[Record]:
    """One more record with its summary on each stream, in one commit."""
    base = await head_of(store)
    grown = {name: list(await read(store, name)) for name in streams}
    records: list[Record] = []
    summaries: dict[str, Summary] = {}
    for stream in streams:
        old = grown[stream]
        version = old[-1].version + 1 if old else 1
        new = record(base.position + len(records) + 1, stream, version)
        old.append(new)
        records.append(new)
        summaries[stream] = summary(stream, version, old[0].position, **fields)
    await write(store, base=base, records=records, summaries=list(summaries.values()))
    return records


async def read(store: Store, stream: str) -> Sequence[Record]:
    found = await store.fetch(Wanted(streams=frozenset({stream})))
    return found.streams[stream]


async def whole_log(store: Store) -> list[Record]:
    """All records, page by page."""
    return [record async for page in record_pages(store) for record in page]


async def summary_in(store: Store, stream: str) -> Summary | None:
    found = await store.fetch(Wanted(summaries=frozenset({stream})))
    return found.summaries[stream]


async def holder(store: Store, key: str) -> str | None:
    """The stream that a dedupe key belongs to."""
    found = await store.fetch(Wanted(keys=frozenset({key})))
    return found.keys[key]


async def body_in(store: Store, stream: str, number: int) -> Body | None:
    found = await store.fetch(Wanted(bodies=frozenset({(stream, number)})))
    return found.bodies[stream, number]


def upkeep(store: Store) -> Maintenance:
    """The maintenance of a store that has one."""
    found = store.maintenance
    if found is None:
        message = "this check is for a store that needs maintenance"
        raise CheckFailedError(message)
    return found
