"""The next step of an entry or a turn, its time, and whether a person is needed.

It asks the kernel's own scheduler (`_decide.schedule.step_of`,
`_decide.turns.turn_step`), so that the answer is the worker's next step.
"""

from collections.abc import Sequence
from shlex import quote

from attrs import evolve

from turnfold._decide.outcomes import policy_in_doubt
from turnfold._decide.schedule import Act, step_of
from turnfold._decide.turns import TurnAct, turn_step
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log.events import UNSTATED
from turnfold._log.ids import gates_of
from turnfold._state.entry import Entry
from turnfold._state.fold import Cursor, Gate, StoreState, unseen
from turnfold._state.turn import Turn
from turnfold.enums import ON_ITS_WAY, BlindPolicy, Phase, TurnOutcome, TurnPhase
from turnfold.inspect.timeline import part
from turnfold.inspect.times import to_come
from turnfold.inspect.views import NOBODY, EntryView, Next

Commands = tuple[tuple[str, str], ...]


def told(following: Next, shift: int) -> Next:
    """The same step, with its time as a wall date."""
    return evolve(following, at=to_come(following.at, shift)) if shift else following


def next_of_entry(draft: UnitOfWork, entry: Entry, alive: bool | None) -> Next:
    """`alive`: does a worker live? None: that is not known here."""
    if not entry.open:
        return _closed(entry)
    if entry.phase in ON_ITS_WAY:
        return _in_flight(draft, entry, alive)
    ahead = _ahead(draft, entry)
    if ahead is not None and entry.phase is not Phase.PARKED:
        return _behind(draft, ahead, alive)
    found = _step(draft, entry)
    if alive is False and not found.person:
        return evolve(found, text=found.text + NOBODY)
    return found


def _closed(entry: Entry) -> Next:
    match entry.phase:
        case Phase.DELIVERED:
            return Next(text="nothing: delivered")
        case Phase.ABORTED:
            return Next(text=f"nothing: aborted ({entry.reason})")
        case _ if entry.bounced and not entry.acknowledged:
            text = "nothing by itself: the platform refused it after it had accepted it"
            return Next(text=text, person=True, commands=_decide(entry))
        case _ if entry.acknowledged:
            return Next(
                text=f"nothing: failed ({entry.reason}), and somebody has seen it"
            )
        case _:
            text = f"nothing by itself: failed ({entry.reason})"
            return Next(text=text, person=True, commands=_decide(entry))


def short(state: Entry | Turn) -> str:
    """A short id to type; every command accepts it."""
    return f"{state.stream[0]}{state.order}"


def _decide(entry: Entry) -> Commands:
    name = short(entry)
    sure = " --accept-duplicate" if entry.doubtful else ""
    again = "send it again, may be seen twice" if sure else "send it again"
    return (
        (again, f"turnfold retry {name}{sure}"),
        ("it is seen to", f"turnfold discard {name}"),
    )


def _verdicts(entry: Entry) -> Commands:
    act = f"turnfold resolve {short(entry)}"
    return (
        ("it arrived", f"{act} delivered"),
        ("it did not, send it", f"{act} not_sent"),
        ("send it again, may be seen twice", f"{act} resend"),
        ("forget it", f"{act} give_up"),
    )


def _in_flight(draft: UnitOfWork, entry: Entry, alive: bool | None) -> Next:
    fence = draft.fence()
    what = f"{part(entry.part)}, attempt {entry.attempt},"
    if entry.fence != fence.epoch or alive is False:
        tail = "" if alive is not False else NOBODY
        wire = entry.phase is Phase.DISPATCHED
        then = "looks into what became of it" if wire else "tries again"
        text = f"{what} was under way when its process died; the worker {then}{tail}"
        return Next(text=text)
    return Next(text=f"{what} is under way; its outcome is awaited")


def _ahead(draft: UnitOfWork, entry: Entry) -> Entry | None:
    for other in draft.lane(entry.lane):
        if other.stream == entry.stream:
            return None
        if other.phase in ON_ITS_WAY or not other.yielded:
            return other
    return None


def _behind(draft: UnitOfWork, ahead: Entry, alive: bool | None) -> Next:
    """The next step of an entry behind another one: the cause is that of the first
    entry in the lane."""
    cause = next_of_entry(draft, ahead, alive)
    text = f"waits behind {ahead.stream} in its lane; that one {cause.text}"
    return evolve(cause, text=text)


def _age(ms: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= 2 * size:
            return f"{ms // size} {unit}"
    return f"{max(0, ms) // 1000} s"


_CLOSES = {
    Act.TOO_OLD: "it has waited too long; it is closed now",
    Act.GIVE_UP: "no attempt is left; it is closed now",
    Act.ABORT: "it is aborted now",
}


def _step(draft: UnitOfWork, entry: Entry) -> Next:
    here = part(entry.part)
    match step_of(draft, entry).act:
        case Act.WAIT:
            return _waits(draft, entry)
        case Act.PLAN:
            return Next(text="its parts are planned as soon as the worker gets to it")
        case Act.ATTEMPT | Act.RESEND:
            text = f"{here}, attempt {entry.attempt + 1}, goes out now"
            return Next(text=text, at=draft.now)
        case Act.LOOK_UP:
            return Next(text=f"the platform is asked about {here} now", at=draft.now)
        case Act.SETTLE_DOUBT:
            return Next(text=_policy(draft, entry), at=draft.now)
        case Act.EXPIRE:
            return Next(text="its time is over; it is closed now", at=entry.expires_at)
        case (Act.TOO_OLD | Act.GIVE_UP | Act.ABORT) as act:
            return Next(text=_CLOSES[act], at=draft.now)
        case Act.PREPARE | Act.SEND | Act.RECOVER:
            return Next(text="its outcome is awaited")


def _policy(draft: UnitOfWork, entry: Entry) -> str:
    policy = policy_in_doubt(draft, entry)
    match policy:
        case BlindPolicy.HOLD:
            return "it may have arrived and nothing can tell: it is parked for a person"
        case BlindPolicy.DROP:
            return "it may have arrived and nothing can tell: it is closed"
        case BlindPolicy.RESEND | BlindPolicy.RESEND_MARKED:
            marked = policy is BlindPolicy.RESEND_MARKED
            how = ", marked as a possible duplicate" if marked else ""
            return f"it may have arrived and nothing can tell: it is sent again{how}"


def _waits(draft: UnitOfWork, entry: Entry) -> Next:
    if entry.phase is Phase.PARKED:
        text = "somebody must say if it arrived; else it ends "
        text += "as outcome_unknown"
        at = entry.expires_at
        return Next(text=text, at=at, person=True, commands=_verdicts(entry))
    if entry.due is not None and draft.now < entry.due:
        return Next(text=_when_due(entry), at=entry.due)
    if (entry.channel, entry.account) not in draft.context.desks:
        text = f"waits: {entry.channel}/{entry.account} is not attached here"
        return Next(text=text, at=entry.expires_at, person=True)
    if draft.context.holds_back:
        text = "waits: this worker is closing or taking over, and starts nothing new"
        return Next(text=text, at=entry.expires_at)
    return _gated(draft, entry)


def _when_due(entry: Entry) -> str:
    if entry.phase is Phase.IN_DOUBT:
        return f"in doubt; {part(entry.part)} is looked into again"
    if not entry.attempt and not entry.part:
        return "is not to be sent before then"
    return f"{part(entry.part)}, attempt {entry.attempt + 1}, after a wait"


def _gated(draft: UnitOfWork, entry: Entry) -> Next:
    for name in gates_of(entry.lane):
        gate = draft.gate(name)
        if gate is not None and gate.holds(draft.now):
            text = f"waits: {name} is closed ({gate.reason}, for {_age(draft.now - gate.updated)})"
            person = gate.until is None
            at, ends = gate.until, ""
            if at is None:
                at, ends = entry.expires_at, "; it ends when its time is over"
            account = f"{entry.channel}/{entry.account}"
            opens = (("open it", f"turnfold open {quote(account)}"),) if person else ()
            return Next(text=text + ends, at=at, person=person, commands=opens)
    return Next(text="waits", at=entry.expires_at)


# --- turns and the rest ------------------------------------------------------------


def next_of_turn(
    draft: UnitOfWork, turn: Turn, alive: bool | None, finals: list[tuple[str, Next]]
) -> Next:
    """`finals`: the next steps of the final entries that are open, or dead."""
    if not turn.open and unseen(turn):
        name = short(turn)
        does = (
            ("run it", f"turnfold retry {name}"),
            ("erase it", f"turnfold redact {name}"),
        )
        text = "nothing by itself: nobody could read it"
        return Next(text=text, person=True, commands=does)
    if not turn.open:
        asking = [evolve(n, text=f"{e} {n.text}") for e, n in finals if n.person]
        return asking[0] if asking else Next(text="nothing: it is over")
    if turn.phase is TurnPhase.ANSWERED:
        if not finals:
            return Next(text="it is closed with its final entries")
        name, what = finals[0]
        return evolve(what, text=f"{name} {what.text}")
    if turn.held:
        text = f"held ({turn.reason}): somebody must let it go"
        lets = (("let it run", f"turnfold open {short(turn)}"),)
        return Next(text=text, person=True, commands=lets)
    found = _run_next(draft, turn, alive)
    return evolve(found, text=found.text + NOBODY) if alive is False else found


def _run_next(draft: UnitOfWork, turn: Turn, alive: bool | None) -> Next:
    if turn.left_open is not None:
        text = "left open: its answer comes from elsewhere, or the turn fails"
        return Next(text=text, at=turn.left_open)
    if turn.phase is TurnPhase.RUNNING:
        dead = turn.fence != draft.fence().epoch or alive is False
        if not dead:
            return Next(text=f"run {turn.run} is under way; its answer is awaited")
        text = f"run {turn.run} died with its process; the worker takes the turn up"
        return Next(text=text)
    for stream in draft.turn_lane(turn.lane):
        if stream == turn.stream or turn.control:
            break
        first = draft.turn(stream)
        if first.phase is not TurnPhase.ANSWERED and first.left_open is None:
            return Next(text=f"waits for {stream}, which came first")
    step = turn_step(draft, turn)
    if step.act is TurnAct.WAIT and step.until is not None:
        return Next(text=f"run {turn.run + 1}, after a wait", at=step.until)
    return Next(text=f"run {turn.run + 1} starts as soon as a handler is free")


def next_of_ledger(state: Gate | Cursor | StoreState, now: int) -> Next:
    if isinstance(state, Gate) and state.holds(now):
        if state.until is None:
            name = state.stream.removeprefix("gate:")
            target = name if name.count("/") == 1 else state.stream
            opens = (("open it", f"turnfold open {quote(target)}"),)
            text = "stays closed until somebody opens it"
            return Next(text=text, person=True, commands=opens)
        return Next(text="opens by itself", at=state.until)
    return Next(text="nothing")


def entry_verdict(entry: Entry, said: str | None) -> str:
    """The state of an entry in one sentence. `said`: the error text of its last
    failure."""
    words = f": {said}" if said and entry.phase is not Phase.DELIVERED else ""
    count = len(entry.receipts)
    match entry.phase:
        case Phase.DELIVERED:
            return f"delivered: the platform accepted all {entry.count} part(s)"
        case Phase.PARKED:
            return f"parked: nobody knows if it arrived{words}"
        case Phase.FAILED:
            part_way = f" after {count} of {entry.count} part(s)" if count else ""
            return f"dead ({entry.reason}{_class(entry)}){part_way}{words}"
        case Phase.ABORTED:
            return f"aborted ({entry.reason})"
        case Phase.IN_DOUBT | Phase.DISPATCHED:
            return f"not delivered yet, and it may have arrived{words}"
        case Phase.QUEUED | Phase.ATTEMPTED | Phase.RETRYABLE:
            return f"not delivered yet{_class(entry)}{words}"


def _class(entry: Entry) -> str:
    return "" if entry.failure is None else f", {entry.failure}"


# --- The verdict for a sender who waits for an answer: one sentence ---


def verdict(turn: Turn, entries: Sequence[EntryView], next_: Next) -> str:
    """`entries`: all entries of the turn; `next_`: the turn's next step."""
    finals = [e for e in entries if e.id in turn.finals]
    match turn.phase:
        case TurnPhase.ACCEPTED | TurnPhase.RUNNING:
            return f"the message arrived and has no answer yet: {next_.text}"
        case TurnPhase.ANSWERED:
            return f"there is an answer, but it is not through: {next_.text}"
        case TurnPhase.COMPLETED | TurnPhase.FAILED | TurnPhase.ABORTED:
            return _over(turn, finals) + _notice(turn, entries)


def _over(turn: Turn, finals: Sequence[EntryView]) -> str:
    sent = sum(e.delivered for e in finals)
    parts = sum(len(e.parts) for e in finals)
    match turn.outcome:
        case TurnOutcome.REPLIED:
            receipts = [i for e in finals for p in e.parts for i in p.receipt]
            shown = f" (receipt {', '.join(receipts)})" if receipts else ""
            return f"answered: the platform accepted all {parts} part(s){shown}"
        case TurnOutcome.PARTIALLY_REPLIED:
            return f"answered in part: {sent} of {parts} part(s) got through"
        case TurnOutcome.SILENT:
            if turn.silent == UNSTATED:
                return "the handler returned, and said neither an answer nor silence"
            return f"no answer was meant ({turn.silent or turn.reason or 'suppressed'})"
        case TurnOutcome.EXPIRED:
            return _expired(turn, finals)
        case TurnOutcome.ABORTED | TurnOutcome.SUPERSEDED:
            return f"it was stopped ({turn.outcome}) before an answer got through"
        case TurnOutcome.FAILED | None:
            return _failed(turn, finals)


def _expired(turn: Turn, finals: Sequence[EntryView]) -> str:
    if finals:
        return "there was an answer, but its time was over before it got through"
    if turn.reason == "too_old":
        return "it was too old to be answered"
    return "no answer came in the time that its handler had asked for"


def _failed(turn: Turn, finals: Sequence[EntryView]) -> str:
    if not finals:
        return f"there is no answer: {turn.reason or 'failed'}"
    if any(e.doubt and e.phase is not Phase.DELIVERED for e in finals):
        return "there was an answer; whether it arrived is not known"
    why = turn.reason or next((e.reason for e in finals if e.reason), "failed")
    return f"there was an answer, but it did not get through ({why})"


def _notice(turn: Turn, entries: Sequence[EntryView]) -> str:
    told = next((e for e in entries if e.id == turn.notice), None)
    if told is None or (turn.outcome is TurnOutcome.REPLIED and not told.delivered):
        return ""
    return f"; the user's notice is {told.status}"
