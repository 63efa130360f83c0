"""When a store is at rest: all is over, or waits for a person."""

from collections.abc import Iterable

from turnfold._state.fold import family
from turnfold.enums import Phase, TurnPhase
from turnfold.ports.store import Summary


def at_rest(open_rows: Iterable[Summary]) -> bool:
    """Given the summaries of all open streams: does nothing move by itself any more?

    A parked entry waits for a person, and so does the turn that it answers. Any other
    open entry or turn has something to do; gates are not asked.
    """
    rows = list(open_rows)
    entries = [row for row in rows if family(row.stream) == "entry"]
    parked = {row.parent for row in entries if row.phase == Phase.PARKED}
    return all(row.phase == Phase.PARKED for row in entries) and all(
        row.phase == TurnPhase.ANSWERED and row.stream in parked
        for row in rows
        if family(row.stream) == "turn"
    )
