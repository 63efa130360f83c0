"""Canonical JSON and the hashes over it: the bytes that a log is made of.

UTF-8, keys sorted, no white space, no floats, integers under 2^53, no duplicate keys,
no BOM. One value has one encoding, so bytes can be compared and hashed.
"""

import json
from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from turnfold.errors import InvalidInputError

EMPTY_HEAD = bytes(32)  # the running head before the first event
# The integers of events: every JSON reader gives these back exactly.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def _no_float(literal: str) -> None:
    msg = f"floating point number {literal}"
    raise ValueError(msg)


# Made once: json.loads with a hook would make a decoder for every call.
_decode = json.JSONDecoder(parse_float=_no_float).decode


def dumps(value: Any) -> bytes:
    """The one encoding of a value made of dict, list, str, int, bool and None."""
    return _encode(value).encode("utf-8")


def loads(data: bytes) -> Any:
    """Decode, and refuse anything that is not the canonical encoding of its value.

    Encoding again and comparing is what catches duplicate keys, `-0`, white space, a
    BOM and escaped surrogates, which every decoder lets pass.
    """
    try:
        value = _decode(data.decode("utf-8"))
        again = dumps(value)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(field="json", problem=str(exc)) from exc
    if again != data:
        raise InvalidInputError(field="json", problem="not in canonical form")
    return value


def event_hash(envelope: bytes) -> bytes:
    """The hash of one event: over its canonical envelope, 32 bytes."""
    return sha256(envelope).digest()


def next_head(head: bytes, event: bytes) -> bytes:
    """The running head after one more event, 32 bytes."""
    return sha256(head + event).digest()


def event_hashes(envelopes: Iterable[bytes]) -> list[bytes]:
    """`event_hash` of each, without a call for each."""
    return [sha256(envelope).digest() for envelope in envelopes]


def head_after(head: bytes, events: Iterable[bytes]) -> bytes:
    """The running head after these event hashes."""
    for event in events:
        head = sha256(head + event).digest()
    return head


def body_digest(salt: bytes, data: bytes) -> str:
    """The name of a body: salted, so that it tells nothing once the body is erased."""
    return digest_text(sha256(salt + data).digest())


def digest_text(digest: bytes) -> str:
    """32 bytes as 43 characters of base64 for file names and addresses."""
    return b2a_base64(digest, newline=False)[:43].translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
