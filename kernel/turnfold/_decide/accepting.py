"""Taking a message in: once, durably, with its cursor, and started if its lane is free.

No update is dropped. An update that nobody can read becomes a dead turn, and so does a
message with a known key and other bytes. A dead turn is kept and shown, and runs only
if a person says so.
"""

from typing import cast

from attrs import define, evolve, field, frozen

from turnfold._decide import busy
from turnfold._decide.turns import start_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import events as t
from turnfold._log.events import CursorAdvanced
from turnfold._log.ids import cursor_of, inbound_key, original_key
from turnfold._state.fold import goes_on
from turnfold._state.turn import Turn
from turnfold.enums import Busy, TurnPhase
from turnfold.errors import (
    BackPressureError,
    DamagedError,
    InvalidInputError,
    MissingBodyError,
)
from turnfold.inbound import Evidence, Inbound, Unreadable
from turnfold.messages import identifier, own_name, shown, token
from turnfold.wrong_calls import explained

Update = Inbound | Unreadable


@define(kw_only=True)
class Acceptance:
    """`new` is false for a message that was there before; `status` is then the phase of
    its turn, so that the caller can acknowledge, ignore or show the old answer.
    `differs`: this one has other bytes than the first one with its key; it is `kept` in
    a turn of its own. `joined`: an older turn answers this one, too. `stopped`: the
    turns that this one superseded."""

    turn_id: str
    status: TurnPhase
    new: bool | None  # None: only the owner of the store can know
    differs: bool = False
    kept: str | None = None
    joined: bool = False
    stopped: tuple[str, ...] = ()


def _a_rank(_: object, __: object, value: object) -> None:
    if value is not None and (type(value) is not int or not 0 <= value < 2**63):
        problem = f"expected an int from 0 to 2**63 - 1: {shown(value)}"
        raise InvalidInputError(field="rank", problem=problem)


def _rank() -> int | None:
    made: object = field(default=None, validator=_a_rank)
    return cast("int | None", made)


@explained
@frozen(kw_only=True)
class SourceCursor:
    """How far a source has got, under a name of its own. Cursors are taken in the order of
    acceptance. Where several tasks accept, each cursor has a `rank`, a number that grows
    in the order of the source: one with a lower rank than the last one is passed over."""

    channel: str = field(validator=identifier)
    account: str = field(validator=identifier)
    value: str = field(validator=token)
    name: str = field(default="", validator=token)
    rank: int | None = _rank()


def accept(
    draft: UnitOfWork,
    turn: str,
    inbound: Update,
    cursor: SourceCursor | None = None,
    *,
    waited_ms: int | None = None,
    plan: busy.Plan = busy.QUEUE,
) -> Acceptance:
    """`turn` is the stream that the message gets if it is new. `waited_ms`: the message
    was durable in the inbox for so long, so it is taken even if the lane is full."""
    done = _known(draft, turn, inbound)
    if done is None:
        if (
            plan is busy.QUEUE
            or plan.plain
            or isinstance(inbound, Unreadable)
            or inbound.control
        ):
            if waited_ms is None and isinstance(inbound, Inbound):
                _check_room(draft, inbound)
            done = _new(draft, turn, inbound, waited_ms)
        else:
            done = _planned(draft, turn, inbound, plan, waited_ms)
    if cursor is not None:
        advance(draft, cursor)
    return done


def _known(draft: UnitOfWork, turn: str, inbound: Update) -> Acceptance | None:
    key = inbound_key(inbound)
    known = draft.lookup(key) if key is not None else _made_before(draft, turn)
    if known is None:
        return None
    if draft.find_turn(known) is None:
        # A command that waits in the inbox holds the key: this one, or an earlier one.
        promised = Acceptance(turn_id=known, status=TurnPhase.ACCEPTED, new=False)
        return promised if turn != known else None
    # This call's own turn: an earlier COMMIT of the call did reach the disk.
    status, ours = draft.turn(known).phase, known == turn
    if ours or key is None or same_bytes(draft, known, inbound.evidence, key):
        return Acceptance(turn_id=known, status=status, new=ours)
    kept = _keep(draft, turn, inbound, known, key)
    return Acceptance(turn_id=known, status=status, new=False, differs=True, kept=kept)


def _check_room(draft: UnitOfWork, inbound: Inbound) -> None:
    """A lane takes `max_lane_turns` messages before they are answered. Control input
    passes."""
    if inbound.control:
        return
    lane, limit = inbound.lane, draft.settings.max_lane_turns
    waiting = draft.turns_waiting(lane)
    if waiting >= limit:
        what = f"messages of {lane}"
        raise BackPressureError(what=what, waiting=waiting, limit=limit)


def _made_before(draft: UnitOfWork, turn: str) -> str | None:
    """Without a key only the name of its own turn shows that a message is in the
    log."""
    draft.fresh(turn)
    return None if draft.find_turn(turn) is None else turn


def same_bytes(
    draft: UnitOfWork, stream: str, evidence: Evidence, key: str | None = None
) -> bool:
    """Does the first message with this key have the same bytes? True also where its
    bytes are erased or damaged and cannot be compared. `key`: of the message, which may
    have joined that turn."""
    turn = draft.turn(stream)
    joined = (
        m.body for m in turn.joined if inbound_key(joined_inbound(turn, m)) == key
    )
    try:
        stored = draft.stored(stream, next(joined, turn.body))
    except (MissingBodyError, DamagedError):
        return True
    return stored == evidence.raw


def _keep(draft: UnitOfWork, turn: str, inbound: Update, known: str, key: str) -> str:
    """Other bytes under a known key become a dead turn, once for each such content."""
    copy, name = 1, f"{key}//1"
    while (other := draft.lookup(name)) is not None:
        if other == turn or same_bytes(draft, other, inbound.evidence):
            return other
        copy, name = copy + 1, f"{key}//{copy + 1}"
    draft.fresh(turn)
    draft.emit(turn, _dead(draft, turn, inbound, known, copy))
    draft.key(name, turn)
    return turn


def joined_inbound(turn: Turn, message: t.Joined, raw: bytes = b"") -> Inbound:
    """The original message that joined a turn."""
    return Inbound(
        turn.channel,
        account=turn.account,
        conversation=turn.conversation,
        message_id=message.message_id or None,
        event=message.event,
        revision=message.revision,
        key=message.key,
        thread=turn.thread,
        sender=message.sender,
        sent_at=message.sent_at,
        body=Evidence(message.form, raw),
        lane=own_name(turn.lane),
    )


def _planned(
    draft: UnitOfWork,
    turn: str,
    inbound: Inbound,
    plan: busy.Plan,
    waited_ms: int | None,
) -> Acceptance:
    """Accept a message by the plan of its caller, which counts only in a busy lane."""
    host = busy.host_of(draft, inbound) if plan.busy is Busy.JOIN else None
    if host is not None:
        busy.join(draft, host, inbound, plan.debounce_ms)
        _name(draft, host.stream, inbound)
        status = draft.turn(host.stream).phase
        return Acceptance(turn_id=host.stream, status=status, new=True, joined=True)
    stopped: tuple[str, ...] = ()
    if plan.busy is Busy.SUPERSEDE:
        stopped = busy.supersede(draft, inbound)
    elif plan.busy is Busy.DROP and busy.waiting(draft, inbound.lane):
        draft.fresh(turn)
        draft.emit(turn, _accepted(draft, turn, inbound, waited_ms))
        _name(draft, turn, inbound)
        busy.drop(draft, turn)
        return Acceptance(turn_id=turn, status=TurnPhase.ABORTED, new=True)
    if waited_ms is None:
        _check_room(draft, inbound)
    done = _new(draft, turn, inbound, waited_ms, busy.due_of(draft, plan))
    return evolve(done, stopped=stopped)


def _name(draft: UnitOfWork, turn: str, inbound: Update) -> None:
    key = inbound_key(inbound)
    if key is not None:
        draft.key(key, turn)


def _new(
    draft: UnitOfWork,
    turn: str,
    inbound: Update,
    waited_ms: int | None,
    due: int | None = None,
) -> Acceptance:
    draft.fresh(turn)
    if isinstance(inbound, Unreadable):
        draft.emit(turn, _dead(draft, turn, inbound))
    else:
        draft.emit(turn, _accepted(draft, turn, inbound, waited_ms, due))
    key = inbound_key(inbound)
    if key is not None:
        draft.key(key, turn)
    start_if_free(draft, turn)
    return Acceptance(turn_id=turn, status=draft.turn(turn).phase, new=True)


def _accepted(
    draft: UnitOfWork,
    turn: str,
    inbound: Inbound,
    waited_ms: int | None,
    due: int | None = None,
) -> t.Accepted:
    evidence = inbound.evidence
    return t.Accepted(
        channel=inbound.channel,
        account=inbound.account,
        conversation=inbound.conversation,
        message_id=inbound.message_id or "",
        event=inbound.event,
        key=inbound.key,
        thread=inbound.thread,
        lane=inbound.lane,
        body=draft.body(turn, evidence.raw, seal=evidence.seal),
        form=evidence.form,
        control=inbound.control,
        due=due,
        waited_ms=waited_ms or 0,
        sender=inbound.sender,
        sent_at=inbound.sent_at,
        revision=inbound.revision,
        locale=inbound.locale,
        changes=_changed(draft, inbound),
    )


def _changed(draft: UnitOfWork, inbound: Inbound) -> str | None:
    """The turn of the message that this one edits, where it was a turn."""
    original = original_key(inbound)
    return None if original is None else draft.lookup(original)


def _dead(
    draft: UnitOfWork,
    turn: str,
    inbound: Update,
    differs: str | None = None,
    copy: int = 0,
) -> t.Dead:
    """`differs`: the turn of the first message with this key; this one is `copy`."""
    evidence = inbound.evidence
    read = inbound if isinstance(inbound, Inbound) else None
    error = inbound.error if isinstance(inbound, Unreadable) else ""
    return t.Dead(
        channel=inbound.channel,
        account=inbound.account,
        conversation=inbound.conversation or "",
        message_id=inbound.message_id or "",
        event=inbound.event,
        key=inbound.key,
        thread=inbound.thread,
        lane=inbound.lane,
        body=draft.body(turn, evidence.raw, seal=evidence.seal),
        form=evidence.form,
        detail=draft.text(turn, error),
        control=False if read is None else read.control,
        sender=None if read is None else read.sender,
        sent_at=None if read is None else read.sent_at,
        revision=None if read is None else read.revision,
        locale=None if read is None else read.locale,
        differs=differs,
        copy=copy,
    )


def advance(draft: UnitOfWork, cursor: SourceCursor) -> None:
    """A cursor moves in the same commit as the message that it has passed, never
    earlier."""
    name = cursor_of(cursor.channel, cursor.account, cursor.name)
    before = draft.cursor(name)
    if before is not None and not goes_on(before, cursor.rank):
        return
    if before is None or (before.value, before.rank) != (cursor.value, cursor.rank):
        draft.emit(name, CursorAdvanced(cursor=cursor.value, rank=cursor.rank))
