"""What the checks of a store are written with: a place, records, and plain comparison.

No test library is needed, so that a store's author can run the checks anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen

from turnfold import canonical, codec
from turnfold.codec import Record
from turnfold.ports.store import Append, Body, Head, Store, Summary

MANY = 2500  # records; more than any store is likely to read in one piece


class CheckFailedError(AssertionError):
    """The store does not do what the port says."""


def _nothing() -> None:
    """For a place that leaves nothing behind."""


@frozen(kw_only=True)
class Place:
    """A new, empty place for one store's data, made by the factory of a store.

    `handle`: another handle on that data, not open. `several`: two handles may be open
    at once and see each other's commits. `clean`: takes the place away again.
    """

    handle: Callable[[], Store]
    several: bool = True
    clean: Callable[[], None] = _nothing
    opened: list[Store] = field(factory=list, init=False)

    def store(self, *, read_only: bool = False) -> Store:
        """An open handle; it is closed when its check is over."""
        store = self.handle()
        self.opened.append(store)
        store.open(read_only=read_only)
        return store

    def reopened(self, store: Store) -> Store:
        store.close()
        return self.store()

    def end(self) -> None:
        """Close every handle and take the place away."""
        for store in self.opened:
            store.close()
        self.clean()


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
    """The block must raise one of these; the list then holds what was raised."""
    caught: list[Any] = []
    try:
        yield caught
    except kinds as exc:
        caught.append(exc)
        return
    names = " or ".join(kind.__name__ for kind in kinds)
    message = f"{what}: no {names} was raised"
    raise CheckFailedError(message)


def record(
    position: int, stream: str, version: int, value: object = None, at: int = 1000
) -> Record:
    """A record with the right hash; its data is the canonical form of `value`."""
    data = canonical.dumps({"n": position} if value is None else value)
    kind = "outbox.queued" if version == 1 else "outbox.attempted"
    envelope = codec.envelope(stream, version, kind, 1, at, data)
    digest = canonical.event_hash(envelope)
    return Record(position, stream, version, kind, 1, at, data, digest)


def summary(stream: str, version: int, order: int, **fields: Any) -> Summary:
    """A summary with what is not said filled in."""
    known: dict[str, Any] = {
        "open": True,
        "phase": "queued",
        "created": 1000 + order,
        "updated": 1000 + order + version,
    }
    return Summary(stream=stream, version=version, order=order, **(known | fields))


def body(data: bytes, salt: bytes = b"salt-of-16-bytes") -> Body:
    return Body(digest=canonical.body_digest(salt, data), salt=salt, data=data)


def noise(size: int) -> bytes:
    """Bytes that no disk compresses, the same in every run."""
    return hashlib.shake_128(b"%d" % size).digest(size)


def put(store: Store, *streams: str, **fields: Any) -> list[Record]:
    """One more record with its summary on each stream, in one transaction."""
    with store.write() as tx:
        records: list[Record] = []
        summaries: dict[str, Summary] = {}
        grown: dict[str, list[Record]] = {}
        for stream in streams:
            old = grown.setdefault(stream, list(tx.read(stream)))
            position = tx.head.position + len(records) + 1
            new = record(position, stream, len(old) + 1)
            old.append(new)
            records.append(new)
            order = old[0].position
            summaries[stream] = summary(stream, new.version, order, **fields)
        tx.append(Append(records=records, summaries=list(summaries.values())))
        return records


def running(records: Sequence[Record], head: Head | None = None) -> Head:
    """The head after these records, computed here and not by the store."""
    position, digest = (
        (0, canonical.EMPTY_HEAD)
        if head is None
        else (
            head.position,
            head.hash,
        )
    )
    for item in records:
        digest = hashlib.sha256(digest + item.hash).digest()
        position = item.position
    return Head(position, digest)
