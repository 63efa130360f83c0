"""The runs of a turn: started, answered, released, failed, and orphaned by a death."""

from enum import Enum, auto

from attrs import define, frozen

from turnfold._decide import live, rules
from turnfold._decide.failures import backoff_ms
from turnfold._decide.outbox import Enqueued, Intent, conclude, end_live, enqueue, fail
from turnfold._decide.schedule import attempt_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry
from turnfold._state.turn import UNREAD, Turn
from turnfold.enums import (
    ACCEPTED,
    ANSWERED,
    RUNNING,
    AbortReason,
    FailureClass,
    Kind,
    OldTurns,
    Phase,
    TurnOutcome,
)
from turnfold.errors import AlreadyRepliedError, BackPressureError, StaleRunError


class TurnAct(Enum):
    WAIT = auto()
    START = auto()
    ORPHAN = auto()  # running, but the process that ran it is dead
    EXPIRE = auto()  # left open, and no answer came in time


@define
class TurnStep:
    act: TurnAct
    turn: str = ""
    until: int | None = None


def next_turn(draft: UnitOfWork, lane: str) -> TurnStep:
    """The step that the turns of a lane need now. One turn runs at a time, from its
    start to its answer. A turn that waits for its next run holds the later turns
    back."""
    until: int | None = None
    for stream in draft.turn_lane(lane):
        turn = draft.turn(stream)
        if turn.phase is ANSWERED or turn.held:
            continue  # a turn that waits for a person holds no other turn back
        if turn.left_open is not None:
            step = turn_step(draft, turn)
            if step.act is not TurnAct.WAIT:
                return step
            until = _no_later(step, until).until
            continue  # nor does a turn that was left open
        if turn.passed and (other := _running(draft, lane)) is not None:
            turn = other
        if until is None:
            return turn_step(draft, turn)
        return _no_later(turn_step(draft, turn), until)
    return TurnStep(TurnAct.WAIT, until=until)


def _no_later(step: TurnStep, until: int | None) -> TurnStep:
    """The same step, with a look at the lane at `until` at the latest."""
    known = [at for at in (step.until, until) if at is not None]
    return TurnStep(step.act, step.turn, min(known, default=None))


def _running(draft: UnitOfWork, lane: str) -> Turn | None:
    """The running turn of a lane. It may not be the first: it may have passed
    others."""
    turns = (draft.turn(stream) for stream in draft.turn_lane(lane))
    return next((t for t in turns if rules.runs(t)), None)


def turn_step(draft: UnitOfWork, turn: Turn) -> TurnStep:
    fence = draft.context.fence
    if fence is None or draft.context.holds_back or not draft.context.runs:
        return TurnStep(TurnAct.WAIT)
    if turn.held:
        return TurnStep(TurnAct.WAIT)
    if turn.phase is RUNNING:
        if turn.left_open is not None:
            return _left_open_step(draft, turn)
        dead = rules.runner_is_dead(turn, fence.epoch)
        return TurnStep(TurnAct.ORPHAN if dead else TurnAct.WAIT, turn.stream)
    if turn.phase is not ACCEPTED:
        return TurnStep(TurnAct.WAIT)
    if turn.due is not None and draft.now < turn.due:
        return TurnStep(TurnAct.WAIT, until=turn.due)
    if draft.suspected and not _may_run_now(draft, turn):
        return TurnStep(TurnAct.WAIT, until=draft.now + _SUSPECT_MS)
    if not _has_place(draft, turn):
        return TurnStep(TurnAct.WAIT, until=draft.now + _PLACE_MS)
    return TurnStep(TurnAct.START, turn.stream)


def _has_place(draft: UnitOfWork, turn: Turn) -> bool:
    """At most `concurrent_runs` handlers run at the same time. Control input needs no
    place."""
    flow, most = draft.context.flow, draft.settings.concurrent_runs
    if flow is None or turn.control:
        return True
    if len(draft.below.running()) + len(draft.touched) < most:
        return True
    if rules.place_is_free(draft.running(), most):
        return True
    flow.wait_for_place(turn.lane, turn.order)
    return False


def _left_open_step(draft: UnitOfWork, turn: Turn) -> TurnStep:
    if not rules.wait_is_over(turn, draft.now):
        return TurnStep(TurnAct.WAIT, until=turn.left_open)
    if turn.updated < draft.sure_from:  # the clock is not sure
        return TurnStep(TurnAct.WAIT, until=draft.now + _UNSURE_MS)
    return TurnStep(TurnAct.EXPIRE, turn.stream)


_UNSURE_MS = 10_000
_PLACE_MS = 60_000  # how often a turn without a place asks, besides its signal
_SUSPECT_MS = 1_000  # how often a turn that waits for suspects looks again


def _may_run_now(draft: UnitOfWork, turn: Turn) -> bool:
    """May a turn start after a death? Control input may at once, unless it is suspect
    itself."""
    if turn.control and not turn.suspects:
        return True
    fence = draft.context.fence
    mine = -1 if fence is None else fence.epoch
    running = [other for other in draft.running() if other.fence == mine]
    return rules.may_run_beside(turn, running)


def start_if_free(draft: UnitOfWork, stream: str) -> None:
    """Fuse the start into the commit that accepted the turn, if its lane is free."""
    if draft.context.fence is None or not draft.context.runs:
        return
    turn = draft.turn(stream)
    step = turn_step(draft, turn) if turn.control else next_turn(draft, turn.lane)
    if step.act is TurnAct.START and step.turn == stream:
        start(draft, stream)


def start(draft: UnitOfWork, stream: str) -> None:
    """Begin the next run. Unsent entries of earlier runs are aborted."""
    turn = draft.turn(stream)
    if turn_step(draft, turn).act is not TurnAct.START:
        return
    fence = draft.fence()
    if _too_old(draft, turn):
        _end_old(draft, stream)
        return
    if turn.run:
        _drop_unsent(draft, turn)
        if _told_twice(draft, turn):
            _interrupted(draft, turn)
            return
    draft.emit(
        stream, t.Started(run=turn.run + 1, owner=fence.owner, fence=fence.epoch)
    )


def _end_old(draft: UnitOfWork, stream: str) -> None:
    if draft.settings.old_turns is OldTurns.ASK:
        draft.emit(stream, t.Held(reason="too_old"))
    else:
        fail(draft, stream, TurnOutcome.EXPIRED, "too_old", "too_old")
        _wake_lanes(draft, stream)


def _too_old(draft: UnitOfWork, turn: Turn) -> bool:
    """An old message is not answered as if it were new. A turn that a person
    resubmitted or let run is exempt: the person knew its age."""
    limit = draft.settings.max_turn_age_ms
    if limit is None or turn.run or turn.resubmitted or turn.passed:
        return False
    age = rules.age_of(turn, draft.now, draft.wall, draft.sure_from)
    return age is not None and age > limit


def _drop_unsent(draft: UnitOfWork, turn: Turn) -> None:
    """Abort the unseen entries of earlier runs, in the commit that ends the run: sent
    later, their words would be said twice."""
    for entry in list(draft.entries(turn.stream)):
        if entry.run is None or entry.run > turn.run:
            continue
        if rules.abortable_as_unsent(entry):
            draft.emit(entry.stream, o.Aborted(reason=AbortReason.RERUN))
        elif (
            entry.phase is Phase.ATTEMPTED and rules.no_doubt(entry) and not entry.abort
        ):
            draft.emit(entry.stream, o.AbortRequested(reason=AbortReason.RERUN))


def check_run(draft: UnitOfWork, stream: str, run: int) -> Turn:
    """Raises StaleRunError if this run may no longer speak for its turn."""
    turn = draft.turn(stream)
    if not rules.run_is_current(turn, draft.authority, run):
        why = turn.abort or turn.outcome or f"turn is {turn.phase}, run {turn.run}"
        raise StaleRunError(turn=stream, run=run, why=str(why))
    return turn


def reply(draft: UnitOfWork, stream: str, run: int, intent: Intent) -> Enqueued:
    """The final: queued, planned, attempted and `answered` in one commit, once."""
    if _replied(draft.turn(stream), run, intent):
        first = enqueue(draft, intent)  # the first reply stays, delivered or not
        if first.differs:
            raise AlreadyRepliedError(turn=stream, entry=first.entry_id)
        return first
    turn = check_run(draft, stream, run)
    draft.may_be_new(intent.entry, stream)
    grown = draft.find_entry(intent.entry)
    if grown is not None and rules.is_live(grown):
        owned = live.seal(draft, grown, intent)
    else:
        owned = enqueue(draft, intent)
    if rules.not_answered(turn):
        draft.emit(stream, t.Answered(run=run, finals=(intent.entry,)))
        conclude(draft, stream)
    return owned


def _replied(turn: Turn, run: int, intent: Intent) -> bool:
    return turn.run == run and intent.entry in turn.finals


def begin_live(draft: UnitOfWork, stream: str, run: int, intent: Intent) -> str:
    """Begin a live reply: queue its empty final. Returns the id of its entry."""
    return live.begin(draft, check_run(draft, stream, run), intent)


def say(draft: UnitOfWork, stream: str, run: int, intent: Intent) -> Enqueued:
    """A block or a tool's message, committed at once."""
    check_run(draft, stream, run)
    return enqueue(draft, intent)


def silence(draft: UnitOfWork, stream: str, run: int, reason: str) -> None:
    """The handler says that no reply is meant."""
    turn = check_run(draft, stream, run)
    if rules.not_answered(turn):
        draft.emit(stream, t.Answered(run=run, silent=reason))
        end_live(draft, turn)
        conclude(draft, stream)


def returned(draft: UnitOfWork, stream: str, run: int) -> None:
    """The handler returned. If it sent no reply, its last block is the final."""
    turn = draft.turn(stream)
    current = rules.run_is_current(turn, draft.authority, run)
    if not current or not rules.not_answered(turn) or turn.left_open is not None:
        return
    blocks = [
        entry.stream
        for entry in draft.entries(stream)
        if rules.speaks_in(entry, run) and entry.kind is Kind.BLOCK
    ]
    if blocks:
        draft.emit(stream, t.Answered(run=run, finals=(blocks[-1],)))
    else:
        draft.emit(stream, t.Answered(run=run, silent=t.UNSTATED))
    end_live(draft, turn)
    conclude(draft, stream)


# The store failed: the run could not begin, or could not say its answer.
STORE_FAILS = "store"
_STORE_MS = 60_000  # the longest wait for it


def released(draft: UnitOfWork, stream: str, run: int, reason: str) -> None:
    """The kernel stopped the run: the run is not counted, and the turn runs again
    later."""
    turn = draft.turn(stream)
    if rules.run_is_ours(turn, draft.authority, run):
        # A full outbox or a failing store needs some time.
        due = None
        if reason == BackPressureError.code:
            due = draft.now + draft.settings.backoff_base_ms
        elif reason == STORE_FAILS:  # each further run of a handler may cost much
            due = draft.now + min(backoff_ms(draft.settings, run, 1_000), _STORE_MS)
        draft.emit(stream, t.Released(run=run, reason=reason, due=due))


def not_now(draft: UnitOfWork, stream: str, run: int, wait_ms: int | None) -> None:
    """The handler asked to be called later: not counted."""
    if rules.run_is_ours(draft.turn(stream), draft.authority, run):
        wait = draft.settings.rate_limit_ms if wait_ms is None else wait_ms
        event = t.Released(run=run, reason="not_now", due=draft.now + wait)
        draft.emit(stream, event)


def never(draft: UnitOfWork, stream: str, run: int, detail: str = "") -> None:
    """The handler says that no run can succeed: the turn ends, and the user gets a
    notice."""
    turn = draft.turn(stream)
    if not rules.run_is_ours(turn, draft.authority, run):
        return
    _drop_unsent(draft, turn)
    if _told_twice(draft, turn):
        _interrupted(draft, turn, detail)
        return
    fail(draft, stream, TurnOutcome.FAILED, "never", "runs_exhausted", detail)
    _wake_lanes(draft, stream)


def unread(draft: UnitOfWork, stream: str, run: int, detail: str = "") -> None:
    """A person had a dead turn run, and it still cannot be read."""
    if rules.run_is_ours(draft.turn(stream), draft.authority, run):
        fail(draft, stream, TurnOutcome.FAILED, UNREAD, None, detail)


def run_failed(
    draft: UnitOfWork, stream: str, run: int, failure: FailureClass, detail: str = ""
) -> None:
    """The handler raised."""
    turn = draft.turn(stream)
    if rules.run_is_ours(turn, draft.authority, run):
        _failed(draft, turn, failure, detail)


def _failed(
    draft: UnitOfWork, turn: Turn, failure: FailureClass, detail: str = ""
) -> None:
    """Run the turn again, unless it failed too often, or unless another run would
    repeat text that somebody may have seen."""
    if not goes_on(draft, turn):
        return
    if rules.runs_left(turn, draft.settings.max_runs - 1):  # this one counts, too
        _again(draft, turn, failure, detail)
    else:
        why = "runs_exhausted"
        fail(draft, turn.stream, TurnOutcome.FAILED, why, why)
    _wake_lanes(draft, turn.stream)


def goes_on(draft: UnitOfWork, turn: Turn) -> bool:
    """A run ended without an answer. True if another run may follow; if not, the turn
    ends here."""
    _drop_unsent(draft, turn)
    if not _told_twice(draft, turn):
        return True
    _interrupted(draft, turn)
    return False


def _interrupted(draft: UnitOfWork, turn: Turn, detail: str = "") -> None:
    end = TurnOutcome.PARTIALLY_REPLIED
    fail(draft, turn.stream, end, "interrupted", "interrupted", detail)
    _wake_lanes(draft, turn.stream)


def _again(draft: UnitOfWork, turn: Turn, failure: FailureClass, detail: str) -> None:
    jitter = draft.context.jitter()
    wait = backoff_ms(draft.settings, turn.failed_runs + 1, jitter)
    draft.emit(
        turn.stream,
        t.RunFailed(
            run=turn.run,
            failure=failure,
            due=draft.now + wait,
            detail=draft.text(turn.stream, detail),
        ),
    )


def _told_twice(draft: UnitOfWork, turn: Turn) -> bool:
    """Would another run repeat text that somebody may have seen? A handler that resumes
    repeats none."""
    if draft.context.resumes:
        return False
    entries = list(draft.entries(turn.stream))
    if len(entries) < len(draft.entries_of(turn.stream)):
        return True  # an entry that cannot be read may have been seen
    return any(
        e.run is not None and e.run > turn.forgiven and not rules.nothing_seen(e)
        for e in entries
    )


def _wake_lanes(draft: UnitOfWork, stream: str) -> None:
    """Attempt the notice of an ended turn in this commit, if its lane is free."""
    turn = draft.turn(stream)
    if turn.notice:
        attempt_if_free(draft, draft.entry(turn.notice).lane)


def previous_entries(draft: UnitOfWork, stream: str) -> list[Entry]:
    """The entries of a turn from earlier runs, or under keys over all runs."""
    run = draft.turn(stream).run
    entries = draft.entries(stream)
    return [
        e
        for e in entries
        if rules.over_all_runs(e) or (e.run is not None and e.run < run)
    ]


# --- Side effects that a handler remembers, so that a later run does not repeat them ---


@frozen
class StepState:
    """`done`: the step ended, and `result` is the digest of its result. Only
    `begun_before`: an earlier run began the step and logged no result."""

    begun_before: bool
    done: bool = False
    result: str | None = None


def begin_step(draft: UnitOfWork, stream: str, run: int, key: str) -> StepState:
    turn = check_run(draft, stream, run)
    known = dict(turn.steps)
    if known.get(key) is not None:
        return StepState(begun_before=True, done=True, result=known[key])
    if key in known:
        return StepState(begun_before=True)
    draft.emit(stream, t.StepStarted(run=run, key=key))
    return StepState(begun_before=False)


def end_step(
    draft: UnitOfWork, stream: str, run: int, key: str, result: object
) -> None:
    check_run(draft, stream, run)
    digest = draft.body(stream, canonical.dumps(result))
    draft.emit(stream, t.StepDone(run=run, key=key, result=digest))
