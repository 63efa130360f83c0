"""Damage that shows before it is obeyed: a record against its hash, a row against its log.

Rows have no hash. What a decision is made of comes from records, and each row that leads
to one is compared with them (decisions/0062-rows-have-no-hash.md).
"""

from collections.abc import Sequence

from turnfold._log.canonical import hashes_of
from turnfold._state.entry import Entry
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.errors import ConflictError, CorruptLogError
from turnfold.ports.store import Record


def check_hashes(records: Sequence[Record]) -> None:
    """Raises CorruptLogError for an altered record. A flipped bit on the disk may leave
    a record readable, and no decision may use it."""
    for record, digest in zip(records, hashes_of(records), strict=True):
        if record.hash != digest:
            raise CorruptLogError(
                position=record.position,
                stream=record.stream,
                problem="its hash does not fit its stored bytes",
            )


def check_row(stream: str, state: State | None, lane: str | None) -> None:
    """Raises CorruptLogError if the row of an open stream led to another stream than its
    log has. `lane`: that of the row; None for a stream that no row calls open. (A row
    that calls a closed stream open may be older than the log: another owner wrote.)"""
    if lane is None:
        return
    problem = None
    if state is None:
        problem = "its records are gone"
    elif isinstance(state, Entry | Turn) and state.lane != lane:
        problem = f"its row names the lane {lane}, its log {state.lane}"
    if problem is not None:
        raise CorruptLogError(position=0, stream=stream, problem=problem)


def of_a_row(why: ConflictError, state: State | None) -> CorruptLogError | None:
    """The damage of a row whose version is not the one of its log, which was read anew.
    Else each commit of the stream would be refused for ever."""
    if not isinstance(state, Entry | Turn) or state.version == why.actual:
        return None
    problem = f"its row is at version {why.actual}, its log at {state.version}"
    return CorruptLogError(position=0, stream=why.stream, problem=problem)
