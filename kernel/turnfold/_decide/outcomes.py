"""Applying an outcome, a look-up or the death of a sender to an entry.

Evidence wins over authority: a success is recorded from any process and however late, a
failure only from the one worker, part and attempt that it belongs to.
"""

from turnfold._decide import rules, trials
from turnfold._decide.failures import RULES, backoff_ms
from turnfold._decide.gates import (
    BuggyRejected,
    BuggyUnknown,
    breaks,
    close_gate,
    passing,
    unanswered,
)
from turnfold._decide.outbox import after_close, tell_of_a_hold
from turnfold._decide.plan import new_key
from turnfold._decide.schedule import age_limit, as_offered, attempt_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry
from turnfold.enums import (
    ON_ITS_WAY,
    PLACEHOLDER,
    QUEUED,
    BlindPolicy,
    Decoration,
    DeliveryClass,
    FailureClass,
    PartAct,
    Phase,
    Reason,
    Trial,
)
from turnfold.ports.channel import (
    Absent,
    Accepted,
    CannotTell,
    Found,
    Outcome,
    Receipt,
    Rejected,
    Verdict,
)

DEADLINE = "deadline"  # why an outcome is unknown: its call ran into the deadline
# The last look before the wire said no. The next decision should say why; if it ever says
# yes again, the two must not go round without a pause.
_STOPPED_MS = 1_000
_STOPPED = frozenset({Phase.PARKED, Phase.DELIVERED, Phase.FAILED, Phase.ABORTED})


def settle(
    draft: UnitOfWork,
    stream: str,
    part: int,
    number: int,
    outcome: Outcome,
    act: PartAct = PartAct.SEND,
) -> bool:
    """Record the outcome of an attempt. False if the attempt is no longer the current
    one and its outcome is no news. `act`: of this attempt."""
    entry = draft.entry(stream)
    if not rules.outcome_is_current(entry, draft.authority, part, number):
        if act is PartAct.PLACEHOLDER:
            return _late_placeholder(draft, entry, part, number, outcome)
        return _late(draft, entry, part, number, outcome)
    if isinstance(outcome, Accepted):
        if act is PLACEHOLDER:
            _placed(draft, entry, number, outcome.receipt)
        else:
            accepted(draft, entry, number, outcome.receipt, outcome.deduplicated)
    elif isinstance(outcome, Rejected):
        _rejected(draft, entry, outcome)
    else:
        if isinstance(outcome, BuggyUnknown):
            breaks(draft, entry)
        _unknown(draft, entry, outcome.cause, outcome.detail)
    attempt_if_free(draft, entry.lane)
    return True


def _placed(draft: UnitOfWork, entry: Entry, number: int, receipt: Receipt) -> None:
    """The placeholder is visible. The part itself is still to be shown."""
    event = o.Placed(part=entry.part, attempt=number, handle=receipt.ids)
    after = draft.emit(entry.stream, event)
    if rules.is_live(after) and not after.yielded:
        # The reply has its place. Entries queued while it grows go after it.
        after = draft.emit(entry.stream, o.LaneYielded(reason="live"))
    _go_on(draft, after)


def _late_placeholder(
    draft: UnitOfWork, entry: Entry, part: int, number: int, outcome: Outcome
) -> bool:
    """A placeholder of an abandoned attempt exists after all. A part in doubt uses it;
    else it is recorded as stray."""
    if not isinstance(outcome, Accepted) or outcome.receipt.ids == entry.handle:
        return False
    needed = entry.phase is Phase.IN_DOUBT and entry.part == part and not entry.handle
    if needed:
        _placed(draft, entry, number, outcome.receipt)
        attempt_if_free(draft, entry.lane)
    else:
        handle = outcome.receipt.ids
        draft.emit(
            entry.stream, o.Placed(part=part, attempt=number, handle=handle, stray=True)
        )
    return True


def _late(
    draft: UnitOfWork, entry: Entry, part: int, number: int, outcome: Outcome
) -> bool:
    receipt = outcome.receipt if isinstance(outcome, Accepted) else None
    if receipt is None or not rules.may_be_accepted(entry, part, receipt.ids):
        return False
    event = o.LateReceipt(
        part=part, attempt=number, receipt=receipt.ids, thread=receipt.thread
    )
    _part_settled(draft, entry, event)
    return True


def _part_settled(
    draft: UnitOfWork,
    before: Entry,
    event: o.LateReceipt | o.Delivered | o.PartDelivered,
) -> None:
    """Record the event that settles a part, then let the entry go on."""
    entry = draft.emit(before.stream, event)
    if not rules.history_is_whole(before, draft.restored_at):
        entry = _doubted(draft, before, entry)
    _go_on(draft, entry)


def _doubted(draft: UnitOfWork, before: Entry, entry: Entry) -> Entry:
    """A part in doubt was sent, so in the lost history the next part may have been
    sent, too."""
    if entry.phase is not Phase.QUEUED or entry.part == before.part:
        return entry
    return draft.emit(entry.stream, o.Doubted(reason="restored"))


def _go_on(draft: UnitOfWork, entry: Entry) -> None:
    """After a settled part: the abort, the end, or the next part of this lane."""
    if entry.abort is not None and rules.abortable_as_unsent(entry):
        stopped = o.Aborted(reason=entry.abort, by=entry.abort_by)
        entry = draft.emit(entry.stream, stopped)
    if entry.phase is QUEUED and entry.part >= entry.count:
        reason = Reason.PARTIAL if entry.receipts else Reason.REFUSED
        event = o.FailedTerminal(reason=reason, failure=entry.failure)
        entry = draft.emit(entry.stream, event)
    if entry.phase in _STOPPED:
        after_close(draft, entry)


def accepted(
    draft: UnitOfWork,
    entry: Entry,
    number: int,
    receipt: Receipt,
    deduplicated: bool = False,
    looked_up: bool = False,
    by: str | None = None,
    why: str = "",
) -> None:
    """Settle the current part by a receipt. The last part closes the entry, which fails
    if another part was refused or bounced."""
    whole = entry.last and not entry.spoiled
    event = o.Delivered if whole else o.PartDelivered
    settled = event(
        part=entry.part,
        attempt=number,
        receipt=receipt.ids,
        thread=receipt.thread,
        deduplicated=deduplicated,
        looked_up=looked_up,
        by=by,
        why=draft.text(entry.stream, why),
    )
    _part_settled(draft, entry, settled)


def _rejected(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> None:
    if isinstance(outcome, BuggyRejected) and breaks(draft, entry):
        passes = Rejected(failure=FailureClass.TRANSIENT, detail=outcome.detail)
        _defer(draft, entry, passes, None)
        return
    rule = RULES[outcome.failure]
    if rule.gate is not None:
        close_gate(draft, entry, outcome)
    if not rule.counts:  # no verdict on the message, nor on an older attempt
        due = passing(draft, entry, outcome) if rule.backs_off else None
        if outcome.failure is FailureClass.STOPPED:
            due = draft.now + _STOPPED_MS
        _defer(draft, entry, outcome, due)
    elif not rules.no_doubt(entry):
        _refused_in_doubt(draft, entry, outcome)
    elif rule.alone:
        _part_refused(draft, entry, outcome)
    elif outcome.failure is FailureClass.DECORATION:
        _decoration_refused(draft, entry, outcome)
    elif rule.ends:
        fail_entry(draft, entry, Reason.PERMANENT, outcome.failure, outcome.detail)
    else:
        if outcome.target is not None and draft.context.flow is not None:
            draft.context.flow.moved_to(entry.lane, outcome.target)
        _retry(draft, entry, outcome.failure, outcome.detail, outcome.target)


def _decoration_refused(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> None:
    """Send the part again at once without its refused decoration: losing one never ends
    an entry."""
    dropped = rules.next_dropped(entry, outcome.decoration)
    if dropped is None:
        _retry(draft, entry, outcome.failure, outcome.detail)
        return
    failed = o.FailedRetryable(
        part=entry.part,
        attempt=entry.attempt,
        failure=outcome.failure,
        due=draft.now,
        detail=draft.text(entry.stream, outcome.detail),
    )
    amended = o.AmendedPart(
        part=entry.part,
        body=entry.current.body,
        key=new_key(entry, entry.part),
        dropped=dropped,
    )
    _go_on(draft, draft.emit(entry.stream, failed, amended))


def _part_refused(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> None:
    """The platform will never take this part. The other parts still go."""
    event = o.PartRefused(
        part=entry.part,
        attempt=entry.attempt,
        failure=outcome.failure,
        detail=draft.text(entry.stream, outcome.detail),
    )
    _go_on(draft, draft.emit(entry.stream, event))


def _refused_in_doubt(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> None:
    """This attempt surely failed, but an older one may have been accepted."""
    dropped = None
    if outcome.failure is FailureClass.DECORATION:
        dropped = rules.next_dropped(entry, outcome.decoration)
    if dropped is not None:
        _undecorated_in_doubt(draft, entry, outcome, dropped)
        return
    asks = rules.may_look_up(as_offered(draft, entry))
    if RULES[outcome.failure].ends and not asks:
        reason = Reason.OUTCOME_UNKNOWN
        fail_entry(draft, entry, reason, outcome.failure, outcome.detail)
    else:
        _unknown(draft, entry, outcome.failure, outcome.detail)


def _undecorated_in_doubt(
    draft: UnitOfWork, entry: Entry, outcome: Rejected, dropped: Decoration
) -> None:
    """The part keeps its key: the attempt in doubt went out under it, and only by this
    key can the platform see that it has the part already."""
    event = o.Deferred(
        part=entry.part,
        attempt=entry.attempt,
        failure=outcome.failure,
        detail=draft.text(entry.stream, outcome.detail),
    )
    here = entry.current
    amended = o.AmendedPart(
        part=entry.part, body=here.body, key=here.key, dropped=dropped
    )
    _go_on(draft, draft.emit(entry.stream, event, amended))


def _defer(draft: UnitOfWork, entry: Entry, outcome: Rejected, due: int | None) -> None:
    """Attempt the part again later; no budget is spent. `due`: not before; None leaves
    it to a gate."""
    event = o.Deferred(
        part=entry.part,
        attempt=entry.attempt,
        failure=outcome.failure,
        due=due,
        detail=draft.text(entry.stream, outcome.detail),
    )
    _go_on(draft, draft.emit(entry.stream, event))
    if due is not None:
        _let_pass(draft, entry.stream, outcome.failure)


def _let_pass(draft: UnitOfWork, stream: str, failure: FailureClass) -> None:
    """A head that waits for its retry lets others pass, if the settings say so."""
    waits = (Phase.QUEUED, Phase.RETRYABLE)
    if draft.settings.yield_retryable and draft.entry(stream).phase in waits:
        draft.emit(stream, o.LaneYielded(reason=str(failure)))


def _retry(
    draft: UnitOfWork,
    entry: Entry,
    failure: FailureClass,
    detail: str = "",
    target: str | None = None,
) -> None:
    """The attempt was surely not accepted: try again later, unless it spent the last
    unit of the budget."""
    if not rules.budget_left(entry) and entry.abort is None:
        fail_entry(draft, entry, Reason.ATTEMPTS_EXHAUSTED, failure, detail)
        return
    event = o.FailedRetryable(
        part=entry.part,
        attempt=entry.attempt,
        failure=failure,
        due=_again(draft, entry, failure),
        target=target,
        detail=draft.text(entry.stream, detail),
    )
    _go_on(draft, draft.emit(entry.stream, event))
    _let_pass(draft, entry.stream, failure)


def _again(draft: UnitOfWork, entry: Entry, cause: str) -> int:
    """When to try again. After the first death of a process at once. After more deaths
    the entry waits, so that the other lanes go before an entry that may kill the
    process."""
    if cause == FailureClass.OWNER_DIED:
        return _after_deaths(draft, entry.blame.deaths)
    wait = backoff_ms(draft.settings, entry.used, draft.context.jitter())
    return draft.now + wait


def _after_deaths(draft: UnitOfWork, earlier: int) -> int:
    wait = backoff_ms(draft.settings, earlier, draft.context.jitter()) if earlier else 0
    return draft.now + wait


def _unknown(
    draft: UnitOfWork,
    entry: Entry,
    cause: str,
    detail: str = "",
    beside: int | None = None,
    suspects: int = 0,
) -> None:
    sends = policy_in_doubt(draft, entry) not in (BlindPolicy.HOLD, BlindPolicy.DROP)
    held_to = as_offered(draft, entry)
    keyed = DeliveryClass.KEYED in held_to.classes
    edits = rules.next_act(entry) is PartAct.EDIT
    waiting_helps = sends or keyed or rules.repeatable(held_to)
    due = _again(draft, entry, cause) if waiting_helps else draft.now
    if waiting_helps and not (keyed or edits) and cause == DEADLINE:
        # The call may still answer within another deadline: its receipt would end the
        # doubt.
        due += draft.settings.attempt_deadline_ms
    draft.emit(
        entry.stream,
        o.OutcomeUnknown(
            part=entry.part,
            attempt=entry.attempt,
            cause=str(cause),  # a cause is free text; a failure class becomes its word
            due=due,
            detail=draft.text(entry.stream, detail),
            beside=beside,
            suspects=suspects,
        ),
    )


def fail_entry(
    draft: UnitOfWork,
    entry: Entry,
    reason: Reason,
    failure: FailureClass | None = None,
    detail: str = "",
    by: str | None = None,
    why: str = "",
) -> None:
    """End an entry as failed. If it may have arrived, the reason is `outcome_unknown`
    (INV-12). `by` and `why`: the person who ended it, and that person's reason."""
    if not rules.no_doubt(entry):
        reason = Reason.OUTCOME_UNKNOWN
    told = draft.text(entry.stream, detail)
    event = o.FailedTerminal(
        reason=reason,
        failure=failure,
        detail=told,
        by=by,
        why=draft.text(entry.stream, why),
    )
    after_close(draft, draft.emit(entry.stream, event))


# --- recovery, timers and doubt: decisions that the lane program makes by itself
# ----------


def recover(draft: UnitOfWork, stream: str) -> None:
    """The process that attempted this entry is dead."""
    entry = draft.entry(stream)
    if bury(draft, entry) is not entry:
        attempt_if_free(draft, entry.lane)


def bury(
    draft: UnitOfWork, entry: Entry, beside: int | None = None, suspects: int = 0
) -> Entry:
    """Record the death of the entry's sender, if that process is dead, and return the
    entry. Before the dispatch nothing can have been sent; after it the outcome is
    unknown. `beside`: how many others were under way; None: not known."""
    fence = draft.context.fence
    if fence is None or not rules.sender_is_dead(entry, fence.epoch):
        return entry
    draft.fence()  # raises OwnedError if another worker owns the store
    died = FailureClass.OWNER_DIED
    if entry.phase is Phase.DISPATCHED or not rules.no_doubt(entry):
        _unknown(draft, entry, died, beside=beside, suspects=suspects)
        return draft.entry(entry.stream)
    event = o.FailedRetryable(
        part=entry.part,
        attempt=entry.attempt,
        failure=died,
        due=_again(draft, entry, died),
        beside=beside,
        suspects=suspects,
    )
    _go_on(draft, draft.emit(entry.stream, event))
    _let_pass(draft, entry.stream, died)
    return draft.entry(entry.stream)


def expire(draft: UnitOfWork, stream: str) -> None:
    """INV-12: `now >= expires_at`, and nothing is being sent."""
    entry = draft.entry(stream)
    in_flight = entry.phase in ON_ITS_WAY
    if not entry.open or in_flight or rules.not_expired(entry, draft.now):
        return
    if not rules.expiry_is_sure(entry, draft.sure_from):
        return
    fail_entry(draft, entry, Reason.EXPIRED)
    attempt_if_free(draft, entry.lane)


def end_old(draft: UnitOfWork, stream: str) -> None:
    """A backlog is not sent in full: an entry that has waited too long ends, if nobody
    can have seen any of it, and its reader gets a notice."""
    entry = draft.entry(stream)
    limit = age_limit(draft, entry)
    if rules.too_old(entry, draft.now, limit, draft.sure_from):
        fail_entry(draft, entry, Reason.TOO_OLD)
        attempt_if_free(draft, entry.lane)


def give_up(draft: UnitOfWork, stream: str) -> None:
    """The budget is spent, or the entry was alone in too many deaths of processes."""
    entry = draft.entry(stream)
    if entry.phase not in (Phase.QUEUED, Phase.RETRYABLE, Phase.IN_DOUBT):
        return
    reason = Reason.ATTEMPTS_EXHAUSTED if _alive(draft, entry) else Reason.QUARANTINED
    fail_entry(draft, entry, reason, entry.failure)
    attempt_if_free(draft, entry.lane)


def abort_now(draft: UnitOfWork, stream: str) -> None:
    """An abort was requested while a part was on the wire. Now none is: stop the
    entry."""
    entry = draft.entry(stream)
    if entry.abort is None or not rules.abortable_as_unsent(entry):
        return
    _go_on(draft, entry)
    attempt_if_free(draft, entry.lane)


def refuse_plan(draft: UnitOfWork, stream: str, outcome: Rejected) -> None:
    """The payload cannot be planned: its body is gone, or the adapter's plan broke.
    Where the channel was detached meanwhile, no plan was asked for, and the entry waits
    for the channel."""
    entry = draft.entry(stream)
    if not RULES[outcome.failure].counts:
        trials.stopped(draft, entry, Trial.PLAN)
        return
    if rules.trial_needed(entry, Trial.PLAN):
        fail_entry(draft, entry, Reason.REFUSED, outcome.failure, outcome.detail)
        attempt_if_free(draft, entry.lane)


def withdraw(draft: UnitOfWork, stream: str, part: int, number: int) -> None:
    """Take back an attempt that was never dispatched and may not go out now: an abort
    came, or the entry has expired."""
    entry = draft.entry(stream)
    if entry.phase is not Phase.ATTEMPTED or (entry.part, entry.attempt) != (
        part,
        number,
    ):
        return
    over = not rules.not_expired(entry, draft.now)
    if over and rules.expiry_is_sure(entry, draft.sure_from):
        fail_entry(draft, entry, Reason.EXPIRED)
    else:
        stopped = Rejected(failure=FailureClass.STOPPED)
        _defer(draft, entry, stopped, draft.now + _STOPPED_MS)
    attempt_if_free(draft, entry.lane)


def look_up(
    draft: UnitOfWork,
    stream: str,
    place: tuple[int, int],
    verdict: Verdict,
    unsettled_ms: int,
) -> None:
    """Record the answer of a look-up. An absence counts only when it is final. `place`:
    the part and the attempt that were looked up."""
    entry = draft.entry(stream)
    if not rules.look_up_is_current(entry, *place):
        return
    match verdict:
        case Found(receipt=receipt):
            accepted(draft, entry, entry.attempt, receipt, looked_up=True)
        case Absent() if rules.absence_proven(unsettled_ms):
            due = _after_deaths(draft, max(entry.blame.deaths - 1, 0))
            event = o.Reconciled(part=entry.part, absent=True, due=due)
            _go_on(draft, draft.emit(stream, event))
        case Absent():  # too early to count, so it spends no look-up
            due = draft.now + unsettled_ms
            event = o.Reconciled(part=entry.part, absent=False, due=due, early=True)
            draft.emit(stream, event)
        case CannotTell():
            draft.emit(stream, _cannot_tell(draft, entry, verdict))
    attempt_if_free(draft, entry.lane)


def _cannot_tell(draft: UnitOfWork, entry: Entry, said: CannotTell) -> o.Reconciled:
    told = draft.text(entry.stream, said.detail)
    free = said.failure is not None and not RULES[said.failure].counts
    if not free:
        wait = backoff_ms(draft.settings, entry.asks + 1, draft.context.jitter())
        due = draft.now + wait
        return o.Reconciled(part=entry.part, absent=False, due=due, detail=told)
    return o.Reconciled(
        part=entry.part,
        absent=False,
        due=unanswered(draft, entry, said) or draft.now,
        early=True,
        failure=said.failure,
        detail=told,
    )


def settle_doubt(draft: UnitOfWork, stream: str) -> None:
    """No look-up and no key can settle the doubt: the route's policy decides, in the
    log. An entry that a person aborted is not sent again to find out. The inbox was
    read before."""
    entry = draft.entry(stream)
    if entry.phase is not Phase.IN_DOUBT:
        return
    policy = policy_in_doubt(draft, entry)
    alive = _alive(draft, entry)
    if entry.abort is not None:
        fail_entry(draft, entry, Reason.OUTCOME_UNKNOWN)
    elif policy is BlindPolicy.HOLD or not alive:
        unknown = entry.reason or "unknown"
        event = o.Parked(reason=unknown if alive else Reason.QUARANTINED)
        parked = draft.emit(stream, event)
        after_close(draft, parked)
        tell_of_a_hold(draft, parked)
    elif policy is BlindPolicy.DROP or not rules.budget_left(entry):
        fail_entry(draft, entry, Reason.OUTCOME_UNKNOWN)
    else:
        marked = policy is BlindPolicy.RESEND_MARKED
        draft.emit(
            stream,
            o.Resolved(
                part=entry.part, resend=True, by=f"policy:{policy}", marked=marked
            ),
        )
    attempt_if_free(draft, entry.lane, heard=True)


def policy_in_doubt(draft: UnitOfWork, entry: Entry) -> BlindPolicy:
    """The policy for a part in doubt that no look-up can settle. A part with the class
    `lookup` is held for a person: its class promised an answer, and none came. A part
    that its policy has sent again `max_resends` times is held, too."""
    entry = as_offered(draft, entry)
    if rules.may_look_up(entry):
        return BlindPolicy.HOLD
    policy = entry.on_unknown
    again = policy in (BlindPolicy.RESEND, BlindPolicy.RESEND_MARKED)
    if again and not rules.resends_left(entry, draft.settings.max_resends):
        return BlindPolicy.HOLD
    return policy


def _alive(draft: UnitOfWork, entry: Entry) -> bool:
    return rules.not_quarantined(entry, draft.settings.max_deaths_alone)
