"""The fold of an entry, for every pair of phase and event: it leads to each phase of the
model's table, or the event is refused by name and changes nothing."""

from contextlib import suppress

import attrs
import pytest

from turnfold._log import outbox_events as o
from turnfold._log.events import NAMES
from turnfold._state.entry import Entry
from turnfold._state.entry_fold import evolve
from turnfold._state.entry_table import TRANSITIONS
from turnfold._state.turn import Turn
from turnfold.enums import (
    AbortReason,
    BlindPolicy,
    Decoration,
    DeliveryClass,
    FailureClass,
    Kind,
    PartAct,
    Phase,
    Reason,
    Trial,
)
from turnfold.errors import IllegalTransitionError
from turnfold_model.machines import transition_table
from turnfold_model.machines.transition_table import NONE

TABLE = {
    phase or NONE: {kind.partition(".")[2]: set(to) for kind, to in row.items()}
    for phase, row in transition_table.ENTRY.items()
}
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
BOTH = (TRY, LATER)
REFUSED = FailureClass.TOO_LONG


def attempted(part: int, wire: bool) -> o.Attempted:
    return o.Attempted(part=part, attempt=1, owner="o", fence=1, on_wire=wire)


SAMPLES: list[o.OutboxEvent] = [
    o.Queued(**WHERE),
    o.Imported(**WHERE, origin="x"),
    o.Imported(**WHERE, origin="x", enqueued_at=5, tries=2, detail="D"),
    o.Planned(parts=(), budget=8),
    *(attempted(0, wire) for wire in (False, True)),
    o.Attempted(
        part=0,
        attempt=1,
        owner="o",
        fence=1,
        act=PartAct.PLACEHOLDER,
        classes=(DeliveryClass.EDITABLE,),
        policy=BlindPolicy.HOLD,
    ),
    o.Dispatched(**TRY),
    o.Placed(**TRY, handle=("h",)),
    o.Placed(**TRY, handle=("h",), stray=True),
    o.Tried(act=Trial.PLAN, owner="o", fence=1),
    *(o.PartRefused(**where, failure=REFUSED) for where in BOTH),
    o.AmendedPart(part=0, body="e", key="l", dropped=Decoration.THREAD),
    *(o.PartDelivered(**where, receipt=("m",)) for where in BOTH),
    *(o.Delivered(**where, receipt=("m",)) for where in BOTH),
    o.Deferred(**TRY, failure=FailureClass.RATE_LIMITED),
    o.FailedRetryable(**TRY, failure=FailureClass.CANCELLED, due=5),
    o.OutcomeUnknown(**TRY, cause="cut", due=5),
    *(o.Reconciled(part=0, absent=absent, due=5) for absent in (False, True)),
    o.Parked(reason="cut"),
    *(o.Resolved(part=0, resend=resend, by="op") for resend in (False, True)),
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
WIRE = attempted(0, wire=True)
LOST = o.OutcomeUnknown(**TRY, cause="cut", due=5)
PARKED = o.Parked(reason="cut")
AGAIN = o.FailedRetryable(**TRY, failure=FailureClass.CANCELLED, due=5)
Path = list[o.OutboxEvent]
PATHS: dict[str, Path] = {
    "queued": [],
    "attempted": [attempted(0, wire=False)],
    "dispatched": [WIRE],
    "in_doubt": [WIRE, LOST],
    "parked": [WIRE, LOST, PARKED],
    "retryable": [WIRE, AGAIN],
    "failed": [WIRE, o.FailedTerminal(reason=Reason.PERMANENT)],
    "aborted": [o.Aborted(reason=AbortReason.USER)],
}
# Two parts, both in doubt, and the first of them sent again at somebody's word.
BOTH_LOST: Path = [o.Doubted(reason="restored")]
RESENT: Path = [*BOTH_LOST, o.Resolved(part=0, resend=True, by="op")]
# Two parts, the first of them refused for good.
HALF: Path = [o.PartRefused(part=0, attempt=0, failure=REFUSED)]
SECOND = attempted(1, wire=True)
SECOND_LOST = o.OutcomeUnknown(**LATER, cause="cut", due=5)
PAIRS: dict[str, list[Path]] = {
    "queued": [HALF],
    "attempted": [[*RESENT, attempted(0, wire=False)], [*HALF, attempted(1, False)]],
    "dispatched": [[*RESENT, WIRE], [*HALF, SECOND]],
    "in_doubt": [RESENT, [*HALF, SECOND, SECOND_LOST]],
    "parked": [BOTH_LOST, [*HALF, SECOND, SECOND_LOST, PARKED]],
    "retryable": [
        [
            *HALF,
            SECOND,
            o.FailedRetryable(**LATER, failure=FailureClass.CANCELLED, due=5),
        ]
    ],
    "failed": [[*BOTH_LOST, o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN)]],
}


def folded(events: list[o.OutboxEvent]) -> Entry:
    state: Entry | None = None
    for position, event in enumerate(events, 1):
        state = evolve(state, event, "entry:e", 1000 + position, position)
    assert state is not None
    return state


def born(parts: int) -> Path:
    return [o.Queued(**WHERE), o.Planned(parts=(PART,) * parts, budget=8)]


def in_phase(phase: str, parts: int) -> Entry | None:
    if phase == NONE:
        return None
    if phase == "delivered":
        return folded([*born(1), WIRE, o.Delivered(**TRY, receipt=("m",))])
    return folded([*born(parts), *PATHS[phase]])


def states(phase: str) -> list[Entry | None]:
    """An entry in this phase, by every way that makes a difference."""
    pairs = [folded([*born(2), *path]) for path in PAIRS.get(phase, [])]
    return [in_phase(phase, 1), in_phase(phase, 2), *pairs]


def name_of(event: o.OutboxEvent) -> str:
    return NAMES[type(event)].partition(".")[2]


def outcomes(phase: str, name: str) -> set[str]:
    """Where the samples of an event lead from a phase. A sample that says what the table
    does not allow counts only if all do."""
    found = set()
    for event in SAMPLES:
        for state in states(phase) if name_of(event) == name else ():
            with suppress(IllegalTransitionError):
                found.add(str(evolve(state, event, "entry:e", 2000, 9).phase))
    return found or {"illegal"}


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
    assert (state.part, state.attempt, state.used, state.blame.deaths) == (1, 0, 0, 0)
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


@pytest.mark.parametrize("cls", [Entry, Turn])
def test_a_copy_of_a_state_has_every_field(cls: type) -> None:
    state = object.__new__(cls)
    for number, field in enumerate(attrs.fields(cls)):
        setattr(state, field.name, number)
    assert attrs.astuple(state.copied()) == attrs.astuple(state)
    assert state.copied() is not state
