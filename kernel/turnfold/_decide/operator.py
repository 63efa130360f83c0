"""The acts of a person or an embedder: retry, resolve, discard, abort, redact, unhold; and
a store that is an older copy of itself."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from attrs import frozen

from turnfold._decide import rules
from turnfold._decide.gates import open_gate
from turnfold._decide.missing import all_of
from turnfold._decide.outbox import after_close, conclude, reopen
from turnfold._decide.outcomes import accepted, bury, fail_entry
from turnfold._decide.plan import new_key
from turnfold._decide.schedule import attempt_if_free
from turnfold._decide.turns import start_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.bodies import digests_of, left_of
from turnfold._log.events import Restored
from turnfold._log.ids import gate_of_place, gates_of
from turnfold._state.entry import SPOILED, Entry
from turnfold._state.fold import PERSON, STORE, State, family
from turnfold._state.turn import Turn
from turnfold.enums import (
    AbortReason,
    FailureClass,
    Phase,
    Reason,
    Status,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import (
    CorruptLogError,
    DamagedError,
    MissingBodyError,
    RuleBrokenError,
    StillOpenError,
)
from turnfold.ports.channel import Receipt
from turnfold.ports.store import Watermark


def redrive(
    draft: UnitOfWork,
    stream: str,
    by: str,
    accept_duplicate: bool = False,
    why: str = "",
) -> None:
    """Send a dead letter again: from its first unsettled part, with a new budget. A
    turn that was over owes its reply again."""
    entry = draft.entry(stream)
    unknown = entry.doubtful or entry.reason == Reason.OUTCOME_UNKNOWN
    if entry.phase is Phase.FAILED and unknown and not accept_duplicate:
        raise RuleBrokenError(
            stream=stream,
            rule="no_doubt",
            why="it may have arrived; say accept_duplicate to send it again",
        )
    _must_have_bodies(entry)
    expires = draft.now + draft.settings.ttl_ms(entry.kind)
    spoiled = [s.part for s in entry.others if s.end in SPOILED]
    draft.emit(
        stream,
        o.Redriven(
            budget=draft.settings.max_failures,
            expires_at=expires,
            by=by,
            accept_duplicate=accept_duplicate,
            keys=tuple([new_key(entry, part) for part in spoiled]),
            why=draft.text(stream, why),
        ),
    )
    reopen(draft, entry)
    attempt_if_free(draft, entry.lane)


def _must_have_bodies(state: Entry | Turn) -> None:
    if not rules.bodies_kept(state):
        why = "its content was erased; send it anew"
        raise RuleBrokenError(stream=state.stream, rule="bodies_kept", why=why)


def resolve(
    draft: UnitOfWork,
    stream: str,
    verdict: str,
    by: str,
    why: str = "",
    marked: bool = True,
) -> None:
    """End a doubt. `verdict`: "delivered", "not_sent", "resend" or "give_up"."""
    entry = bury(draft, draft.entry(stream))
    if entry.phase not in (Phase.IN_DOUBT, Phase.PARKED):
        text = f"it is {entry.status}, and no part of it is in doubt"
        raise RuleBrokenError(stream=stream, rule="in_doubt", why=text)
    match verdict:
        case "delivered":
            accepted(draft, entry, entry.attempt, Receipt(), by=by, why=why)
        case "not_sent" | "resend":
            resend = verdict == "resend"
            event = o.Resolved(
                part=entry.part,
                resend=resend,
                by=by,
                why=draft.text(stream, why),
                marked=marked and resend,
                expires_at=_renewed(draft, entry),
            )
            draft.emit(stream, event)
            _stop_if_aborted(draft, draft.entry(stream))
        case "give_up":
            fail_entry(draft, entry, Reason.OUTCOME_UNKNOWN, by=by, why=why)
        case _:
            raise RuleBrokenError(stream=stream, rule="verdict", why=verdict)
    attempt_if_free(draft, entry.lane)


def _renewed(draft: UnitOfWork, entry: Entry) -> int | None:
    """The expiry of an entry that a person wants to be sent; None: it has more time."""
    expires = draft.now + draft.settings.ttl_ms(entry.kind)
    return expires if expires > entry.expires_at else None


def _stop_if_aborted(draft: UnitOfWork, entry: Entry) -> None:
    if entry.abort is not None and rules.abortable_as_unsent(entry):
        event = o.Aborted(reason=entry.abort, by=entry.abort_by)
        after_close(draft, draft.emit(entry.stream, event))


def reschedule(
    draft: UnitOfWork, stream: str, due: int, by: str, why: str = ""
) -> None:
    """Move the next attempt of an entry to `due` (ms)."""
    entry = draft.entry(stream)
    event = o.Rescheduled(due=due, by=by, why=draft.text(stream, why))
    draft.emit(stream, event)
    attempt_if_free(draft, entry.lane)


def acknowledge(draft: UnitOfWork, stream: str, by: str, why: str = "") -> None:
    """A person has seen a dead letter."""
    draft.entry(stream)
    draft.emit(stream, o.Acknowledged(by=by, why=draft.text(stream, why)))


def bounce(draft: UnitOfWork, stream: str, part: int, detail: str = "") -> None:
    """The platform refused a part after it had accepted it (B20). If the part belongs
    to a final, its turn is amended. Raises RuleBrokenError for a part that has no
    receipt."""
    if not rules.was_accepted(draft.entry(stream), part):
        why = f"part {part} has no receipt that could bounce"
        raise RuleBrokenError(stream=stream, rule="was_accepted", why=why)
    event = o.Bounced(part=part, detail=draft.text(stream, detail))
    after_close(draft, draft.emit(stream, event))


def redact(draft: UnitOfWork, stream: str, by: str, why: str = "") -> None:
    """Erase the bodies of a closed entry, or of a closed turn with its entries. A
    stream that was erased before stays as it is, unless it has new bodies."""
    note = why[:_NOTE] or None
    turn = draft.turn(stream) if family(stream) == "turn" else None
    if turn is None:
        entries = [draft.entry(stream)]
    else:
        _over(turn)
        entries = all_of(partial(draft.entry, e) for e in draft.entries_of(stream))
    for entry in entries:
        _over(entry)
    _load_bodies(draft, [stream, *(e.stream for e in entries)])
    for entry in entries:
        _redact(draft, entry, o.Redacted(by=by, note=note))
    if turn is not None:
        _redact(draft, turn, t.TurnRedacted(by=by, note=note))


def _load_bodies(draft: UnitOfWork, streams: Iterable[str]) -> None:
    """Load all bodies that are to be erased, in two fetches."""
    names = dict.fromkeys(streams)
    histories = all_of(partial(draft.history, name) for name in names)
    all_of(
        partial(_look, draft, name, ref)
        for name, history in zip(names, histories, strict=True)
        for event in history
        for ref in digests_of(event)
    )


def _look(draft: UnitOfWork, stream: str, ref: str) -> None:
    with suppress(MissingBodyError, DamagedError):  # erased all the same
        draft.stored(stream, ref)


def _redact(
    draft: UnitOfWork, state: Entry | Turn, event: o.Redacted | t.TurnRedacted
) -> None:
    stored = partial(draft.stored, state.stream)
    left = left_of(draft.history(state.stream), stored)
    if left or not state.redacted:
        draft.emit(state.stream, event)
        draft.erase(state.stream, left)


def _over(state: Entry | Turn) -> None:
    if state.open:
        raise StillOpenError(stream=state.stream, phase=_named(state))


def _named(state: Entry | Turn) -> str:
    return str(state.status if isinstance(state, Entry) else state.phase)


def retry(
    draft: UnitOfWork,
    stream: str,
    by: str,
    accept_duplicate: bool = False,
    why: str = "",
) -> str:
    """Send a failed entry again, attempt a waiting entry now, or run a failed turn
    again. Returns the act: "redriven", "rescheduled" or "resubmitted".

    Raises RuleBrokenError where nothing can be repeated; its `why` names the command
    that helps.
    """
    if family(stream) == "turn":
        return _retry_turn(draft, draft.turn(stream), by, accept_duplicate, why)
    entry = draft.entry(stream)
    match entry.phase:
        case Phase.FAILED:
            redrive(draft, stream, by, accept_duplicate, why)
            return "redriven"
        case Phase.QUEUED | Phase.RETRYABLE:
            reschedule(draft, stream, draft.now, by, why)
            return "rescheduled"
        case Phase.IN_DOUBT | Phase.PARKED:
            problem = "it may have arrived; resolve it"
        case _:
            problem = f"it is {entry.status}"
    raise RuleBrokenError(stream=stream, rule="retry", why=problem)


def _retry_turn(
    draft: UnitOfWork, turn: Turn, by: str, accept_duplicate: bool, why: str
) -> str:
    if not turn.finals:
        resubmit(draft, turn.stream, by, why)
        return "resubmitted"
    finals = all_of(partial(draft.entry, name) for name in turn.finals)
    dead = [entry.stream for entry in finals if entry.phase is Phase.FAILED]
    if not dead:
        problem = f"its answer is {', '.join(sorted({e.status for e in finals}))}"
        raise RuleBrokenError(stream=turn.stream, rule="retry", why=problem)
    for name in dead:
        redrive(draft, name, by, accept_duplicate, why)
    return "redriven"


def discard(draft: UnitOfWork, stream: str, by: str, why: str = "") -> str:
    """A person decides that nothing more is done. A dead letter counts as seen. An
    entry in doubt ends with an unknown outcome and counts as seen. Any other open entry
    is aborted. Returns "acknowledged" or "aborted"."""
    if family(stream) == "turn":
        return _discard_turn(draft, draft.turn(stream), by, why)
    entry = draft.entry(stream)
    if entry.phase in (Phase.IN_DOUBT, Phase.PARKED):
        resolve(draft, stream, "give_up", by, why)
        why = ""
    if draft.entry(stream).phase is Phase.FAILED:
        acknowledge(draft, stream, by, why)
        return "acknowledged"
    if not entry.open:
        problem = f"it is {entry.status} already"
        raise RuleBrokenError(stream=stream, rule="discard", why=problem)
    abort_entry(draft, stream, AbortReason.USER, by, why)
    return "aborted"


def _discard_turn(draft: UnitOfWork, turn: Turn, by: str, why: str) -> str:
    entries = all_of(partial(draft.entry, e) for e in draft.entries_of(turn.stream))
    waiting = (Phase.IN_DOUBT, Phase.PARKED, Phase.FAILED)
    dead = [entry.stream for entry in entries if entry.phase in waiting]
    for name in dead:
        discard(draft, name, by, why)
    if draft.turn(turn.stream).open:
        abort_turn(draft, turn.stream, AbortReason.USER, by, why)
        return "aborted"
    if not dead:
        problem = f"it is {turn.phase} already, and none of its entries has failed"
        raise RuleBrokenError(stream=turn.stream, rule="discard", why=problem)
    return "acknowledged"


def resubmit(draft: UnitOfWork, stream: str, by: str, why: str = "") -> None:
    """Run a failed turn again, once."""
    turn = draft.turn(stream)
    if turn.resubmitted:
        raise RuleBrokenError(stream=stream, rule="resubmit_once", why="done before")
    _must_have_bodies(turn)
    if turn.finals:
        why = f"the outbox owns its answer; redrive {', '.join(turn.finals)}"
        raise RuleBrokenError(stream=stream, rule="not_answered", why=why)
    draft.emit(stream, t.Resubmitted(by=by, why=draft.text(stream, why)))


# --- Aborting an entry or a turn: a user asks, or a newer message replaces it ---


_OUTCOMES = {
    AbortReason.USER: TurnOutcome.ABORTED,
    AbortReason.SUPERSEDED: TurnOutcome.SUPERSEDED,
}


@frozen(kw_only=True)
class Abortion:
    """`aborted`: nothing more will be sent. False: the entry or turn was over already,
    a part is still on the wire, or a parked entry in doubt has ended as failed, outcome
    unknown. `status` is its status now."""

    aborted: bool
    status: str

    @property
    def answer(self) -> str:
        """One word for the caller: `stopped`, `too_late` (the entry or turn is over),
        or `unknown` (a part of it is on the wire or in doubt, or no worker has
        answered)."""
        return "stopped" if self.aborted else _word_for(self.status)


_UNSURE = ("requested", Status.ATTEMPTED, TurnPhase.ANSWERED)


def _word_for(status: str) -> str:
    return "unknown" if status in _UNSURE else "too_late"


def abort_entry(
    draft: UnitOfWork,
    stream: str,
    reason: AbortReason,
    by: str | None = None,
    why: str = "",
) -> Abortion:
    entry = draft.entry(stream)
    if entry.open and entry.abort is None:
        _stop(draft, entry, reason, by, why)
        attempt_if_free(draft, entry.lane)
    after = draft.entry(stream)
    return Abortion(aborted=after.phase is Phase.ABORTED, status=after.status)


def _stop(
    draft: UnitOfWork, entry: Entry, reason: AbortReason, by: str | None, why: str
) -> None:
    stream = entry.stream
    told = draft.text(stream, why)
    if rules.abortable_as_unsent(entry):
        after_close(
            draft, draft.emit(stream, o.Aborted(reason=reason, by=by, why=told))
        )
        return
    after = draft.emit(stream, o.AbortRequested(reason=reason, by=by, why=told))
    if after.phase is Phase.PARKED:
        fail_entry(draft, after, Reason.OUTCOME_UNKNOWN)


def abort_turn(
    draft: UnitOfWork,
    stream: str,
    reason: AbortReason,
    by: str | None = None,
    why: str = "",
) -> Abortion:
    """Stop a turn and all its open entries."""
    turn = draft.turn(stream)
    if turn.open and turn.abort is None:
        if turn.phase is TurnPhase.ANSWERED:
            _abort_answered(draft, turn, reason, by, why)
        else:
            outcome = _OUTCOMES.get(reason, TurnOutcome.ABORTED)
            told = draft.text(stream, why)
            draft.emit(stream, t.TurnAborted(outcome=outcome, by=by, why=told))
            _cascade(draft, turn, reason, by, why)
    after = draft.turn(stream)
    return Abortion(aborted=after.phase is TurnPhase.ABORTED, status=after.phase)


def _abort_answered(
    draft: UnitOfWork, turn: Turn, reason: AbortReason, by: str | None, why: str
) -> None:
    """The outbox owns the answer: the end of the turn follows from its entries."""
    told = draft.text(turn.stream, why)
    draft.emit(turn.stream, t.TurnAbortRequested(reason=reason, by=by, why=told))
    _cascade(draft, turn, reason, by, why)
    if draft.turn(turn.stream).open:
        conclude(draft, turn.stream)


def _cascade(
    draft: UnitOfWork, turn: Turn, reason: AbortReason, by: str | None, why: str
) -> None:
    lanes = set()
    for entry in list(draft.entries(turn.stream)):
        if entry.open and entry.abort is None:
            _stop(draft, entry, reason, by, why)
            lanes.add(entry.lane)
    for lane in sorted(lanes):
        attempt_if_free(draft, lane)


# --- The store is an older copy of itself: its open streams may be over already ---


REASON = "restored"


def wall_jumped(draft: UnitOfWork, by_ms: int) -> None:
    """Log a step of the wall clock."""
    draft.emit(STORE, t.WallJumped(by_ms=by_ms))


def restored(draft: UnitOfWork, mark: Watermark, streams: Iterable[str]) -> bool:
    """Record that this store is an older copy. `mark` is the head of the lost history;
    `streams` are all open streams. False if this was recorded before, and only the mark
    was not rewritten since."""
    event = Restored(
        position_seen=mark.head.position,
        position_found=draft.position,
        hash=mark.head.hash.hex(),
        failover=mark.failover,
    )
    if any(_same(event, known) for known in draft.history(STORE)):
        return False
    names = list(streams)
    all_of(partial(_readable, draft, stream) for stream in names)  # in one fetch
    draft.fence()
    draft.emit(STORE, event)
    for stream in names:
        _suspect(draft, stream)
    return True


def declared(draft: UnitOfWork, stream: str, by: str, why: str = "") -> None:
    """A person says that this store is a restored copy, also where the store itself
    does not show it. An attempt or a run of this worker goes on: it began after the
    restore."""
    epoch, here = draft.fence().epoch, draft.position
    names = draft.open_streams()
    states = all_of(partial(_readable, draft, name) for name in names)  # in one fetch
    note = why[:_NOTE] or None
    said = Restored(position_seen=here, position_found=here, hash="", by=by, note=note)
    draft.emit(stream, said)
    for name, state in zip(names, states, strict=True):
        if not _in_hand(state, epoch):
            _suspect(draft, name)


_NOTE = 4096  # characters


def _in_hand(state: State | None, epoch: int) -> bool:
    match state:
        case Entry(phase=Phase.ATTEMPTED | Phase.DISPATCHED, fence=fence):
            return fence == epoch
        case Turn(phase=TurnPhase.RUNNING, fence=fence):
            return fence == epoch
        case _:
            return False


def _same(event: Restored, known: object) -> bool:
    return (
        isinstance(known, Restored)
        and known.position_seen == event.position_seen
        and known.hash == event.hash
        and known.failover == event.failover
    )


def _readable(draft: UnitOfWork, stream: str) -> State | None:
    try:
        return draft.state(stream)
    except CorruptLogError:
        return None  # the stream is set aside


def _suspect(draft: UnitOfWork, stream: str) -> None:
    match _readable(draft, stream):
        case Entry() as entry:
            _doubt(draft, entry)
            _park_placeholder(draft, draft.entry(stream))
        case Turn() as turn:
            _hold(draft, turn)
        case _:
            pass


def _doubt(draft: UnitOfWork, entry: Entry) -> None:
    """An attempt under way is in doubt even if it was not dispatched in this copy: it
    may have gone on in the lost history. An entry that is in doubt or parked already
    stays so."""
    match entry.phase:
        case Phase.QUEUED | Phase.RETRYABLE:
            event = o.Doubted(reason=REASON)
            after_close(draft, draft.emit(entry.stream, event))
        case Phase.ATTEMPTED | Phase.DISPATCHED:
            unknown = o.OutcomeUnknown(
                part=entry.part,
                attempt=entry.attempt,
                cause=FailureClass.OWNER_DIED,
                due=draft.now,
            )
            draft.emit(entry.stream, unknown)
        case _:
            pass


def _park_placeholder(draft: UnitOfWork, entry: Entry) -> None:
    """A placeholder in doubt would be made again. In the lost history it may have been
    placed, and may show the answer by now."""
    if rules.placeholder_in_doubt(entry):
        after_close(draft, draft.emit(entry.stream, o.Parked(reason=REASON)))


def _hold(draft: UnitOfWork, turn: Turn) -> None:
    runs = turn.phase in (TurnPhase.ACCEPTED, TurnPhase.RUNNING)
    if runs and not turn.held:
        draft.emit(turn.stream, t.Held(reason=REASON))


def let_go(draft: UnitOfWork, stream: str, by: str, why: str = "") -> list[str]:
    """Open the gates that hold a stream back: those of an entry, of a turn's entries,
    of a place (`channel/account`, `channel/account/conversation`), or one gate by its
    name. A held turn may run.

    Returns the names of the gates and turns that were let go. Raises RuleBrokenError if
    none was held back.
    """
    opened = []
    if family(stream) == "turn" and draft.turn(stream).held:
        unhold(draft, stream, by, why)
        opened.append(stream)
    for name in _gates_before(draft, stream):
        gate = draft.gate(name)
        if gate is not None and gate.holds(draft.now):
            open_gate(draft, name, PERSON, by, why)
            opened.append(name)
    if not opened:
        raise RuleBrokenError(stream=stream, rule="let_go", why="nothing holds it back")
    return opened


def _gates_before(draft: UnitOfWork, stream: str) -> list[str]:
    match family(stream):
        case "gate":
            return [stream]
        case "entry":
            entries = [draft.entry(stream)]
        case "turn":
            names = draft.entries_of(stream)
            entries = all_of(partial(draft.entry, name) for name in names)
        case _:
            return [gate_of_place(stream)]
    names = [gate for entry in entries for gate in gates_of(entry.lane)]
    return list(dict.fromkeys(names))


def unhold(draft: UnitOfWork, stream: str, by: str, why: str = "") -> None:
    """A person says that a held turn has not been answered: it may run."""
    turn = draft.turn(stream)
    if not turn.held:
        raise RuleBrokenError(stream=stream, rule="held", why=f"it is {turn.phase}")
    draft.emit(stream, t.Unheld(by=by, why=draft.text(stream, why)))
    start_if_free(draft, stream)
