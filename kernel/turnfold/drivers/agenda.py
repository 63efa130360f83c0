"""Which programs should be alive, from what just moved. Shared by every driver."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from turnfold import programs
from turnfold.book import Book
from turnfold.effects import Program
from turnfold.fold import State
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Gate
from turnfold.machines.turn import Turn
from turnfold.names import GATE
from turnfold.words import TurnPhase


class Key(NamedTuple):
    """The name of a program: at most one of each is alive."""

    what: str  # "lane", "turns", "control", "run" or "expiry"
    name: str
    run: int = 0


def program_of(key: Key) -> Program:
    match key.what:
        case "lane":
            return programs.lane(key.name)
        case "turns":
            return programs.turns(key.name)
        case "control":
            return programs.control(key.name)
        case "run":
            return programs.run(key.name, key.run)
        case _:
            return programs.expiry(key.name)


def at_start(book: Book) -> Iterator[Key]:
    """Everything that is open, once: the worker's recovery is its ordinary work."""
    # Turns first: what a dead run left unsent is dropped before a lane sends it.
    for lane in book.turn_lanes():
        yield Key("turns", lane)
    for turn in book.controls():
        yield Key("control", turn)
    for lane in book.lanes():
        yield Key("lane", lane)


def after(moved: Iterable[State], book: Book, epoch: int) -> Iterator[Key]:
    """The programs that these changes may give something to do."""
    for state in moved:
        match state:
            case Entry():
                if book.has_open(state.lane):
                    yield Key("lane", state.lane)
            case Turn():
                yield from _turn(state, epoch)
            case Gate() if not state.closed:
                yield from behind(state.stream.removeprefix(GATE), book)
            case _:
                pass


def _turn(turn: Turn, epoch: int) -> Iterator[Key]:
    if turn.control:
        yield Key("control", turn.stream)
    else:
        yield Key("turns", turn.lane)
    if turn.phase is TurnPhase.RUNNING and turn.fence == epoch:
        yield Key("run", turn.stream, turn.run)


def behind(scope: str, book: Book) -> Iterator[Key]:
    """The lanes that a gate or a channel's account holds."""
    for lane in book.lanes():
        if lane == scope or lane.startswith(f"{scope}/"):
            yield Key("lane", lane)
