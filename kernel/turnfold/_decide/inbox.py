"""Commands of processes that do not own the store: written as data, decided by the owner.

A command is in the inbox from the moment its caller got an answer. The owner decides it
and takes it out of the inbox in one commit, so a command is logged once even if the
owner dies between reading and logging it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from attrs import asdict, evolve, fields

from turnfold._decide import (
    accepting,
    busy,
    gates,
    importing,
    later,
    operator,
    outbox,
    pruning,
    seen,
)
from turnfold._decide.accepting import SourceCursor, Update
from turnfold._decide.command_data import (
    EnqueueData,
    ImportData,
    PieceData,
    ReceiptData,
    read,
    written,
)
from turnfold._decide.importing import Foreign
from turnfold._decide.operator import Abortion
from turnfold._decide.outbox import Intent
from turnfold._decide.outcomes import settle
from turnfold._decide.unit_of_work import AttemptRef, UnitOfWork
from turnfold._log import canonical
from turnfold._log.bodies import EncodedPayload, plain_text
from turnfold._log.ids import TURN, inbound_key, outbound_key, reply_entry
from turnfold._log.large import beside, seal
from turnfold.enums import AbortReason, Busy, Form, Kind
from turnfold.errors import InvalidInputError, UsageError, error_of
from turnfold.inbound import Evidence, Inbound, Unreadable
from turnfold.messages import LARGE
from turnfold.ports.channel import Accepted, Receipt
from turnfold.ports.store import Command

_APART = {"evidence", "own_lane"}  # bytes beside the data, and a name of its own in it
_INBOUND, _UNREADABLE = (
    [field.name for field in fields(cls) if field.name not in _APART]
    for cls in (Inbound, Unreadable)
)
DECLARE = "declare_restored"  # only a worker can do it: it touches attempts


# --- written by the caller ---------------------------------------------------------


def accept_command(
    turn: str,
    inbound: Update,
    cursor: SourceCursor | None,
    at: int,
    plan: busy.Plan = busy.QUEUE,
    booted: tuple[str, int] = ("", 0),
) -> Command:
    """`at`: a wall time; `booted`: `Clock.booted` of the same moment."""
    names = _UNREADABLE if isinstance(inbound, Unreadable) else _INBOUND
    data: dict[str, Any] = {name: getattr(inbound, name) for name in names}
    data["form"] = inbound.evidence.form
    if isinstance(inbound, Inbound):
        data["lane"] = inbound.own_lane
    if not plan.plain:
        data["plan"] = {"busy": plan.busy, "debounce_ms": plan.debounce_ms}
    data["cursor"] = None if cursor is None else asdict(cursor)
    data["boot"], data["boot_ms"] = booted
    return Command(
        id=turn,
        kind="accept",
        stream=turn,
        at=at,
        data=canonical.dumps(data),
        key=inbound_key(inbound),
        bodies=(inbound.evidence.raw,),
    )


def enqueue_command(
    intent: Intent, at: int, ttl_ms: int, booted: tuple[str, int] = ("", 0)
) -> Command:
    """`ttl_ms`: how long the payload may wait if the caller did not say; it counts from
    `at`, a wall time, and not from when the owner logs it. `booted`: `Clock.booted` of
    the same moment."""
    pieces, contents = _pieces(intent.packed)
    data = EnqueueData(
        route=intent.route,
        kind=intent.kind,
        key=intent.key,
        policy=intent.policy,
        not_before=intent.not_before,
        ttl_ms=ttl_ms if intent.ttl_ms is None else intent.ttl_ms,
        payloads=pieces,
        boot=booted[0],
        boot_ms=booted[1],
    )
    return Command(
        id=intent.entry,
        kind="enqueue",
        stream=intent.entry,
        at=at,
        data=written(data),
        key=None if intent.key is None else outbound_key(intent.key),
        bodies=contents,
    )


def _pieces(
    packed: Sequence[EncodedPayload],
) -> tuple[tuple[PieceData, ...], tuple[bytes, ...]]:
    """Payloads as data, and their bodies: a payload with files has one body for each
    file."""
    bodies: list[bytes] = []
    pieces = []
    for p in packed:
        held, start = p.contents or (p.encoded,), len(bodies)
        bodies += held
        numbers = tuple(range(start, len(bodies)))
        head = p.head if p.contents else {}
        pieces.append(PieceData(kind=p.kind, head=head, contents=numbers))
    return tuple(pieces), tuple(bodies)


def import_id(key: str) -> str:
    """The id of the command that brings in a delivery."""
    return f"import:{sha256(outbound_key(key).encode()).hexdigest()}"


def import_command(foreign: Foreign, at: int) -> Command:
    """The command's id follows from the key of the delivery: posting it again is
    harmless."""
    pieces, contents = _pieces(foreign.packed)
    data = ImportData(
        route=foreign.route,
        kind=foreign.kind,
        key=foreign.key,
        origin=foreign.origin,
        enqueued_at=foreign.enqueued_at,
        tries=foreign.tries,
        detail=foreign.detail,
        dead=foreign.dead,
        payloads=pieces,
    )
    name = outbound_key(foreign.key)
    return Command(
        id=import_id(foreign.key),
        kind="import",
        stream=foreign.entry,
        at=at,
        data=written(data),
        key=name,
        bodies=contents,
        answer=True,
    )


def act_command(
    kind: str, command_id: str, stream: str, at: int, *, answer: bool, **arguments: Any
) -> Command:
    """A command about a stream that exists. `answer`: the caller waits for one."""
    data = canonical.dumps(arguments)
    return Command(
        id=command_id, kind=kind, stream=stream, at=at, data=data, answer=answer
    )


def receipt_command(attempt: AttemptRef, receipt: Receipt) -> Command:
    """A success that arrived after another process took the store: evidence for the
    owner."""
    a = attempt
    data = ReceiptData(
        part=a.part, attempt=a.number, act=a.act, ids=receipt.ids, thread=receipt.thread
    )
    return Command(
        id=f"receipt:{a.entry}:{a.part}:{a.number}",
        kind="receipt",
        stream=a.entry,
        at=0,  # nothing is counted from it
        data=written(data),
    )


# --- decided by the owner ----------------------------------------------------------


def apply(draft: UnitOfWork, command: Command) -> None:
    """Decide a command and take it out of the inbox.

    Raises UsageError if it cannot be done (then `refuse` it), StoreError if it cannot
    be done now.
    """
    act = _ACTS.get(command.kind)
    if act is None:
        problem = f"no command is called {command.kind!r:.40}"
        raise InvalidInputError(field="command.kind", problem=problem)
    draft.hears = True  # the next command may abort an entry of this one
    try:
        result = act(draft, command, canonical.loads(command.data))
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        problem = f"{command.kind}: {exc!r:.200}"
        raise InvalidInputError(field="command.data", problem=problem) from exc
    finally:
        draft.hears = False
    draft.take_out(command.id, _answer({"ok": result}) if command.answer else None)


def refuse(draft: UnitOfWork, command: Command, error: UsageError) -> None:
    """Take a command that cannot be done out of the inbox, and answer its waiting
    caller."""
    facts = {name: _plain(value) for name, value in error.facts.items()}
    draft.take_out(command.id, _answer({"error": error.code, "facts": facts}))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | None) else str(value)


def _answer(value: Mapping[str, Any]) -> bytes:
    return canonical.dumps(value)


def result_of(answer: bytes) -> Any:
    """The result in an answer; raises the error that the owner met."""
    value = canonical.loads(answer)
    if "error" in value:
        raise error_of(value["error"], value["facts"])
    return value["ok"]


_Act = Callable[[UnitOfWork, Command, Any], Any]


def _accept(draft: UnitOfWork, command: Command, data: Any) -> None:
    cursor = data.pop("cursor")
    made = command.seals[0] if command.seals else None
    evidence = Evidence(Form(data.pop("form")), command.bodies[0], made)
    said = data.pop("plan", None)
    booted = data.pop("boot"), data.pop("boot_ms")
    plan = busy.QUEUE
    if said is not None:
        plan = busy.Plan(Busy(said["busy"]), said["debounce_ms"])
    inbound: Update
    if "error" in data:
        inbound = Unreadable(**data, raw=evidence)
    else:
        inbound = Inbound(**data, body=evidence)
    accepting.accept(
        draft,
        turn=command.stream,
        inbound=inbound,
        cursor=None if cursor is None else SourceCursor(**cursor),
        waited_ms=_waited(draft, command, booted),
        plan=plan,
    )


def _enqueue(draft: UnitOfWork, command: Command, value: Any) -> None:
    data = read(value, EnqueueData)
    waited = _waited(draft, command, (data.boot, data.boot_ms))
    intent = Intent(
        entry=command.stream,
        route=data.route,
        kind=data.kind,
        packed=_packed(command, data.payloads),
        key=data.key,
        policy=data.policy,
        not_before=data.not_before,
        ttl_ms=data.ttl_ms - waited,
        waited_ms=waited,
        promised=True,
    )
    outbox.enqueue(draft, intent)


def _import(draft: UnitOfWork, command: Command, value: Any) -> str:
    data = read(value, ImportData)
    foreign = Foreign(
        entry=command.stream,
        route=data.route,
        kind=data.kind,
        packed=_packed(command, data.payloads),
        key=data.key,
        origin=data.origin,
        enqueued_at=data.enqueued_at,
        tries=data.tries,
        detail=data.detail,
        dead=data.dead,
    )
    return importing.bring_in(draft, foreign)


def _waited(draft: UnitOfWork, command: Command, booted: tuple[str, int]) -> int:
    """How long a command lay in the inbox. Under the boot in which it was posted the
    boot-time clock says it. The wall clock counts while it is trusted: it knows other
    boots, other hosts, and a pause of the machine. A command that seems to be older than
    the last correction of the wall clock may have been posted, and dated, before it."""
    (boot, since), (here, now) = booted, draft.context.booted()
    lived = max(0, now - since) if boot and boot == here else 0
    waited = 0 if draft.sure_from else max(0, draft.wall - command.at)
    return max(lived, waited - draft.behind if waited >= draft.behind else waited)


def _packed(
    command: Command, pieces: Sequence[PieceData]
) -> tuple[EncodedPayload, ...]:
    return tuple([_packed_piece(command, piece) for piece in pieces])


def _packed_piece(command: Command, piece: PieceData) -> EncodedPayload:
    bodies = tuple([command.bodies[number] for number in piece.contents])
    seals = tuple([command.seals[n] for n in piece.contents if command.seals])
    if piece.head:
        identity = canonical.dumps(piece.head), bodies
        return EncodedPayload(piece.kind, piece.head, identity, seals=seals)
    (data,) = bodies
    text = plain_text(data) if len(data) <= LARGE else None
    return EncodedPayload(piece.kind, {}, (data, ()), text, seals)


async def sealed(
    commands: Sequence[Command], salt: Callable[[], bytes]
) -> Sequence[Command]:
    """The same commands; large bodies get their seals in a thread, so that the loop
    goes on."""
    if not any(len(body) > LARGE for c in commands for body in c.bodies):
        return commands
    return await beside(lambda: [_sealed(c, salt) for c in commands])


def _sealed(command: Command, salt: Callable[[], bytes]) -> Command:
    return evolve(command, seals=tuple([seal(salt, b) for b in command.bodies]))


def _abort(draft: UnitOfWork, command: Command, data: Any) -> Any:
    turn = command.stream.startswith(TURN)
    stop = operator.abort_turn if turn else operator.abort_entry
    reason = AbortReason(data["reason"])
    said = {"reason": reason, "by": data["by"], "why": data["why"]}
    done: Abortion = seen.act(draft, stop, command.stream, data.get("seen"), **said)
    return {"aborted": done.aborted, "status": str(done.status)}


def answer_command(
    intent: Intent,
    command_id: str,
    at: int,
    ttl_ms: int,
    booted: tuple[str, int] = ("", 0),
) -> Command:
    """The reply of a turn that was left open, from a process without a channel."""
    assert intent.turn is not None  # noqa: S101  its caller names it
    told = enqueue_command(intent, at, ttl_ms, booted)
    return evolve(
        told, kind="answer", id=command_id, stream=intent.turn, key=None, answer=True
    )


def _answer_turn(draft: UnitOfWork, command: Command, value: Any) -> Any:
    data = read(value, EnqueueData)
    waited = _waited(draft, command, (data.boot, data.boot_ms))
    turn = command.stream
    intent = Intent(
        entry=reply_entry(turn, Kind.FINAL, None, "final"),
        route=data.route,
        kind=Kind.FINAL,
        packed=_packed(command, data.payloads),
        turn=turn,
        key=data.key,
        policy=data.policy,
        ttl_ms=data.ttl_ms - waited,
        waited_ms=waited,
        promised=True,
    )
    done = later.answer(draft, turn, intent)
    told = {"entry_id": done.entry_id, "status": str(done.status), "new": done.new}
    return {**told, "differs": done.differs}


def _abort_lane(draft: UnitOfWork, command: Command, data: Any) -> Any:
    done = busy.abort_lane(draft, command.stream, **data)
    return {name: list(streams) for name, streams in asdict(done).items()}


def _receipt(draft: UnitOfWork, command: Command, value: Any) -> None:
    """A success that reached a process after it had lost the store: evidence. Where a
    failover lost the entry, too, it proves nothing, and is taken out."""
    data = read(value, ReceiptData)
    if draft.find_entry(command.stream) is None:
        return
    outcome = Accepted(receipt=Receipt(ids=data.ids, thread=data.thread))
    settle(draft, command.stream, data.part, data.attempt, outcome, data.act)


def _gate(draft: UnitOfWork, command: Command, data: Any) -> None:
    del command
    if data.pop("connected"):
        gates.connected(draft, **data)
    else:
        gates.disconnected(draft, data["channel"], data["account"])


def _advance(draft: UnitOfWork, command: Command, data: Any) -> None:
    del command
    accepting.advance(draft, SourceCursor(**data))


def _operated(
    decision: Callable[..., Any], draft: UnitOfWork, command: Command, data: Any
) -> Any:
    version = data.pop("seen", None)
    return seen.act(draft, decision, command.stream, version, **data)


# The acts of people on one stream, and of the worker itself, by the kind of their command.
OPERATIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "retry": operator.retry,
        "discard": operator.discard,
        "let_go": operator.let_go,
        "hold_back": gates.hold_back,
        "redrive": operator.redrive,
        "resolve": operator.resolve,
        "acknowledge": operator.acknowledge,
        "reschedule": operator.reschedule,
        "bounce": operator.bounce,
        "resubmit": operator.resubmit,
        "unhold": operator.unhold,
        "redact": operator.redact,
        DECLARE: operator.declared,
        "prune": pruning.prune,
    }
)
_ACTS: Mapping[str, _Act] = MappingProxyType(
    {
        "accept": _accept,
        "enqueue": _enqueue,
        "import": _import,
        "abort": _abort,
        "abort_lane": _abort_lane,
        "answer": _answer_turn,
        "receipt": _receipt,
        "gate": _gate,
        "advance": _advance,
        **{kind: partial(_operated, decide) for kind, decide in OPERATIONS.items()},
    }
)
