"""A look of a program asks the store for state that is not in memory, and the store may
be away, or another process may own it by then."""

from collections.abc import Callable

import pytest

from turnfold._runtime import programs
from turnfold._runtime.programs import Hear, Look, Program, Wait
from turnfold.errors import CorruptLogError, DiskError, LostStoreError

AWAY = DiskError(path="s", problem="no connection")
LOST = LostStoreError(path="s", problem="another worker has taken this store over")


def taking_over() -> Program:
    program = programs.take_over()
    assert type(program.send(None)) is Hear
    yield from program


PROGRAMS = pytest.mark.parametrize(
    "made",
    [
        lambda: programs.lane("c/default/1/"),
        lambda: programs.control("turn:1"),
        taking_over,
    ],
    ids=["lane", "turn", "taking over"],
)


@PROGRAMS
def test_a_look_waits_for_a_store_that_is_away(made: Callable[[], Program]) -> None:
    program = made()
    assert type(program.send(None)) is Look
    for _ in range(2):
        waits = program.throw(AWAY)
        assert type(waits) is Wait
        assert waits.trouble is AWAY
        assert type(program.send(None)) is Look


@PROGRAMS
def test_a_look_ends_where_another_process_owns_the_store(
    made: Callable[[], Program],
) -> None:
    program = made()
    program.send(None)
    with pytest.raises(StopIteration):
        program.throw(LOST)


@PROGRAMS
def test_a_look_at_a_damaged_record_is_no_reason_to_wait(
    made: Callable[[], Program],
) -> None:
    program = made()
    program.send(None)
    with pytest.raises(CorruptLogError):
        program.throw(CorruptLogError(position=1, stream="", problem="a flipped bit"))
