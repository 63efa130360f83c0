"""Answers by turn id, for turns that their handlers have left open."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from turnfold._decide import inbox, later
from turnfold._decide.outbox import Enqueued, Intent
from turnfold._log.ids import reply_entry
from turnfold.api.commands import Commands
from turnfold.api.sent import Sent
from turnfold.enums import BlindPolicy, Kind, Status
from turnfold.errors import NotFoundError, OwnedError
from turnfold.inspect.views import TurnView
from turnfold.messages import Payload, Route


class Answering(Commands):
    """The command of a Kernel that answers a turn later."""

    async def answer(
        self,
        turn: str,
        *payloads: Payload | str,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Sent:
        """Reply to a turn that its handler has left open (`turn.later`), from any process,
        once. `turn`: its id. `policy`, `ttl_ms`: as in `TurnHandle.send`.

        Raises StaleRunError if it is not left open any more, AlreadyRepliedError for a
        second answer with other bytes, and RequestedError if no worker answered in time."""
        stream = await self._whole("turn", turn)
        if self._shards is not None:
            how: dict[str, Any] = {"policy": policy, "ttl_ms": ttl_ms}
            return await self._shards.answer(stream, payloads, how)
        intent = await self._answer_to(stream, payloads, policy, ttl_ms)
        if self.working:
            try:
                decide = partial(later.answer, stream=stream, intent=intent)
                done: Enqueued = await self.append(decide)
            except OwnedError:
                pass  # not the owner any more: post the answer to its inbox
            else:
                return self.sent(done)
        now, ttl = self._clock.wall_now(), self.settings.ttl_ms(Kind.FINAL)
        booted = self._clock.booted()
        command = inbox.answer_command(intent, self._new_id(), now, ttl, booted)
        told = await self._mailbox.ask(command)
        told["status"] = Status(told["status"])
        return self.sent(Enqueued(**told))

    async def _answer_to(
        self,
        stream: str,
        payloads: Sequence[Payload | str],
        policy: BlindPolicy | None,
        ttl_ms: int | None,
    ) -> Intent:
        view = await self.inspect.show(stream)
        if not isinstance(view, TurnView):
            raise NotFoundError(what="turn", id=stream)
        first = view.inbound[0]
        route = Route(
            channel=first.channel,
            account=first.account,
            conversation=first.conversation,
            thread=first.thread,
            reply_to=first.message_id or None,
        )
        return await self.intend(
            entry=reply_entry(stream, Kind.FINAL, None, "final"),
            route=route,
            kind=Kind.FINAL,
            payloads=payloads,
            turn=stream,
            key="final",
            policy=policy,
            ttl_ms=ttl_ms,
        )
