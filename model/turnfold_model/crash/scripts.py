"""The embedder of the explored gateway: its commands and its handler."""

from functools import partial

from msgspec.structs import replace

from turnfold._decide import accepting, busy, inbox, later, turns
from turnfold._decide.operator import abort_entry, abort_turn, unhold
from turnfold._decide.outbox import Intent
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log.bodies import pack
from turnfold._log.ids import ENTRY, TURN, reply_entry
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.programs import (
    Append,
    CallHandler,
    Decision,
    Hear,
    Post,
    Program,
    RunEnd,
    Wait,
)
from turnfold._state.turn import Turn
from turnfold.enums import AbortReason, Kind
from turnfold.errors import NotOpenError, StoreError
from turnfold.inbound import Inbound
from turnfold.messages import File, Payload, Route, Text
from turnfold_model.crash.scenario import Scenario

CHANNEL = "model"
_PAUSE_MS = 100


def until_stored(effect: Append | Post) -> Program:
    """An embedder's answer to a StoreError: the same call again, a little later."""
    while True:
        try:
            yield effect
        except (StoreError, NotOpenError):
            yield Wait(_PAUSE_MS)
        else:
            return None


def message(lane: int, number: int = 0) -> Inbound:
    return Inbound(CHANNEL, conversation=f"c{lane}", message_id=str(number))


def accept(scenario: Scenario, number: int, identity: int) -> Decision:
    turn = f"{TURN}{identity:06}"
    inbound = message(number % scenario.lanes, number)
    plan = busy.Plan(scenario.busy, scenario.debounce_ms)
    return partial(accepting.accept, turn=turn, inbound=inbound, plan=plan)


def first_turn_is_open(draft: UnitOfWork) -> bool:
    stream = draft.lookup(f"in:{message(0).dedupe_key}")
    return stream is not None and draft.turn(stream).open


def abort_first(draft: UnitOfWork) -> None:
    """A user stops the turn of the first message."""
    stream = draft.lookup(f"in:{message(0).dedupe_key}")
    if stream is not None:
        abort_turn(draft, stream=stream, reason=AbortReason.USER)


def abort_reply(draft: UnitOfWork) -> None:
    """A user stops only the reply to the first message."""
    stream = draft.lookup(f"in:{message(0).dedupe_key}")
    finals = draft.turn(stream).finals if stream else ()
    for name in finals:
        abort_entry(draft, stream=name, reason=AbortReason.USER)


def first_turn_is_held(draft: UnitOfWork) -> bool:
    stream = draft.lookup(f"in:{message(0).dedupe_key}")
    return stream is not None and draft.turn(stream).held


def let_first_run(draft: UnitOfWork) -> None:
    """A person lets the turn of the first message run, if it is held."""
    stream = draft.lookup(f"in:{message(0).dedupe_key}")
    if stream is not None and draft.turn(stream).held:
        unhold(draft, stream=stream, by="a person")


def take_inbox() -> Program:
    """A worker hears a ring, or polls."""
    yield Hear()


def enqueue(number: int, now: int) -> Post:
    """From a process that has no channel: the worker makes the plan."""
    intent = Intent(
        entry=f"{ENTRY}client{number}",
        route=Route(channel=CHANNEL, conversation="c0"),
        kind=Kind.NOTICE,
        packed=(pack(Text("from a client")),),
        key=f"k{number}",
    )
    return Post(inbox.enqueue_command(intent, now, 24 * 3_600_000))


def abort(turn: str) -> Post:
    """From a process that does not own the store: a user stops a turn."""
    command = inbox.act_command(
        "abort",
        "abort",
        turn,
        0,
        answer=False,
        reason=AbortReason.USER,
        by=None,
        why="",
    )
    return Post(command)


def handler(
    scenario: Scenario,
    desk: AttachedChannel,
    turn: Turn,
    call: CallHandler,
    before_reply: Program | None = None,
) -> Program:
    """Messages over all runs, blocks, then the reply; a store that fails is an exception of the handler."""

    def intent(kind: Kind, number: int = 0) -> Intent:
        return _intent(scenario, desk, turn, call.run, kind, number)

    spoken = partial(turns.say, stream=call.turn, run=call.run)
    final = partial(turns.reply, stream=call.turn, run=call.run)
    try:
        if scenario.live:
            grows = partial(turns.begin_live, stream=call.turn, run=call.run)
            empty = replace(intent(Kind.FINAL), packed=(), plan=None, run=None)
            yield Append(partial(grows, intent=empty))
            yield Wait(_PAUSE_MS)
        for number in range(scenario.sends):
            kept = _intent(scenario, desk, turn, None, Kind.BLOCK, number)
            yield Append(partial(spoken, intent=kept))
        for number in range(scenario.blocks):
            yield Append(partial(spoken, intent=intent(Kind.BLOCK, number)))
        if before_reply is not None:
            yield from before_reply
        if scenario.later:
            leave = partial(later.leave_open, stream=call.turn, run=call.run)
            yield Append(partial(leave, within_ms=3_000))
        elif not scenario.silent:
            yield Append(partial(final, intent=intent(Kind.FINAL)))
    except StoreError as exc:
        return RunEnd("raised", exc.code)
    return RunEnd("returned")


def unread(trouble: StoreError | NotOpenError) -> Program:
    """The handler was not called: the store could not show its turn."""
    return RunEnd("raised", trouble.code)
    yield  # a program, if a short one


def _intent(
    scenario: Scenario,
    desk: AttachedChannel,
    turn: Turn,
    run: int | None,
    kind: Kind,
    number: int,
) -> Intent:
    name = reply_entry(turn.stream, kind, run, str(number))
    route = Route(channel=CHANNEL, conversation=turn.conversation)
    payloads: list[Payload] = [
        File(data=b"x", name="f") if index % 3 == 2 else Text(f"part {index}")
        for index in range(scenario.parts if kind is Kind.FINAL else 1)
    ]
    return Intent(
        entry=name,
        route=route,
        kind=kind,
        packed=tuple(pack(p) for p in payloads),
        plan=desk.plan(payloads, route, kind, name),
        turn=turn.stream,
        run=run,
        key=str(number),
    )
