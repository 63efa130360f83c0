"""Queueing an entry: `queued`, and `planned` with it where its channel is attached."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import count

from attrs import evolve
from msgspec import Struct

from turnfold._decide import rules
from turnfold._decide.plan import Plan, PlanPart
from turnfold._decide.schedule import attempt_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import bodies
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import EncodedPayload, naming, pack
from turnfold._log.ids import GATE, gates_of, outbound_key, reply_entry
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.enums import (
    ANSWERED,
    CLOSED,
    DELIVERED,
    GIVEN_UP,
    AbortReason,
    BlindPolicy,
    Kind,
    Phase,
    Reason,
    Status,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import BackPressureError
from turnfold.messages import Native, Route, Text
from turnfold.notices import DEFAULTS, Notice, words_for

_Identity = tuple[bytes, tuple[bytes, ...]]


class Intent(Struct, kw_only=True):
    """The payloads to send, with their route. `entry` is the stream, fixed before the
    decision, so that deciding twice queues once. `plan` is None if the channel is not
    attached."""

    entry: str
    route: Route
    kind: Kind
    packed: tuple[EncodedPayload, ...]
    plan: Plan | None = None
    turn: str | None = None
    run: int | None = None
    key: str | None = None  # the caller's idempotency key
    policy: BlindPolicy | None = None
    not_before: int | None = None
    ttl_ms: int | None = None  # from when it falls due; None: by its kind
    waited_ms: int = 0  # in the inbox
    cause: str | None = None  # of a notice
    behind: int = 0  # the order of the entry that it follows in its lane
    fresh: bool = False  # `entry` was made for this intent alone
    promised: bool = False  # it was durable in the inbox: back-pressure came before


def _store(draft: UnitOfWork, stream: str, packed: EncodedPayload) -> str:
    """Put a packed payload beside the log. Returns the text that names it in its
    stream."""
    encoded, contents = packed.identity
    if not contents:
        seal = packed.seals[0] if packed.seals else None
        return draft.body(stream, encoded, packed.origin, seal)
    pairs = zip(contents, packed.seals or (None,) * len(contents), strict=True)
    names = [draft.body(stream, content, seal=seal) for content, seal in pairs]
    return draft.body(stream, naming(packed, names))


def store_payloads(
    draft: UnitOfWork, stream: str, packed: Iterable[EncodedPayload]
) -> dict[_Identity, str]:
    """The name of the body of each payload. Equal payloads share one."""
    stored: dict[_Identity, str] = {}
    for piece in packed:
        if piece.identity not in stored:
            stored[piece.identity] = _store(draft, stream, piece)
    return stored


def queue(draft: UnitOfWork, intent: Intent) -> Entry:
    """`queued`, and `planned` with it if the channel is here. Nothing is attempted."""
    route = intent.route
    stream, due = intent.entry, log_time(draft, intent.not_before)
    stored = store_payloads(draft, stream, intent.packed)
    queued = o.Queued(
        kind=intent.kind,
        channel=route.channel,
        account=route.account,
        conversation=route.conversation,
        thread=route.thread,
        reply_to=route.reply_to,
        lane=route.lane,
        body=tuple([stored[p.identity] for p in intent.packed]),
        turn=intent.turn,
        run=intent.run,
        key=intent.key,
        policy=intent.policy,
        not_before=due,
        live=not intent.packed,
        waited_ms=intent.waited_ms,
        cause=intent.cause,
        behind=intent.behind,
        expires_at=_expiry(draft, intent, due or 0),
    )
    events: list[o.OutboxEvent] = [queued]
    if due is not None and due > draft.now:
        # A reminder for tomorrow must not hold back today's replies.
        events.append(o.LaneYielded(reason="not_before"))
    if intent.plan is not None:
        events.append(frozen_plan(draft, stream, intent.plan, stored, intent.policy))
    return draft.emit(intent.entry, *events)


def freeze(draft: UnitOfWork, entry: Entry, intent: Intent) -> Entry:
    """The seal of a live reply: its plan, with the bodies of its parts."""
    assert intent.plan is not None  # noqa: S101  its caller asked
    event = frozen_plan(draft, entry.stream, intent.plan, {}, entry.policy)
    return draft.emit(entry.stream, event)


def log_time(draft: UnitOfWork, date: int | None) -> int | None:
    """The log time of a wall date."""
    return None if date is None else max(0, date + draft.context.shift())


def _expiry(draft: UnitOfWork, intent: Intent, due: int) -> int:
    """A time to live counts from when the entry falls due. Log time that is not sure
    may be behind, and later jump forward to the wall clock. An entry queued before such
    a jump must not expire by it, so its expiry leads by the difference. (A payload may
    have waited in the inbox for longer than it may live.)"""
    now = draft.now
    lead = max(0, draft.wall - now - draft.behind) if draft.sure_from else 0
    ttl = draft.settings.ttl_ms(intent.kind) if intent.ttl_ms is None else intent.ttl_ms
    start = due if due > now else now  # noqa: FURB136  `max` takes eight times as long
    return start + lead + ttl or 1


def frozen_plan(
    draft: UnitOfWork,
    stream: str,
    made: Plan,
    stored: dict[_Identity, str],
    said: BlindPolicy | None,
) -> o.Planned | o.Aborted:
    """The event that freezes a plan, or ends an entry that its channel suppresses.
    `said`: the policy that the entry itself was given."""
    if not made.parts:
        return o.Aborted(reason=AbortReason.SUPPRESSED)
    parts = []
    for part in made.parts:
        packed, offer = part.packed, part.offer
        planned = o.PlannedPart(
            kind=packed.kind,
            # a part that is the whole payload shares its body
            body=stored.get(packed.identity) or _store(draft, stream, packed),
            key=part.key,
            classes=offer.classes,
            key_window_ms=offer.key_window_ms,
            settle_ms=offer.settle_ms,
            policy=_policy(made, part, said),
        )
        parts.append(planned)
    budget = draft.settings.max_failures
    return o.Planned(parts=tuple(parts), budget=budget, ids=made.ids)


def _policy(made: Plan, part: PlanPart, said: BlindPolicy | None) -> BlindPolicy | None:
    """The policy that `planned` freezes for a part; None where the entry's own policy
    stands. If a mark is asked for and the channel cannot show it, the part is held."""
    if said is None:
        return part.policy
    if said is BlindPolicy.RESEND_MARKED and not made.marks:
        return BlindPolicy.HOLD
    return None


# --- After the end of an entry: the lane moves on, and the turn may be over ---


# The notice for the user, by the reason why the reply was not delivered. A reply that
# may have arrived is never called undelivered. Where the conversation is gone, nobody
# would read a notice.
_NOTICE = {
    Reason.PERMANENT: "undeliverable",
    Reason.ATTEMPTS_EXHAUSTED: "undeliverable",
    Reason.REFUSED: "undeliverable",
    Reason.TOO_OLD: "late",
    Reason.OUTCOME_UNKNOWN: "interrupted",
}
_WHY = {
    TurnOutcome.ABORTED: AbortReason.USER,
    TurnOutcome.SUPERSEDED: AbortReason.SUPERSEDED,
}
_REPLIED = TurnOutcome.REPLIED  # of every turn
_NO_ONE_THERE = ("permission", "target_gone")


def after_close(draft: UnitOfWork, entry: Entry) -> None:
    """Call when this draft has parked or closed an entry."""
    let_pass(draft, entry)
    if entry.turn is None:
        return
    stream = entry.stream
    turn = draft.find_turn(entry.turn)
    if turn is None or stream not in turn.finals:
        return
    if turn.phase is TurnPhase.ANSWERED:
        conclude(draft, turn.stream)
    elif turn.phase.closed and entry.phase.closed:
        amend(draft, turn, stream)


def tell_of_a_hold(draft: UnitOfWork, entry: Entry) -> None:
    """Nobody knows if this part of an answer arrived, and the lane goes on. So a notice
    is queued before the lane moves. A notice never causes a notice."""
    turn = None if entry.turn is None else draft.find_turn(entry.turn)
    if turn is None or turn.phase is not TurnPhase.ANSWERED:
        return
    if entry.stream in turn.finals:
        _queue_notice(draft, turn, "interrupted", [entry])


def _withdraw_notices(
    draft: UnitOfWork, turn: Turn, reason: AbortReason = AbortReason.SUPPRESSED
) -> None:
    """Abort the unsent notices of a turn: all of its answer arrived after all, or a
    newer notice replaces them."""
    for told in list(draft.entries(turn.stream)):
        if told.kind is Kind.NOTICE and told.open and rules.abortable_as_unsent(told):
            draft.emit(told.stream, o.Aborted(reason=reason))


def _no_more_notices(draft: UnitOfWork, turn: Turn) -> None:
    """The answer arrived after all. A notice about it whose own outcome is unknown ends
    as that: sent again it would be wrong, so no person has to decide about it."""
    _withdraw_notices(draft, turn)
    for told in list(draft.entries(turn.stream)):
        if told.kind is Kind.NOTICE and told.phase is Phase.PARKED:
            draft.emit(told.stream, o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN))
            why = draft.text(told.stream, _ARRIVED)
            draft.emit(told.stream, o.Acknowledged(by=_KERNEL, why=why))


_KERNEL, _ARRIVED = "turnfold", "the answer that it is about arrived"


def _new_notice(
    draft: UnitOfWork, turn: Turn, cause: str, *, counted: bool
) -> str | None:
    """The name of a notice that may be queued. None if a notice with this cause was
    sent, or waits in the lane with the same words. `counted`: its words have numbers,
    which may differ."""
    for number in count(1):
        key = f"{cause}-{number}".replace("_", "-")
        name = reply_entry(turn.stream, Kind.NOTICE, turn.run, key)
        told = draft.find_entry(name)
        if told is None:
            return name
        if not rules.notice_is_unsaid(told, counted=counted):
            return None
    return None


def let_pass(draft: UnitOfWork, entry: Entry) -> None:
    if entry.phase not in GIVEN_UP or entry.yielded:
        return
    if draft.settings.yield_closed:
        draft.emit(entry.stream, o.LaneYielded(reason=entry.phase.status))


def conclude(draft: UnitOfWork, stream: str) -> None:
    """End an answered turn if all its final entries are closed."""
    turn = draft.turn(stream)
    finals = [draft.entry(name) for name in turn.finals]
    if turn.phase is not ANSWERED or any(e.phase not in CLOSED for e in finals):
        return
    outcome = outcome_of(finals)
    if outcome is _REPLIED and not any(e.yielded for e in finals):
        draft.emit(stream, t.Completed(outcome=outcome))  # nearly all
        return
    match outcome:
        case TurnOutcome.FAILED | TurnOutcome.EXPIRED:
            reason = next((e.reason for e in finals if e.reason), "failed")
            fail(draft, stream, outcome, reason, _notice_for(finals))
        case TurnOutcome.ABORTED | TurnOutcome.SUPERSEDED:
            draft.emit(stream, t.TurnAborted(outcome=outcome, by=turn.abort_by))
            _stop_the_rest(draft, turn, _WHY[outcome])
        case TurnOutcome.PARTIALLY_REPLIED:
            told = _tell_what_is_missing(draft, turn, finals)
            draft.emit(stream, t.Completed(outcome=outcome, notice=told))
        case _:
            draft.emit(stream, t.Completed(outcome=outcome))
            if any(e.yielded for e in finals):  # one of them may have been parked
                _no_more_notices(draft, turn)


def _stop_the_rest(draft: UnitOfWork, turn: Turn, reason: AbortReason) -> None:
    """Nothing more of an aborted turn is sent: its blocks and tools stop, too, even if
    the user stopped only the reply (INV-11)."""
    for name in draft.entries_of(turn.stream):
        entry = draft.entry(name)
        if not entry.open or entry.abort is not None:
            continue
        if rules.abortable_as_unsent(entry):
            draft.emit(name, o.Aborted(reason=reason, by=turn.abort_by))
        else:
            draft.emit(name, o.AbortRequested(reason=reason, by=turn.abort_by))


def outcome_of(finals: list[Entry]) -> TurnOutcome:
    """INV-10: how a turn ended follows from its final entries alone."""
    if not finals:
        return TurnOutcome.SILENT
    if all(e.phase is DELIVERED for e in finals):
        return _REPLIED
    if any(e.receipts for e in finals):
        return TurnOutcome.PARTIALLY_REPLIED
    if any(e.phase is Phase.FAILED for e in finals):
        late = all(e.reason in (Reason.EXPIRED, Reason.TOO_OLD) for e in finals)
        return TurnOutcome.EXPIRED if late else TurnOutcome.FAILED
    if any(e.reason == AbortReason.SUPERSEDED for e in finals):
        return TurnOutcome.SUPERSEDED
    if any(e.reason == AbortReason.USER for e in finals):
        return TurnOutcome.ABORTED
    return TurnOutcome.SILENT  # all suppressed


def _tell_what_is_missing(
    draft: UnitOfWork, turn: Turn, finals: list[Entry]
) -> str | None:
    """Queue the notice about missing parts and return its name. None if nobody would
    read it, or if the user stopped the rest. With a part in doubt the notice says
    `interrupted` and no numbers: the part may have arrived."""
    failed = [e for e in finals if e.phase is Phase.FAILED]
    if not failed or any(e.failure in _NO_ONE_THERE for e in failed):
        return None
    if any(e.reason == Reason.OUTCOME_UNKNOWN for e in failed):
        return _queue_notice(draft, turn, "interrupted", finals)
    parts = sum(e.count for e in finals)
    there = sum(len(e.receipts) for e in finals)
    missing = parts - there
    return _queue_notice(draft, turn, "incomplete", finals, missing, parts)


def _notice_for(finals: list[Entry]) -> str | None:
    for entry in finals:
        if entry.failure in _NO_ONE_THERE or entry.abort is not None:
            return None  # nobody reads it, or the reader stopped it
        if entry.reason in _NOTICE:
            return _NOTICE[Reason(entry.reason)]
    return None


def amend(draft: UnitOfWork, turn: Turn, stream: str) -> None:
    """A closed final entry of a closed turn has changed, by a late receipt or a
    bounce."""
    outcome = outcome_of([draft.entry(name) for name in turn.finals])
    if outcome is turn.outcome:
        return
    draft.emit(turn.stream, t.Amended(outcome=outcome, entry=stream))
    entry = draft.entry(stream)
    if outcome is TurnOutcome.REPLIED:
        _no_more_notices(draft, turn)
    elif entry.bounced:
        _queue_notice(draft, turn, "undeliverable", [entry])


def reopen(draft: UnitOfWork, entry: Entry) -> None:
    """A final entry was redriven: its turn is over no longer, and ends with it. A
    notice that has not gone out says something that may not stay true."""
    turn = None if entry.turn is None else draft.find_turn(entry.turn)
    if turn is None or turn.open or entry.stream not in turn.finals:
        return
    draft.emit(turn.stream, t.Amended(entry=entry.stream))
    _withdraw_notices(draft, turn)


def fail(
    draft: UnitOfWork,
    stream: str,
    outcome: TurnOutcome,
    reason: str,
    notice: str | None,
    detail: str = "",
) -> None:
    """End a turn without a reply; the user's notice is queued in the same commit."""
    turn = draft.turn(stream)
    end_live(draft, turn)
    finals = [draft.entry(name) for name in turn.finals] if notice else []
    told = _queue_notice(draft, turn, notice, finals) if notice else None
    text = draft.text(stream, detail)
    event = t.Failed(outcome=outcome, reason=reason, notice=told, detail=text)
    draft.emit(stream, event)


def end_live(draft: UnitOfWork, turn: Turn) -> None:
    """The turn is over without a seal: its placeholder gets no more text."""
    entry = draft.find_entry(reply_entry(turn.stream, Kind.FINAL, turn.run, "final"))
    if entry is None or not rules.is_live(entry) or entry.abort is not None:
        return
    reason = AbortReason.SUPPRESSED
    if rules.abortable_as_unsent(entry):
        draft.emit(entry.stream, o.Aborted(reason=reason))
    else:
        draft.emit(entry.stream, o.AbortRequested(reason=reason))


def _queue_notice(
    draft: UnitOfWork,
    turn: Turn,
    cause: str,
    about: Sequence[Entry],
    missing: int = 0,
    parts: int = 0,
) -> str | None:
    """`about`: the entries in its text. `missing` of `parts` parts of the answer were
    not delivered."""
    name = _new_notice(draft, turn, cause, counted=parts > 0)
    if name is None:
        return None
    if not turn.conversation:  # a dead turn: its conversation is not known
        return None
    said = _said(draft, turn, cause, missing, parts)
    if said is None:
        return None
    route = Route(
        channel=turn.channel,
        account=turn.account,
        conversation=turn.conversation,
        thread=turn.thread,
        reply_to=turn.message_id or None,
    )
    packed = (pack(said),)
    intent = Intent(
        entry=name,
        route=route,
        kind=Kind.NOTICE,
        packed=packed,
        turn=turn.stream,
        cause=cause,
        behind=_behind(draft, route.lane, about),
    )
    _withdraw_notices(draft, turn, AbortReason.SUPERSEDED)
    queue(draft, intent)
    if not all(rules.history_is_whole(e, draft.restored_at) for e in about):
        # In the lost history this notice may have been told.
        let_pass(draft, draft.emit(name, o.Doubted(reason="restored")))
    return name


def _behind(draft: UnitOfWork, lane: str, about: Sequence[Entry]) -> int:
    """INV-8: the order after which a notice goes: after the last of its entries in the
    lane, and after an entry that has begun, so that no answer is cut in two. 0: the end
    of the lane."""
    orders = [entry.order for entry in about if entry.lane == lane]
    front = draft.front(lane) if orders else []
    begun = [e.place[0] for e in front if not (e.yielded or rules.not_begun(e))]
    return max(orders + begun) if orders else 0


def _said(
    draft: UnitOfWork, turn: Turn, cause: str, missing: int, parts: int
) -> Text | Native | None:
    notice = Notice(
        cause=cause,
        text=DEFAULTS[cause],
        channel=turn.channel,
        account=turn.account,
        conversation=turn.conversation,
        locale=turn.first.locale,
        missing=missing,
        parts=parts,
    )
    notice = evolve(notice, text=notice.filled(notice.text))
    words = words_for(draft.settings.notices, notice)
    if callable(words):
        return draft.context.ask_words(words, notice)
    return Text(words) if words else None


# --- Enqueueing: once per key, planned here or later, attempted at once if it can be ---


class Enqueued(Struct, frozen=True, kw_only=True):
    """`new` is false when the key (or the entry) was there before. `differs`: this call
    brought other bytes than the first one; the first bytes stand."""

    entry_id: str
    status: Status
    new: bool | None  # None: only the owner of the store can know
    differs: bool = False


def enqueue(draft: UnitOfWork, intent: Intent) -> Enqueued:
    if intent.fresh:
        draft.fresh(intent.entry)
    else:
        draft.may_be_new(intent.entry, intent.turn)
    known = draft.find_entry(intent.entry)
    if known is None and intent.key is not None and intent.turn is None:
        stream = draft.lookup(outbound_key(intent.key))
        known = draft.find_entry(stream) if stream else None
        if known is None and stream not in (None, intent.entry):
            # A command that waits in the inbox holds the key.
            return Enqueued(entry_id=stream, status=Status.QUEUED, new=False)
    if known is not None:
        return _known(draft, known, intent)
    if intent.turn is None and not intent.promised:
        _check_room(draft, intent)
    entry = queue(draft, intent)
    if intent.key is not None and intent.turn is None:
        draft.key(outbound_key(intent.key), intent.entry)
    attempt_if_free(draft, entry.lane)
    status = draft.latest(entry).phase.status
    return Enqueued(entry_id=intent.entry, status=status, new=True)


def _check_room(draft: UnitOfWork, intent: Intent) -> None:
    """Each account has a limit of its own. An entry of a turn is taken without this
    check: a refusal would make the handler compute the answer again."""
    limit = draft.settings.max_open_entries
    if draft.open_count < limit:
        return
    account = gates_of(intent.route.lane)[0]
    waiting = draft.open_of(account)
    if waiting >= limit:
        what = f"open entries of {account.removeprefix(GATE)}"
        raise BackPressureError(what=what, waiting=waiting, limit=limit)


def _known(draft: UnitOfWork, entry: Entry, intent: Intent) -> Enqueued:
    same = entry.redacted or _same(draft, entry, intent)  # erased: not comparable
    # Without a turn the stream is fresh for every call: then this call made it, in a
    # COMMIT that reached the disk though it seemed to fail.
    ours = intent.turn is None and entry.stream == intent.entry
    return Enqueued(
        entry_id=entry.stream,
        status=entry.status,
        new=ours,
        differs=not same and not ours,
    )


def _same(draft: UnitOfWork, entry: Entry, intent: Intent) -> bool:
    return len(entry.body) == len(intent.packed) and all(
        bodies.same(packed, digest, partial(draft.stored, entry.stream))
        for packed, digest in zip(intent.packed, entry.body, strict=True)
    )


def plan(draft: UnitOfWork, stream: str, made: Plan) -> None:
    """Freeze the parts of an entry that was queued where its channel was not. Its lane
    goes on in the same commit."""
    entry = draft.entry(stream)
    if not entry.planned and entry.open:
        if entry.doubt and not made.parts:  # "aborted" would say that it is unsent
            unsure = o.FailedTerminal(reason=Reason.OUTCOME_UNKNOWN)
            entry = draft.emit(stream, unsure)
        else:
            event = frozen_plan(draft, stream, made, {}, entry.policy)
            entry = draft.emit(stream, event)
        if not entry.open:
            after_close(draft, entry)
        attempt_if_free(draft, entry.lane)
