"""One event against the state of its own stream."""

from dataclasses import replace
from typing import cast

from turnfold_model.machines.transition_table import ENTRY, TURN, Table
from turnfold_model.reference import entry, turn
from turnfold_model.reference.kinds import Breach, Record, Violation, need, whole
from turnfold_model.reference.shapes import Entry, State, Turn


def legal(state: State | None, event: Record) -> State | Violation:
    """The next state of the stream, or the rule that the event breaks.

    `event` needs `kind`, `at` and `data`; `state` is the result of `legal` for the event
    before, None for a new stream.
    """
    try:
        return _judged(state, event)
    except Breach as breach:
        return breach.violation


def _judged(state: State | None, event: Record) -> State:
    kind = event.get("kind")
    data = event.get("data")
    need(isinstance(kind, str), "field", f"kind is {kind!r}")
    need(isinstance(data, dict), "field", "data is no object")
    at = whole(event, "at")
    name = cast("str", kind)
    fields = cast("Record", data)
    area = name.partition(".")[0]
    if area == "outbox":
        return _entry(state, name, fields, at)
    if area == "turn":
        return _turn(state, name, fields)
    rule = turn.LEDGERS.get(name)
    if rule is None or isinstance(state, (Entry, Turn)):
        raise Breach("table", f"{name} is unknown here")
    return rule(state, fields)


def _entry(state: State | None, name: str, data: Record, at: int) -> State:
    if not (state is None or isinstance(state, Entry)):
        raise Breach("table", f"{name} does not belong to this stream")
    phases = _row(ENTRY, None if state is None else state.phase, name)
    if state is None:
        begun = entry.FIRST[name](data)
    else:
        if state.trying and name != "outbox.tried":
            state = replace(state, trying=False)
        begun = entry.RULES[name](state, data, at)
    return _landed(begun, phases, name)


def _turn(state: State | None, name: str, data: Record) -> State:
    if not (state is None or isinstance(state, Turn)):
        raise Breach("table", f"{name} does not belong to this stream")
    phases = _row(TURN, None if state is None else state.phase, name)
    begun = turn.FIRST[name](data) if state is None else turn.RULES[name](state, data)
    return _landed(begun, phases, name)


def _row(table: Table, phase: str | None, name: str) -> tuple[str, ...]:
    phases = table[phase].get(name)
    if phases is None:
        raise Breach("table", f"{name} cannot follow {phase or 'nothing'}")
    return phases


def _landed(state: State, phases: tuple[str, ...], name: str) -> State:
    """Rule and table are two sources: a phase outside the row is our own mistake."""
    if state.phase not in phases:
        message = f"{name} leads to {state.phase}, the table says {phases}"
        raise AssertionError(message)
    return state
