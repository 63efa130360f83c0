"""Many hosts that work at the same time on one store of several shards.

    kernel = ShardedKernel("postgresql://user@host/database?shards=8")

A shard is a whole store of its own. All turns and entries of one conversation lie in
one shard. Every host has a client of each shard, and an unchanged worker for each of
its seats. `specs/decisions/0032` has the reasons.
"""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from zlib import crc32

from attrs import frozen

from turnfold._decide.accepting import SourceCursor, Update
from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._log.ids import ENTRY, GATE, TURN, gate_of_place
from turnfold._runtime.calls import Calls, step_outside
from turnfold._runtime.channel import attached, close_channels
from turnfold._runtime.policies import OnUnknown, age_limit
from turnfold.api.acts import Act, Acted, Target
from turnfold.api.balance import Balance, wellness
from turnfold.api.callbacks import Handler
from turnfold.api.handle import AcceptedTurn
from turnfold.api.health import Wellness
from turnfold.api.hooks import Hooks
from turnfold.api.kernel import Kernel
from turnfold.api.life import Life
from turnfold.api.sent import Sent
from turnfold.api.shard_kernel import ShardKernel, shard_of_id, shard_of_place
from turnfold.api.sources import Taking
from turnfold.enums import Status, TurnOutcome
from turnfold.errors import InvalidInputError, NotOpenError, RuleBrokenError
from turnfold.inbound import Inbound, Unreadable
from turnfold.inspect import Inspect
from turnfold.inspect.lookup import resolve
from turnfold.inspect.shards import AllShards
from turnfold.messages import (
    Payload,
    Route,
    check_id,
    check_kind,
    check_timeout,
)
from turnfold.ports.channel import Rate, Receipt
from turnfold.ports.shards import Seats, Sharded
from turnfold.ports.store import Store, store_at
from turnfold.settings import Settings

_LOG = logging.getLogger("turnfold")
_P = ParamSpec("_P")
_T = TypeVar("_T")


def _by_id(
    method: Callable[Concatenate[Kernel, str, _P], Awaitable[_T]],
) -> Callable[Concatenate["ShardedKernel", str, _P], Coroutine[Any, Any, _T]]:
    """The same act, in the shard of its turn or entry."""

    async def routed(
        self: "ShardedKernel", stream: str, /, *args: _P.args, **named: _P.kwargs
    ) -> _T:
        name = await self.whole_id(stream)
        shard = shard_of_id(name, self.shards)
        return await self.ask(shard, lambda k: method(k, name, *args, **named))

    routed.__name__, routed.__doc__ = method.__name__, method.__doc__
    return routed


def _everywhere(
    method: Callable[Concatenate[Kernel, _P], Awaitable[_T]],
) -> Callable[Concatenate["ShardedKernel", _P], Coroutine[Any, Any, list[_T]]]:
    """The same act in every shard; a result from each."""

    async def routed(
        self: "ShardedKernel", /, *args: _P.args, **named: _P.kwargs
    ) -> list[_T]:
        shards = range(self.shards)
        asked = [self.ask(n, lambda k: method(k, *args, **named)) for n in shards]
        return list(await asyncio.gather(*asked))

    routed.__name__, routed.__doc__ = method.__name__, method.__doc__
    return routed


@frozen(kw_only=True)
class _Desk:
    """One call of `attach`."""

    channel: object
    on_unknown: OnUnknown | None
    rate: Rate | None
    max_entry_age_ms: int | None
    facts: ChannelFacts


class ShardedKernel(Life):
    """As a Kernel, over all shards of a store. `store`: an address or a Store. `work`:
    False for a host that only accepts, enqueues, aborts and reads. `settings`: those of
    each shard, also `concurrent_sends` and `concurrent_runs`."""

    def __init__(
        self,
        store: str | Path | Store,
        *,
        settings: Settings | None = None,
        work: bool = True,
    ) -> None:
        super().__init__()
        self.settings = settings or Settings()
        _check_settings(self.settings)
        self._address, self._work = store, work
        self._calls = Calls()
        self.hooks = Hooks(self._calls, self.settings.hook_deadline_ms)
        self._desks: dict[tuple[str, str], _Desk] = {}
        self._sources: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
        self._handler: tuple[Handler, bool] | None = None
        self._whole: Sharded | None = None
        self._clients: list[ShardKernel] = []
        self._balance: Balance | None = None

    # --- attaching channels and handlers ----------------------------------------------

    def attach(
        self,
        name: str,
        channel: object,
        *,
        account: str = "default",
        on_unknown: OnUnknown | None = None,
        rate: Rate | None = None,
        max_entry_age_ms: int | None = None,
    ) -> None:
        """As `Kernel.attach`. Each shard has its part of the rate. Before `open`."""
        self._check_closed()
        key = (check_id("name", name), check_id("account", account))
        if key in self._desks:
            raise InvalidInputError(field="name", problem=f"{key} is attached already")
        age = age_limit(max_entry_age_ms, self.settings)
        self._desks[key] = _Desk(
            channel=channel,
            on_unknown=on_unknown,
            rate=rate,
            max_entry_age_ms=max_entry_age_ms,
            facts=attached(name, account, channel, on_unknown).facts(age),
        )

    def source(
        self,
        name: str,
        stream: Callable[..., Any],
        *,
        account: str = "default",
        **how: Any,
    ) -> None:
        """As `Kernel.source`: it runs on the host that has the shard of its account. A
        message goes to its own shard first, then the cursor moves. Before `open`."""
        self._check_closed()
        key = (check_id("name", name), check_id("account", account))
        if key in self._sources:
            raise InvalidInputError(field="name", problem=f"there is a source {key}")
        Taking(**how)  # refuse a wrong argument now, not when a seat is taken
        self._sources[key] = (stream, how)

    def on_turn(
        self, handler: Handler | None = None, /, *, resume: bool = False
    ) -> Any:
        """As `Kernel.on_turn`. Before `open`."""
        self._check_closed()
        if handler is None:
            return partial(self.on_turn, resume=resume)
        if self._handler is not None:
            raise InvalidInputError(field="handler", problem="there is one already")
        self._handler = (handler, resume)
        return handler

    def _check_closed(self) -> None:
        if self._state not in ("not open", "closed"):
            problem = (
                "it is open already; attach, source and on_turn come before `open`"
            )
            raise InvalidInputError(field="kernel", problem=problem)

    def _made(self, shard: int, *, work: bool) -> ShardKernel:
        """A kernel of a shard, with the channels, sources and handler of this host."""
        assert self._whole is not None  # noqa: S101  it is open
        kernel = ShardKernel(self, shard, self._whole.shard(shard), work=work)
        for (name, account), desk in self._desks.items():
            rate = None if desk.rate is None else _part(desk.rate, self.shards)
            kernel.attach(
                name,
                desk.channel,
                account=account,
                on_unknown=desk.on_unknown,
                rate=rate,
                max_entry_age_ms=desk.max_entry_age_ms,
            )
        for (name, account), (stream, how) in self._sources.items():
            if work and shard == shard_of_place(name, account, "", self.shards):
                kernel.source(name, stream, account=account, **how)
        if self._handler is not None:
            handler, resume = self._handler
            kernel.on_turn(resume=resume)(handler)
        return kernel

    # --- open and close --------------------------------------------------------------

    async def _open(self) -> None:
        """Open all shards and begin to take a share of them."""
        self._state = "opening"
        try:
            self._whole = whole = _sharded(self._address)
            await self._store.open()
            await self._begin(whole.seats())
        except BaseException:
            await self._undo()
            raise

    async def _begin(self, share: Seats) -> None:
        work = partial(self._made, work=True)
        balance = Balance(share, self._store.address, self.shards, work)
        self._balance = balance
        for shard in range(self.shards):
            client = self._made(shard, work=False)
            await client.open()
            self._clients.append(client)
        if self._work:
            await balance.begin()
        self._state = "open"

    async def _undo(self) -> None:
        """Opening failed or was cancelled: release everything."""
        whole, self._whole, self._balance = self._whole, None, None
        clients, self._clients = self._clients, []
        self._state = "not open"
        self._home.leave()
        await _close_all(clients)
        if whole is not None:
            await cast("Store", whole).close()

    def _inside(self) -> bool:
        seats = self._balance.seats.values() if self._balance else ()
        kernels = (*seats, *self._clients)
        return self._calls.inside() or any(kernel.inside() for kernel in kernels)

    @property
    def _where(self) -> str:
        return self._store.address

    async def _close(self) -> None:
        """Hand every seat over, in order; then close the store."""
        step_outside()  # a handler may have begun this, and its kernel waits for it
        balance = self._balanced()
        self._state = "draining"
        try:
            await balance.stop()
            await _close_all(balance.seats.values())
            await _close_all(self._clients)
        finally:
            self._clients, self._state = [], "closed"
            try:
                await self._end(self._store, balance)
            finally:
                self._home.leave()

    async def _end(self, store: Store, balance: Balance) -> None:
        try:
            await balance.leave()
            desks = [
                attached(name, account, desk.channel, desk.on_unknown)
                for (name, account), desk in self._desks.items()
            ]
            await close_channels(self._calls, desks)
        finally:
            await store.close()

    @property
    def _store(self) -> Store:
        """The store of all shards. Raises NotOpenError."""
        if self._whole is None:
            raise NotOpenError(state=self._state)
        return cast("Store", self._whole)

    # --- finding the shard ------------------------------------------------------------

    @property
    def shards(self) -> int:
        """How many shards the store has. Raises NotOpenError."""
        if self._whole is None:
            raise NotOpenError(state=self._state)
        return self._whole.shards

    @property
    def seats(self) -> tuple[int, ...]:
        """The shards that this host works on now."""
        return tuple(self._balance.working()) if self._balance else ()

    @property
    def working(self) -> bool:
        """True while this host works on some shard."""
        return bool(self.seats)

    def shard_of_route(self, route: Route) -> int:
        """The shard of the entries for a route."""
        return shard_of_place(
            route.channel, route.account, route.conversation, self.shards
        )

    def shard_of_update(self, update: Update) -> int:
        """The shard of an update. An unreadable one without a conversation lies in the
        shard of its account."""
        conversation = getattr(update, "conversation", None) or ""
        return shard_of_place(update.channel, update.account, conversation, self.shards)

    async def whole_id(self, stream: str) -> str:
        """The name of a turn or an entry in full."""
        stream = check_id("stream", stream)
        if stream.startswith((TURN, ENTRY)):
            return stream
        return await resolve(self._all, stream)

    @property
    def _all(self) -> AllShards:
        self._check_open()
        return AllShards([client.store for client in self._clients])

    async def ask(self, shard: int, call: Callable[[Kernel], Awaitable[_T]]) -> _T:
        """Call the worker of a shard if this host has it, else go through the shard's
        inbox."""
        seat = self._balanced().seat(shard)
        if seat is not None:
            try:
                return await call(seat)
            except NotOpenError:
                pass  # the seat is handed over just now
        return await call(self._client(shard))

    def _client(self, shard: int) -> ShardKernel:
        self._check_open()
        return self._clients[shard]

    def _balanced(self) -> Balance:
        self._check_open()
        assert self._balance is not None  # noqa: S101  it is open
        return self._balance

    def _check_open(self) -> None:
        if self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)

    # --- commands --------------------------------------------------------------------

    async def accept(
        self, inbound: Update, *, cursor: SourceCursor | None = None, **plan: Any
    ) -> AcceptedTurn:
        """As `Kernel.accept`. A cursor moves after the message is durable, in its own
        commit."""
        check_kind("inbound", inbound, Inbound, Unreadable)
        shard = self.shard_of_update(inbound)
        done = await self.ask(shard, lambda k: k.accept(inbound, **plan))
        if cursor is not None:
            await self.advance(cursor)
        return done

    async def advance(self, cursor: SourceCursor) -> None:
        """As `Kernel.advance`."""
        check_kind("cursor", cursor, SourceCursor)
        shard = shard_of_place(cursor.channel, cursor.account, "", self.shards)
        await self.ask(shard, lambda k: k.advance(cursor))

    async def enqueue(self, route: Route, *payloads: Payload | str, **how: Any) -> Sent:
        """As `Kernel.enqueue`. A key is unique over all shards."""
        check_kind("route", route, Route)
        shard = self.shard_of_route(route)
        return await self.ask(shard, lambda k: k.enqueue(route, *payloads, **how))

    abort = _by_id(Kernel.abort)
    supersede = _by_id(Kernel.supersede)
    retry = _by_id(Kernel.retry)
    discard = _by_id(Kernel.discard)
    redrive = _by_id(Kernel.redrive)
    resolve = _by_id(Kernel.resolve)
    acknowledge = _by_id(Kernel.acknowledge)
    reschedule = _by_id(Kernel.reschedule)
    resubmit = _by_id(Kernel.resubmit)
    unhold = _by_id(Kernel.unhold)
    redact = _by_id(Kernel.redact)
    bounced = _by_id(Kernel.bounced)
    answer = _by_id(Kernel.answer)
    connected = _everywhere(Kernel.connected)
    disconnected = _everywhere(Kernel.disconnected)
    declare_restored = _everywhere(Kernel.declare_restored)
    taken_up = _everywhere(Kernel.taken_up)

    # --- waiting and reading ---------------------------------------------------------

    async def settled(
        self, stream: str, timeout_ms: int | None = None, *, key: str | None = None
    ) -> TurnOutcome | Status:
        """As `Kernel.settled`, from any host."""
        return await self._waited(
            stream, timeout_ms, lambda k: k.settled(stream, key=key)
        )

    async def receipt(
        self, entry: str, timeout_ms: int | None = None, *, key: str | None = None
    ) -> Receipt:
        """As `Kernel.receipt`, from any host."""
        return await self._waited(
            entry, timeout_ms, lambda k: k.receipt(entry, key=key)
        )

    async def _waited(
        self,
        stream: str,
        timeout_ms: int | None,
        call: Callable[[Kernel], Awaitable[_T]],
    ) -> _T:
        check_id("stream", stream)
        wait = check_timeout(timeout_ms)
        shard = shard_of_id(stream, self.shards)
        async with asyncio.timeout(None if wait is None else wait / 1000):
            return await self.ask(shard, call)

    @property
    def inspect(self) -> Inspect:
        """Typed queries over all shards."""
        return Inspect(
            self._all,
            settings=self.settings,
            desks={key: desk.facts for key, desk in self._desks.items()},
        )

    def health(self) -> Mapping[str, Any]:
        """`seats`: the shards of this host, each with the facts of its kernel.
        `moving`: shards that are taken or handed over just now. `hosts`: how many hosts
        share the shards. `waits_for`: a silent host whose end is not known. `failing`:
        the balance, or a shard that cannot be moved, with the error. `fences_lost`: if
        not 0, this process must end and start again. Raises NotOpenError."""
        host = self._client(0).store.facts()
        return {
            "shards": self.shards,
            "waits_for": host.get("waits_for"),
            **self._balanced().facts(),
        }

    def is_well(self) -> Wellness:
        """A judgement of `health`: true if the host is well, else with the reasons."""
        return wellness(self.health())

    async def act_on(
        self, act: Act | str, targets: Sequence[Target], **how: Any
    ) -> AsyncIterator[Acted]:
        """As `Kernel.act_on`, one target after the other."""
        for target in targets:
            shard = shard_of_id(check_id("targets", target.id), self.shards)
            kernel = self._balanced().seat(shard) or self._client(shard)
            async for acted in kernel.act_on(act, [target], **how):
                yield acted

    async def hold_back(self, place: str, **how: Any) -> str:
        """As `Kernel.hold_back`: an account in every shard, a conversation in its own."""
        (name, *_) = await self._of_place(place, lambda k: k.hold_back(place, **how))
        return name

    async def let_go(self, stream: str, **how: Any) -> list[str]:
        """As `Kernel.let_go`. An account may be held in some shards and not in others."""
        if "/" not in stream:
            name = await self.whole_id(stream)
            shard = shard_of_id(name, self.shards)
            return await self.ask(shard, lambda k: k.let_go(name, **how))
        refused: list[RuleBrokenError] = []

        async def let_go(kernel: Kernel) -> list[str]:
            try:
                return await kernel.let_go(stream, **how)
            except RuleBrokenError as exc:  # nothing holds it back in this shard
                refused.append(exc)
                return []

        named = await self._of_place(stream, let_go)
        if len(refused) == len(named):
            raise refused[0]
        return sorted({name for names in named for name in names})

    async def _of_place(
        self, place: str, call: Callable[[Kernel], Awaitable[_T]]
    ) -> list[_T]:
        parts = gate_of_place(place)[len(GATE) :].split("/")
        if len(parts) < 3:
            asked = [self.ask(shard, call) for shard in range(self.shards)]
            return list(await asyncio.gather(*asked))
        shard = crc32("/".join(parts[:3]).encode()) % self.shards
        return [await self.ask(shard, call)]


def _sharded(store: str | Path | Store) -> Sharded:
    found = store_at(store) if isinstance(store, str | Path) else store
    if isinstance(found, Sharded):
        return found
    problem = "it has no shards; open it with Kernel"
    raise InvalidInputError(field="store", problem=problem)


def _check_settings(settings: Settings) -> None:
    if settings.prune_after_ms is not None:
        problem = "prune_after_ms is for a store of one shard; leave it out"
        raise InvalidInputError(field="settings", problem=problem)


async def _close_all(kernels: Iterable[ShardKernel]) -> None:
    """Close each kernel, even if another one fails."""
    closing = [kernel.close() for kernel in kernels]
    for end in await asyncio.gather(*closing, return_exceptions=True):
        if isinstance(end, BaseException):
            _LOG.error("a shard was not closed in order: %s", end)


def _part(rate: Rate, shards: int) -> Rate:
    """The rate of one shard: all shards together send no more than `rate` allows."""
    account = None if rate.account is None else rate.account / shards
    return Rate(account=account, conversation=rate.conversation)
