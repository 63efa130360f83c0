"""What every store checks of an append before anything is written.

Databases differ in what they let pass (booleans as integers, NUL in text, half a batch
after a failing bind), so the check stands in front of them, once, and all stores refuse
the same things. Nothing here touches a disk.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any

from turnfold.canonical import next_head
from turnfold.codec import Record
from turnfold.errors import ConflictError, InvalidInputError
from turnfold.ports.store import Append, Head, Summary

_INT_LIMIT = 2**63


def check_shape(append: Append) -> None:
    """Raises InvalidInputError for a value that not every store could keep as it is.

    One look at all fields passes what is right (0.5 us a record); only what is not is
    gone through again to say what is wrong.
    """
    known = None  # mostly one stream after the other
    for r in append.records:
        plain = (
            type(r.version) is type(r.schema) is type(r.at) is type(r.position) is int
            and type(r.data) is type(r.hash) is bytes
            and (r.stream is known or _plain(r.stream))
            and type(r.kind) is str
            and _plain_kind(r.kind)
            and -_INT_LIMIT <= r.at < _INT_LIMIT
            and -_INT_LIMIT <= r.schema < _INT_LIMIT
        )
        if not plain:
            _check_record(r)
        known = r.stream
    for summary in append.summaries:
        if not _plain_summary(summary):
            check_summary(summary)
    for body in append.bodies:
        check_text("body.digest", body.digest)
        check_bytes("body.salt", body.salt)
        check_bytes("body.data", body.data)
    for key, stream in append.keys:
        check_text("key", key)
        check_text("key.stream", stream)
    for digest in append.erase:
        check_text("erase", digest)


def _plain(text: object) -> bool:
    return type(text) is str and text.isascii() and "\0" not in text


_plain_kind = lru_cache(maxsize=256)(_plain)  # a few dozen there are


_TEXT = frozenset({str, NoneType})
_NUMBER = frozenset({int, NoneType})


def _plain_summary(s: Any) -> bool:
    # `|` of numbers is in a range from 0 to a power of two if each of them is.
    return (
        type(s.open) is bool
        and type(s.stream) is type(s.phase) is str
        and type(s.version) is type(s.order) is int
        and type(s.created) is type(s.updated) is int
        and type(s.lane) in _TEXT
        and type(s.parent) in _TEXT
        and type(s.kind) in _TEXT
        and type(s.reason) in _TEXT
        and type(s.due) in _NUMBER
        and type(s.expires) in _NUMBER
        and _plain(f"{s.stream}{s.phase}{s.lane}{s.parent}{s.kind}{s.reason}")
        and 0 <= s.created | s.updated | (s.due or 0) | (s.expires or 0) < _INT_LIMIT
    )


def advance(
    records: Sequence[Record], head: Head, version_of: Callable[[str], int]
) -> tuple[dict[str, int], Head]:
    """The versions and the head after these records.

    Raises ConflictError if a stream is not where the first of its records expects it,
    InvalidInputError if positions do not follow the head.
    """
    versions: dict[str, int] = {}
    position, digest = head.position, head.hash
    for record in records:
        stream = record.stream
        actual = versions[stream] if stream in versions else version_of(stream)
        if record.version != actual + 1:
            raise out_of_turn(record, actual)
        position += 1
        if record.position != position:
            raise off_the_head(record, position)
        versions[stream] = record.version
        digest = next_head(digest, record.hash)
    return versions, Head(position, digest)


def out_of_turn(record: Record, actual: int) -> ConflictError:
    expected = record.version - 1
    return ConflictError(stream=record.stream, expected=expected, actual=actual)


def off_the_head(record: Record, position: int) -> InvalidInputError:
    problem = f"{record.position} does not follow the head, {position - 1}"
    return InvalidInputError(field="record.position", problem=problem)


def check_projection(summary: Summary, version: int, order: int) -> None:
    """A summary must speak of the stream as it is after the append that brings it."""
    if summary.version != version:
        problem = f"{summary.stream}: {summary.version}, but the stream is at {version}"
        raise InvalidInputError(field="summary.version", problem=problem)
    if summary.order != order:
        problem = f"{summary.stream}: {summary.order}, but its first event is {order}"
        raise InvalidInputError(field="summary.order", problem=problem)


def no_stream(field: str, stream: str) -> InvalidInputError:
    return InvalidInputError(field=field, problem=f"there is no stream {stream!r}")


def check_text(field: str, value: object) -> None:
    """Text must be UTF-8 without NUL: other databases refuse what SQLite would keep."""
    if type(value) is not str:
        raise _wrong(field, "str", value)
    if "\0" in value:
        raise InvalidInputError(field=field, problem="contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            problem = f"is not valid Unicode: {exc.reason} at {exc.start}"
            raise InvalidInputError(field=field, problem=problem) from exc


def check_bytes(field: str, value: object) -> None:
    if type(value) is not bytes:
        raise _wrong(field, "bytes", value)


def check_int(field: str, value: object) -> None:
    """A plain integer of 64 bit; a bool is refused, it would come back as a number."""
    if type(value) is not int:
        raise _wrong(field, "int", value)
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise InvalidInputError(field=field, problem="does not fit 64 bit")


def check_summary(summary: Summary) -> None:
    """Raises InvalidInputError for a field of the wrong type or range."""
    check_text("summary.stream", summary.stream)
    check_text("summary.phase", summary.phase)
    if type(summary.open) is not bool:
        raise _wrong("summary.open", "bool", summary.open)
    for field in ("version", "order", "created", "updated"):
        check_int(f"summary.{field}", getattr(summary, field))
    for field in ("due", "expires"):
        value = getattr(summary, field)
        if value is not None:
            check_int(f"summary.{field}", value)
    for field in ("lane", "parent", "kind", "reason"):
        value = getattr(summary, field)
        if value is not None:
            check_text(f"summary.{field}", value)


def _check_record(record: Record) -> None:
    check_text("record.stream", record.stream)
    check_text("record.kind", record.kind)
    check_int("record.position", record.position)
    check_int("record.version", record.version)
    check_int("record.schema", record.schema)
    check_int("record.at", record.at)
    check_bytes("record.data", record.data)
    check_bytes("record.hash", record.hash)


def _wrong(field: str, wanted: str, value: object) -> InvalidInputError:
    problem = f"expected {wanted}, got {type(value).__name__}"
    return InvalidInputError(field=field, problem=problem)
