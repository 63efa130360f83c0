"""The handles of a turn: one for the code that accepted it, one for its handler."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from turnfold._decide import later, rules, turns
from turnfold._decide.outbox import Enqueued
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log.ids import reply_entry
from turnfold._runtime.programs import Decision
from turnfold._runtime.stored_bodies import read_body
from turnfold._state.turn import Turn
from turnfold.api.live import Live
from turnfold.api.sent import Given, Said, Sent, destination, said
from turnfold.api.threads import BlockingHandle
from turnfold.enums import BlindPolicy, Format, Kind, TurnOutcome, TurnPhase
from turnfold.errors import (
    AlreadyRepliedError,
    InvalidInputError,
    NotAwaitedError,
    OwnedError,
    StaleRunError,
    StepInDoubtError,
)
from turnfold.inbound import Evidence, Inbound
from turnfold.logs import lines
from turnfold.messages import (
    Payload,
    Route,
    check_enum,
    check_flag,
    check_id,
    check_span,
    json_value,
    own_name,
)

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel
    from turnfold.api.store_kernel import StoreKernel

T = TypeVar("T")
_LOG = lines()


@frozen(kw_only=True)
class AcceptedTurn:
    """The result of `accept`: the message is durable. `new` is false for a message that
    was accepted before. `differs`: the earlier message had other bytes under the same
    key; this one is in the dead turn `kept`. `joined`: an older turn answers this
    message, too. `stopped`: the turns that it superseded. Only the worker knows
    `joined` and `stopped`."""

    turn_id: str
    status: TurnPhase
    new: bool | None  # None: only the owner of the store can know
    differs: bool = False
    kept: str | None = None
    joined: bool = False
    stopped: tuple[str, ...] = ()
    _kernel: "Kernel"
    _key: str | None = None  # of a message that went into the inbox

    async def settled(self, timeout_ms: int | None = None) -> TurnOutcome:
        """Wait until the turn is over. `timeout_ms`: how long, None for ever. Raises
        NotYetError, which is a TimeoutError."""
        end = await self._kernel.settled(self.turn_id, timeout_ms, key=self._key)
        return TurnOutcome(end)


class TurnHandle:
    """The turn as its handler gets it. Every call is durable when it returns. It raises
    StaleRunError once this run may no longer speak for the turn."""

    def __init__(
        self,
        kernel: "StoreKernel",
        turn: Turn,
        inbound: Inbound,
        joined: Sequence[Inbound],
    ) -> None:
        self._kernel = kernel
        self._turn = turn
        self._blocks = self._sends = 0
        self._mine: set[str] = set()  # new entries of this run
        self._made: list[tuple[str, CoroutineType[Any, Any, Any]]] = []
        self._steps: dict[str, asyncio.Future[Any]] = {}
        self.growing: list[Live] = []  # with previews that the end of the run ends
        self.inbound = inbound
        self.joined = tuple(joined)  # more messages that this turn answers

    @property
    def id(self) -> str:
        """The name of the turn, as every command takes it."""
        return self._turn.stream

    @property
    def kernel(self) -> "Kernel":
        """The kernel that runs this turn, for all shards of its store."""
        return self._kernel.whole

    @property
    def blocking(self) -> "BlockingHandle":
        """The same turn for a plain function, which runs in a thread: each call waits
        until it is durable, and returns the same as the async one."""
        return BlockingHandle(self, self._kernel.portal())

    @property
    def run(self) -> int:
        """1 for the first run; more after a failure or the death of a process."""
        return self._turn.run

    @property
    def accepted_at(self) -> int:
        """When the message was accepted, by this process or by one that put it in the
        inbox: ms UTC by the log, which is the wall time unless the clock of this machine
        was wrong then."""
        return self._turn.asked

    async def age_ms(self) -> int | None:
        """The age of the message: since it was sent, if it has a `sent_at`, else since
        it was accepted. None while the clock of this machine is not trusted."""

        def age(draft: UnitOfWork) -> int | None:
            turn, sure = self._turn, draft.sure_from
            return rules.age_of(turn, draft.now, draft.wall, sure)

        found: int | None = await self._kernel.look(age)
        return found

    @property
    def changes(self) -> str | None:
        """The id of the turn whose message this one edits; None for any other."""
        first = self._turn.first
        return first.changes if isinstance(first, t.Accepted) else None

    async def previous(self) -> Sequence[Said]:
        """The messages of earlier runs; for handlers registered with resume=True."""
        entries = await self._append(partial(turns.previous_entries, stream=self.id))
        return [said(e) for e in entries if e.stream not in self._mine]

    def reply(
        self,
        *payloads: Payload | str,
        reply_to: Given = ...,
        thread: Given = ...,
        route: Route | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Coroutine[Any, Any, Sent]:
        """The answer, once per turn: from here on the outbox owns it. The other
        arguments as in `send`."""
        place = self._place(reply_to, thread, route)
        how = (place, policy, ttl_ms)
        return self._note(
            "reply",
            self._say(turns.reply, Kind.FINAL, self.run, "final", payloads, *how),
        )

    def send(
        self,
        *payloads: Payload | str,
        key: str | None = None,
        reply_to: Given = ...,
        thread: Given = ...,
        route: Route | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Coroutine[Any, Any, Sent]:
        """A message of this turn, sent at once, and once over all its runs: the next
        run after a death gets the same Sent, with its first receipt.

        `key`: its name in the turn; the number of the call in its run by default. If
        nothing is replied, the last message is the answer. `reply_to`, `thread`: if
        they differ from those of the answer; None for none. `route`: another place
        altogether. `policy`: for an unknown outcome; the channel's policy by default.
        `ttl_ms`: how long the message may wait; the settings for its kind by default.

        Raises StaleRunError if the run may no longer speak for its turn."""
        self._sends += 1
        key = str(self._sends) if key is None else check_id("key", key)
        how = (self._place(reply_to, thread, route), policy, ttl_ms)
        return self._note(
            "send", self._say(turns.say, Kind.BLOCK, None, key, payloads, *how)
        )

    def live(
        self,
        *,
        format: Format | str = Format.PLAIN,  # noqa: A002  the name of Text's own argument
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Live:
        """The answer while it grows: `async with turn.live() as live: live.append(...)`.
        Leaving the block seals it, as `reply` does. `format`: of the text at the seal;
        previews are plain."""
        written = check_enum("format", format, Format)
        if policy is not None:
            policy = check_enum("policy", policy, BlindPolicy)
        if ttl_ms is not None:
            check_span("ttl_ms", ttl_ms, least=1)
        return Live(self._kernel, self, self._append, written, policy, ttl_ms)

    def block(
        self,
        *payloads: Payload | str,
        key: str | None = None,
        reply_to: Given = ...,
        thread: Given = ...,
        route: Route | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Coroutine[Any, Any, Sent]:
        """A piece of the answer, sent at once. With a key it is sent once over all
        runs, as by `send`; without a key the next run sends it anew. The other
        arguments as in `send`."""
        how = (self._place(reply_to, thread, route), policy, ttl_ms)
        return self._piece("block", Kind.BLOCK, key, payloads, *how)

    def tool(
        self,
        *payloads: Payload | str,
        key: str | None = None,
        reply_to: Given = ...,
        thread: Given = ...,
        route: Route | None = None,
        policy: BlindPolicy | None = None,
        ttl_ms: int | None = None,
    ) -> Coroutine[Any, Any, Sent]:
        """A message about a tool's work, sent at once. The arguments as in `block`."""
        how = (self._place(reply_to, thread, route), policy, ttl_ms)
        return self._piece("tool", Kind.TOOL, key, payloads, *how)

    def _piece(
        self,
        call: str,
        kind: Kind,
        key: str | None,
        payloads: Sequence[Payload | str],
        *how: Any,
    ) -> Coroutine[Any, Any, Sent]:
        self._blocks += 1
        run: int | None = None
        if key is None:
            name, run = str(self._blocks), self.run
        else:
            name = check_id("key", key)
        made = self._say(turns.say, kind, run, name, payloads, *how)
        return self._note(call, made)

    def _place(self, reply_to: Given, thread: Given, route: Route | None) -> Route:
        home = self.inbound.route
        if reply_to is ... and thread is ... and route is None:
            return home  # nearly all
        return destination(home, reply_to, thread, route)

    def _note(self, call: str, made: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Remember a call: one without `await` does nothing, and is reported at the end
        of the run."""
        assert isinstance(made, CoroutineType)  # noqa: S101  each is an async method
        self._made.append((call, made))
        return made

    async def check_awaited(self) -> None:
        """Raises NotAwaitedError for the first call that was not awaited."""
        if any(_unbegun(made) for _, made in self._made):
            await asyncio.sleep(0)  # its task may not have begun
        left = [(call, made) for call, made in self._made if _unbegun(made)]
        for _, made in left:
            made.close()
        if left:
            raise NotAwaitedError(turn=self.id, call=left[0][0])

    async def check_left(self) -> None:
        """Raises NotAwaitedError for a live reply whose block is still open, if its
        text would be lost: nothing else has answered."""
        if any(live.has_unsent_text for live in self.growing):
            turn: Turn = await self._kernel.look(lambda draft: draft.turn(self.id))
            if turn.phase is TurnPhase.RUNNING and turn.left_open is None:
                raise NotAwaitedError(turn=self.id, call="live")

    async def _say(
        self,
        decision: Callable[..., Enqueued],
        kind: Kind,
        run: int | None,
        key: str,
        payloads: Sequence[Payload | str],
        route: Route,
        policy: BlindPolicy | None,
        ttl_ms: int | None,
    ) -> Sent:
        """`run`: the run in which the key is unique; None for all runs."""
        intent = await self._kernel.intend(
            entry=reply_entry(self.id, kind, run, key),
            route=route,
            kind=kind,
            payloads=payloads,
            turn=self.id,
            run=run,
            key=key,
            policy=policy,
            ttl_ms=ttl_ms,
        )
        done: Enqueued = await self._append(
            partial(decision, stream=self.id, run=self.run, intent=intent)
        )
        if done.new:
            self._mine.add(done.entry_id)
        return self._kernel.sent(done)

    async def _append(self, decision: Decision) -> Any:
        try:
            return await self._kernel.append(decision)
        except OwnedError as exc:
            late = StaleRunError(turn=self.id, run=self.run, why=str(exc))
            _LOG.warning("%s", late)
            raise late from exc
        except (StaleRunError, AlreadyRepliedError) as exc:
            _LOG.warning("%s", exc)  # a handler may swallow it
            raise

    def later(self, within_ms: int) -> Coroutine[Any, Any, None]:
        """End the run without an answer. The answer comes by `kernel.answer(turn.id,
        ...)`, from any process, at most `within_ms` from now; else the turn fails and
        the reader gets a notice. From this call on the turn does not hold its lane, and
        it is never run again, even if the handler raises later."""
        check_span("within_ms", within_ms, least=1)
        leave = partial(later.leave_open, stream=self.id, run=self.run)
        return self._note("later", self._append(partial(leave, within_ms=within_ms)))

    def silent(self, reason: str) -> Coroutine[Any, Any, None]:
        """End the turn without a reply. `reason`: a short code, such as
        "not_addressed"."""
        reason = check_id("reason", reason)
        silence = partial(turns.silence, stream=self.id, run=self.run, reason=reason)
        return self._note("silent", self._append(silence))

    async def step(
        self, key: str, effect: Callable[[], Any], *, repeat: bool = False
    ) -> Any:
        """Do a side effect once over all runs of the turn, and remember its result (any
        canonical JSON value). `effect`: async, or a plain function that takes no time.
        Raises StepInDoubtError if an earlier run began the step and died, unless
        `repeat`."""
        key = check_id("key", key)
        check_flag("repeat", repeat)
        if not callable(effect):
            problem = "expected a function without arguments"
            raise InvalidInputError(field="effect", problem=problem)
        first = self._steps.get(key)
        if first is not None:  # two calls at once share one effect and one result
            return await asyncio.shield(first)
        done = self._steps[key] = asyncio.get_running_loop().create_future()
        try:
            result = await self._step(key, effect, repeat=repeat)
        except BaseException as exc:
            shared = isinstance(exc, Exception) and not isinstance(exc, StopIteration)
            doubt = StepInDoubtError(turn=self.id, key=key)
            done.set_exception(exc if shared else doubt)
            done.exception()  # mark the error as retrieved
            del self._steps[key]
            raise
        del self._steps[key]
        done.set_result(result)
        return result

    async def _step(self, key: str, effect: Callable[[], Any], *, repeat: bool) -> Any:
        begin = partial(turns.begin_step, stream=self.id, run=self.run, key=key)
        state: turns.StepState = await self._append(begin)
        if state.done and state.result is not None:
            return canonical.loads(
                await read_body(self._kernel.store, self.id, state.result)
            )
        if state.begun_before and not repeat:
            raise StepInDoubtError(turn=self.id, key=key)
        result = effect()
        if inspect.isawaitable(result):  # a plain function has done it by now
            result = await result
        json_value(result, "result")
        end = partial(
            turns.end_step, stream=self.id, run=self.run, key=key, result=result
        )
        await self._append(end)
        return result


def _unbegun(made: "CoroutineType[Any, Any, Any]") -> bool:
    return inspect.getcoroutinestate(made) == inspect.CORO_CREATED


def inbound_of(turn: Turn, raw: bytes) -> Inbound:
    """The accepted message of a turn."""
    first = turn.first
    return Inbound(
        turn.channel,
        account=turn.account,
        conversation=turn.conversation,
        message_id=turn.message_id or None,
        event=turn.event,
        revision=first.revision,
        key=first.key,
        thread=turn.thread,
        sender=first.sender,
        sent_at=first.sent_at,
        locale=first.locale,
        body=Evidence(first.form, raw),
        control=turn.control,
        lane=own_name(turn.lane),
    )
