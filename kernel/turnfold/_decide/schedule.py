"""Which entry of a lane goes next, and the write-ahead of its attempt.

`next_step` is a pure function of a lane. It returns the step to do now, or when to look
again. The lane program does one such step at a time. A decision that fuses the next
attempt into its own commit follows the same steps.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from turnfold._decide import rules, trials
from turnfold._decide.unit_of_work import AttemptRef, UnitOfWork
from turnfold._log import outbox_events as o
from turnfold._log.ids import gates_of
from turnfold._state.entry import Entry
from turnfold.enums import (
    IN_DOUBT,
    ON_ITS_WAY,
    PARKED,
    PLACEHOLDER,
    QUEUED,
    SEND,
    BlindPolicy,
    DeliveryClass,
    PartAct,
    Phase,
    Trial,
)
from turnfold.errors import RuleBrokenError


class Act(Enum):
    """The next step of a lane."""

    WAIT = auto()  # nothing before `until`
    PLAN = auto()  # freeze the parts with the channel's plan
    ATTEMPT = auto()  # write the attempt ahead
    RESEND = auto()  # the same for a part in doubt, after a look into the inbox
    PREPARE = auto()  # ours and durable: prepare, then dispatch
    SEND = auto()  # ours and dispatched in the log, and perhaps not on the wire yet
    RECOVER = auto()  # the process that attempted it is dead
    LOOK_UP = auto()  # ask the platform for the part in doubt
    SETTLE_DOUBT = auto()  # no look-up, no key: the route's policy decides
    EXPIRE = auto()
    TOO_OLD = auto()  # it has waited longer than its account wants anything to wait
    GIVE_UP = auto()  # budget or quarantine
    ABORT = auto()  # an abort was requested and nothing is on the wire


class Step(Struct):
    act: Act
    entry: str = ""
    until: int | None = None
    attempt: AttemptRef | None = None  # of PREPARE and SEND
    again: bool = False  # of PREPARE: an older attempt is in doubt
    tried: bool = False  # of PLAN: the log says already that it begins


_NOTHING = Step(Act.WAIT)
_ATTEMPT: Final = Act.ATTEMPT  # for every message, as the names in turnfold.enums
LIVE_KIND = "text"  # of the first part of a live reply
LIVE_CLASSES = (DeliveryClass.EDITABLE,)
_SUSPECT_MS = 1_000  # how often an entry that waits for suspects looks again
_PATIENCE_MS = 60_000  # for a moment when nothing else is under way
_UNSURE_MS = 10_000  # how often a wait for a clock that is trusted looks again


def next_step(draft: UnitOfWork, lane: str) -> Step:
    """The step to do in a lane now. An entry on its way comes first: one send at a
    time. A yielded entry lets others pass while it waits. The first entry that has not
    yielded holds the rest back."""
    return _next(draft, draft.front(lane))


def _next(draft: UnitOfWork, front: Sequence[Entry]) -> Step:
    if len(front) == 1:  # nearly always
        return step_of(draft, front[0])
    first = _NOTHING
    for entry in front:
        step = step_of(draft, entry)
        if entry.phase in ON_ITS_WAY:
            return step
        if first.act is Act.WAIT:
            first = step if step.act is not Act.WAIT else _earlier(first, step)
    return first


def _earlier(one: Step, other: Step) -> Step:
    """Of two waits the one that ends first; a wait without `until` never ends."""
    if one.until is None or (other.until is not None and other.until < one.until):
        return other
    return one


def step_of(draft: UnitOfWork, entry: Entry) -> Step:
    """The step of one entry, as if it were the first of its lane."""
    if entry.phase in ON_ITS_WAY:
        return _in_flight(draft, entry)
    if not rules.not_expired(entry, draft.now):
        if rules.expiry_is_sure(entry, draft.sure_from):
            return Step(Act.EXPIRE, entry.stream)
        return Step(Act.WAIT, until=draft.now + _UNSURE_MS)
    if entry.abort is not None and (
        entry.phase is QUEUED or entry.phase is Phase.RETRYABLE
    ):
        return Step(Act.ABORT, entry.stream)
    if entry.phase is PARKED:
        return Step(Act.WAIT, until=entry.expires_at)
    limit = age_limit(draft, entry)
    if limit is not None:
        return _in_age(draft, entry, limit)
    return _in_time(draft, entry)


def _in_time(draft: UnitOfWork, entry: Entry) -> Step:
    if entry.due is not None and draft.now < entry.due:
        return Step(Act.WAIT, until=min(entry.due, entry.expires_at))
    if entry.phase is IN_DOUBT:
        return _in_doubt(draft, entry)
    return _ready(draft, entry)


def age_limit(draft: UnitOfWork, entry: Entry) -> int | None:
    """How long an entry of its account may wait. None without limit, and while the
    channel is not attached, since its limit is not known."""
    desk = draft.context.desks.get((entry.channel, entry.account))
    return None if desk is None else desk.max_age_ms


def _in_age(draft: UnitOfWork, entry: Entry, limit: int) -> Step:
    """Any wait ends when the entry becomes too old."""
    if rules.too_old(entry, draft.now, limit, draft.sure_from):
        return Step(Act.TOO_OLD, entry.stream)
    step, old_at = _in_time(draft, entry), entry.since + limit + 1
    if step.act is Act.WAIT and draft.now < old_at:
        return _earlier(step, Step(Act.WAIT, until=old_at))
    return step


def _in_flight(draft: UnitOfWork, entry: Entry) -> Step:
    fence = draft.context.fence
    if fence is None:
        return Step(Act.WAIT)
    if rules.sender_is_dead(entry, fence.epoch):
        return Step(Act.RECOVER, entry.stream)
    act = Act.PREPARE if entry.phase is Phase.ATTEMPTED else Act.SEND
    attempt = AttemptRef(
        entry.stream, entry.part, entry.attempt, entry.lane, act=entry.act
    )
    return Step(act, entry.stream, attempt=attempt, again=entry.doubt)


def _here(draft: UnitOfWork, entry: Entry) -> bool:
    """Is a channel attached that can make the next call of this entry? Where a
    placeholder needs an edit, a channel that cannot edit does not count."""
    desk = draft.context.desks.get((entry.channel, entry.account))
    if (
        desk is None
        or desk.offer is None
        or not (entry.planned or rules.is_live(entry))
    ):
        return desk is not None
    if _act(draft, entry) is SEND:
        return True
    kind = entry.current.kind if entry.planned else LIVE_KIND
    return DeliveryClass.EDITABLE in desk.offer(kind).classes


def _act(draft: UnitOfWork, entry: Entry) -> PartAct:
    """The next call. No placeholder is begun for a channel that cannot edit any more: the
    part goes out whole, under the class in force."""
    act = _act_of(draft, entry)
    if act is PLACEHOLDER:
        return _act_of(draft, as_offered(draft, entry))
    return act


def _act_of(draft: UnitOfWork, entry: Entry) -> PartAct:
    act = rules.next_act(entry)
    if act is not SEND or entry.parts[entry.part].key_window_ms is None:
        return act  # nearly all, at once
    if rules.edits_after_key(entry, _key_now(draft, entry), draft.sure_from):
        return PLACEHOLDER
    return act


def _ready(draft: UnitOfWork, entry: Entry) -> Step:
    held = draft.context.holds_back and _may_be_held(entry)
    if held or not _here(draft, entry):
        return Step(Act.WAIT, until=entry.expires_at)
    if rules.is_live(entry):
        if entry.handle:  # its run edits the placeholder, until the seal
            return Step(Act.WAIT, until=entry.expires_at)
        return _unless_gated(draft, entry, _ATTEMPT)
    if _hopeless(draft, entry):
        return Step(Act.GIVE_UP, entry.stream)
    if not entry.planned:
        return _to_plan(draft, entry)
    return _unless_gated(draft, entry, _ATTEMPT)


def _hopeless(draft: UnitOfWork, entry: Entry) -> bool:
    return not (_alive(draft, entry) and rules.budget_left(entry))


def _alive(draft: UnitOfWork, entry: Entry) -> bool:
    return rules.not_quarantined(entry, draft.settings.max_deaths_alone)


def as_offered(draft: UnitOfWork, entry: Entry) -> Entry:
    """The entry with the class in force for its part at hand, for a decision about a
    doubt. Without its channel only the frozen plan counts."""
    desk = draft.context.desks.get((entry.channel, entry.account))
    if desk is None or desk.offer is None or entry.part >= len(entry.parts):
        return entry
    part = rules.in_force(entry.current, desk.offer(entry.current.kind))
    if not rules.can_mark(entry.on_unknown, marks=desk.marks):
        part = replace(part, policy=BlindPolicy.HOLD)
    return rules.held_to(entry, part)


def _in_doubt(draft: UnitOfWork, entry: Entry) -> Step:
    here = _here(draft, entry)
    entry = as_offered(draft, entry)
    if draft.context.holds_back and _may_be_held(entry):
        return Step(Act.WAIT, until=entry.expires_at)
    sure_from = draft.sure_from
    may_send = rules.not_aborted(entry)
    if may_send and rules.plan_is_missing(entry):
        if not here:
            return Step(Act.WAIT, until=entry.expires_at)
        if _alive(draft, entry):
            return _to_plan(draft, entry)
        return Step(Act.SETTLE_DOUBT, entry.stream)
    resend = may_send and _may_resend(draft, entry)
    if resend and not _hopeless(draft, entry):
        if not here:
            return Step(Act.WAIT, until=entry.expires_at)
        act = Act.ATTEMPT if _harmless(draft, entry) else Act.RESEND
        return _unless_gated(draft, entry, act)
    asks_left = entry.asks < draft.settings.max_lookups and _alive(draft, entry)
    if rules.may_look_up(entry) and asks_left:
        if not here:
            return Step(Act.WAIT, until=entry.expires_at)
        return _unless_gated(draft, entry, Act.LOOK_UP)
    lasts = rules.key_window_lasts(entry, _key_now(draft, entry))
    if may_send and lasts and not rules.key_age_is_sure(entry, sure_from):
        return Step(Act.WAIT, until=min(entry.expires_at, draft.now + _UNSURE_MS))
    return Step(Act.SETTLE_DOUBT, entry.stream)


def _key_now(draft: UnitOfWork, entry: Entry) -> int:
    return rules.key_now(entry, draft.now, draft.sure_from, draft.context.unlived)


def _harmless(draft: UnitOfWork, entry: Entry) -> bool:
    """May the part be sent again without harm? Yes if the platform still knows the key:
    it accepts the part once, however often it is sent. Yes for an edit: the same edit
    changes nothing."""
    edit = rules.next_act(entry) is PartAct.EDIT
    return edit or rules.key_window_open(entry, _key_now(draft, entry), draft.sure_from)


def _unless_gated(draft: UnitOfWork, entry: Entry, act: Act) -> Step:
    """Gates are checked before an attempt, so waiting spends no budget."""
    step = _unless_suspect(draft, entry, act)
    if step.act is Act.WAIT:
        return step
    if not draft.gated:
        return _in_turn(draft, entry, act)
    until: list[int] = [entry.expires_at]
    held = False
    for name in gates_of(entry.lane):
        gate = draft.holding(name)
        if gate is not None and gate.holds(draft.now):
            held = True
            if gate.until is not None:
                until.append(gate.until)
    return Step(Act.WAIT, until=min(until)) if held else _in_turn(draft, entry, act)


def _to_plan(draft: UnitOfWork, entry: Entry) -> Step:
    """A plan that has begun by the log goes on, whoever else is under way."""
    if entry.trying:
        return Step(Act.PLAN, entry.stream, tried=True)
    return _unless_suspect(draft, entry, Act.PLAN)


def _may_be_held(entry: Entry) -> bool:
    """A plan that has begun by the log is ended first: without its end it would look
    like a death to the next worker."""
    return not entry.trying


def _unless_suspect(draft: UnitOfWork, entry: Entry, act: Act) -> Step:
    if draft.suspected and not _may_go_now(draft, entry):
        again = draft.now + _SUSPECT_MS
        return Step(Act.WAIT, until=min(entry.expires_at, again))
    return Step(act, entry.stream)


def _may_go_now(draft: UnitOfWork, entry: Entry) -> bool:
    """May a suspect of a death go now? The last suspect waits to be alone, but not for
    ever: if the others are never quiet, it goes beside them, and then no death is
    blamed on it."""
    flying = [other for other in draft.flying() if other.stream != entry.stream]
    patient = draft.now < max(entry.due or 0, entry.updated) + _PATIENCE_MS
    running = draft.running() if entry.blame.on_trial else ()
    if entry.blame.on_trial and not patient:
        flying, running = [], ()
    return rules.may_send_beside(entry, flying, running)


def _in_turn(draft: UnitOfWork, entry: Entry, act: Act) -> Step:
    """When the time of a gate is over, one lane is tried first, then the others go at a
    pace. Look-ups keep no pace: they cost the platform little."""
    flow = draft.context.flow
    if flow is None or not flow.knows:
        return Step(act, entry.stream)
    asks = entry.stream if act is Act.LOOK_UP else None
    until = flow.turn_of(entry.lane, draft.now, asks, entry.order)
    if until is None:
        return Step(act, entry.stream)
    return Step(Act.WAIT, until=min(until, entry.expires_at))


def attempt(
    draft: UnitOfWork, stream: str, front: Sequence[Entry] | None = None
) -> None:
    """Write one attempt ahead. Every rule of the `attempted` row is checked here.
    `front`: of the entry's lane, if the caller has it."""
    entry = draft.entry(stream)
    fence = draft.fence()
    rule = _broken_rule(draft, entry, front or draft.front(entry.lane))
    if rule is not None:
        raise RuleBrokenError(stream=stream, rule=rule, why=f"phase {entry.phase}")
    desk = draft.context.desks[entry.channel, entry.account]
    act = _act(draft, entry)
    empty = act is PLACEHOLDER
    on_wire = empty or not desk.prepares(entry.parts[entry.part].kind)
    live = not entry.planned
    event = o.Attempted(
        part=entry.part,
        attempt=entry.attempt + 1,
        owner=fence.owner,
        fence=fence.epoch,
        on_wire=on_wire,
        marked=entry.marked,
        target=entry.target or _moved_to(draft, entry),
        act=act,
        classes=LIVE_CLASSES if live else (),
        policy=desk.policy(LIVE_KIND) if live and desk.policy else None,
    )
    draft.emit_in_place(stream, event)
    if on_wire:
        draft.hand_out(draft.entry(stream))


def _moved_to(draft: UnitOfWork, entry: Entry) -> str | None:
    """The new place of a conversation that has moved, as earlier entries have learnt. A
    part in doubt is looked up, and sent again, at its old place."""
    flow = draft.context.flow
    return None if flow is None or entry.doubtful else flow.target(entry.lane)


def _broken_rule(draft: UnitOfWork, entry: Entry, front: Sequence[Entry]) -> str | None:
    """The first rule of the `attempted` row that does not hold."""
    now = draft.now
    if not rules.not_expired(entry, now):
        return "not_expired"
    if not rules.not_aborted(entry):
        return "not_aborted"
    if not rules.budget_left(entry):
        return "budget_left"
    if not rules.not_quarantined(entry, draft.settings.max_deaths_alone):
        return "not_quarantined"
    if entry.doubt and not _may_resend(draft, as_offered(draft, entry)):
        return "resend_allowed"
    if not rules.head_of_lane(entry.stream, _turn_to_send(entry, front)):
        return "head_of_lane"
    return None


def _may_resend(draft: UnitOfWork, entry: Entry) -> bool:
    return rules.resend_allowed(entry, _key_now(draft, entry), draft.sure_from)


def _turn_to_send(entry: Entry, front: Sequence[Entry]) -> str | None:
    """The entry itself if it may go now, else the entry that holds it back."""
    mine = None
    for other in front:
        if other.phase in ON_ITS_WAY:
            return other.stream
        if other.stream == entry.stream:
            mine = other.stream
    return mine


def attempt_if_free(draft: UnitOfWork, lane: str, *, heard: bool = False) -> None:
    """Fuse the next attempt of a lane into this commit, if one is ready, or the word that
    a plan begins. `heard`: the inbox was read for this decision, so a part in doubt may
    be sent again."""
    held = draft.context.holds_back
    if held or draft.context.fence is None or draft.fence_lost:
        return
    front = draft.front(lane)
    if not front:
        return
    step = _next(draft, front)
    if step.act is Act.PLAN and not step.tried:
        trials.begin(draft, step.entry, Trial.PLAN)
    elif draft.hears:
        return
    elif step.act is _ATTEMPT or (heard and step.act is Act.RESEND):
        attempt(draft, step.entry, front)


def attempt_now(draft: UnitOfWork, stream: str) -> None:
    """`attempt_if_free` for the lane of an entry that seemed ready. Inside the
    transaction another entry may come first."""
    attempt_if_free(draft, draft.entry(stream).lane)


def resend_now(draft: UnitOfWork, stream: str) -> None:
    """As `attempt_now`, after the inbox was read."""
    attempt_if_free(draft, draft.entry(stream).lane, heard=True)


def dispatch(
    draft: UnitOfWork, stream: str, part: int, number: int, prepared: Any = None
) -> bool:
    """The last check before the wire; False if the entry may not go out after all."""
    entry, epoch = draft.entry(stream), draft.fence().epoch
    if not rules.outcome_is_current(entry, epoch, part, number):
        return False
    if (
        entry.phase is Phase.ATTEMPTED
    ):  # else a commit of unknown fate has dispatched it
        if not rules.not_aborted(entry) or not rules.not_expired(entry, draft.now):
            return False
        entry = draft.emit(stream, o.Dispatched(part=part, attempt=number))
    draft.hand_out(entry, prepared)
    return True
