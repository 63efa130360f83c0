"""INV-14, as far as one log shows it: at rest, everything is closed or waits for a
reason. An audit asks this only where it is wanted: a living gateway is never at rest."""

from collections.abc import Iterator

from turnfold.audit.findings import Findings, Rule
from turnfold.audit.states import States
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Gate
from turnfold.machines.turn import Turn
from turnfold.names import gates_of
from turnfold.words import Phase, TurnPhase

_SENDING = (Phase.ATTEMPTED, Phase.DISPATCHED)


def note_unsettled(findings: Findings, states: States, now: int) -> None:
    """Note what should have moved by `now` (log ms) and did not."""
    opened = [s for s in states if isinstance(s, Entry | Turn) and s.open]
    opened.sort(key=lambda state: state.order)
    gates = {s.stream for s in states if isinstance(s, Gate) and s.holds(now)}
    for text, state in _unsettled(opened, gates, now):
        findings.add(Rule.SETTLED, text, None, state.stream)


def _unsettled(
    opened: list[Entry | Turn], gates: set[str], now: int
) -> Iterator[tuple[str, Entry | Turn]]:
    held: set[tuple[type, str]] = set()  # the lanes that an earlier one holds
    for state in opened:
        lane = type(state), state.lane
        text: str | None
        if isinstance(state, Entry):
            gated = bool(gates.intersection(_gates(state.lane)))
            text = _entry(state, now, waits=lane in held or gated)
            holds = not state.yielded
        else:
            text = _turn(state, now, waits=lane in held)
            holds = state.phase is not TurnPhase.ANSWERED and not state.held
        if holds:
            held.add(lane)
        if text is not None:
            yield text, state


def _gates(lane: str) -> tuple[str, ...]:
    return gates_of(lane) if lane.count("/") == 3 else ()


def _entry(entry: Entry, now: int, *, waits: bool) -> str | None:
    if entry.phase in _SENDING:
        return f"attempt {entry.attempt} of part {entry.part} has no outcome"
    if now >= entry.expires_at:
        return f"it expired {now - entry.expires_at} ms ago and is still {entry.phase}"
    if entry.phase is Phase.PARKED or waits:
        return None
    return _overdue(entry.due, entry.updated, now)


def _turn(turn: Turn, now: int, *, waits: bool) -> str | None:
    match turn.phase:
        case TurnPhase.RUNNING:
            return f"run {turn.run} has not ended"
        case TurnPhase.ACCEPTED if not (turn.held or waits):
            return _overdue(turn.due, turn.updated, now)
        case _:
            return None  # an answer is as settled as its entries are


def _overdue(due: int | None, updated: int, now: int) -> str | None:
    since = updated if due is None else due
    if now < since:
        return None
    return f"it has been due for {now - since} ms, and nothing holds it back"
