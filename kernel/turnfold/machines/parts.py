"""What an entry remembers of its parts while they are not at hand.

Most entries have one part, and most parts are sent in their order. So an entry keeps
the facts of one part, the part at hand, in fields of its own, and a `PartState` for each
other part of which there is something to remember.
"""

from collections.abc import Sequence
from typing import Any

import attrs

from turnfold.frozen import frozen, maker
from turnfold.words import PartEnd


@frozen(kw_only=True)
class PartState:
    """One part that is not at hand. `end` is none while it is open."""

    part: int
    end: PartEnd | None = None
    receipt: tuple[str, ...] = ()
    void: tuple[str, ...] = ()  # a receipt that bounced: the same is no evidence again
    handle: tuple[str, ...] = ()
    remade: bool = False
    attempt: int = 0
    used: int = 0
    doubt: bool = False
    resends: int = 0
    asks: int = 0
    deaths: int = 0
    first_at: int | None = None
    last_at: int | None = None


SPOILED = (PartEnd.REFUSED, PartEnd.BOUNCED)
Parts = tuple[PartState, ...]
_state = maker(PartState)


def known(others: Parts, part: int) -> PartState | None:
    """What is remembered of a part; none if it was never touched."""
    for state in others:
        if state.part == part:
            return state
    return None


def with_part(others: Parts, state: PartState) -> Parts:
    """The same with this state of its part, in the order of parts."""
    if not others:
        return (state,)
    rest = [other for other in others if other.part != state.part]
    return tuple(sorted([*rest, state], key=_number))


def _number(state: PartState) -> int:
    return state.part


def first_open(others: Parts, count: int) -> int:
    """The first of `count` parts that has not ended; `count` if all have."""
    ended = {state.part for state in others if state.end is not None}
    return next((part for part in range(count) if part not in ended), count)


def first_doubted(others: Parts) -> int | None:
    return next((state.part for state in others if state.doubt), None)


def all_delivered(others: Parts, count: int) -> bool:
    delivered = [state for state in others if state.end is PartEnd.DELIVERED]
    return len(delivered) >= count


def receipts(others: Parts) -> Sequence[tuple[str, ...]]:
    """One per delivered part; an empty one if the part was suppressed."""
    return [state.receipt for state in others if state.end is PartEnd.DELIVERED]


def put_down(
    entry: Any, end: PartEnd | None = None, receipt: tuple[str, ...] = ()
) -> None:
    """Remember the part at hand among the others. `end`: it has come to this end, and
    with it its doubt."""
    state = _state(
        part=entry.part,
        end=end,
        receipt=receipt,
        void=entry.void,
        handle=entry.handle,
        remade=entry.remade,
        attempt=entry.attempt,
        used=entry.used,
        doubt=entry.doubt and end is None,
        resends=entry.resends,
        asks=entry.asks,
        deaths=entry.deaths,
        first_at=entry.first_at,
        last_at=entry.last_at,
    )
    entry.others = with_part(entry.others, state)


_UNTOUCHED = PartState(part=0)


def take_up(entry: Any, part: int) -> None:
    """Make a part the one at hand, with what is remembered of it."""
    state = known(entry.others, part)
    if state is not None and state.end is None:
        entry.others = tuple(o for o in entry.others if o.part != part)
    else:
        state = _UNTOUCHED
    entry.part = part
    entry.void, entry.handle = state.void, state.handle
    entry.remade = state.remade
    entry.attempt, entry.used = state.attempt, state.used
    entry.doubt, entry.resends = state.doubt, state.resends
    entry.asks, entry.deaths = state.asks, state.deaths
    entry.first_at, entry.last_at = state.first_at, state.last_at
    entry.resend = entry.granted = entry.marked = False


def reopened(others: Parts, part: int) -> Parts:
    """The same with a part that has not ended."""
    return tuple([attrs.evolve(s, end=None) if s.part == part else s for s in others])


def renewed(state: PartState) -> PartState:
    """A part as a redrive leaves it: its attempts stay counted and its doubt stays, its
    budgets begin anew, and unless it is delivered it is open."""
    if state.end is PartEnd.DELIVERED:
        return state
    return _state(
        part=state.part, void=state.void, attempt=state.attempt, doubt=state.doubt
    )
