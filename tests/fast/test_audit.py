"""Every rule of the audit has a log that breaks it, and lawful logs pass."""

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import (
    BLANK,
    Head,
    Record,
    hash_of,
    head_after,
)
from turnfold.audit import RULES, Acceptance, Rule, audit_log, read_witness
from turnfold.audit.findings import Findings
from turnfold.enums import (
    AbortReason,
    BlindPolicy,
    FailureClass,
    Kind,
    Reason,
    TurnOutcome,
)
from turnfold.errors import InvalidInputError
from turnfold.inspect import export

from .audit_logs import (
    FINAL,
    KEYED,
    LANE,
    LOOKUP,
    START,
    T0,
    E,
    F,
    Step,
    T,
    U,
    accepted,
    answered,
    attempted,
    delivered,
    in_doubt,
    on_wire,
    part_delivered,
    planned,
    queued,
    records,
    started,
    unknown,
)

DIED = FailureClass.OWNER_DIED
CANCELLED = FailureClass.CANCELLED
RESEND = o.Resolved(part=0, resend=True, by="policy:resend")
RESENDS = in_doubt(policy=BlindPolicy.RESEND)
NEW_WORKER: Step = ("store", t.WorkerStarted(epoch=2, owner="w2"))
SECOND = attempted(2, fence=2, owner="w2")


def retryable(failure: FailureClass = CANCELLED, attempt: int = 1) -> o.FailedRetryable:
    return o.FailedRetryable(part=0, attempt=attempt, failure=failure, due=T0)


def ended(reason: Reason) -> o.FailedTerminal:
    return o.FailedTerminal(reason=reason)


def two_queued() -> list[Step]:
    return [*START, *((s, e) for s in (E, F) for e in (queued(), planned(name=s)))]


N = "entry:n"


def told(behind: int = 3) -> list[Step]:
    """E is over and F waits; N tells of E, whose first record is the third."""
    notice = queued(cause="undeliverable", behind=behind)
    over = (E, ended(Reason.PERMANENT))
    return [*two_queued(), over, (N, notice), (N, planned(name=N))]


def final(kind: Kind = Kind.FINAL, name: str = FINAL) -> list[Step]:
    return [(name, queued(kind=kind, turn=T, run=1)), (name, planned(name=name))]


def failed() -> list[Step]:
    """A turn whose answer the platform refused."""
    over = t.Failed(outcome=TurnOutcome.FAILED, reason="permanent")
    return [*answered(), (FINAL, ended(Reason.PERMANENT)), (T, over)]


GATE = "gate:t/default"
ABSENT = o.Reconciled(part=0, absent=True, due=T0)
EXPIRED = ended(Reason.EXPIRED)
TOO_OLD = ended(Reason.TOO_OLD)
LATE_NOTICE = queued(turn=T, cause="late")
REDRIVEN = o.Redriven(budget=8, expires_at=T0 + 90_000, by="me")
RISKY = replace(REDRIVEN, accept_duplicate=True)
ABORT = o.AbortRequested(reason=AbortReason.USER)
AGAIN = [*failed(), (FINAL, REDRIVEN), (T, t.Amended(entry=FINAL))]

GOOD: dict[str, list[Step]] = {
    "two parts delivered": [
        *START,
        (E, queued()),
        (E, planned(2)),
        (E, attempted()),
        (E, part_delivered()),
        (E, attempted(part=1)),
        (E, delivered(part=1)),
    ],
    "prepared, then on the wire": [
        *START,
        (E, queued()),
        (E, planned()),
        (E, attempted(on_wire=False)),
        (E, o.Dispatched(part=0, attempt=1)),
        (E, delivered()),
    ],
    "refused, then accepted": [*on_wire(), (E, retryable()), (E, attempted(2)), (E, delivered(2))],
    "a notice passes an answer that waits": [
        *told(), (N, attempted()), (N, delivered()), (F, attempted()), (F, delivered()),
    ],
    "put off at no cost": [
        *START,
        (E, queued()),
        (E, planned(budget=1)),
        (E, attempted()),
        (E, o.Deferred(part=0, attempt=1, failure=FailureClass.RATE_LIMITED)),
        (E, attempted(2)),
        (E, delivered(2)),
    ],
    "put off in doubt": [
        *in_doubt(KEYED),
        (E, attempted(2)),
        (E, o.Deferred(part=0, attempt=2, failure=FailureClass.DRAIN)),
        (E, attempted(3)),
        (E, delivered(3)),
    ],
    "the same key in time": [*in_doubt(KEYED, 10_000), (E, attempted(2), 4_999), (E, delivered(2))],
    "the same key for ever": [*in_doubt(KEYED), (E, attempted(2), 50_000), (E, delivered(2))],
    "absent, so sent again": [*in_doubt(LOOKUP), (E, ABSENT), (E, attempted(2))],
    "found by a look-up": [*in_doubt(LOOKUP), (E, delivered(looked_up=True))],
    "a policy resends": [*RESENDS, (E, RESEND), (E, attempted(2)), (E, delivered(2))],
    "parked, then evidence": [
        *in_doubt(),
        (E, o.Parked(reason="cut")),
        (E, o.LateReceipt(part=0, attempt=1, receipt=("m",))),
    ],
    "a person says delivered": [*in_doubt(), (E, delivered(receipt=(), by="me"))],
    "its owner died before the wire": [
        *START,
        (E, queued()),
        (E, planned()),
        (E, attempted(on_wire=False)),
        NEW_WORKER,
        (E, retryable(DIED)),
        (E, SECOND),
    ],
    "its owner died on the wire": [*on_wire(), NEW_WORKER, (E, unknown(cause="owner_died"))],
    "doubt that expires": [*in_doubt(), (E, ended(Reason.OUTCOME_UNKNOWN), 60_000)],
    "redriven out of doubt": [
        *in_doubt(),
        (E, ended(Reason.OUTCOME_UNKNOWN)),
        (E, RISKY),
        (E, attempted(2)),
    ],
    "too old unsent": [*START, (E, queued()), (E, TOO_OLD)],
    "a notice for each cause, and one in the place of another": [
        *START,
        (T, accepted()),
        ("entry:n1", LATE_NOTICE),
        ("entry:n2", queued(turn=T, cause="interrupted")),
        ("entry:n1", o.Aborted(reason=AbortReason.SUPERSEDED)),
        ("entry:n3", LATE_NOTICE),
    ],
    "expired unsent": [*START, (E, queued()), (E, EXPIRED, 60_000)],
    "the head has yielded": [
        *two_queued(),
        (E, attempted()),
        (E, unknown()),
        (E, o.Parked(reason="cut")),
        (E, o.LaneYielded(reason="parked")),
        (F, attempted()),
    ],
    "aborted in doubt": [*in_doubt(), (E, ABORT), (E, ended(Reason.OUTCOME_UNKNOWN))],
    "a gate that was opened again": [
        *START,
        (E, queued()),
        (E, planned()),
        (GATE, t.GateClosed(reason="auth")),
        (GATE, t.GateOpened(reason="connected")),
        (E, attempted()),
    ],
    "a gate whose time is over": [
        *START,
        (E, queued()),
        (E, planned()),
        (GATE, t.GateClosed(reason="rate_limited", until=T0 + 5)),
        (E, attempted(), 5),
    ],
    "no ids on this platform": [
        *START,
        (E, queued()),
        (E, planned(ids=False)),
        (E, attempted()),
        (E, delivered(receipt=())),
    ],
    "a turn with its answer": [
        *answered(),
        (FINAL, delivered()),
        (T, t.Completed(outcome=TurnOutcome.REPLIED)),
    ],
    "a turn that fails, and tells": [
        *answered(),
        (FINAL, ended(Reason.PERMANENT)),
        *final(Kind.NOTICE, "entry:t.notice"),
        (T, t.Failed(outcome=TurnOutcome.FAILED, reason="x", notice="entry:t.notice")),
    ],
    "a turn amended": [
        *failed(),
        (FINAL, o.LateReceipt(part=0, attempt=1, receipt=("m",))),
        (T, t.Amended(outcome=TurnOutcome.REPLIED, entry=FINAL)),
    ],
    "a final redriven in the moment in which its turn failed": AGAIN,
    "the same, and then stopped": [
        *AGAIN,
        (FINAL, o.Aborted(reason=AbortReason.USER)),
        (T, t.TurnAborted(outcome=TurnOutcome.ABORTED)),
    ],
    "a final redriven in the moment in which it bounced": [
        *answered(),
        (FINAL, delivered()),
        (T, t.Completed(outcome=TurnOutcome.REPLIED)),
        (FINAL, o.Bounced(part=0), 5),
        (T, t.Amended(outcome=TurnOutcome.FAILED, entry=FINAL), 5),
        (FINAL, replace(REDRIVEN, keys=("k",)), 5),
        (T, t.Amended(entry=FINAL), 5),
    ],
    "a block redriven in the moment in which its turn was aborted": [
        *START,
        (T, accepted()),
        (T, started()),
        *final(Kind.BLOCK),
        (FINAL, attempted()),
        (FINAL, ended(Reason.PERMANENT)),
        (T, t.TurnAborted(outcome=TurnOutcome.ABORTED)),
        (FINAL, REDRIVEN),
    ],
    "a silent turn": [
        *START,
        (T, accepted()),
        (T, started()),
        (T, t.Answered(run=1, silent="nothing to say")),
        (T, t.Completed(outcome=TurnOutcome.SILENT)),
    ],
    "an orphan run again": [
        *START,
        (T, accepted()),
        (T, started()),
        NEW_WORKER,
        (T, t.RunFailed(run=1, failure=DIED, due=T0)),
        (T, started(2, 2, "w2")),
    ],
    "in one commit, in any order of the streams": [
        *two_queued(),
        (E, attempted()),
        (F, attempted(), 5),
        (E, delivered(), 5),
    ],
    "a new worker whose record stands behind its own attempt": [
        *START,
        (E, queued()),
        (E, planned()),
        (E, attempted(fence=2, owner="w2"), 5),
        (*NEW_WORKER, 5),
    ],
    "control input takes no lane": [
        *START,
        (T, accepted()),
        (T, started()),
        (U, accepted("2", control=True)),
        (U, started()),
    ],
}  # fmt: skip

# What breaks which rule. The first finding must be of that rule, on that stream.
BAD: dict[str, tuple[Rule, str, list[Step]]] = {
    "no plan": (Rule.FROZEN_PLAN, E, [*START, (E, queued()), (E, attempted())]),
    "planned twice": (
        Rule.FROZEN_PLAN, E,
        [*START, (E, queued()), (E, planned()), (E, planned(2))],
    ),
    "a part left out": (
        Rule.FROZEN_PLAN, E,
        [*START, (E, queued()), (E, planned(2)), (E, attempted(part=1))],
    ),
    "a policy that no plan names": (Rule.NO_DOUBLE, E, [*in_doubt(), (E, RESEND)]),
    "blind sent again": (Rule.NO_DOUBLE, E, [*in_doubt(), (E, attempted(2))]),
    "looked up, not told, sent again": (
        Rule.NO_DOUBLE, E,
        [*in_doubt(LOOKUP), (E, replace(ABSENT, absent=False)), (E, attempted(2))],
    ),
    "past half of the key's window": (
        Rule.NO_DOUBLE, E,
        [*in_doubt(KEYED, 10_000), (E, attempted(2), 5_000)],
    ),
    "absent where none can look": (Rule.NO_DOUBLE, E, [*in_doubt(), (E, ABSENT)]),
    "resent without its mark": (
        Rule.NO_DOUBLE, E,
        [*in_doubt(), (E, replace(RESEND, marked=True)), (E, attempted(2))],
    ),
    "doubt forgotten": (
        Rule.NO_DOUBLE, E,
        [*in_doubt(KEYED), (E, attempted(2)), (E, retryable(attempt=2))],
    ),
    "doubt put off and forgotten": (
        Rule.EXPIRY, E,
        [
            *in_doubt(KEYED),
            (E, attempted(2)),
            (E, o.Deferred(part=0, attempt=2, failure=FailureClass.DRAIN)),
            (E, o.FailedTerminal(reason=Reason.PERMANENT)),
        ],
    ),
    "died on the wire, called not sent": (
        Rule.NO_DOUBLE, E, [*on_wire(), NEW_WORKER, (E, retryable(DIED))],
    ),
    "redriven without a word": (
        Rule.NO_DOUBLE, E,
        [*in_doubt(), (E, ended(Reason.OUTCOME_UNKNOWN)), (E, REDRIVEN)],
    ),
    "a word about doubt that takes time": (
        Rule.EXPIRY, E,
        [*in_doubt(), (E, o.Resolved(part=0, resend=True, by="me", expires_at=T0 + 1))],
    ),
    "a delivered part again": (
        Rule.EVIDENCE, E,
        [
            *START,
            (E, queued()),
            (E, planned(2)),
            (E, attempted()),
            (E, part_delivered()),
            (E, attempted(2)),
        ],
    ),
    "no receipt": (Rule.NO_LOSS, E, [*on_wire(), (E, delivered(receipt=()))]),
    "an empty receipt": (Rule.NO_LOSS, E, [*on_wire(), (E, delivered(receipt=("",)))]),
    "an epoch twice": (Rule.FENCE, "store", [*START, START[1]]),
    "an epoch goes back": (
        Rule.FENCE, "store",
        [*START, NEW_WORKER, ("store", t.WorkerStarted(epoch=1, owner="w1"))],
    ),
    "attempted by the old worker": (
        Rule.FENCE, E,
        [*START, (E, queued()), (E, planned()), NEW_WORKER, (E, attempted())],
    ),
    "an outcome of the old worker": (
        Rule.FENCE, E, [*on_wire(), NEW_WORKER, (E, delivered())],
    ),
    "a refusal of the old worker": (
        Rule.FENCE, E, [*on_wire(), NEW_WORKER, (E, retryable())],
    ),
    "an outcome of another attempt": (Rule.FENCE, E, [*on_wire(), (E, delivered(2))]),
    "delivered with nobody sending": (Rule.FENCE, E, [*in_doubt(), (E, delivered())]),
    "called dead by its own epoch": (Rule.FENCE, E, [*on_wire(), (E, unknown(cause="owner_died"))]),
    "a run of the old worker": (
        Rule.FENCE, T, [*START, (T, accepted()), NEW_WORKER, (T, started())],
    ),
    "a number left out": (
        Rule.ATTEMPTS, E, [*START, (E, queued()), (E, planned()), (E, attempted(2))],
    ),
    "a number again": (
        Rule.ATTEMPTS, E, [*on_wire(), (E, retryable()), (E, attempted(1))],
    ),
    "over the budget": (
        Rule.ATTEMPTS, E,
        [
            *START,
            (E, queued()),
            (E, planned(budget=1)),
            (E, attempted()),
            (E, retryable()),
            (E, attempted(2)),
        ],
    ),
    "overtaken": (Rule.LANE_ORDER, F, [*two_queued(), (F, attempted())]),
    "a notice is overtaken by what waits behind its entry": (
        Rule.LANE_ORDER, F, [*told(), (F, attempted())],
    ),
    "a notice at the end of its lane goes first": (
        Rule.LANE_ORDER, N, [*told(0), (N, attempted())],
    ),
    "a message that is no notice jumps its lane": (
        Rule.LANE_ORDER, N, [*two_queued(), (N, queued(behind=3))],
    ),
    "a notice behind an entry that comes later": (
        Rule.LANE_ORDER, N, [*two_queued(), (N, queued(cause="late", behind=99))],
    ),
    "overtaken while it is parked": (
        Rule.LANE_ORDER, F,
        [
            *two_queued(),
            (E, attempted()),
            (E, unknown()),
            (E, o.Parked(reason="cut")),
            (F, attempted()),
        ],
    ),
    "attempted behind a closed gate": (
        Rule.GATE, E,
        [
            *START,
            (E, queued()),
            (E, planned()),
            (GATE, t.GateClosed(reason="auth")),
            (E, attempted(), 10),
        ],
    ),
    "two turns of one message": (
        Rule.ONE_TURN, U, [*START, (T, accepted()), (U, accepted())],
    ),
    "a message joined twice": (
        Rule.ONE_TURN, T, [*START, (T, accepted()), (T, t.Joined(message_id="1", body="b"))],
    ),
    "a run left out": (Rule.ONE_TURN, T, [*START, (T, accepted()), (T, started(2))]),
    "an answer of another run": (
        Rule.ONE_TURN, T,
        [*START, (T, accepted()), (T, started()), (T, t.Answered(run=2, silent="x"))],
    ),
    "over while the answer is open": (
        Rule.TURN_TRUTH, T, [*answered(), (T, t.Completed(outcome=TurnOutcome.REPLIED))],
    ),
    "replied, though it failed": (
        Rule.TURN_TRUTH, T,
        [
            *answered(),
            (FINAL, ended(Reason.PERMANENT)),
            (T, t.Completed(outcome=TurnOutcome.REPLIED)),
        ],
    ),
    "answered with nothing": (
        Rule.TURN_TRUTH, T,
        [*START, (T, accepted()), (T, started()), (T, t.Answered(run=1))],
    ),
    "answered with a stranger": (
        Rule.TURN_TRUTH, T,
        [
            *START,
            (T, accepted()),
            (T, started()),
            (T, t.Answered(run=1, finals=("entry:x",))),
        ],
    ),
    "a final split off from its turn": (
        Rule.TURN_TRUTH, FINAL, [*START, (T, accepted()), (T, started()), *final()],
    ),
    "attempted after an abort": (
        Rule.ABORT, E,
        [*START, (E, queued()), (E, planned()), (E, ABORT), (E, attempted())],
    ),
    "dispatched after an abort": (
        Rule.ABORT, E,
        [
            *START,
            (E, queued()),
            (E, planned()),
            (E, attempted(on_wire=False)),
            (E, ABORT),
            (E, o.Dispatched(part=0, attempt=1)),
        ],
    ),
    "attempted when expired": (
        Rule.EXPIRY, E, [*START, (E, queued()), (E, planned()), (E, attempted(), 60_000)],
    ),
    "expired before its time": (Rule.EXPIRY, E, [*START, (E, queued()), (E, EXPIRED)]),
    "doubt ends as not delivered": (
        Rule.EXPIRY, E, [*in_doubt(), (E, EXPIRED, 60_000)],
    ),
    "too old on the wire": (Rule.EXPIRY, E, [*on_wire(), (E, TOO_OLD)]),
    "too old in doubt": (Rule.EXPIRY, E, [*in_doubt(), (E, TOO_OLD)]),
    "too old, though a part was shown": (
        Rule.EXPIRY, E,
        [
            *START,
            (E, queued()),
            (E, planned(2)),
            (E, attempted()),
            (E, part_delivered()),
            (E, TOO_OLD),
        ],
    ),
    "expired on the wire": (Rule.EXPIRY, E, [*on_wire(), (E, EXPIRED, 60_000)]),
    "a turn started out of order": (
        Rule.TURN_LANE, U, [*START, (T, accepted()), (U, accepted("2")), (U, started())],
    ),
    "two runs in a lane": (
        Rule.TURN_LANE, U,
        [*START, (T, accepted()), (T, started()), (U, accepted("2")), (U, started())],
    ),
    "two notices": (
        Rule.NOTICE, "entry:n2",
        [
            *START,
            (T, accepted()),
            *final(Kind.NOTICE, "entry:n1"),
            *final(Kind.NOTICE, "entry:n2"),
        ],
    ),
    "two notices for one cause": (
        Rule.NOTICE, "entry:n2",
        [
            *START,
            (T, accepted()),
            ("entry:n1", LATE_NOTICE),
            ("entry:n2", LATE_NOTICE),
        ],
    ),
    "told by what is no notice": (
        Rule.NOTICE, T,
        [
            *answered(),
            (FINAL, ended(Reason.PERMANENT)),
            (T, t.Failed(outcome=TurnOutcome.FAILED, reason="x", notice=FINAL)),
        ],
    ),
    "time goes back": (Rule.TIME, E, [*START, (E, queued(), -5)]),
    "an event that cannot follow": (
        Rule.TRANSITION, E, [*on_wire(), (E, delivered()), (E, ABORT)],
    ),
    "delivered a second time": (
        Rule.FENCE, E, [*on_wire(), (E, delivered()), (E, delivered())],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_lawful_log_passes(name: str) -> None:
    report = audit_log(records(GOOD[name]))
    assert report.passed, report.first
    assert report.events == len(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_broken_rule_is_found_where_it_is_broken(name: str) -> None:
    rule, stream, steps = BAD[name]
    report = audit_log(records(steps))
    first = report.first
    assert first is not None
    assert (first.rule, first.stream) == (rule, stream), first
    assert str(first).startswith(f"{rule} position {first.position}, {stream}: ")


# --- the chain: what was done to the records themselves --------------------------------

LOG = records(GOOD["a turn with its answer"])
HEAD = audit_log(LOG).head
Tamper = Callable[[list[Record]], list[Record]]


def forged(record: Record, **changes: object) -> Record:
    """A record changed with its hash made to fit, as a careful forger would."""
    made = replace(record, **changes)
    return replace(made, hash=hash_of(made))


def edited(log: list[Record], index: int, old: bytes, new: bytes) -> list[Record]:
    """The same log with other bytes in the events of one record, forged well."""
    record = log[index]
    assert old in record.events
    other = forged(record, events=record.events.replace(old, new))
    return [*log[:index], other, *log[index + 1 :]]


def flipped(log: list[Record]) -> list[Record]:
    data = bytearray(log[4].events)
    data[-4] ^= 1
    return [*log[:4], replace(log[4], events=bytes(data)), *log[5:]]


def renumbered(log: Sequence[Record]) -> list[Record]:
    return [replace(r, position=i) for i, r in enumerate(log, 1)]


def swapped(log: list[Record]) -> list[Record]:
    return renumbered([*log[:2], log[3], log[2], *log[4:]])


TAMPERED: dict[str, tuple[Rule, Tamper]] = {
    "a flipped byte": (Rule.HASH, flipped),
    "a hash of another record": (
        Rule.HASH, lambda log: [*log[:3], replace(log[3], hash=log[4].hash), *log[4:]],
    ),
    "a record missing": (Rule.POSITION, lambda log: [*log[:3], *log[4:]]),
    "a record twice": (Rule.POSITION, lambda log: [*log[:4], log[3], *log[4:]]),
    "the beginning missing": (Rule.POSITION, lambda log: log[1:]),
    "a record missing, the rest moved up": (
        Rule.VERSION, lambda log: renumbered([*log[:4], *log[5:]]),
    ),
    "two records swapped": (Rule.VERSION, swapped),
    "the tail cut off": (Rule.HEAD, lambda log: log[:-2]),
    "all of it cut off": (Rule.HEAD, lambda _: []),
    "a record rewritten with its hash": (
        Rule.HEAD, lambda log: edited(log, 0, b'"s"', b'"x"'),
    ),
    "an unknown kind": (
        Rule.DECODE, lambda log: edited(log, 4, b"outbox.queued", b"outbox.x"),
    ),
    "a newer schema": (
        Rule.DECODE, lambda log: edited(log, 4, b'queued",1', b'queued",99'),
    ),
    "an unknown field": (
        Rule.DECODE, lambda log: edited(log, 0, b'"s"', b'"s","x":1'),
    ),
    "a count that is not that of its events": (
        Rule.DECODE, lambda log: [*log[:4], forged(log[4], count=2, version=2), *log[5:]],
    ),
    "a record without events": (
        Rule.VERSION, lambda log: [*log[:4], forged(log[4], count=0, version=0, events=b"[]"), *log[5:]],
    ),
}  # fmt: skip


@pytest.mark.case("Q01")
@pytest.mark.parametrize("name", TAMPERED)
def test_a_log_that_was_tampered_with_is_found(name: str) -> None:
    rule, tamper = TAMPERED[name]
    report = audit_log(tamper(list(LOG)), marks=[HEAD])
    assert report.first is not None
    assert report.first.rule is rule, report.first


def test_swapped_records_of_two_streams_show_in_the_head_alone() -> None:
    steps: list[Step] = [*START, (E, queued()), (F, queued(lane="t/default/43/"))]
    log = records(steps)
    head = audit_log(log).head
    moved = renumbered([*log[:2], log[3], log[2]])
    moved = [replace(r, at=T0) for r in moved]
    found = audit_log(moved, marks=[head])
    assert Rule.HEAD in {finding.rule for finding in found.findings}


def test_a_log_that_went_on_still_contains_an_older_head() -> None:
    old = head_after(BLANK, LOG[:4])
    assert old.position == 4
    assert audit_log(LOG, marks=[old, HEAD, BLANK]).passed
    wrong = audit_log(LOG, marks=[Head(4, bytes(32))])
    assert wrong.first is not None
    assert (wrong.first.rule, wrong.first.position) == (Rule.HEAD, 4)


def test_a_head_where_a_record_is_missing_is_found() -> None:
    report = audit_log(LOG[:3] + LOG[4:], marks=[Head(4, bytes(32))])
    texts = [f.text for f in report.findings if f.rule is Rule.HEAD]
    assert texts == ["a head was noted for position 4, but there is no record at it"]


@pytest.mark.case("Q01")
def test_an_unreadable_stream_is_set_aside_and_the_rest_is_judged() -> None:
    """One bad row costs one finding of its stream, not a finding per later event."""
    steps: list[Step] = [
        *GOOD["two parts delivered"],
        *((F, event) for _, event, *_ in in_doubt()[2:]),
        (F, attempted(2)),
    ]
    log = records(steps)
    log = edited(log, 2, b"outbox.queued", b"outbox.x")
    found = [(f.rule, f.stream) for f in audit_log(log).findings]
    assert found == [(Rule.DECODE, E), (Rule.NO_DOUBLE, F)]


def test_an_export_with_a_broken_line_is_read_on() -> None:
    lines = [export.dump(record) for record in LOG]
    assert audit_log(export.read(lines), marks=[HEAD]).passed
    lines[4] = lines[4][:-9]
    report = audit_log(export.read(lines))
    assert {f.rule for f in report.findings} >= {Rule.HASH, Rule.DECODE, Rule.VERSION}
    assert report.events == len(LOG)


def test_findings_are_counted_beyond_the_limit() -> None:
    log = [replace(record, hash=bytes(32)) for record in LOG]
    report = audit_log(log, limit=3)
    assert (len(report.findings), report.found) == (3, len(LOG))
    assert Findings(limit=0).kept == []


# --- the witness ----------------------------------------------------------------------


def witness(*keys: str) -> list[Acceptance]:
    return [Acceptance(key) for key in keys]


DELIVERED = GOOD["refused, then accepted"]
WITNESSED: dict[str, tuple[Rule | None, list[Step], list[Acceptance]]] = {
    "delivered and on the list": (None, DELIVERED, witness("e0")),
    "in doubt and on the list": (None, in_doubt(), witness("e0")),
    "in doubt and not on the list": (None, in_doubt(), []),
    "resent by policy, there twice": (
        None, GOOD["a policy resends"], witness("e0", "e0"),
    ),
    "redriven with the risk taken": (
        None, GOOD["redriven out of doubt"], witness("e0", "e0"),
    ),
    "declared by a person": (None, GOOD["a person says delivered"], []),
    "the platform's own id": (None, DELIVERED, [Acceptance("e0", "m")]),
    "never announced": (Rule.WRITE_AHEAD, DELIVERED, witness("e0", "x9")),
    "queued, never attempted": (
        Rule.WRITE_AHEAD, [*START, (E, queued()), (E, planned())], witness("e0"),
    ),
    "attempted, not dispatched": (
        Rule.WRITE_AHEAD,
        [*START, (E, queued()), (E, planned()), (E, attempted(on_wire=False))],
        witness("e0"),
    ),
    "accepted twice": (Rule.NO_DOUBLE, DELIVERED, witness("e0", "e0")),
    "accepted three times, two allowed": (
        Rule.NO_DOUBLE, GOOD["a policy resends"], witness("e0", "e0", "e0"),
    ),
    "delivered, not on the list": (Rule.NO_LOSS, DELIVERED, []),
    "a late receipt of nothing": (Rule.NO_LOSS, GOOD["parked, then evidence"], []),
    "a receipt of something else": (Rule.EVIDENCE, DELIVERED, [Acceptance("e0", "z")]),
}  # fmt: skip


@pytest.mark.parametrize("name", WITNESSED)
def test_the_log_is_held_against_what_the_platform_accepted(name: str) -> None:
    rule, steps, accepted_ = WITNESSED[name]
    report = audit_log(records(steps), witness=accepted_)
    assert (report.first and report.first.rule) == rule
    assert report.witnessed == len(accepted_)


def test_a_list_of_one_platform_says_nothing_of_other_channels() -> None:
    log = records(DELIVERED)
    assert not audit_log(log, witness=[]).passed
    assert audit_log(log, witness=[], channels={"other"}).passed
    assert not audit_log(log, witness=[], channels={"t"}).passed


@pytest.mark.parametrize(
    "data",
    [
        b'{"key":"a","id":"1","n":1}\n\n{"key":"b"}\n',
        b'[{"key":"a","id":"1"},{"key":"b","id":null}]',
        b'{"messages":[{"key":"a","id":"1"},{"key":"b"}]}',
    ],
)
def test_a_witness_list_may_have_either_form(data: bytes) -> None:
    assert read_witness(data) == [Acceptance("a", "1"), Acceptance("b")]


@pytest.mark.parametrize("data", [b'[{"id":"1"}]', b'{"key":1}', b"nonsense", b"\xff"])
def test_a_file_that_is_no_witness_list_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_witness(data)


def test_an_empty_witness_list_is_a_list() -> None:
    assert read_witness(b"") == read_witness(b"[]") == []


# --- all rules --------------------------------------------------------------------------

IN_A_STORE = {
    Rule.PROJECTION,
    Rule.KEY,
    Rule.BODY,
    Rule.MARK,
    Rule.FILE,
    Rule.SETTLED,
    Rule.PRUNED,  # tests/contract/test_pruned_audit.py
    Rule.PLUGINS,  # tests/contract/test_without_text.py
}  # tests/contract/test_audit_store.py


def test_every_rule_has_a_log_that_breaks_it() -> None:
    broken = {rule for rule, _, _ in BAD.values()}
    broken |= {rule for rule, _ in TAMPERED.values()}
    broken |= {rule for rule, _, _ in WITNESSED.values() if rule is not None}
    assert broken | IN_A_STORE == set(Rule)
    assert set(RULES) == set(Rule)


def test_the_lane_of_another_conversation_is_nobodys_business() -> None:
    steps: list[Step] = [
        *START,
        (E, queued()),
        (F, queued(lane=f"{LANE}x", policy=BlindPolicy.DROP)),
        (F, planned()),
        (F, attempted()),
    ]
    assert audit_log(records(steps)).passed
