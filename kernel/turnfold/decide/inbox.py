"""Commands of processes that do not own the store: written as data, decided by the owner.

A command lies in the inbox from the moment its caller got an answer. The owner decides
it and takes it out of the inbox in one commit, so a command is logged once even if the
owner dies between reading and logging it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import asdict

from turnfold import canonical
from turnfold.decide import aborting, accepting, enqueuing, gating, operating, restoring
from turnfold.decide.aborting import Abortion
from turnfold.decide.accepting import SourceCursor
from turnfold.decide.draft import AttemptRef, Draft
from turnfold.decide.queueing import Intent
from turnfold.decide.settling import settle
from turnfold.errors import InvalidInputError, TurnfoldError, UsageError, error_of
from turnfold.names import TURN, inbound_key, outbound_key
from turnfold.packing import Packed, pack_inbound
from turnfold.payloads import Inbound, Route
from turnfold.ports.channel import Accepted, Receipt
from turnfold.ports.store import Command
from turnfold.words import AbortReason, BlindPolicy, Kind

_INBOUND = (
    "channel",
    "account",
    "conversation",
    "message_id",
    "event",
    "thread",
    "control",
)


# --- written by the caller ---------------------------------------------------------


def accept_command(
    turn: str, inbound: Inbound, cursor: SourceCursor | None, at: int
) -> Command:
    data: dict[str, Any] = {name: getattr(inbound, name) for name in _INBOUND}
    data["cursor"] = None if cursor is None else asdict(cursor)
    return Command(
        id=turn,
        kind="accept",
        stream=turn,
        at=at,
        data=canonical.dumps(data),
        key=inbound_key(inbound),
        bodies=(pack_inbound(inbound),),
    )


def enqueue_command(intent: Intent, at: int, ttl_ms: int) -> Command:
    """`ttl_ms`: how long the payload may wait if the caller did not say; it counts from
    now and not from when the owner logs it."""
    contents = [p.content for p in intent.packed if p.content is not None]
    bodies = iter(range(len(contents)))
    data = {
        "route": asdict(intent.route),
        "kind": intent.kind,
        "key": intent.key,
        "policy": intent.policy,
        "not_before": intent.not_before,
        "expires_at": intent.expires_at or at + ttl_ms,
        "payloads": [
            {
                "kind": p.kind,
                "head": p.head,
                "content": None if p.content is None else next(bodies),
            }
            for p in intent.packed
        ],
    }
    return Command(
        id=intent.entry,
        kind="enqueue",
        stream=intent.entry,
        at=at,
        data=canonical.dumps(data),
        key=None if intent.key is None else outbound_key(intent.key),
        bodies=tuple(contents),
    )


def act_command(
    kind: str, command_id: str, stream: str, at: int, *, answer: bool, **arguments: Any
) -> Command:
    """A command about a stream that exists. `answer`: the caller waits for one."""
    data = canonical.dumps(arguments)
    return Command(
        id=command_id, kind=kind, stream=stream, at=at, data=data, answer=answer
    )


def receipt_command(attempt: AttemptRef, receipt: Receipt, at: int = 0) -> Command:
    """A success that came when the store was another's: evidence for its owner."""
    a = attempt
    data = {
        "part": a.part,
        "attempt": a.number,
        "ids": receipt.ids,
        "thread": receipt.thread,
    }
    return Command(
        id=f"receipt:{a.entry}:{a.part}:{a.number}",
        kind="receipt",
        stream=a.entry,
        at=at,
        data=canonical.dumps(data),
    )


# --- decided by the owner ----------------------------------------------------------


def apply(draft: Draft, command: Command) -> None:
    """Decide a command and take it out of the inbox.

    Raises UsageError if it cannot be done (then `refuse` it), StoreError if it cannot
    be done now.
    """
    act = _ACTS.get(command.kind)
    if act is None:
        problem = f"no command is called {command.kind!r:.40}"
        raise InvalidInputError(field="command.kind", problem=problem)
    try:
        result = act(draft, command, canonical.loads(command.data))
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        problem = f"{command.kind}: {exc!r:.200}"
        raise InvalidInputError(field="command.data", problem=problem) from exc
    draft.take_out(command.id, _answer({"ok": result}) if command.answer else None)


def refuse(draft: Draft, command: Command, error: UsageError) -> None:
    """Take out a command that cannot be done, and tell its caller, who waits."""
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
        error: TurnfoldError = error_of(value["error"], value["facts"])
        raise error
    return value["ok"]


_Act = Callable[[Draft, Command, Any], Any]


def _accept(draft: Draft, command: Command, data: Any) -> None:
    cursor = data.pop("cursor")
    inbound = Inbound(**data, body=canonical.loads(command.bodies[0]))
    accepting.accept(
        draft,
        turn=command.stream,
        inbound=inbound,
        cursor=None if cursor is None else SourceCursor(**cursor),
    )


def _enqueue(draft: Draft, command: Command, data: Any) -> None:
    packed = tuple(_packed(p, command.bodies) for p in data["payloads"])
    intent = Intent(
        entry=command.stream,
        route=Route(**data["route"]),
        kind=Kind(data["kind"]),
        packed=packed,
        key=data["key"],
        policy=None if data["policy"] is None else BlindPolicy(data["policy"]),
        not_before=data["not_before"],
        expires_at=data["expires_at"],
        promised=True,
    )
    enqueuing.enqueue(draft, intent)


def _packed(payload: Any, bodies: tuple[bytes, ...]) -> Packed:
    index = payload["content"]
    content = None if index is None else bodies[index]
    head = payload["head"]
    return Packed(payload["kind"], head, (canonical.dumps(head), content))


def _abort(draft: Draft, command: Command, data: Any) -> Any:
    turn = command.stream.startswith(TURN)
    stop = aborting.abort_turn if turn else aborting.abort_entry
    reason = AbortReason(data["reason"])
    done: Abortion = stop(draft, command.stream, reason, data["by"])
    return {"aborted": done.aborted, "status": str(done.status)}


def _receipt(draft: Draft, command: Command, data: Any) -> None:
    """A success that reached a worker after it had lost the store: evidence."""
    receipt = Receipt(ids=tuple(data["ids"]), thread=data["thread"])
    outcome = Accepted(receipt=receipt)
    settle(draft, command.stream, data["part"], data["attempt"], outcome)


def _gate(draft: Draft, command: Command, data: Any) -> None:
    del command
    act = gating.connected if data.pop("connected") else gating.disconnected
    act(draft, **data)


def _advance(draft: Draft, command: Command, data: Any) -> None:
    del command
    accepting.advance(draft, SourceCursor(**data))


def _operate(decision: Callable[..., Any]) -> _Act:
    def act(draft: Draft, command: Command, data: Any) -> None:
        decision(draft, stream=command.stream, **data)

    return act


_ACTS: Mapping[str, _Act] = MappingProxyType(
    {
        "accept": _accept,
        "enqueue": _enqueue,
        "abort": _abort,
        "receipt": _receipt,
        "gate": _gate,
        "advance": _advance,
        "redrive": _operate(operating.redrive),
        "resolve": _operate(operating.resolve),
        "acknowledge": _operate(operating.acknowledge),
        "reschedule": _operate(operating.reschedule),
        "bounce": _operate(operating.bounce),
        "resubmit": _operate(operating.resubmit),
        "unhold": _operate(restoring.unhold),
        "redact": _operate(operating.redact),
    }
)
