"""Refusals of a write, for the stores that ship with turnfold.

A store checks the order of a write: versions, positions and keys. The codec checks the
types of the kernel's own values. A database refuses values that it cannot store;
`check_values` refuses the same values for a store without a database.
"""

from collections.abc import Sequence

from turnfold.errors import ConflictError, InvalidInputError, KeyTakenError
from turnfold.ports.store import BodyRef, Command, Head, Record, Summary, Write

INT_LIMIT = 2**63
NUMBER_LIMIT = 2**20  # numbers of the bodies of one stream
KEPT_ANSWERS = 10_000  # the newest; callers of older ones have given up

# --- refusals that name the stream that has moved-------------------------------------------


def log_moved(base: Head, head: Head) -> ConflictError:
    """The error for a log that does not end at the write's base."""
    return ConflictError(stream="log", expected=base.position, actual=head.position)


def stream_moved(record: Record, actual: int) -> ConflictError:
    return ConflictError(stream=record.stream, expected=record.before, actual=actual)


def key_taken(key: str, stream: str, version: int) -> KeyTakenError:
    return KeyTakenError(key=key, stream=stream, expected=0, actual=version)


# --- writes that no kernel makes -------------------------------------------------


def check_shards(writes: Sequence[Write]) -> None:
    """For stores of one shard: allow at most one write, to shard 0."""
    if len(writes) > 1:
        problem = f"{len(writes)} writes, but this store has one shard"
        raise InvalidInputError(field="writes", problem=problem)
    for write in writes:
        if write.shard != 0:
            problem = f"there is no shard {write.shard}"
            raise InvalidInputError(field="write.shard", problem=problem)


def off_the_head(record: Record, position: int) -> InvalidInputError:
    problem = f"{record.position} does not follow {position - 1}, where the log ends"
    return InvalidInputError(field="record.position", problem=problem)


def no_events(record: Record) -> InvalidInputError:
    problem = f"{record.count} events in a record of {record.stream}"
    return InvalidInputError(field="record.count", problem=problem)


def wrong_shard(record: Record) -> InvalidInputError:
    problem = f"{record.stream} is of shard {record.shard}, the write is not"
    return InvalidInputError(field="record.shard", problem=problem)


def no_stream(field: str, stream: str) -> InvalidInputError:
    return InvalidInputError(field=field, problem=f"there is no stream {stream!r}")


def body_there(ref: BodyRef) -> InvalidInputError:
    problem = f"{ref[0]} has, or had, a body {ref[1]}"
    return InvalidInputError(field="body.number", problem=problem)


def check_number(number: int) -> None:
    if not 0 <= number < NUMBER_LIMIT:
        problem = f"{number} is not from 0 to {NUMBER_LIMIT - 1}"
        raise InvalidInputError(field="body.number", problem=problem)


def check_projection(summary: Summary, version: int, order: int) -> None:
    """Check that a summary fits its stream after the write."""
    if summary.version != version:
        problem = f"{summary.stream}: {summary.version}, but the stream is at {version}"
        raise InvalidInputError(field="summary.version", problem=problem)
    if summary.order != order:
        problem = f"{summary.stream}: {summary.order}, but its first record is {order}"
        raise InvalidInputError(field="summary.order", problem=problem)


# --- values that a database refuses ----------------------------------------------


def check_values(write: Write) -> None:
    """Raises InvalidInputError for a value that a database would refuse."""
    for r in write.records:
        _text("record.stream", r.stream)
        _number("record.at", r.at)
        _bytes("record.events", r.events)
        _bytes("record.hash", r.hash)
        if r.wall is not None:
            _number("record.wall", r.wall)
    for s in write.summaries:
        check_summary(s)
    for body in write.bodies:
        _bytes("body.salt", body.salt)
        _bytes("body.data", body.data)
    for key, _ in write.keys:
        _text("key", key)
    for answer in write.answers:
        _text("answer.id", answer.id)
        _bytes("answer.data", answer.data)


def check_summary(s: Summary) -> None:
    _text("summary.stream", s.stream)
    _text("summary.phase", s.phase)
    for number in (s.version, s.order, s.created, s.updated, s.due, s.expires):
        if number is not None:
            _number("summary", number)
    for text in (s.lane, s.parent, s.kind, s.reason):
        if text is not None:
            _text("summary", text)


def check_command(c: Command) -> None:
    _text("command.id", c.id)
    _text("command.kind", c.kind)
    _text("command.stream", c.stream)
    if c.key is not None:
        _text("command.key", c.key)
    _number("command.at", c.at)
    for data in (c.data, *c.bodies):
        _bytes("command.data", data)


def _text(field: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong(field, "str", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            problem = f"is not valid Unicode: {exc.reason} at {exc.start}"
            raise InvalidInputError(field=field, problem=problem) from exc


def _bytes(field: str, value: object) -> None:
    if type(value) is not bytes:
        raise _wrong(field, "bytes", value)


def _number(field: str, value: object) -> None:
    if not isinstance(value, int):
        raise _wrong(field, "int", value)
    if not -INT_LIMIT <= value < INT_LIMIT:
        raise InvalidInputError(field=field, problem="does not fit 64 bit")


def _wrong(field: str, wanted: str, value: object) -> InvalidInputError:
    problem = f"expected {wanted}, got {type(value).__name__}"
    return InvalidInputError(field=field, problem=problem)
