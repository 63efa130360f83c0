"""What may be told to a kernel: one method per command, each one commit.

When a command returns, what it says is durable. When it raises, nothing of it is.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from turnfold.arguments import a_name, a_name_or_none, a_text, a_time, a_word
from turnfold.attached import Attached
from turnfold.clock import Clock
from turnfold.decide import aborting, accepting, enqueuing, gating, operating, restoring
from turnfold.decide.aborting import Abortion
from turnfold.decide.accepting import Acceptance, SourceCursor
from turnfold.decide.enqueuing import Enqueued
from turnfold.decide.queueing import Intent
from turnfold.effects import Decision
from turnfold.errors import InvalidInputError
from turnfold.frozen import maker
from turnfold.names import ENTRY, TURN
from turnfold.packing import pack
from turnfold.payloads import File, Inbound, Payload, Route, Text
from turnfold.turns import AcceptedTurn
from turnfold.words import AbortReason, BlindPolicy, Kind

_intent = maker(Intent)


class Commands:
    """The commands of a Kernel; it brings the means."""

    _clock: Clock
    _desks: dict[tuple[str, str], Attached]

    async def append(self, decision: Decision) -> Any:
        """Decide and commit; the answer is durable."""
        raise NotImplementedError

    def _new_id(self) -> str:
        raise NotImplementedError

    def _accepted(self, done: Acceptance) -> AcceptedTurn:
        raise NotImplementedError

    async def accept(
        self, inbound: Inbound, *, cursor: SourceCursor | None = None
    ) -> AcceptedTurn:
        """Take a message in. When this returns it is durable: acknowledge it now."""
        turn = f"{TURN}{self._new_id()}"
        done: Acceptance = await self.append(
            partial(accepting.accept, turn=turn, inbound=inbound, cursor=cursor)
        )
        return self._accepted(done)

    async def advance(self, cursor: SourceCursor) -> None:
        """A source got on without bringing a message."""
        await self.append(partial(accepting.advance, cursor=cursor))

    async def enqueue(
        self,
        route: Route,
        *payloads: Payload | str,
        key: str | None = None,
        kind: Kind = Kind.NOTICE,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Enqueued:
        """Send something without a turn: a notice, a reminder, a tool's result. The
        same `key` again returns the first entry. If this raises, nothing is queued
        and nothing will be sent."""
        intent = await self.intend(
            entry=f"{ENTRY}{self._new_id()}",
            route=route,
            kind=kind,
            payloads=payloads,
            key=key,
            policy=policy,
            ttl_ms=ttl_ms,
            not_before=not_before,
        )
        done: Enqueued = await self.append(partial(enqueuing.enqueue, intent=intent))
        return done

    async def intend(
        self,
        *,
        entry: str,
        route: Route,
        kind: Kind,
        payloads: Sequence[Payload | str],
        turn: str | None = None,
        run: int | None = None,
        key: str | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Intent:
        """Read files, run the channel's plan: all that comes before the decision."""
        if not isinstance(route, Route):
            problem = f"expected Route, got {type(route).__name__}"
            raise InvalidInputError(field="route", problem=problem)
        if not payloads:
            raise InvalidInputError(field="payloads", problem="nothing to send")
        kind = a_word("kind", kind, Kind)
        held: list[Payload] = []
        for payload in payloads:
            plain = Text(payload) if isinstance(payload, str) else payload
            held.append(plain if type(plain) is Text else await _held(plain))
        desk = self._desks.get((route.channel, route.account))
        packed = tuple(map(pack, held))
        plan = desk.plan(held, route, kind, entry, packed) if desk else None
        expires = None
        if ttl_ms is not None:
            ttl_ms = a_time("ttl_ms", ttl_ms, least=1)
            expires = a_time("ttl_ms", self._clock.now() + ttl_ms)
        return _intent(
            entry=entry,
            route=route,
            kind=kind,
            fresh=turn is None,
            packed=packed,
            plan=plan,
            turn=turn,
            run=run,
            key=a_name_or_none("key", key),
            policy=None if policy is None else a_word("policy", policy, BlindPolicy),
            not_before=None if not_before is None else a_time("not_before", not_before),
            expires_at=expires,
        )

    async def abort(self, stream: str, *, by: str | None = None) -> Abortion:
        """Stop a turn or an entry. Says honestly if it is too late."""
        return await self._stop(stream, AbortReason.USER, by)

    async def supersede(self, turn: str, *, by: str | None = None) -> Abortion:
        """Stop a turn because something newer replaces it."""
        return await self._stop(turn, AbortReason.SUPERSEDED, by)

    async def _stop(self, stream: str, reason: AbortReason, by: str | None) -> Abortion:
        turn = a_name("stream", stream).startswith(TURN)
        decision = aborting.abort_turn if turn else aborting.abort_entry
        by = a_name_or_none("by", by)
        done: Abortion = await self.append(
            partial(decision, stream=stream, reason=reason, by=by)
        )
        return done

    async def connected(self, channel: str, *, account: str = "default") -> None:
        """The account works: what waited for it goes now, back-off or not."""
        await self._gate(gating.connected, channel, account)

    async def disconnected(self, channel: str, *, account: str = "default") -> None:
        """The account cannot send: hold it and spend no attempts until connected()."""
        await self._gate(gating.disconnected, channel, account)

    async def _gate(
        self, decision: Callable[..., None], channel: str, account: str
    ) -> None:
        await self.append(
            partial(
                decision,
                channel=a_name("channel", channel),
                account=a_name("account", account),
            )
        )

    async def redrive(
        self, entry: str, *, by: str, accept_duplicate: bool = False
    ) -> None:
        """Send a dead letter again, from its first part that is not delivered."""
        await self.append(
            partial(
                operating.redrive,
                stream=a_name("entry", entry),
                by=a_name("by", by),
                accept_duplicate=accept_duplicate,
            )
        )

    async def resolve(
        self, entry: str, verdict: str, *, by: str, why: str = "", marked: bool = True
    ) -> None:
        """End a doubt: "delivered", "not_sent", "resend" or "give_up"."""
        await self.append(
            partial(
                operating.resolve,
                stream=a_name("entry", entry),
                verdict=verdict,
                by=a_name("by", by),
                why=a_text("why", why),
                marked=marked,
            )
        )

    async def acknowledge(self, entry: str, *, by: str) -> None:
        """A person has seen a dead letter."""
        await self._operate(operating.acknowledge, "entry", entry, by)

    async def reschedule(self, entry: str, due_ms: int, *, by: str) -> None:
        await self.append(
            partial(
                operating.reschedule,
                stream=a_name("entry", entry),
                due=a_time("due_ms", due_ms),
                by=a_name("by", by),
            )
        )

    async def bounced(self, entry: str, *, part: int = 0, detail: str = "") -> None:
        """The platform refused afterwards what it had accepted."""
        await self.append(
            partial(
                operating.bounce,
                stream=a_name("entry", entry),
                part=part,
                detail=a_text("detail", detail),
            )
        )

    async def resubmit(self, turn: str, *, by: str) -> None:
        """Run a failed turn again, once."""
        await self._operate(operating.resubmit, "turn", turn, by)

    async def unhold(self, turn: str, *, by: str) -> None:
        """Let a turn run that is held because the store was restored from a copy: a
        person has seen that it was not answered in the history that is gone."""
        await self._operate(restoring.unhold, "turn", turn, by)

    async def redact(self, stream: str, *, by: str) -> bool:
        """Erase for good what a turn or an entry has stored: payloads, files, texts of
        errors. Its events stay, with their ids and times. A turn takes its entries with
        it. Doing it again is harmless. Raises StillOpenError unless all of it is over.

        True: no file of the store holds any of it. False: somebody is reading an older
        state just now; it is gone as soon as that is over and the kernel is idle.
        """
        await self._operate(operating.redact, "stream", stream, by)
        return self._erased()

    def _erased(self) -> bool:
        raise NotImplementedError

    async def _operate(
        self, decision: Callable[..., Any], what: str, stream: str, by: str
    ) -> Any:
        return await self.append(
            partial(decision, stream=a_name(what, stream), by=a_name("by", by))
        )


async def _held(payload: Payload) -> Payload:
    """A file's content in hand: from here on the queue owns a copy."""
    if isinstance(payload, File) and payload.data is None and payload.path is not None:
        packed = await asyncio.to_thread(pack, payload)
        head = packed.head
        return File(data=packed.content, name=head["name"], mime=head["mime"])
    if not isinstance(payload, Payload):
        problem = f"expected Text, File or Native, got {type(payload).__name__}"
        raise InvalidInputError(field="payloads", problem=problem)
    return payload
