"""Logs with events that no decision makes yet: placeholders and edits, parts that end one
by one, live replies, dead updates, turns left open. Both readings judge them alike."""

from hashlib import sha256

import pytest
from msgspec.structs import replace

from turnfold._log import events as g
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.events import Event
from turnfold.enums import (
    Decoration,
    DeliveryClass,
    FailureClass,
    PartAct,
    Reason,
    Trial,
    TurnOutcome,
)
from turnfold_model.readings.compare import judged
from turnfold_model.readings.damage import Log, damaged
from turnfold_model.reference.log import as_events

from .audit_logs import (
    FINAL,
    KEYED,
    START,
    T0,
    E,
    F,
    Step,
    T,
    accepted,
    answered,
    attempted,
    delivered,
    part_delivered,
    planned,
    queued,
    records,
    started,
    unknown,
)

NOTHING = sha256().hexdigest()

EVERY = 3  # of the damaged logs
EDITABLE = (DeliveryClass.EDITABLE,)
PLACEHOLDER, EDIT = PartAct.PLACEHOLDER, PartAct.EDIT
LONG, DUE = FailureClass.TOO_LONG, T0


def log(*events: Event, of: str = E) -> list[Step]:
    return [*START, (of, queued()), *((of, event) for event in events)]


def pair(*events: Event) -> list[Step]:
    """An entry of two parts under keys that count for ever."""
    return log(planned(2, KEYED), *events)


def edits(*events: Event, parts: int = 1) -> list[Step]:
    return log(planned(parts, EDITABLE), *events)


def live(*events: Event) -> list[Step]:
    """A live reply: its placeholder goes out before it is planned."""
    first = attempted(act=PLACEHOLDER, classes=EDITABLE)
    return log(first, *events)


def placed(part: int = 0, attempt: int = 1, *, stray: bool = False) -> o.Placed:
    return o.Placed(part=part, attempt=attempt, handle=(f"h{part}",), stray=stray)


def refused(part: int = 0, attempt: int = 1) -> o.PartRefused:
    return o.PartRefused(part=part, attempt=attempt, failure=LONG)


def late(part: int = 0, attempt: int = 1, receipt: str = "m") -> o.LateReceipt:
    return o.LateReceipt(part=part, attempt=attempt, receipt=(receipt,))


def resolved(part: int, *, resend: bool) -> o.Resolved:
    return o.Resolved(part=part, resend=resend, by="me")


def redriven(*keys: str, duplicate: bool = False) -> o.Redriven:
    return o.Redriven(
        budget=8, expires_at=T0 + 90_000, by="me", keys=keys, accept_duplicate=duplicate
    )


def again(attempt: int, **more: object) -> o.Attempted:
    return attempted(attempt, **more)


PARTIAL = o.FailedTerminal(reason=Reason.PARTIAL)
DOUBTED = o.Doubted(reason="restored")
TRIED = o.Tried(act=Trial.LOOK_UP, owner="w1", fence=1)
FREE = o.Deferred(part=0, attempt=2, failure=FailureClass.RATE_LIMITED)
GONE = o.FailedRetryable(part=0, attempt=2, failure=FailureClass.HANDLE_GONE, due=DUE)
PLAIN = o.FailedRetryable(part=0, attempt=1, failure=FailureClass.DECORATION, due=DUE)
BARE = o.Deferred(part=0, attempt=2, failure=FailureClass.DECORATION)
AMENDED = o.AmendedPart(part=0, body="c", key="new", dropped=Decoration.REPLY_TO)
PUT = attempted(act=PLACEHOLDER)
EDITED = again(2, act=EDIT)
DEAD = t.Dead(channel="t", account="default", body="b", lane="t/default/", detail="e")

GOOD: dict[str, list[Step]] = {
    "placed, then edited": edits(PUT, placed(), EDITED, delivered(2)),
    "an edit of unknown fate is made again": edits(
        PUT, placed(), EDITED, unknown(2), again(3, act=EDIT), delivered(3)
    ),
    "a placeholder in doubt is made again once": edits(
        PUT, unknown(), again(2, act=PLACEHOLDER), placed(0, 2), again(3, act=EDIT)
    ),
    "a placeholder in doubt, placed late": edits(PUT, unknown(), placed(), EDITED),
    "a stray placeholder": edits(
        PUT,
        unknown(),
        again(2, act=PLACEHOLDER),
        placed(0, 2),
        placed(0, 1, stray=True),
    ),
    "the handle is gone": edits(PUT, placed(), EDITED, GONE, again(3, act=PLACEHOLDER)),
    "a live reply and its seal": live(
        placed(), planned(1, EDITABLE), EDITED, delivered(2)
    ),
    "sealed while the placeholder is out": live(planned(1, EDITABLE), placed(), EDITED),
    "a live reply in doubt, then sealed": live(
        unknown(), planned(1, EDITABLE), placed()
    ),
    "a look-up begins": pair(attempted(), unknown(), TRIED, TRIED, again(2)),
    "a plan begins": log(o.Tried(act=Trial.PLAN, owner="w1", fence=1), planned()),
    "a part refused, the next delivered": pair(
        attempted(), refused(), attempted(part=1), part_delivered(part=1), PARTIAL
    ),
    "refused before it was attempted": pair(refused(0, 0), attempted(part=1)),
    "all parts refused": pair(
        refused(0, 0), refused(1, 0), o.FailedTerminal(reason=Reason.REFUSED)
    ),
    "refused, redriven under a new key": pair(
        refused(0, 0),
        attempted(part=1),
        part_delivered(part=1),
        PARTIAL,
        redriven("new"),
        attempted(),
        delivered(),
    ),
    "a receipt for a refused part": pair(
        attempted(), refused(), late(), attempted(part=1)
    ),
    "a decoration is dropped": pair(
        attempted(), PLAIN, AMENDED, again(2), part_delivered(2)
    ),
    "a decoration is dropped while an older attempt is in doubt": pair(
        attempted(),
        unknown(),
        again(2),
        BARE,
        replace(AMENDED, key="e0"),
        again(3),
        part_delivered(3),
    ),
    "two parts in doubt, one after the other": pair(
        DOUBTED,
        resolved(0, resend=False),
        o.PartDelivered(part=1, attempt=0, by="me"),
        attempted(),
        delivered(),
    ),
    "one of two in doubt is sent again": pair(
        DOUBTED, resolved(0, resend=True), attempted(), part_delivered()
    ),
    "evidence while another part is out": pair(
        attempted(), unknown(), o.Parked(reason="x"), late(), attempted(part=1)
    ),
    "put off, and the word still stands": log(
        planned(),
        attempted(),
        unknown(),
        resolved(0, resend=True),
        again(2),
        FREE,
        again(3),
        delivered(3),
    ),
    "bounced and redriven": pair(
        attempted(),
        part_delivered(),
        attempted(part=1),
        delivered(part=1),
        o.Bounced(part=0),
        redriven("new"),
        again(2),
        delivered(2),
    ),
    "a part bounced while the next is out": pair(
        attempted(),
        part_delivered(),
        attempted(part=1),
        o.Bounced(part=0),
        part_delivered(part=1),
        PARTIAL,
    ),
    "redriven in doubt": pair(
        attempted(),
        unknown(),
        o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN),
        redriven(duplicate=True),
        again(2),
        part_delivered(2),
    ),
    "a dead update": [*START, (T, DEAD)],
    "a dead update is tried again": [
        *START,
        (T, DEAD),
        (T, t.Resubmitted(by="me")),
        (T, started()),
    ],
    "left open, and the lane goes on": [
        *START,
        (T, accepted()),
        (T, started()),
        (T, t.LeftOpen(run=1, until=T0 + 9)),
        ("turn:u", accepted("2")),
        ("turn:u", started()),
    ],
    "left open, then answered": [
        *answered()[:4],
        (T, t.LeftOpen(run=1, until=T0 + 9)),
        *answered()[4:],
    ],
    "redriven, and the turn is answered again": [
        *answered(),
        (FINAL, o.FailedTerminal(reason=Reason.PERMANENT)),
        (T, t.Failed(outcome=TurnOutcome.FAILED, reason="permanent")),
        (FINAL, redriven(), 9),
        (T, t.Amended(entry=FINAL)),
        (FINAL, again(2)),
        (FINAL, delivered(2), 10),
        (T, t.Completed(outcome=TurnOutcome.REPLIED)),
    ],
    "what the store tells": [
        *START,
        ("store", g.Pruned(before=T0, streams=0, events=0, records=0, digest=NOTHING)),
        ("store", g.PrunedReceipt(entry=F, part=0, attempt=1, receipt=("m",))),
        ("store", g.WallJumped(by_ms=-5_000)),
    ],
}
BAD: dict[str, list[Step]] = {
    "a placeholder where nothing can be edited": pair(PUT),
    "an edit without a placeholder": edits(attempted(act=EDIT)),
    "sent beside its placeholder": edits(PUT, placed(), again(2)),
    "a second placeholder beside the first": edits(
        PUT, placed(), again(2, act=PLACEHOLDER)
    ),
    "an empty placeholder for the third time": edits(
        PUT,
        unknown(),
        again(2, act=PLACEHOLDER),
        unknown(2),
        again(3, act=PLACEHOLDER),
    ),
    "sent before its plan": log(attempted(classes=EDITABLE)),
    "a live reply without its class": log(attempted(act=PLACEHOLDER)),
    "placed by a send": edits(attempted(), placed()),
    "placed without a handle": edits(PUT, o.Placed(part=0, attempt=1, handle=())),
    "placed twice": edits(PUT, placed(), EDITED, unknown(2), placed()),
    "a handle taken for a receipt": edits(PUT, placed(), delivered()),
    "refused in doubt": pair(attempted(), unknown(), again(2), refused(0, 2)),
    "refused twice": pair(refused(0, 0), refused(0, 0)),
    "partial, though a part is left": pair(refused(0, 0), PARTIAL),
    "all parts have ended, and nothing follows": pair(refused(0, 0), refused(1, 0)),
    "partial in another commit than the last part": [
        *pair(refused(0, 0), attempted(part=1), part_delivered(part=1)),
        (E, PARTIAL, 9),
    ],
    "delivered, though a part was refused": pair(
        refused(0, 0), attempted(part=1), delivered(part=1)
    ),
    "amended under its old key": pair(
        o.AmendedPart(part=0, body="c", key="e0", dropped=Decoration.FORMAT)
    ),
    "a placeholder beside a part that may be there whole": edits(
        attempted(), unknown(), again(2, act=PLACEHOLDER)
    ),
    "amended in doubt under a new key": pair(
        attempted(), unknown(), again(2), BARE, AMENDED
    ),
    "another part than the one in doubt is amended": pair(
        attempted(), unknown(), again(2), BARE, replace(AMENDED, part=1, key="e1")
    ),
    "put off for a decoration without doubt": pair(
        attempted(), replace(BARE, attempt=1)
    ),
    "amended after it was delivered": pair(attempted(), part_delivered(), AMENDED),
    "a delivered part is attempted again": pair(
        DOUBTED,
        o.PartDelivered(part=0, attempt=0, by="me"),
        resolved(1, resend=False),
        attempted(),
    ),
    "resolved, though not in doubt": pair(
        DOUBTED, resolved(0, resend=False), resolved(0, resend=False)
    ),
    "bounced before it was accepted": pair(o.Bounced(part=0)),
    "redriven under its old key": pair(
        refused(0, 0), refused(1, 0), PARTIAL, redriven("e0", "e1")
    ),
    "redriven without new keys": pair(
        refused(0, 0),
        refused(1, 0),
        o.FailedTerminal(reason=Reason.REFUSED),
        redriven(),
    ),
    "left open twice": [
        *answered()[:4],
        (T, t.LeftOpen(run=1, until=T0 + 9)),
        (T, t.LeftOpen(run=1, until=T0 + 9)),
    ],
    "redriven, and its turn stays over": [
        *answered(),
        (FINAL, o.FailedTerminal(reason=Reason.PERMANENT)),
        (T, t.Failed(outcome=TurnOutcome.FAILED, reason="permanent")),
        (FINAL, redriven(), 9),
    ],
    "redriven in another commit than answered again": [
        *answered(),
        (FINAL, o.FailedTerminal(reason=Reason.PERMANENT)),
        (T, t.Failed(outcome=TurnOutcome.FAILED, reason="permanent")),
        (FINAL, redriven(), 9),
        (T, t.Amended(entry=FINAL), 10),
    ],
    "answered again without a redrive": [
        *answered(),
        (FINAL, o.FailedTerminal(reason=Reason.PERMANENT)),
        (T, t.Failed(outcome=TurnOutcome.FAILED, reason="permanent")),
        (T, t.Amended(entry=FINAL), 9),
    ],
}


def events_of(steps: list[Step]) -> Log:
    return [e for record in records(steps) for e in as_events(record)]


@pytest.mark.parametrize("name", GOOD)
def test_a_lawful_log_passes_by_both_readings(name: str) -> None:
    verdicts = judged(events_of(GOOD[name]))
    assert verdicts is not None
    assert (verdicts.kernel, verdicts.reference) == (None, None)


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_log_is_refused_by_both_readings(name: str) -> None:
    verdicts = judged(events_of(BAD[name]))
    assert verdicts is not None
    assert verdicts.kernel is not None
    assert verdicts.reference is not None


@pytest.mark.parametrize("name", GOOD)
def test_both_readings_judge_the_damaged_log_alike(name: str) -> None:
    for number, (what, events) in enumerate(damaged(events_of(GOOD[name]))):
        if number % EVERY:
            continue
        verdicts = judged(events)
        assert verdicts is None or verdicts.equal, (what, verdicts)
