"""A log as lines of text: one canonical JSON object per event (specs/log-format.md).

What is written is the envelope that the event's hash covers, plus `position` and
`hash`, and `bodies` on request. A stored event that is not canonical JSON goes out
under `raw` instead of `data`, so that a damaged row does not stop an export.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import evolve

from turnfold import canonical
from turnfold.codec import Record
from turnfold.errors import InvalidInputError
from turnfold.ports.store import Body

_ENVELOPE = {"at", "hash", "kind", "position", "schema", "stream", "version"}
_TYPES = {"hash": str, "kind": str, "stream": str}  # all others are integers


def dump(record: Record, bodies: Mapping[str, Body | None] | None = None) -> bytes:
    """One line, without its end. `bodies`: those that the event names; none for one
    that was erased."""
    value: dict[str, Any] = {
        "at": record.at,
        "hash": record.hash.hex(),
        "kind": record.kind,
        "position": record.position,
        "schema": record.schema,
        "stream": record.stream,
        "version": record.version,
    }
    try:
        value["data"] = canonical.loads(record.data)
    except InvalidInputError:
        value["raw"] = text_of(record.data)
    if bodies is not None:
        value["bodies"] = {
            digest: None
            if body is None
            else {"data": text_of(body.data), "salt": text_of(body.salt)}
            for digest, body in bodies.items()
        }
    return canonical.dumps(value)


def load(line: bytes) -> Record:
    """The record in a line. Raises InvalidInputError. What its `data` means, and if its
    hash is right, is left to `codec` and to the audit."""
    value = _object(canonical.loads(line))
    raw = value.get("raw")
    data = canonical.dumps(value["data"]) if raw is None else bytes_of(raw)
    return Record(
        value["position"],
        value["stream"],
        value["version"],
        value["kind"],
        value["schema"],
        value["at"],
        data,
        _hash(value["hash"]),
    )


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(field="line", problem="not an object")
    names = set(value) - {"bodies"}
    if names not in (_ENVELOPE | {"data"}, _ENVELOPE | {"raw"}):
        odd = ", ".join(sorted(names ^ (_ENVELOPE | {"data"})))
        problem = f"fields missing or unknown: {odd}"
        raise InvalidInputError(field="line", problem=problem)
    for name in _ENVELOPE:
        wanted = _TYPES.get(name, int)
        if type(value[name]) is not wanted:
            problem = f"expected {wanted.__name__}"
            raise InvalidInputError(field=name, problem=problem)
    return value


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError as exc:
        raise InvalidInputError(field="hash", problem=str(exc)) from exc
    if len(digest) != 32 or digest.hex() != text:
        problem = "not 32 bytes in lower-case hexadecimal"
        raise InvalidInputError(field="hash", problem=problem)
    return digest


def read(lines: Iterable[bytes]) -> Iterator[Record]:
    """The records of an export. A line that is none becomes a record that no codec can
    read, so that it is found and the rest is read on."""
    last = Record(0, "?", 0, "?", 0, 0, b"", bytes(32))
    for line in lines:
        try:
            last = load(line.rstrip(b"\r\n"))
        except InvalidInputError:
            last = evolve(
                last,
                position=last.position + 1,
                stream="?",
                version=0,
                kind="?",
                data=line,
            )
        yield last


def text_of(data: bytes) -> str:
    """Base64 with `-` and `_`, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: object) -> bytes:
    """Back from `text_of`. Raises InvalidInputError."""
    if not isinstance(text, str):
        raise InvalidInputError(field="base64", problem="expected str")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as exc:
        raise InvalidInputError(field="base64", problem=str(exc)) from exc
