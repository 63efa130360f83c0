"""The commands of a kernel: one method per command, one commit per call.

When a command returns, its effect is durable. When it raises, it has no effect.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import asdict, evolve

from turnfold._decide import accepting, gates, inbox, operator, outbox
from turnfold._decide import busy as busy_lane
from turnfold._decide.accepting import Acceptance, SourceCursor, Update
from turnfold._decide.outbox import Enqueued, Intent
from turnfold._decide.plan import Plan
from turnfold._decide.schedule import LIVE_KIND
from turnfold._log.bodies import EncodedPayload, by_path, held, is_large, pack
from turnfold._log.ids import ENTRY, TURN, inbound_key, original_key, outbound_key
from turnfold._log.large import beside, seal
from turnfold._runtime.calls import answered, apart
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.policies import NO_MARKS
from turnfold._runtime.programs import Decision
from turnfold.api.handle import AcceptedTurn
from turnfold.api.sent import Sent
from turnfold.api.spread import Spread
from turnfold.enums import BlindPolicy, Busy, Kind, Status, TurnPhase
from turnfold.errors import (
    InvalidInputError,
    OwnedError,
    RequestedError,
    StoreFullError,
)
from turnfold.inbound import Inbound, Unreadable
from turnfold.inspect.lookup import resolve as named
from turnfold.messages import (
    LARGE,
    Payload,
    Route,
    Text,
    check_enum,
    check_flag,
    check_id,
    check_kind,
    check_ms,
    check_optional_id,
    check_span,
    check_text,
    check_why,
    is_a,
)
from turnfold.ports.store import Wanted

_MOST = 10_000  # payloads of one call: each is packed on the loop


class Commands(Spread):
    """The commands of a Kernel.

    The owner of the store decides each command here. Any other process posts it to the
    owner's inbox: `accept` and `enqueue` return as soon as it is durable there, the
    others wait for the owner's answer.

    Every command raises NotOpenError before `open` and after `close`, InvalidInputError
    for an argument of a wrong type or out of range, and StoreError if the store fails.
    A command that waits for the owner raises RequestedError if no owner answered in
    time; the command is then still in the inbox. A command about one id also raises
    NotFoundError, and IllegalTransitionError or RuleBrokenError if the turn or entry
    does not allow it.
    """

    _salt: Callable[[], bytes]
    _full: StoreFullError | None = None  # set while the store takes no new messages

    def _new_id(self) -> str:
        raise NotImplementedError

    def _accepted(self, done: Acceptance, key: str | None = None) -> AcceptedTurn:
        raise NotImplementedError

    def sent(self, done: Enqueued, key: str | None = None) -> Sent:
        """The handle of an entry for its caller; the handle of a turn uses this,
        too."""
        raise NotImplementedError

    async def accept(
        self,
        inbound: Update,
        *,
        cursor: SourceCursor | None = None,
        busy: Busy | str = Busy.QUEUE,
        debounce_ms: int = 0,
    ) -> AcceptedTurn:
        """Take a message in. When this returns it is durable: acknowledge it now.

        `busy`: the plan if a turn of its lane waits or runs. `queue`: the message waits
        for its turn. `supersede`: those turns are stopped for it, in one commit.
        `join`: the last turn, if it has not begun, answers this message, too
        (`turn.joined`); else the message waits. `drop`: the message is kept and known
        by its key, and its turn is aborted at once. `debounce_ms`: how long its turn
        waits for more messages before it begins, anew for each that joins, up to 10
        times; 0 for not at all. Both do not apply to control input, which takes no
        lane. A run that is under way never gets new input.

        An Unreadable becomes a dead turn. So does a message with the key of an earlier
        one and other bytes; then `differs` is true and `kept` names the dead turn."""
        self._home.check()
        if self._shards is not None:
            plans: dict[str, Any] = {"busy": busy, "debounce_ms": debounce_ms}
            return await self._shards.accept(inbound, cursor, plans)
        if self._full is not None:
            raise self._full
        if not is_a(inbound, (Inbound, Unreadable)):
            kind = type(inbound).__name__
            problem = f"expected Inbound or Unreadable, got {kind}"
            raise InvalidInputError(field="inbound", problem=problem)
        if cursor is not None:
            check_kind("cursor", cursor, SourceCursor)
        plan = _plan(busy, debounce_ms)
        if len(inbound.evidence.raw) > LARGE:
            inbound = await self._sealed(inbound)
        turn = f"{TURN}{self._new_id()}"
        if self.working:
            if not self._missing.handles:
                self._missing.handler()
            keys = (inbound_key(inbound), original_key(inbound))
            wanted = Wanted(keys=frozenset(key for key in keys if key is not None))
            decision = partial(
                accepting.accept, turn=turn, inbound=inbound, cursor=cursor, plan=plan
            )
            try:
                return self._accepted(await self.append(decision, wanted), keys[0])
            except OwnedError:
                pass  # not the owner any more: post the message to its inbox
        return await self._post_inbound(turn, inbound, cursor, plan)

    async def _sealed(self, inbound: Update) -> Update:
        evidence = inbound.evidence
        made = await beside(partial(seal, self._salt, evidence.raw))
        sealed: Any = evolve(evidence, seal=made)
        if isinstance(inbound, Unreadable):
            return evolve(inbound, raw=sealed)
        return evolve(inbound, body=sealed)

    async def _post_inbound(
        self,
        turn: str,
        inbound: Update,
        cursor: SourceCursor | None,
        plan: busy_lane.Plan,
    ) -> AcceptedTurn:
        now, booted = self._clock.wall_now(), self._clock.booted()
        command = inbox.accept_command(turn, inbound, cursor, now, plan, booted)
        posted = await self._mailbox.post(command)
        done = Acceptance(
            turn_id=posted.stream,
            status=TurnPhase.FAILED
            if isinstance(inbound, Unreadable)
            else TurnPhase.ACCEPTED,
            new=posted.new,
        )
        if posted.stream != turn and await self._mailbox.differs(posted, command):
            await self._mailbox.post(evolve(command, key=None))
            done.differs, done.kept = True, turn
        return self._accepted(done, command.key)

    async def advance(self, cursor: SourceCursor) -> None:
        """Move a source's cursor without a message."""
        check_kind("cursor", cursor, SourceCursor)
        await self._do(
            partial(accepting.advance, cursor=cursor),
            "advance",
            "store",
            asdict(cursor),
        )

    async def enqueue(
        self,
        route: Route,
        *payloads: Payload | str,
        key: str | None = None,
        kind: Kind = Kind.NOTICE,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
        not_before: int | None = None,
    ) -> Sent:
        """Send a notice, a reminder or a tool's result without a turn. `key`: the same
        again returns the first entry. `kind`: a notice by default. `policy`: for an
        unknown outcome, `ttl_ms`: its life once it is due, both as set by default.
        `not_before`: wall time, ms UTC. If this raises, nothing is queued or sent:
        InvalidInputError, BackPressureError, StoreFullError, StoreError."""
        if self._shards is not None:
            how: dict[str, Any] = {"key": key, "kind": kind, "policy": policy}
            how |= {"ttl_ms": ttl_ms, "not_before": not_before}
            return await self._shards.enqueue(route, payloads, how)
        if self._full is not None:
            raise self._full
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
        if self.working:
            key = intent.key
            wanted = (
                None if key is None else Wanted(keys=frozenset((outbound_key(key),)))
            )
            try:
                done: Enqueued = await self.append(
                    partial(outbox.enqueue, intent=intent), wanted
                )
            except OwnedError:
                pass  # not the owner any more: post the payload to its inbox
            else:
                return self.sent(done)
        now, booted = self._clock.wall_now(), self._clock.booted()
        ttl = self.settings.ttl_ms(intent.kind)
        command = inbox.enqueue_command(intent, now, ttl, booted)
        posted = await self._mailbox.post(command)
        done = Enqueued(entry_id=posted.stream, status=Status.QUEUED, new=posted.new)
        return self.sent(done, command.key)

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
        """Read files and run the channel's plan, before the decision."""
        self._home.check()
        check_kind("route", route, Route)
        _check_count(payloads)
        due = None if not_before is None else check_span("not_before", not_before)
        kind = check_enum("kind", kind, Kind)
        ready, large = [], False
        for payload in payloads:
            plain = Text(payload) if isinstance(payload, str) else payload
            plain = plain if type(plain) is Text else await _held(plain)
            large = large or is_large(plain)
            ready.append(plain)
        desk = self._desks.get((route.channel, route.account))
        if desk is None and self.working:
            self._missing.channel(route.channel, route.account)
        if large:
            packed, plan = await self._made_apart(desk, ready, route, kind, entry)
        else:
            packed = tuple(map(pack, ready))
            self._check_size(packed)
            plan = desk.plan(ready, route, kind, entry, packed) if desk else None
        return Intent(
            entry=entry,
            route=route,
            kind=kind,
            fresh=turn is None,
            packed=packed,
            plan=plan,
            turn=turn,
            run=run,
            key=check_optional_id("key", key),
            policy=None if policy is None else _policy(policy, desk),
            not_before=due,
            ttl_ms=None if ttl_ms is None else self._ttl(ttl_ms),
        )

    def _check_size(self, packed: Sequence[EncodedPayload]) -> None:
        """Raises InvalidInputError for more bytes than the settings allow."""
        most = self.settings.max_payload_bytes
        if most is None:
            return
        size = packed[0].size if len(packed) == 1 else sum([p.size for p in packed])
        if size > most:
            problem = f"{size:,} bytes; at most max_payload_bytes={most:,}"
            raise InvalidInputError(field="payloads", problem=problem)

    async def _made_apart(
        self,
        desk: AttachedChannel | None,
        ready: Sequence[Payload],
        route: Route,
        kind: Kind,
        entry: str,
    ) -> tuple[tuple[EncodedPayload, ...], Plan | None]:
        """Large payloads, packed and planned in threads."""
        packed = await beside(partial(_pack_all, ready, self._salt))
        self._check_size(packed)
        if desk is None:
            return packed, None
        what = ready, route, kind, entry, packed
        return packed, await desk.plan_large(*what, self._salt)

    def intend_live(
        self,
        *,
        entry: str,
        route: Route,
        turn: str,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Intent | None:
        """The empty final of a live reply; None if its channel cannot edit a text."""
        self._home.check()
        desk = self._desks.get((route.channel, route.account))
        if desk is None or not desk.edits(LIVE_KIND):
            return None
        return Intent(
            entry=entry,
            route=route,
            kind=Kind.FINAL,
            packed=(),
            turn=turn,
            policy=None if policy is None else _policy(policy, desk),
            ttl_ms=None if ttl_ms is None else self._ttl(ttl_ms),
        )

    def preview_ms(self, route: Route) -> int:
        """The least time between two previews of a live reply."""
        return self._desks[route.channel, route.account].capabilities.preview_ms

    def _ttl(self, ttl_ms: int) -> int:
        ttl_ms = check_span("ttl_ms", ttl_ms, least=1)
        check_ms("ttl_ms", self._clock.wall_now() + ttl_ms)
        return ttl_ms

    async def _do(
        self, decision: Decision, kind: str, stream: str, arguments: dict[str, Any]
    ) -> Any:
        """Decide here, or post to the owner and wait for its answer."""
        self._home.check()
        if self._shards is not None:
            return await self._shards.do(decision, kind, stream, arguments)
        if self.working:
            try:
                return await self.append(decision)
            except OwnedError:
                pass  # not the owner any more: ask the owner
        command = inbox.act_command(
            kind,
            self._new_id(),
            stream,
            self._clock.wall_now(),
            answer=True,
            **arguments,
        )
        return await self._mailbox.ask(command)

    async def _whole(self, what: str, stream: str) -> str:
        """The full name of a stream. Also found by an id without its prefix, by the
        beginning of an id, or by the id of an inbound message, if exactly one stream
        fits."""
        stream = check_id(what, stream)
        if ":" in stream or "/" in stream:
            return stream
        self._home.check()
        return await named(self.store, stream)

    async def connected(
        self,
        channel: str,
        *,
        account: str = "default",
        by: str | None = None,
        why: str = "",
    ) -> None:
        """The account works again: its waiting entries go now, even during a back-off.
        `by` and `why`: the person who says so, for the log; None for the embedder
        itself."""
        said = {"by": check_optional_id("by", by), "why": check_why(why)}
        await self._gate(gates.connected, channel, account, **said)

    async def disconnected(self, channel: str, *, account: str = "default") -> None:
        """The account cannot send: hold it and spend no attempts until connected(). If
        that call never comes, one message tries after each `auth_probe_ms`."""
        await self._gate(gates.disconnected, channel, account)

    async def _gate(
        self, decision: Callable[..., None], channel: str, account: str, **said: Any
    ) -> None:
        names = {
            "channel": check_id("channel", channel),
            "account": check_id("account", account),
        } | said
        opens = decision is gates.connected
        await self._do(
            partial(decision, **names), "gate", "store", names | {"connected": opens}
        )

    async def bounced(self, entry: str, *, part: int = 0, detail: str = "") -> None:
        """The platform refused a part after it had accepted it."""
        arguments: dict[str, Any] = {
            "part": part,
            "detail": check_text("detail", detail),
        }
        check_ms("part", part)
        stream = await self._whole("entry", entry)
        decision = partial(operator.bounce, stream=stream, **arguments)
        await self._do(decision, "bounce", stream, arguments)

    async def declare_restored(
        self, *, by: str, why: str = "", wait: bool = True
    ) -> bool:
        """Say that the store is a restored copy. A store whose side files were copied,
        too, cannot notice that itself. Every open entry is parked or in doubt, every
        open turn is held. Call this before the worker of the copy starts; attempts and
        runs that are under way go on. `by` and `why`: for the log. True if it is done.
        False if the command waits in the inbox: the next worker does it first. `wait`:
        False posts the command and returns at once."""
        check_flag("wait", wait)
        said: dict[str, Any] = {"by": check_id("by", by)}
        said["why"] = check_why(why)
        if self._shards is not None:
            return await self._shards.declare_restored(**said, wait=wait)
        decision = partial(operator.declared, stream="store", **said)
        if not (wait or self.working):
            at, name = self._clock.wall_now(), self._new_id()
            command = inbox.act_command(
                inbox.DECLARE, name, "store", at, answer=False, **said
            )
            await self._mailbox.post(command)
            return False
        try:
            await self._do(decision, inbox.DECLARE, "store", said)
        except RequestedError:
            return False
        return True


def _check_count(payloads: Sequence[Payload | str]) -> None:
    if not payloads:
        raise InvalidInputError(field="payloads", problem="nothing to send")
    if len(payloads) > _MOST:
        problem = f"{len(payloads):,} payloads; at most {_MOST:,} in one call"
        raise InvalidInputError(field="payloads", problem=problem)


def _plan(busy: Busy | str, debounce_ms: int) -> busy_lane.Plan:
    if busy is Busy.QUEUE and type(debounce_ms) is int and not debounce_ms:
        return busy_lane.QUEUE  # nearly all
    word = check_enum("busy", busy, Busy)
    return busy_lane.Plan(word, check_span("debounce_ms", debounce_ms))


def _policy(said: BlindPolicy | str, desk: AttachedChannel | None) -> BlindPolicy:
    """The policy of a call. Raises InvalidInputError if the attached channel cannot
    follow it."""
    policy = check_enum("policy", said, BlindPolicy)
    marked = policy is BlindPolicy.RESEND_MARKED
    if marked and desk is not None and not desk.capabilities.marks:
        raise InvalidInputError(field="policy", problem=NO_MARKS)
    return policy


def _pack_all(
    ready: Sequence[Payload], salt: Callable[[], bytes]
) -> tuple[EncodedPayload, ...]:
    packed = tuple(map(pack, ready))
    for one in packed:
        one.make_seals(salt)
    return packed


async def _held(payload: Payload) -> Payload:
    """The payload with the contents of its files: from here on the queue owns a
    copy."""
    if not isinstance(payload, Payload):
        problem = f"expected Text, File or Native, got {type(payload).__name__}"
        raise InvalidInputError(field="payloads", problem=problem)
    if not by_path(payload):
        return payload
    # A thread of its own: a disk that hangs must not keep large bodies waiting.
    end = await apart(answered, held, payload)
    if end.error is not None:
        raise end.error
    ready: Payload = end.value
    return ready
