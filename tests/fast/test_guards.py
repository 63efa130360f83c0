"""Each guard at its boundary: what it lets pass and what it stops."""

from typing import Any

import pytest
from attrs import evolve
from msgspec.structs import replace

from turnfold._decide import rules
from turnfold._log import events as t
from turnfold._log.outbox_events import PlannedPart
from turnfold._state.entry import Blame, Entry, PartState, gathered
from turnfold._state.turn import Turn
from turnfold.enums import (
    AbortReason,
    DeliveryClass,
    Kind,
    PartEnd,
    Phase,
    TurnPhase,
)
from turnfold.ports.channel import PartClass

KEYED, LOOKUP = DeliveryClass.KEYED, DeliveryClass.LOOKUP
PART = PlannedPart(
    kind="text", body="d", key="k", classes=(KEYED, LOOKUP), key_window_ms=100
)
ENTRY = Entry(
    stream="entry:e",
    version=3,
    phase=Phase.DISPATCHED,
    order=1,
    created=0,
    updated=0,
    kind=Kind.FINAL,
    channel="t",
    account="a",
    conversation="42",
    lane="t/a/42/",
    body=("d",),
    expires_at=1000,
    parts=(PART, PART),
    planned=True,
    budget=8,
    attempt=1,
    used=1,
    fence=5,
    first_at=500,
)
FIRST = t.Accepted(
    channel="t",
    account="a",
    conversation="42",
    message_id="1",
    lane="t/a/42/",
    body="d",
)
TURN = Turn(
    stream="turn:t",
    version=2,
    phase=TurnPhase.RUNNING,
    order=1,
    created=0,
    updated=0,
    channel="t",
    account="a",
    conversation="42",
    message_id="1",
    event="message",
    lane="t/a/42/",
    body="d",
    first=FIRST,
    run=2,
    fence=5,
)


@pytest.mark.parametrize(("now", "passes"), [(999, True), (1000, False)])
def test_at_its_expiry_it_is_too_late(now: int, passes: bool) -> None:
    assert rules.not_expired(ENTRY, now) is passes


WAITS = evolve(ENTRY, phase=Phase.QUEUED, attempt=0, used=0, first_at=None, since=200)


@pytest.mark.parametrize(("now", "old"), [(300, False), (301, True)])
def test_an_entry_is_too_old_when_it_has_waited_for_longer(now: int, old: bool) -> None:
    assert rules.too_old(WAITS, now, 100, 0) is old


@pytest.mark.parametrize(
    "more",
    [
        {"phase": Phase.DISPATCHED},
        {"phase": Phase.IN_DOUBT, "doubt": True},
        {"phase": Phase.PARKED, "doubt": True},
        {"handle": ("h",)},
        {"others": gathered([PartState(part=0, end=PartEnd.DELIVERED)]), "part": 1},
        {"others": gathered([PartState(part=0, handle=("h",))]), "part": 1},
        {"live": True, "planned": False},
        {"since": 199},
    ],
    ids=str,
)
def test_what_may_have_been_seen_or_still_grows_is_not_too_old(
    more: dict[str, Any],
) -> None:
    assert rules.too_old(WAITS, 10_000, 100, 200)
    assert not rules.too_old(evolve(WAITS, **more), 10_000, 100, 200)
    assert not rules.too_old(WAITS, 10_000, None, 200)


@pytest.mark.parametrize(("used", "passes"), [(0, True), (7, True), (8, False)])
def test_the_budget_is_used_up_at_its_size(used: int, passes: bool) -> None:
    assert rules.budget_left(evolve(ENTRY, used=used)) is passes


@pytest.mark.parametrize(("alone", "passes"), [(2, True), (3, False)])
def test_the_third_death_alone_is_the_last(alone: int, passes: bool) -> None:
    blame = Blame(deaths=9, suspects=1, alone=alone)
    assert rules.not_quarantined(evolve(ENTRY, blame=blame), 3) is passes


def test_a_requested_abort_forbids_attempts() -> None:
    assert rules.not_aborted(ENTRY)
    assert not rules.not_aborted(evolve(ENTRY, abort=AbortReason.USER))


@pytest.mark.parametrize(("now", "passes"), [(549, True), (550, False)])
def test_half_of_a_window_is_kept(now: int, passes: bool) -> None:
    assert rules.key_window_open(ENTRY, now, 0) is passes
    doubtful = evolve(ENTRY, doubt=True)
    assert rules.resend_allowed(doubtful, now, 0) is passes


def test_a_key_for_ever_has_no_window_and_no_key_has_none() -> None:
    forever = replace(PART, key_window_ms=None)
    assert rules.key_window_open(evolve(ENTRY, parts=(forever,)), 10**12, 0)
    keyless = replace(PART, classes=(LOOKUP,))
    assert not rules.key_window_open(evolve(ENTRY, parts=(keyless,)), 501, 0)
    assert not rules.key_window_open(evolve(ENTRY, first_at=None), 501, 0)


def test_doubt_forbids_a_resend_until_somebody_says_so() -> None:
    blind = evolve(ENTRY, parts=(replace(PART, classes=()),), doubt=True)
    assert not rules.resend_allowed(blind, 501, 0)
    assert rules.resend_allowed(evolve(blind, resend=True), 501, 0)
    assert rules.resend_allowed(evolve(blind, doubt=False), 501, 0)
    assert rules.no_doubt(ENTRY)
    assert not rules.no_doubt(blind)
    assert not rules.may_look_up(blind)
    assert rules.may_look_up(ENTRY)


@pytest.mark.case("V14")
@pytest.mark.parametrize(
    ("claimed", "classes", "window", "settle"),
    [
        (PartClass(classes=(KEYED, LOOKUP)), (KEYED, LOOKUP), 100, 120_000),
        (PartClass(classes=(LOOKUP,), settle_ms=0), (LOOKUP,), 100, 120_000),
        (PartClass(classes=(KEYED,), key_window_ms=99), (KEYED,), 99, 120_000),
        (PartClass(classes=(KEYED,), key_window_ms=101), (KEYED,), 100, 120_000),
        (PartClass(settle_ms=120_001), (), 100, 120_001),
    ],
)
def test_the_class_in_force_is_what_plan_and_channel_both_name(
    claimed: PartClass,
    classes: tuple[DeliveryClass, ...],
    window: int,
    settle: int,
) -> None:
    part = rules.in_force(PART, claimed)
    assert (part.classes, part.key_window_ms) == (classes, window)
    assert part.settle_ms == settle
    assert (part.key, part.body) == (PART.key, PART.body)


@pytest.mark.parametrize(
    "change",
    [
        {"fence": 6},
        {"part": 1},
        {"attempt": 2},
        {"phase": Phase.IN_DOUBT},
        {"phase": Phase.QUEUED},
    ],
)
def test_an_outcome_belongs_to_one_attempt(change: dict[str, object]) -> None:
    assert rules.outcome_is_current(ENTRY, 5, 0, 1)
    assert not rules.outcome_is_current(evolve(ENTRY, **change), 5, 0, 1)


def test_only_another_epoch_is_dead_and_only_in_flight() -> None:
    assert rules.sender_is_dead(ENTRY, 6)
    assert not rules.sender_is_dead(ENTRY, 5)
    assert not rules.sender_is_dead(evolve(ENTRY, phase=Phase.IN_DOUBT), 6)
    assert rules.runner_is_dead(TURN, 6)
    assert not rules.runner_is_dead(TURN, 5)
    assert not rules.runner_is_dead(evolve(TURN, phase=TurnPhase.ANSWERED), 6)


def with_first(**facts: Any) -> Entry:
    """Two parts, the second at hand, and the first as the facts say."""
    first = PartState(part=0, **facts)
    return evolve(ENTRY, parts=(PART, PART), part=1, others=gathered([first]))


M = ("m",)


def test_a_receipt_is_evidence_for_a_part_that_has_none() -> None:
    assert rules.may_be_accepted(ENTRY, 0, M)
    assert not rules.may_be_accepted(ENTRY, 2, M)  # there is no such part
    assert rules.may_be_accepted(with_first(end=PartEnd.REFUSED), 0, M)
    for end in (PartEnd.DELIVERED, PartEnd.BOUNCED):
        assert not rules.may_be_accepted(with_first(end=end), 0, M)
    for again in (with_first(void=M), evolve(ENTRY, void=M)):
        assert not rules.may_be_accepted(again, 0, M)
        assert rules.may_be_accepted(again, 0, ("n",))


@pytest.mark.parametrize(("unsettled", "proven"), [(1, False), (0, True), (-1, True)])
def test_absence_is_proven_when_nothing_can_land(unsettled: int, proven: bool) -> None:
    assert rules.absence_proven(unsettled) is proven


@pytest.mark.parametrize(
    ("ids", "gives", "given"),
    [
        (("a",), True, True),
        ((), True, False),
        (("",), True, False),
        (("a", ""), True, False),
        ((), False, True),
    ],
)
def test_a_receipt_has_ids_unless_there_are_none(
    ids: tuple[str, ...], gives: bool, given: bool
) -> None:
    assert rules.receipt_given(ids, gives_ids=gives) is given


@pytest.mark.parametrize(
    "change",
    [
        {"phase": TurnPhase.ACCEPTED},
        {"phase": TurnPhase.FAILED},
        {"fence": 6},
        {"run": 3},
        {"abort": AbortReason.USER},
        {"phase": TurnPhase.ANSWERED, "reopened": True},
    ],
)
def test_only_the_run_under_way_speaks(change: dict[str, object]) -> None:
    assert rules.run_is_current(TURN, 5, 2)
    assert not rules.run_is_current(evolve(TURN, **change), 5, 2)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("doubt", [False, True])
def test_what_is_surely_unsent(phase: Phase, doubt: bool) -> None:
    entry = evolve(ENTRY, phase=phase, doubt=doubt)
    unsent = phase in (Phase.QUEUED, Phase.RETRYABLE) and not doubt
    assert rules.abortable_as_unsent(entry) is unsent
    hidden = (
        phase
        in (Phase.QUEUED, Phase.RETRYABLE, Phase.ABORTED, Phase.ATTEMPTED, Phase.FAILED)
        and not doubt
    )
    assert rules.nothing_seen(entry) is hidden
    assert not rules.nothing_seen(evolve(entry, handle=("h",)))


def test_what_was_accepted_or_placed_may_have_been_seen() -> None:
    unsent = {"phase": Phase.QUEUED}
    assert rules.nothing_seen(evolve(with_first(end=PartEnd.REFUSED), **unsent))
    for end in (PartEnd.DELIVERED, PartEnd.BOUNCED):
        assert not rules.nothing_seen(evolve(with_first(end=end), **unsent))
    assert not rules.nothing_seen(evolve(with_first(handle=("h",)), **unsent))
    assert not rules.nothing_seen(evolve(with_first(doubt=True), **unsent))


def test_only_an_accepted_part_can_bounce() -> None:
    assert rules.was_accepted(with_first(end=PartEnd.DELIVERED), 0)
    assert not rules.was_accepted(with_first(end=PartEnd.DELIVERED), 1)
    for end in (None, PartEnd.REFUSED, PartEnd.BOUNCED):
        assert not rules.was_accepted(with_first(end=end), 0)


def test_doubt_about_any_part_is_doubt() -> None:
    assert rules.no_doubt(with_first(end=PartEnd.DELIVERED))
    assert not rules.no_doubt(with_first(doubt=True))


def test_no_death_ends_a_turn_that_was_left_open() -> None:
    assert not rules.runner_is_dead(evolve(TURN, left_open=9_000), 6)


def test_the_rest() -> None:
    assert rules.head_of_lane("entry:e", "entry:e")
    assert not rules.head_of_lane("entry:e", "entry:f")
    assert not rules.head_of_lane("entry:e", None)
    assert rules.not_answered(TURN)
    assert not rules.not_answered(evolve(TURN, phase=TurnPhase.ANSWERED))
    assert rules.runs_left(evolve(TURN, failed_runs=1), 2)
    assert not rules.runs_left(evolve(TURN, failed_runs=2), 2)


@pytest.mark.case("U07")
def test_a_suspect_that_is_tried_alone_waits_for_what_runs() -> None:
    suspect = evolve(TURN, suspects=1, deaths=2, phase=TurnPhase.ACCEPTED)
    assert rules.may_run_beside(suspect, [])
    assert not rules.may_run_beside(suspect, [TURN])
    assert not rules.may_run_beside(TURN, [evolve(suspect, phase=TurnPhase.RUNNING)])


@pytest.mark.case("U07")
def test_an_entry_that_is_tried_alone_waits_for_all_that_is_under_way() -> None:
    suspect = evolve(ENTRY, blame=Blame(deaths=2, suspects=1))
    assert rules.may_send_beside(suspect, [], [])
    assert not rules.may_send_beside(suspect, [ENTRY], [])
    assert not rules.may_send_beside(suspect, [], [TURN])
    assert not rules.may_send_beside(ENTRY, [suspect], [])
    assert rules.may_send_beside(ENTRY, [ENTRY], [TURN])


@pytest.mark.case("U07")
def test_half_of_the_suspect_entries_are_sent_at_a_time() -> None:
    suspect = evolve(ENTRY, blame=Blame(deaths=1, suspects=4))
    assert rules.may_send_beside(suspect, [suspect], [])
    assert not rules.may_send_beside(suspect, [suspect, suspect], [])
    assert rules.may_send_beside(ENTRY, [suspect, suspect], [])


@pytest.mark.case("T06")
def test_the_age_of_a_message_is_known_where_a_clock_can_tell() -> None:
    sent = evolve(TURN, created=1_000, first=replace(FIRST, sent_at=200))
    assert rules.age_of(evolve(TURN, created=1_000), 5_000, 5_000, 0) == 4_000
    assert rules.age_of(sent, 5_000, 5_000, 0) == 4_800
    assert rules.age_of(sent, 5_000, 90_000, 500) == 4_000
    assert rules.age_of(sent, 5_000, 5_000, 2_000) is None
