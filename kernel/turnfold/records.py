"""A log record: what one commit says of one stream, as it is stored and hashed.

The hash of a record covers its canonical envelope
`{"at","events","shard","stream","version"[,"wall"]}`. `events` are the stored bytes:
a JSON array of `[kind, schema, data]`. The running head joins the record hashes in the
order of their positions. Format: specs/log-format.md.
"""

from collections.abc import Iterable
from hashlib import sha256
from json.encoder import encode_basestring

from attrs import frozen

EMPTY_HEAD = bytes(32)  # the running head before the first record


@frozen
class Head:
    """Where a log ends: the last position and the running hash up to it."""

    position: int
    hash: bytes


BLANK = Head(0, EMPTY_HEAD)


@frozen
class Record:
    """The events that one commit appends to one stream.

    `position` counts records of a shard from 1 without gaps. `version` is that of the
    last event; `count` is the number of events, so `version - count` is the version
    before. `at` is log time in ms. `wall` is wall time in ms where it differs from
    `at` by more than a second, else None.
    """

    position: int
    stream: str
    version: int
    count: int
    at: int
    events: bytes
    hash: bytes
    wall: int | None = None
    shard: int = 0

    @property
    def before(self) -> int:
        """The version of the stream before this record."""
        return self.version - self.count


def envelope(
    stream: str,
    version: int,
    at: int,
    events: bytes,
    wall: int | None = None,
    shard: int = 0,
) -> bytes:
    """The bytes that the hash of a record covers."""
    tail = f'"shard":{shard},"stream":{encode_basestring(stream)},"version":{version}'
    if wall is not None:
        tail = f'{tail},"wall":{wall}'
    return b'{"at":%d,"events":%b,%b}' % (at, events, tail.encode())


def hash_of(record: Record) -> bytes:
    """The hash that a record must have, computed from its stored fields: 32 bytes."""
    r = record
    data = envelope(r.stream, r.version, r.at, r.events, r.wall, r.shard)
    return sha256(data).digest()


def hashes_of(records: Iterable[Record]) -> list[bytes]:
    """`hash_of` each, without two calls for each: for readers of whole logs."""
    return [
        sha256(
            b'{"at":%d,"events":%b,"shard":%d,"stream":%b,"version":%d%b}'
            % (
                r.at,
                r.events,
                r.shard,
                encode_basestring(r.stream).encode(),
                r.version,
                b"" if r.wall is None else b',"wall":%d' % r.wall,
            )
        ).digest()
        for r in records
    ]


def head_after(head: Head, records: Iterable[Record]) -> Head:
    """The head after these records, which follow it without a gap."""
    position, digest = head.position, head.hash
    for record in records:
        digest = sha256(digest + record.hash).digest()
        position = record.position
    return Head(position, digest)
