"""The fold of an entry, for every pair of phase and event: it leads to each phase of the
model's table, or the event is refused by name and changes nothing."""

import pytest

from turnfold.errors import IllegalTransitionError
from turnfold.events import NAMES, outbox
from turnfold.machines.entry import TRANSITIONS, Entry, evolve
from turnfold.words import (
    AbortReason,
    DeliveryClass,
    FailureClass,
    Kind,
    Phase,
    Reason,
)
from turnfold_model import transition_table
from turnfold_model.transition_table import NONE

TABLE = {
    phase or NONE: {kind.partition(".")[2]: set(to) for kind, to in row.items()}
    for phase, row in transition_table.ENTRY.items()
}
o = outbox
WHERE = {
    "kind": Kind.FINAL,
    "channel": "t",
    "account": "a",
    "conversation": "42",
    "lane": "t/a/42/",
    "body": ("d",),
    "expires_at": 9_000,
}
TRY = {"part": 0, "attempt": 1}
LATER = {"part": 1, "attempt": 1}
SAMPLES: list[outbox.OutboxEvent] = [
    o.Queued(**WHERE),
    *(
        o.Imported(**WHERE, phase=phase, origin="x")
        for phase in ("queued", "parked", "failed")
    ),
    o.Planned(parts=(), budget=8),
    *(
        o.Attempted(part=0, attempt=2, owner="o", fence=1, on_wire=wire)
        for wire in (False, True)
    ),
    o.Dispatched(**TRY),
    o.PartDelivered(**TRY, receipt=("m",)),
    o.Delivered(**LATER, receipt=("m",)),
    o.Deferred(**TRY, failure=FailureClass.RATE_LIMITED),
    o.FailedRetryable(**TRY, failure=FailureClass.TRANSIENT, due=5),
    o.OutcomeUnknown(**TRY, cause="cut", due=5),
    *(o.Reconciled(part=0, absent=absent, due=5) for absent in (False, True)),
    o.Parked(reason="cut"),
    *(o.Resolved(resend=resend, by="op") for resend in (False, True)),
    o.FailedTerminal(reason=Reason.PERMANENT),
    o.AbortRequested(reason=AbortReason.USER),
    o.Aborted(reason=AbortReason.USER),
    *(o.LateReceipt(part=part, attempt=1, receipt=("m",)) for part in (0, 1, 7)),
    o.Rescheduled(due=5, by="op"),
    o.Redriven(budget=8, expires_at=9_999, by="op"),
    o.Acknowledged(by="op"),
    o.Bounced(part=0),
    o.Doubted(reason="restored"),
    o.LaneYielded(reason="parked"),
    o.Redacted(by="op"),
]
PART = o.PlannedPart(kind="text", body="d", key="k", classes=(DeliveryClass.KEYED,))
WIRE = o.Attempted(part=0, attempt=1, owner="o", fence=1, on_wire=True)
PATHS: dict[str, list[outbox.OutboxEvent]] = {
    "queued": [],
    "attempted": [o.Attempted(part=0, attempt=1, owner="o", fence=1)],
    "dispatched": [WIRE],
    "in_doubt": [WIRE, o.OutcomeUnknown(**TRY, cause="cut", due=5)],
    "parked": [
        WIRE,
        o.OutcomeUnknown(**TRY, cause="cut", due=5),
        o.Parked(reason="cut"),
    ],
    "retryable": [
        WIRE,
        o.FailedRetryable(**TRY, failure=FailureClass.TRANSIENT, due=5),
    ],
    "failed": [WIRE, o.FailedTerminal(reason=Reason.PERMANENT)],
    "aborted": [o.Aborted(reason=AbortReason.USER)],
}


def folded(events: list[outbox.OutboxEvent]) -> Entry:
    state: Entry | None = None
    for position, event in enumerate(events, 1):
        state = evolve(state, event, "entry:e", 1000 + position, position)
    assert state is not None
    return state


def in_phase(phase: str, parts: int) -> Entry | None:
    if phase == NONE:
        return None
    birth = [o.Queued(**WHERE), o.Planned(parts=(PART,) * parts, budget=8)]
    if phase == "delivered":
        return folded([*birth, WIRE, o.Delivered(**TRY, receipt=("m",))])
    return folded([*birth, *PATHS[phase]])


def name_of(event: outbox.OutboxEvent) -> str:
    return NAMES[type(event)].partition(".")[2]


def outcomes(phase: str, name: str) -> set[str]:
    """Where the samples of an event lead from a phase, with one part and with two."""
    found = set()
    for event in SAMPLES:
        if name_of(event) != name:
            continue
        for parts in (1,) if phase == "delivered" else (1, 2):
            state = in_phase(phase, parts)
            if name == "delivered" and state is not None:
                parts_left = parts - state.part
                if parts_left > 1:
                    continue  # `delivered` settles the last part
            if name == "part_delivered" and parts == 1 and phase != "delivered":
                continue
            try:
                found.add(str(evolve(state, event, "entry:e", 2000, 9).phase))
            except IllegalTransitionError:
                found.add("illegal")
    return found


ALL = [(phase, name_of(event)) for phase in TABLE for event in SAMPLES]


def test_the_samples_are_all_events_there_are() -> None:
    names = {name.partition(".")[2] for name in NAMES.values() if "outbox." in name}
    assert {name_of(event) for event in SAMPLES} == names


@pytest.mark.parametrize(("phase", "name"), sorted(set(ALL)))
def test_each_event_leads_where_the_table_says(phase: str, name: str) -> None:
    assert outcomes(phase, name) == TABLE[phase].get(name, {"illegal"})


@pytest.mark.parametrize(("phase", "name"), sorted(set(ALL)))
def test_what_is_illegal_names_what_is_legal_and_changes_nothing(
    phase: str, name: str
) -> None:
    if name in TABLE[phase]:
        return
    state, twin = in_phase(phase, 1), in_phase(phase, 1)
    event = next(e for e in SAMPLES if name_of(e) == name)
    with pytest.raises(IllegalTransitionError) as caught:
        evolve(state, event, "entry:e", 2000, 9)
    legal = {f"outbox.{known}" for known in TABLE[phase]}
    assert set(caught.value.legal.split(", ")) == legal
    assert caught.value.event == f"outbox.{name}"
    assert "entry:e" in str(caught.value)
    assert state == twin


def test_every_phase_has_a_row_even_the_closed_ones() -> None:
    assert set(TRANSITIONS) == {None, *Phase}


@pytest.mark.parametrize("phase", ["queued", "retryable", "aborted"])
def test_phases_that_imply_no_doubt_have_none(phase: str) -> None:
    state = in_phase(phase, 1)
    assert state is not None
    assert not state.doubt


def test_a_deferral_gives_its_unit_back_and_keeps_the_number() -> None:
    birth = [o.Queued(**WHERE), o.Planned(parts=(PART,), budget=8)]
    deferred = o.Deferred(**TRY, failure=FailureClass.RATE_LIMITED)
    state = folded([*birth, WIRE, deferred])
    assert (state.used, state.attempt) == (0, 1)


def test_a_settled_part_starts_the_next_one_from_nothing() -> None:
    birth = [o.Queued(**WHERE), o.Planned(parts=(PART, PART), budget=8)]
    unknown = o.OutcomeUnknown(**TRY, cause="owner_died", due=5)
    late = o.LateReceipt(part=0, attempt=1, receipt=("m",), thread="th")
    state = folded([*birth, WIRE, unknown, late])
    assert (state.part, state.attempt, state.used, state.deaths) == (1, 0, 0, 0)
    assert (state.doubt, state.first_at, state.thread) == (False, None, "th")
    assert state.phase is Phase.QUEUED


def test_a_late_receipt_of_a_dead_letter_closes_it_only_when_all_is_settled() -> None:
    birth = [o.Queued(**WHERE), o.Planned(parts=(PART, PART), budget=8)]
    failed = [WIRE, o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN)]
    first = o.LateReceipt(part=0, attempt=1, receipt=("m",))
    second = o.LateReceipt(part=1, attempt=1, receipt=("n",))
    state = folded([*birth, *failed, first])
    assert (state.phase, state.part) == (Phase.FAILED, 1)
    assert evolve(state, second, "entry:e", 3000, 9).phase is Phase.DELIVERED
