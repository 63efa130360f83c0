"""The rules of the transition tables, one named function each (specs/design.md 4 and 5).

A guard answers one question and decides nothing else. Decisions call it through this
module, so that a test can take one guard out and show that something breaks without
it: each guard is a mutant (specs/guarantees.md).
"""

from collections.abc import Collection, Sequence

from attrs import evolve
from msgspec.structs import replace

from turnfold._log.outbox_events import PlannedPart
from turnfold._state.entry import Entry, is_void, known
from turnfold._state.fold import PERSON, Gate, State, unseen
from turnfold._state.turn import Turn
from turnfold.enums import (
    ACCEPTED,
    ANSWERED,
    ON_ITS_WAY,
    PLACEHOLDER,
    RUNNING,
    SEND,
    BlindPolicy,
    Decoration,
    DeliveryClass,
    Kind,
    PartAct,
    PartEnd,
    Phase,
    Trial,
    TurnPhase,
)
from turnfold.ports.channel import PartClass

_EDITABLE = (DeliveryClass.EDITABLE,)  # the best classes of a part that is edited


def as_seen(state: State | None, seen: int | None) -> bool:
    """A person decided on a version of the stream: `seen`."""
    return seen is None or (state is not None and state.version == seen)


def held_by_a_person(gate: Gate | None, now: int) -> bool:
    """No failure, no reconnection and no new worker moves this gate; a person does."""
    return gate is not None and gate.reason == PERSON and gate.holds(now)


BUSY = 2  # conversations that may be limited while their account is not


def account_is_limited(refused: Collection[str], conversation: str) -> bool:
    """A rate limit that names a conversation is the account's, if `BUSY` other
    conversations were refused last: a busy conversation is refused again and again."""
    return len(refused) >= BUSY and conversation not in refused


def not_expired(entry: Entry, now: int) -> bool:
    """INV-12: at `expires_at` it is too late."""
    return now < entry.expires_at


def expiry_is_sure(entry: Entry, sure_from: int) -> bool:
    """No entry expires by a log time that is not sure. Past such an expiry an entry
    waits: it is neither sent nor ended."""
    return entry.created >= sure_from


def too_old(entry: Entry, now: int, limit: int | None, sure_from: int) -> bool:
    """The entry has waited longer than its account allows. An entry goes on whatever
    its age if a part of it may have been seen, if it is in doubt, or if it is a live
    reply that still grows. While the age is not sure, no entry is too old."""
    if limit is None or entry.since < sure_from or now - entry.since <= limit:
        return False
    waits = entry.phase in (Phase.QUEUED, Phase.RETRYABLE)
    return waits and nothing_seen(entry) and not is_live(entry)


def not_aborted(entry: Entry) -> bool:
    """INV-11: a requested abort forbids any later attempt."""
    return entry.abort is None


def budget_left(entry: Entry) -> bool:
    """INV-6: the budget is a counter of its own."""
    return not entry.planned or entry.used < entry.budget


def not_quarantined(entry: Entry, limit: int) -> bool:
    """An entry that was alone in `limit` deaths of processes is not tried again."""
    return entry.blame.alone < limit


def may_send_beside(
    entry: Entry, flying: Sequence[Entry], running: Sequence[Turn]
) -> bool:
    """As for turns: half of the suspects of a death are sent at a time, and the last
    one with nothing beside it."""
    if any(other.blame.on_trial for other in flying):
        return False
    if entry.blame.on_trial:
        return not flying and not running
    suspects = sum(other.blame.suspects > 0 for other in flying)
    mine = entry.blame.suspects
    return not mine or suspects < max(1, mine // 2)


def next_dropped(entry: Entry, refused: Decoration | None) -> Decoration | None:
    """The decoration to drop from the part at hand: the refused one, or if the platform
    did not name it the next one that the part has. None: no decoration is left to
    drop."""
    part = entry.current
    here = {
        Decoration.FORMAT: part.kind == "text",
        Decoration.REPLY_TO: entry.reply_to is not None,
        Decoration.THREAD: entry.thread is not None,
    }
    left = [d for d, there in here.items() if there and d not in part.dropped]
    if refused is not None:
        return refused if refused in left else None
    return next(iter(left), None)


def may_be_accepted(entry: Entry, part: int, receipt: tuple[str, ...]) -> bool:
    """INV-4: a receipt is evidence for a part without a receipt. It outweighs a
    refusal. A receipt that bounced is none, also after a redrive."""
    state = known(entry.others, part)
    ends = (PartEnd.DELIVERED, PartEnd.BOUNCED)
    wanted = part < entry.count and (state is None or state.end not in ends)
    return wanted and not is_void(entry, part, receipt)


def in_force(part: PlannedPart, claimed: PartClass) -> PlannedPart:
    """INV-2: only promises that the frozen plan and the attached channel share are in
    force: the classes of both, the smaller window and the longer settle time. Without a
    common class the part is blind."""
    windows = [w for w in (part.key_window_ms, claimed.key_window_ms) if w is not None]
    return replace(
        part,
        classes=tuple([c for c in part.classes if c in claimed.classes]),
        key_window_ms=min(windows, default=None),
        settle_ms=max(part.settle_ms, claimed.settle_ms),
    )


def held_to(entry: Entry, part: PlannedPart) -> Entry:
    """The entry with other promises for its part at hand."""
    parts = (*entry.parts[: entry.part], part, *entry.parts[entry.part + 1 :])
    return entry if parts == entry.parts else evolve(entry, parts=parts)


def can_mark(policy: BlindPolicy, *, marks: bool) -> bool:
    """INV-2: a second send that must show a mark needs a channel that shows it."""
    return marks or policy is not BlindPolicy.RESEND_MARKED


def key_now(
    entry: Entry, now: int, sure_from: int, unlived: tuple[int, int] | None
) -> int:
    """The log time to judge the age of a key by. The platform counts by true time, so
    a key is as old as it may be. A step that is not trusted yet may be taken back: the
    key waits for that and does not age by it. `unlived`: see `Clock.unlived`."""
    first = entry.first_at
    if unlived is None or first is None or first >= unlived[0]:
        return now
    if first < sure_from:
        return now
    return now + unlived[1]


def key_window_open(entry: Entry, now: int, sure_from: int) -> bool:
    """The platform still honours the key. Half of its window is kept as a margin for
    a wall clock that was set back across a restart (specs/design.md 2)."""
    return key_window_lasts(entry, now) and key_age_is_sure(entry, sure_from)


def key_age_is_sure(entry: Entry, sure_from: int) -> bool:
    """A window counts as closed while the time since the first attempt is not known."""
    if entry.first_at is None or entry.current.key_window_ms is None:
        return True
    return entry.first_at >= sure_from


def key_window_lasts(entry: Entry, now: int) -> bool:
    """Is the key window open by log time, even if that time is not sure?"""
    if DeliveryClass.KEYED not in entry.classes or entry.first_at is None:
        return False
    window = entry.current.key_window_ms
    return window is None or (now - entry.first_at) * 2 < window


def resend_allowed(entry: Entry, now: int, sure_from: int) -> bool:
    """INV-2: a part in doubt is sent again only under the same key inside its window,
    as an edit or an empty placeholder, or when a policy or a person said so in the
    log."""
    known = not entry.doubt or entry.resend
    return known or repeatable(entry) or key_window_open(entry, now, sure_from)


def next_act(entry: Entry) -> PartAct:
    """The platform call that the part at hand needs next. The best class of a part
    decides whether it goes out whole or by a placeholder and an edit."""
    if entry.handle:
        return PartAct.EDIT
    if not entry.planned or entry.parts[entry.part].classes[:1] == _EDITABLE:
        return PartAct.PLACEHOLDER
    # A live reply may have been sealed while its placeholder was in doubt.
    empty = entry.doubt and entry.act is PLACEHOLDER
    return PLACEHOLDER if empty else SEND


def edits_after_key(entry: Entry, now: int, sure_from: int) -> bool:
    """INV-2: a key whose window is over protects no send. A part that can be edited, too,
    goes on by a placeholder and an edit, but not beside a part that may be there."""
    if not entry.planned or entry.doubt or entry.handle:
        return False
    window = entry.parts[entry.part].key_window_ms
    if window is None or (window and entry.first_at is None):
        return False  # nearly all, at once
    if entry.classes[:2] != (DeliveryClass.KEYED, DeliveryClass.EDITABLE):
        return False
    return not window or not key_window_open(entry, now, sure_from)


def plan_is_missing(entry: Entry) -> bool:
    """INV-7: nothing goes out before its plan is frozen, but for the placeholder of a
    live reply. An entry that came in parked, or was parked before its plan, is planned
    when a person has it sent."""
    return not entry.planned and not entry.live


def is_live(entry: Entry) -> bool:
    """A live reply that is not sealed yet."""
    return entry.live and not entry.planned and entry.open


def repeatable(entry: Entry) -> bool:
    """INV-2: an edit that is made twice shows the same. An empty placeholder is made
    again once, but never beside a part that went out whole."""
    act = next_act(entry)
    empty = act is PartAct.PLACEHOLDER and entry.act is not PartAct.SEND
    return act is PartAct.EDIT or (empty and not entry.remade)


def placeholder_in_doubt(entry: Entry) -> bool:
    """INV-2: a placeholder in doubt may be made again. After a restore that could show
    a second answer, if a run edited the first placeholder in the lost history."""
    return entry.phase is Phase.IN_DOUBT and next_act(entry) is PartAct.PLACEHOLDER


def resends_left(entry: Entry, limit: int) -> bool:
    """INV-2: a policy sends a part again at most `limit` times, then a person
    decides."""
    return entry.resends < limit


def may_look_up(entry: Entry) -> bool:
    """A look-up finds a part that went out whole; a placeholder is not a part yet."""
    return DeliveryClass.LOOKUP in entry.classes and next_act(entry) is PartAct.SEND


def look_up_is_current(entry: Entry, part: int, attempt: int) -> bool:
    """An answer of the platform speaks of one part and attempt. The entry may have moved
    on while it was asked: a receipt came, and the next part is in doubt."""
    open_doubt = entry.phase in (Phase.IN_DOUBT, Phase.PARKED)
    return open_doubt and (entry.part, entry.attempt) == (part, attempt)


def absence_proven(unsettled_ms: int) -> bool:
    """INV-2: "not there" counts only once the old request can no longer land."""
    return unsettled_ms <= 0


def outcome_is_current(entry: Entry, fence: int, part: int, attempt: int) -> bool:
    """INV-5: an outcome belongs to exactly one attempt of one worker."""
    return (
        entry.phase in ON_ITS_WAY
        and entry.fence == fence
        and entry.part == part
        and entry.attempt == attempt
    )


def sender_is_dead(entry: Entry, fence: int) -> bool:
    """An attempt of an earlier epoch: this worker holds the lock, so that process is
    gone."""
    return entry.phase in ON_ITS_WAY and entry.fence != fence


def trial_is_dead(entry: Entry, fence: int) -> bool:
    """A plan or a look-up of an earlier epoch that has no end in the log."""
    return entry.trying and entry.fence != fence


def trial_needed(entry: Entry, act: Trial) -> bool:
    """Does the entry still need the plan or the look-up? It may have moved since."""
    if act is Trial.LOOK_UP:
        return entry.phase is Phase.IN_DOUBT
    waits = (Phase.QUEUED, Phase.RETRYABLE, Phase.IN_DOUBT)
    return entry.phase in waits and not entry.planned


def no_doubt(entry: Entry) -> bool:
    """Doubt stays: a refusal of this attempt says nothing about an older one."""
    return not entry.doubtful


def receipt_given(ids: tuple[str, ...], *, gives_ids: bool) -> bool:
    """No receipt is no delivery, unless the adapter said that there are none."""
    return not gives_ids or (bool(ids) and all(ids))


def was_accepted(entry: Entry, part: int) -> bool:
    """INV-4: only a part that has its receipt can bounce."""
    state = known(entry.others, part)
    return state is not None and state.end is PartEnd.DELIVERED


def head_of_lane(entry_stream: str, head: str | None) -> bool:
    """INV-8: only the first entry that has not yielded is attempted."""
    return entry_stream == head


def run_is_current(turn: Turn, fence: int, run: int) -> bool:
    """INV-9: only the run that is under way may speak for its turn. A run whose turn
    was over says no more, though a redrive opens the turn again."""
    return (
        (turn.phase is RUNNING or turn.phase is ANSWERED)
        and not turn.reopened
        and turn.fence == fence
        and turn.run == run
        and turn.abort is None
    )


def run_is_ours(turn: Turn, fence: int, run: int) -> bool:
    """INV-5: only the worker that runs a turn says how its run ended, aborted or
    not."""
    return runs(turn) and turn.fence == fence and turn.run == run


def runs(turn: Turn) -> bool:
    """A run of the turn is under way. A run that left the turn open is over."""
    return turn.phase is TurnPhase.RUNNING and turn.left_open is None


def waits_for_answer(turn: Turn) -> bool:
    """The run left the turn open, and the answer comes by the turn's id."""
    open_ = turn.phase is TurnPhase.RUNNING and turn.left_open is not None
    return open_ and turn.abort is None


def wait_is_over(turn: Turn, now: int) -> bool:
    return turn.left_open is not None and now >= turn.left_open


def over_all_runs(entry: Entry) -> bool:
    """A block or a tool's message with a key over all runs of its turn. No run says it
    again, so no run takes it back. It does not prevent another run."""
    return entry.run is None and entry.kind in (Kind.BLOCK, Kind.TOOL)


def speaks_in(entry: Entry, run: int) -> bool:
    """A message of this run, or one with a key over all runs."""
    return entry.run == run or over_all_runs(entry)


def not_answered(turn: Turn) -> bool:
    """INV-9: an answer that the outbox owns is never computed again."""
    return turn.phase is ACCEPTED or turn.phase is RUNNING


def may_be_joined(turn: Turn, limit: int) -> bool:
    """INV-9: a message joins a turn only before its first run: a run that has begun
    answers without the new message."""
    waits = turn.phase is TurnPhase.ACCEPTED and not turn.run and not turn.held
    return waits and not turn.dead and len(turn.joined) + 1 < limit


def runner_is_dead(turn: Turn, fence: int) -> bool:
    """A turn that was left open has no run, so no death ends its wait."""
    return runs(turn) and turn.fence != fence


def age_of(turn: Turn, now: int, wall: int, sure_from: int) -> int | None:
    """The age of a message since it was sent, where the platform gives that time, else
    since it was accepted. None while the clock is not sure."""
    if turn.created < sure_from:
        return None
    sent = turn.first.sent_at
    waited = now - turn.asked
    return waited if sent is None or sure_from else max(waited, wall - sent)


def not_blamed(turn: Turn, limit: int) -> bool:
    """A turn that was alone in `limit` deaths of processes waits for a person."""
    return turn.alone < limit


def may_run_beside(turn: Turn, running: Sequence[Turn]) -> bool:
    """Half of the suspects of a death run at a time. The last one, once it has been in
    several deaths, has nothing beside it."""
    if any(other.on_trial for other in running):
        return False
    if turn.on_trial:
        return not running
    suspects = sum(other.suspects > 0 for other in running)
    return not turn.suspects or suspects < max(1, turn.suspects // 2)


def places_taken(running: Sequence[Turn]) -> int:
    """Control input takes no place."""
    return sum(not turn.control for turn in running)


def place_is_free(running: Sequence[Turn], limit: int) -> bool:
    return places_taken(running) < limit


def runs_left(turn: Turn, limit: int) -> bool:
    return turn.failed_runs < limit


def abortable_as_unsent(entry: Entry) -> bool:
    """INV-11: only an entry that is surely unsent becomes `aborted`."""
    return entry.phase in (Phase.QUEUED, Phase.RETRYABLE) and not entry.doubt


def notice_is_unsaid(told: Entry, *, counted: bool) -> bool:
    """No reader has seen this notice, or will: another one with its cause may be
    queued. `counted`: the new one has other numbers, and replaces a notice that
    waits."""
    waits = told.open and abortable_as_unsent(told)
    return told.phase is Phase.ABORTED or (counted and waits)


def history_is_whole(entry: Entry, restored_at: int) -> bool:
    """INV-2: the events after a part in doubt are known, unless the entry is older than
    the copy that the store was restored from."""
    return not entry.doubt or entry.order > restored_at


def bodies_kept(state: Entry | Turn) -> bool:
    """INV-7: an erased entry cannot be sent again, and an erased turn cannot run
    again."""
    return not state.redacted


def not_begun(entry: Entry) -> bool:
    """May a notice pass this entry? Yes if no attempt is under way, and no reader can
    have seen a part."""
    return entry.phase is not Phase.ATTEMPTED and nothing_seen(entry)


def nothing_seen(entry: Entry) -> bool:
    """True if no reader can have seen any part of this entry."""
    unsent = entry.phase in (
        Phase.QUEUED,
        Phase.RETRYABLE,
        Phase.ABORTED,
        Phase.ATTEMPTED,
        Phase.FAILED,
    )
    shown = (PartEnd.DELIVERED, PartEnd.BOUNCED)
    seen = any(state.end in shown or state.handle for state in entry.others)
    return unsent and not entry.doubtful and not entry.handle and not seen


# --- streams that may leave the log (pruning.py) ---


def age_is_sure(state: Entry | Turn, sure_from: int) -> bool:
    """The stream's last log time can be compared with the time now."""
    return state.updated >= sure_from


def old_enough(state: Entry | Turn, before: int) -> bool:
    """The stream has not moved since `before`."""
    return state.updated < before


def needs_person(state: Entry | Turn) -> bool:
    """A dead letter, or an unreadable update, that no person has seen yet."""
    if isinstance(state, Turn):
        return unseen(state)
    return state.phase is Phase.FAILED and not state.acknowledged


def key_is_over(state: Entry | Turn, now: int, dedupe_ms: int) -> bool:
    """The platform repeats none of the stream's messages any more, not even one that
    joined late."""
    return state.updated <= now - dedupe_ms
