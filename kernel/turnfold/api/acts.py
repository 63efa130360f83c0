"""Decisions of a person: one method for each act on one id, and `act_on` for many.

Each act is a command as in `turnfold.api.commands`: the owner of the store decides it
here, any other process posts it to the owner's inbox, and the log names the person and
the reason.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, cast

from attrs import frozen

from turnfold._decide import busy, gates, inbox, operator, seen
from turnfold._decide.busy import LaneAbortion
from turnfold._decide.operator import Abortion
from turnfold._log.ids import TURN
from turnfold._runtime.programs import Decision
from turnfold.api.commands import Commands
from turnfold.enums import AbortReason, Waits
from turnfold.errors import InvalidInputError, RequestedError, TurnfoldError, UsageError
from turnfold.messages import (
    Route,
    check_enum,
    check_flag,
    check_id,
    check_kind,
    check_ms,
    check_optional_id,
    check_text,
    check_why,
    control_problem,
    is_a,
    items,
    lane_of,
    shown,
)

_VERDICTS = ("delivered", "not_sent", "resend", "give_up")
_FLAGS = {"accept_duplicate", "marked"}  # of acts that have one
_BATCH = 200  # acts that are posted, decided and answered together


class Act(StrEnum):
    """The acts on many turns or entries at once."""

    RETRY = "retry"
    RESOLVE = "resolve"
    DISCARD = "discard"
    ACK = "ack"
    ABORT = "abort"
    OPEN = "open"
    UNHOLD = "unhold"
    REDACT = "redact"
    RESUBMIT = "resubmit"


class Target(Protocol):
    """The object of an act: a Row of `kernel.inspect` is one."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> int | None:
        """The version of the stream when a person looked at it; the act is refused if
        the stream has moved since. None: any version."""


@frozen(kw_only=True)
class Acted:
    """The result of one act of many. `done`: the act that was done. None: the act was
    refused, for the reason in `error`, and changed nothing."""

    id: str
    done: str | None = None
    error: TurnfoldError | None = None


class Acts(Commands):
    """`seen`, in every act: the version of the turn or entry that the person looked at
    (`version` of a Row or a view). If it has moved since, the act is refused with
    RuleBrokenError, rule `as_seen`, and nothing is done. `by` and `why`: for the log."""

    async def abort(
        self,
        stream: str,
        *,
        by: str | None = None,
        why: str = "",
        seen: int | None = None,
    ) -> Abortion:
        """Stop a turn or an entry. The result says if it was too late."""
        return await self._stop("stream", stream, AbortReason.USER, by, why, seen)

    async def supersede(
        self, turn: str, *, by: str | None = None, why: str = ""
    ) -> Abortion:
        """Stop a turn because a newer message replaces it."""
        return await self._stop("turn", turn, AbortReason.SUPERSEDED, by, why)

    async def _stop(
        self,
        what: str,
        stream: str,
        reason: AbortReason,
        by: str | None,
        why: str,
        seen: int | None = None,
    ) -> Abortion:
        stream = await self._whole(what, stream)
        said: dict[str, Any] = {"reason": reason, "by": check_optional_id("by", by)}
        said["why"] = check_why(why)
        said["seen"] = None if seen is None else check_ms("seen", seen, least=1)
        decide = _decision(_stopping(stream), stream, said)
        try:
            done = await self._do(decide, "abort", stream, said)
        except RequestedError:
            return Abortion(aborted=False, status="requested")
        return done if isinstance(done, Abortion) else Abortion(**done)

    async def abort_lane(
        self,
        lane: Route | str,
        *,
        scope: Collection[Waits | str] = tuple(Waits),
        by: str | None = None,
        why: str = "",
    ) -> LaneAbortion:
        """Stop the turns of a lane, in one commit: a user's "stop". `lane`: a route, or
        `Inbound.lane`, where messages have lanes of their own. A text that can be no
        lane is refused; a lane in which nothing waits has nothing to stop.

        `scope`: the turns to stop: the one that is `running`, those that are `queued`
        or `debounced`, and those that are `answered` with an answer that has not
        arrived; all of them by default. The other turns go on, and are named in the
        result. Control input takes no lane, so a "stop" that is a turn itself does not
        stop itself. Raises RequestedError if no worker answered in time."""
        words = [str(word) for word in _words(scope)]
        name = cast("Route", lane).lane if is_a(lane, Route) else _lane(lane)
        said: dict[str, Any] = {"scope": words, "by": check_optional_id("by", by)}
        said["why"] = check_why(why)
        decide = partial(busy.abort_lane, stream=name, **said)
        done = await self._do(decide, "abort_lane", name, said)
        if isinstance(done, LaneAbortion):
            return done
        return LaneAbortion(**{key: tuple(names) for key, names in done.items()})

    async def retry(
        self,
        stream: str,
        *,
        by: str,
        why: str = "",
        accept_duplicate: bool = False,
        seen: int | None = None,
    ) -> str:
        """Send a dead letter again, or the dead letters of a turn, or run a turn
        without an answer again. An entry that waits for its time is attempted now.

        `accept_duplicate`: also if it may have arrived. Returns "redriven",
        "rescheduled" or "resubmitted". Raises RuleBrokenError if nothing can be
        repeated, NotFoundError for an unknown id.
        """
        act: str = await self._operate(
            "retry",
            stream,
            "stream",
            by=by,
            why=why,
            accept_duplicate=accept_duplicate,
            seen=seen,
        )
        return act

    async def discard(
        self, stream: str, *, by: str, why: str = "", seen: int | None = None
    ) -> str:
        """Decide that nothing more is done: a dead letter counts as seen, an entry in
        doubt ends with an unknown outcome, any other open entry is aborted. Returns
        "acknowledged" or "aborted". Raises RuleBrokenError if the turn or entry is over
        already."""
        act: str = await self._operate(
            "discard", stream, "stream", by=by, why=why, seen=seen
        )
        return act

    async def let_go(self, stream: str, *, by: str, why: str = "") -> list[str]:
        """Open gates: those of an entry, of the entries of a turn, or of a place
        (`channel/account`, `channel/account/conversation`), or one gate by its name. A
        held turn may run. Returns the names of the gates and turns. Raises
        RuleBrokenError if none was held back."""
        names: list[str] = await self._operate(
            "let_go", stream, "stream", by=by, why=why
        )
        return list(names)

    async def redrive(
        self, entry: str, *, by: str, why: str = "", accept_duplicate: bool = False
    ) -> None:
        """Send a dead letter again, from its first part that is not delivered."""
        await self._operate(
            "redrive", entry, by=by, why=why, accept_duplicate=accept_duplicate
        )

    async def resolve(
        self,
        entry: str,
        verdict: str,
        *,
        by: str,
        why: str = "",
        marked: bool = True,
        seen: int | None = None,
    ) -> None:
        """End a doubt. `verdict`: "delivered", "not_sent", "resend" or "give_up".
        `marked`: a resend carries a visible mark, where the channel can show one."""
        verdict = _checked_verdict(verdict)
        await self._operate(
            "resolve", entry, by=by, verdict=verdict, why=why, marked=marked, seen=seen
        )

    async def acknowledge(
        self, entry: str, *, by: str, why: str = "", seen: int | None = None
    ) -> None:
        """A person has seen a dead letter."""
        await self._operate("acknowledge", entry, by=by, why=why, seen=seen)

    async def reschedule(
        self, entry: str, due_ms: int, *, by: str, why: str = ""
    ) -> None:
        """Move the next attempt of an entry to `due_ms`, a time in ms UTC."""
        due = check_ms("due_ms", due_ms)
        await self._operate("reschedule", entry, by=by, due=due, why=why)

    async def resubmit(
        self, turn: str, *, by: str, why: str = "", seen: int | None = None
    ) -> None:
        """Run a failed turn again, once."""
        await self._operate("resubmit", turn, "turn", by=by, why=why, seen=seen)

    async def unhold(
        self, turn: str, *, by: str, why: str = "", seen: int | None = None
    ) -> None:
        """Let a turn run that is held because the store was restored from a copy: a
        person has seen that it was not answered in the lost history."""
        await self._operate("unhold", turn, "turn", by=by, why=why, seen=seen)

    async def hold_back(
        self, place: str, *, by: str, why: str = "", for_ms: int | None = None
    ) -> str:
        """Hold an account (`channel/account`) or a conversation
        (`channel/account/conversation`) back: none of its entries is sent until a
        person lets it go (`let_go`), or for `for_ms`. No reconnection and no new worker
        ends the hold. Returns the name of the gate."""
        place = check_id("place", place)
        said: dict[str, Any] = {"by": check_id("by", by), "why": check_why(why)}
        said["for_ms"] = None if for_ms is None else check_ms("for_ms", for_ms, least=1)
        decision = partial(gates.hold_back, stream=place, **said)
        name: str = await self._do(decision, "hold_back", place, said)
        return name

    async def redact(
        self, stream: str, *, by: str, why: str = "", seen: int | None = None
    ) -> bool:
        """Erase for good the bodies of a turn or an entry: payloads, files, texts of
        errors. Its events stay, with their ids and times. A turn takes its entries with
        it. A repeat is harmless. Raises StillOpenError while the turn or one of its
        entries is open.

        True: no file of the store holds any of these bytes. False: a reader still uses
        an older state, or the owner is another process; the bytes go as soon as the
        owner is idle and that reader is done.
        """
        stream = await self._whole("stream", stream)
        await self._operate("redact", stream, "stream", by=by, why=why, seen=seen)
        return await self._erased(stream)

    async def _erased(self, *streams: str) -> bool:
        raise NotImplementedError

    async def _operate(
        self, kind: str, stream: str, what: str = "entry", **arguments: Any
    ) -> Any:
        """One act of a person. `kind`: of its command."""
        arguments["why"] = check_why(arguments["why"])
        stream = await self._whole(what, stream)
        arguments["by"] = check_id("by", arguments["by"])
        if arguments.get("seen") is not None:
            check_ms("seen", arguments["seen"], least=1)
        for flag in _FLAGS & arguments.keys():
            check_flag(flag, arguments[flag])
        decision = _decision(inbox.OPERATIONS[kind], stream, arguments)
        return await self._do(decision, kind, stream, arguments)

    async def act_on(
        self,
        act: Act | str,
        targets: Sequence[Target],
        *,
        by: str,
        why: str = "",
        verdict: str | None = None,
        accept_duplicate: bool = False,
    ) -> AsyncIterator[Acted]:
        """The same act for many targets, such as the rows of `inspect.list`, in bounded
        batches: one result for each, in order, as soon as its batch is durable. A
        caller that stops half-way, or is killed, keeps the results so far, and may call
        again with the rows that are left.

        `verdict`: of `resolve`. `accept_duplicate`: of `retry`. Raises
        RequestedError if no worker answers a batch; that batch is then in the inbox.
        """
        kind = check_enum("act", act, Act)
        said: dict[str, Any] = {"by": check_id("by", by), "why": check_why(why)}
        check_flag("accept_duplicate", accept_duplicate)
        said |= _extra(kind, verdict, accept_duplicate)
        check_kind("targets", targets, list, tuple)
        whole = [_checked(target) for target in targets]
        for first in range(0, len(whole), _BATCH):
            batch = whole[first : first + _BATCH]
            for acted in await self._batch(kind, batch, said):
                yield acted
        if kind is Act.REDACT:
            await self._erased(*[stream for stream, _ in whole])

    async def taken_up(self) -> bool:
        """Wait until the commands that are in the inbox now are logged; False if some
        are still there after five seconds."""
        self._home.check()
        if self._shards is not None:
            return await self._shards.taken_up()
        return await self._mailbox.emptied()

    async def _batch(
        self, kind: Act, batch: Sequence[tuple[str, int | None]], said: dict[str, Any]
    ) -> list[Acted]:
        self._home.check()
        if self._shards is not None:
            return await self._shards.batch(kind, batch, said)
        each = [(stream, said | {"seen": version}) for stream, version in batch]
        if self.working:
            works = [
                self._do(_decision(_deciding(kind, s), s, how), _COMMANDS[kind], s, how)
                for s, how in each
            ]
            answers = await asyncio.gather(*works, return_exceptions=True)
        else:
            post = partial(
                inbox.act_command,
                _COMMANDS[kind],
                at=self._clock.wall_now(),
                answer=True,
            )
            commands = [
                post(command_id=self._new_id(), stream=s, **how) for s, how in each
            ]
            answers = list(await self._mailbox.ask_all(commands))
        return [_acted(s, answer) for (s, _), answer in zip(each, answers, strict=True)]


# --- the decision behind each act -----------------------------------------------------

_COMMANDS = MappingProxyType(
    {act: str(act) for act in Act} | {Act.ACK: "acknowledge", Act.OPEN: "let_go"}
)


def _deciding(act: Act, stream: str) -> Callable[..., Any]:
    return _stopping(stream) if act is Act.ABORT else inbox.OPERATIONS[_COMMANDS[act]]


def _stopping(stream: str) -> Callable[..., Abortion]:
    turn = stream.startswith(TURN)
    return operator.abort_turn if turn else operator.abort_entry


def _decision(
    decision: Callable[..., Any], stream: str, arguments: dict[str, Any]
) -> Decision:
    """The act, decided on the version that the person saw, if the arguments name
    one."""
    said = {"seen": None, **arguments}
    return partial(seen.act, decision=decision, stream=stream, **said)


def _extra(act: Act, verdict: str | None, accept_duplicate: bool) -> dict[str, Any]:
    """The arguments that only one act has."""
    match act:
        case Act.RESOLVE:
            return {"verdict": _checked_verdict(verdict)}
        case _ if verdict is not None:
            problem = f"only resolve has one, not {act}; leave it out"
            raise InvalidInputError(field="verdict", problem=problem)
        case Act.RETRY:
            return {"accept_duplicate": accept_duplicate}
        case Act.ABORT:
            return {"reason": AbortReason.USER}
        case _:
            return {}


def _checked_verdict(verdict: object) -> str:
    word = check_text("verdict", verdict) if is_a(verdict, str) else ""
    if word not in _VERDICTS:
        problem = f"{shown(verdict)} is none of {', '.join(_VERDICTS)}"
        raise InvalidInputError(field="verdict", problem=problem)
    return word


def _checked(target: Target) -> tuple[str, int | None]:
    name = check_id("targets", getattr(target, "id", None))
    version = getattr(target, "version", None)
    return name, None if version is None else check_ms("targets", version, least=1)


def _acted(stream: str, answer: object) -> Acted:
    """The result of one act. Raises an error that is not a refusal of this act, such as
    a failing store."""
    match answer:
        case UsageError():
            return Acted(id=stream, error=answer)
        case BaseException():
            raise answer
        case Abortion(aborted=aborted, status=status):
            return Acted(id=stream, done="aborted" if aborted else f"asked: {status}")
        case {"aborted": aborted, "status": status}:
            return Acted(id=stream, done="aborted" if aborted else f"asked: {status}")
        case str():
            return Acted(id=stream, done=answer)
        case [*names]:
            return Acted(id=stream, done=f"let go: {', '.join(map(str, names))}")
        case _:
            return Acted(id=stream, done="done")


# --- the stop of a lane ---


def _lane(name: object) -> str:
    """A name that a lane may have: channel, account, conversation, thread, and perhaps a
    name of its own. A slash inside of a part is escaped, so the number tells."""
    check_kind("lane", name, Route, str)
    text = check_text("lane", name)
    parts = text.split("/")
    if len(parts) not in _PARTS or not all(parts[:3]) or control_problem(text):
        problem = (
            f"{shown(name)} is no name of a lane; pass a Route, or `Inbound.lane`, such as "
            f"{lane_of('telegram', 'default', '42', None)!r}"
        )
        raise InvalidInputError(field="lane", problem=problem)
    return text


_PARTS = (4, 5)


def _words(scope: Any) -> Collection[Waits]:
    if is_a(scope, str) or not is_a(scope, Collection):
        kind = type(scope).__name__
        problem = f"expected several words, got {kind}"
        raise InvalidInputError(field="scope", problem=problem)
    return [check_enum("scope", word, Waits) for word in items("scope", scope)]
