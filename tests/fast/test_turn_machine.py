"""The fold of a turn, for every pair of phase and event: it leads to each phase of the
model's table, or the event is refused by name and changes nothing."""

import pytest

from turnfold._log import events as t
from turnfold._log.events import NAMES
from turnfold._state.turn import TRANSITIONS, Turn, evolve
from turnfold.enums import (
    AbortReason,
    FailureClass,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import IllegalTransitionError
from turnfold_model.machines import transition_table
from turnfold_model.machines.transition_table import NONE

TABLE = {
    phase or NONE: {kind.partition(".")[2]: set(to) for kind, to in row.items()}
    for phase, row in transition_table.TURN.items()
}
RUN = {"run": 1}
SAMPLES: list[t.TurnEvent] = [
    t.Accepted(
        channel="t",
        account="a",
        conversation="42",
        message_id="1",
        body="d",
        lane="t/a/42/",
    ),
    t.Dead(channel="t", account="a", body="d", lane="t/a/", detail="e"),
    t.Joined(message_id="2", body="e"),
    t.Started(run=1, owner="o", fence=1),
    t.StepStarted(**RUN, key="k"),
    t.StepDone(**RUN, key="k", result="d"),
    t.LeftOpen(**RUN, until=5_000),
    t.Released(**RUN, reason="shutdown"),
    t.RunFailed(**RUN, failure=FailureClass.TRANSIENT, due=5),
    t.Answered(**RUN, finals=("entry:e",)),
    t.Completed(outcome=TurnOutcome.REPLIED),
    t.Failed(outcome=TurnOutcome.FAILED, reason="x"),
    t.TurnAbortRequested(reason=AbortReason.USER),
    t.TurnAborted(outcome=TurnOutcome.ABORTED),
    *(
        t.Amended(outcome=outcome, entry="entry:e")
        for outcome in (TurnOutcome.REPLIED, TurnOutcome.FAILED, None)
    ),
    t.Held(reason="restored"),
    t.Unheld(by="op"),
    t.Resubmitted(by="op"),
    t.TurnRedacted(by="op"),
]
BY_NAME = {NAMES[type(event)].partition(".")[2]: event for event in SAMPLES}
ACCEPTED, STARTED = BY_NAME["accepted"], BY_NAME["started"]
ANSWERED = BY_NAME["answered"]
PATHS: dict[str, list[t.TurnEvent]] = {
    "accepted": [ACCEPTED],
    "running": [ACCEPTED, STARTED],
    "answered": [ACCEPTED, STARTED, ANSWERED],
    "completed": [ACCEPTED, STARTED, ANSWERED, BY_NAME["completed"]],
    "failed": [ACCEPTED, STARTED, BY_NAME["failed"]],
    "aborted": [ACCEPTED, BY_NAME["aborted"]],
}


def folded(events: list[t.TurnEvent]) -> Turn | None:
    state: Turn | None = None
    for position, event in enumerate(events, 1):
        state = evolve(state, event, "turn:t", 1000 + position, position)
    return state


def name_of(event: t.TurnEvent) -> str:
    return NAMES[type(event)].partition(".")[2]


ALL = sorted({(phase, name_of(event)) for phase in TABLE for event in SAMPLES})


def test_the_samples_are_all_events_there_are() -> None:
    names = {name.partition(".")[2] for name in NAMES.values() if "turn." in name}
    assert {name_of(event) for event in SAMPLES} == names
    assert set(TRANSITIONS) == {None, *TurnPhase}


@pytest.mark.parametrize(("phase", "name"), ALL)
def test_each_event_leads_where_the_table_says(phase: str, name: str) -> None:
    wanted = TABLE[phase].get(name)
    found = set()
    for event in (e for e in SAMPLES if name_of(e) == name):
        state, twin = folded(PATHS.get(phase, [])), folded(PATHS.get(phase, []))
        if wanted is not None:
            found.add(str(evolve(state, event, "turn:t", 2000, 9).phase))
            continue
        with pytest.raises(IllegalTransitionError) as caught:
            evolve(state, event, "turn:t", 2000, 9)
        legal = {f"turn.{known}" for known in TABLE[phase]}
        assert set(caught.value.legal.split(", ")) == legal
        assert state == twin
    assert found == (wanted or set())


def test_a_resubmitted_turn_begins_its_count_again() -> None:
    failed = t.RunFailed(**RUN, failure=FailureClass.TRANSIENT, due=5)
    again = t.Started(run=2, owner="o", fence=1)
    ended = t.Failed(outcome=TurnOutcome.FAILED, reason="x")
    path = [ACCEPTED, STARTED, failed, again, ended, t.Resubmitted(by="op")]
    state = folded(path)
    assert state is not None
    assert (state.failed_runs, state.run, state.resubmitted) == (0, 2, True)
    assert state.outcome is None
