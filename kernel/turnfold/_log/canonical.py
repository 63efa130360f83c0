"""Canonical JSON and the hashes over it: the bytes of a log.

UTF-8, keys sorted, no white space, no floats, integers under 2^53, no duplicate keys,
no BOM. One value has one encoding, so bytes can be compared and hashed.
"""

import json
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from hashlib import sha256
from json.encoder import encode_basestring
from typing import Annotated, Any

import msgspec

from turnfold.errors import InvalidInputError

# The integers of events: every JSON reader gives these back exactly.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]


class Fact(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """An event, or a record in one. A field at its default is left out of the bytes.

    msgspec finds a default by identity. So a default is None, a bool, an enum's word,
    an empty text, an empty tuple or a small integer; `__post_init__` handles others.
    The garbage collector skips a fact, which holds only text, numbers and tuples of
    them.
    """


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def no_float(literal: str) -> None:
    msg = f"floating point number {literal}"
    raise ValueError(msg)


# Made once: json.loads with a hook would make a decoder for every call.
_decode = json.JSONDecoder(parse_float=no_float).decode


def dumps(value: Any) -> bytes:
    """The one encoding of a value made of dict, list, str, int, bool and None."""
    return _encode(value).encode("utf-8")


# The same bytes for what a decoder has made, in a seventh of the time. Other values
# would pass that `dumps` refuses.
_again = msgspec.json.Encoder(order="sorted").encode


def loads(
    data: bytes,
    form: Callable[[Any], bytes] = _again,
    decoded: Callable[[str], Any] = _decode,
) -> Any:
    """Decode bytes, and refuse any that are not the canonical encoding of their value.
    `form`: another encoding to compare with. `decoded`: another decoder of JSON.

    Encoding again and comparing finds duplicate keys, `-0`, white space, a BOM and
    escaped surrogates, which a decoder accepts.
    """
    try:
        value = decoded(data.decode("utf-8"))
        again = form(value)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(field="json", problem=str(exc)) from exc
    if again != data:
        raise InvalidInputError(field="json", problem="not in canonical form")
    return value


def body_digest(salt: bytes, data: bytes) -> str:
    """The name of a body: salted, so that it reveals nothing after the body is
    erased."""
    return digest_text(sha256(salt + data).digest())


def digest_text(digest: bytes) -> str:
    """32 bytes as 43 characters of base64 for file names and addresses."""
    return b2a_base64(digest, newline=False)[:43].translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


# --- A log record: the events of one stream in one commit, as stored and hashed ---


EMPTY_HEAD = bytes(32)  # the running head before the first record


class Head(msgspec.Struct, frozen=True, gc=False):
    """The end of a log: the last position and the running hash up to it."""

    position: int
    hash: bytes


BLANK = Head(0, EMPTY_HEAD)


class Record(msgspec.Struct, frozen=True, gc=False):
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

    @property
    def pruned(self) -> bool:
        """True if only position and hash are left. `version` is then the position of
        the `store.pruned` record."""
        return not self.stream


BodyRef = tuple[str, int]  # the stream of a body and its number in that stream


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes beside the log, named by their stream and a number in it.

    An event names a body by number and salted digest (bodies.body_ref), so a reader can
    check it. A store keeps `stream`, `number`, `salt` and `data`. A store ignores
    `origin`, the value that the bytes were made of, and `digest`, the salted digest of
    a large body, if it was computed before.
    """

    stream: str
    number: int
    salt: bytes
    data: bytes
    origin: object = None
    digest: str = ""


def tombstone(position: int, digest: bytes, by: int) -> Record:
    """The rest of a record that the record at `by` has removed from the log."""
    return Record(position, "", by, 0, 0, b"", digest)


def pruned_digest(records: Iterable[Record]) -> str:
    """The name of a set of records, in order of position: their positions and hashes."""
    digest = sha256()
    for record in records:
        digest.update(record.position.to_bytes(8, "big") + record.hash)
    return digest.hexdigest()


def envelope(
    stream: str,
    version: int,
    at: int,
    events: bytes,
    wall: int | None = None,
    shard: int = 0,
) -> bytes:
    """The bytes that the hash of a record covers."""
    name, later = encode_basestring(stream), "" if wall is None else f',"wall":{wall}'
    tail = f',"shard":{shard},"stream":{name},"version":{version}{later}}}'
    return b"".join((f'{{"at":{at},"events":'.encode(), events, tail.encode()))


def hash_of(record: Record) -> bytes:
    """The hash that a record must have, computed from its stored fields: 32 bytes."""
    r = record
    data = envelope(r.stream, r.version, r.at, r.events, r.wall, r.shard)
    return sha256(data).digest()


def hashes_of(records: Iterable[Record]) -> list[bytes]:
    """`hash_of` for each record, inlined for readers of whole logs."""
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
