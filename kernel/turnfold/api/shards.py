"""The shards of a store on one host.

    kernel = Kernel("postgresql://user@host/database?shards=8")

A shard is a whole store of its own. All turns and entries of one conversation lie in
one shard. A host has a client of each shard, and an unchanged worker for each of its
seats. Its kernel passes every call on to one of them. Decisions 0032 and 0042 have the
reasons.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

from attrs import evolve

from turnfold._decide.accepting import SourceCursor, Update
from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._log.ids import GATE, account_scope, gate_of_place
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.programs import Decision
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.api.acts import Act, Acted
from turnfold.api.archiving import Archives, Tell
from turnfold.api.balance import Balance, wellness
from turnfold.api.callbacks import Handler
from turnfold.api.deliveries import Delivery
from turnfold.api.handle import AcceptedTurn
from turnfold.api.health import Wellness
from turnfold.api.importing import Left
from turnfold.api.keeping import Pruning, summed
from turnfold.api.sent import Sent
from turnfold.api.shard_kernel import ShardKernel, shard_of_id, shard_of_place
from turnfold.api.sources import Taking
from turnfold.api.spread import Outfit
from turnfold.api.unanswered import joined
from turnfold.errors import NotOpenError, OwnedError, RuleBrokenError
from turnfold.inbound import Inbound, Unreadable
from turnfold.logs import lines
from turnfold.messages import Payload, Route, check_kind
from turnfold.ports.channel import Rate
from turnfold.ports.shards import Sharded
from turnfold.ports.store import Store, Summary

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel

_LOG = lines()
_T = TypeVar("_T")
_Some = TypeVar("_Some")


class Shards:
    """`host`: the kernel that passes its calls on. `whole`: its open store. `outfit`:
    its channels, sources and handler. `work`: False for a client of all shards."""

    def __init__(
        self, host: "Kernel", whole: Sharded, outfit: Outfit, *, work: bool
    ) -> None:
        self._host, self._whole, self._outfit = host, whole, outfit
        self._work, self.count = work, whole.shards
        self._clients: list[ShardKernel] = []
        made = partial(self._made, work=True)
        self.balance = Balance(
            whole.seats(), whole.address, self.count, made, self._gates
        )

    def _gates(self) -> Sequence[str]:
        return [f"{GATE}{account_scope(*key)}" for key in self._outfit.desks]

    def _made(self, shard: int, *, work: bool) -> ShardKernel:
        """A kernel of a shard, with the channels, sources and handler of the host."""
        store = self._whole.shard(shard)
        part = ShardKernel(self._host, self, shard, store, work=work)
        part.equip(self._outfit)
        return part

    # --- open and close --------------------------------------------------------------

    async def open(self) -> Sequence[Store]:
        """Open a client of each shard, and begin to take a share of the work. Returns
        the shards."""
        for shard in range(self.count):
            client = self._made(shard, work=False)
            self._clients.append(client)
            await client.open()
        if self._work:
            await self.balance.begin()
        return [client.store for client in self._clients]

    async def close(self) -> None:
        """Hand every seat over, in order."""
        await self.balance.stop()
        await _close_all(self.balance.seats.values())
        await _close_all(self._clients)
        await self.balance.leave()

    async def drain(self, wait_ms: int) -> int:
        """Take and hand over no more seats; drain the seats of this host. Raises
        NotYetError."""
        await self.balance.stop()
        seats = self.balance.seats.values()
        drained = [seat.drain(wait_ms) for seat in seats]
        for end in await asyncio.gather(*drained, return_exceptions=True):
            if end is not None:
                raise end
        return 0

    def inside(self) -> bool:
        """Does the call come from foreign code of any shard?"""
        return any(part.inside() for part in self._parts())

    def _parts(self) -> Sequence[ShardKernel]:
        """All kernels of shards on this host, including those that are being opened."""
        balance = self.balance
        seats = balance.seats.values(), balance.coming.values()
        return [*seats[0], *seats[1], *self._clients]

    # --- attaching while it is open --------------------------------------------------

    def take_desk(
        self, desk: AttachedChannel, facts: ChannelFacts, rate: Rate | None
    ) -> None:
        """Attach a channel to all shards."""
        for part in self._parts():
            part.equip_desk(desk, facts, rate)

    def register(self, handler: Handler, *, resume: bool) -> None:
        """Register the handler for all shards."""
        for part in self._parts():
            part.on_turn(resume=resume)(handler)

    def source(
        self, name: str, account: str, stream: Callable[..., Any], taking: Taking
    ) -> None:
        """Add a source to the worker of its shard, if this host has it."""
        shard = self._of_account(name, account)
        seat = self.balance.seats.get(shard) or self.balance.coming.get(shard)
        if seat is not None:
            seat.equip_source(name, account, stream, taking)

    def limited(self, by: ShardKernel, gate: str, wait_ms: int) -> None:
        """The platform refused an account in one shard: the other seats of this host
        wait, too, instead of being refused once each."""
        for seat in self.balance.seats.values():
            if seat is not by:
                seat.wait_out(gate, wait_ms)

    # --- finding the shard -----------------------------------------------------------

    @property
    def seats(self) -> tuple[int, ...]:
        """The shards that this host works on now."""
        return tuple(self.balance.working())

    def of_route(self, route: Route) -> int:
        """The shard of the entries for a route."""
        return shard_of_place(
            route.channel, route.account, route.conversation, self.count
        )

    def of_update(self, update: Update) -> int:
        """The shard of an update. An unreadable one without a conversation lies in the
        shard of its account."""
        place = update.channel, update.account, update.conversation or ""
        return shard_of_place(*place, self.count)

    def _of_account(self, channel: str, account: str) -> int:
        return shard_of_place(channel, account, "", self.count)

    def _of_first(self, named: Sequence[Any]) -> int:
        """The shard of a row that begins with the name of a stream."""
        return shard_of_id(named[0], self.count)

    def _of_name(self, place: str) -> Sequence[int]:
        """The shards of a place, a lane or a gate by its name; an account is in all
        shards."""
        parts = place.split("/")
        if len(parts) < 3:
            return range(self.count)
        return [crc32("/".join(parts[:3]).encode()) % self.count]

    def _told(self, kind: str, stream: str, said: Mapping[str, Any]) -> Sequence[int]:
        """The shards of a command."""
        match kind:
            case "gate":
                return range(self.count)
            case "advance":
                return [self._of_account(said["channel"], said["account"])]
            case "abort_lane":
                return self._of_name(stream)
            case "hold_back" | "let_go" if "/" in stream or kind == "hold_back":
                return self._of_name(gate_of_place(stream)[len(GATE) :])
            case _:
                return [shard_of_id(stream, self.count)]

    # --- asking ----------------------------------------------------------------------

    async def ask(self, shard: int, call: Callable[[ShardKernel], Awaitable[_T]]) -> _T:
        """Call the worker of a shard if this host has it, else go through the shard's
        inbox."""
        seat = self.balance.seat(shard)
        if seat is not None:
            try:
                return await call(seat)
            except NotOpenError:
                pass  # the seat is handed over just now
        if shard >= len(self._clients):
            raise NotOpenError(state="opening")
        return await call(self._clients[shard])

    async def _each(
        self, shards: Iterable[int], call: Callable[[ShardKernel], Awaitable[_T]]
    ) -> list[_T]:
        return list(await asyncio.gather(*[self.ask(n, call) for n in shards]))

    async def _apart(
        self,
        items: Iterable[_Some],
        lies_in: Callable[[_Some], int],
        call: Callable[[ShardKernel, list[_Some]], Awaitable[_T]],
    ) -> dict[int, _T]:
        """Call each shard with its own part of the items."""
        of: dict[int, list[_Some]] = {}
        for item in items:
            of.setdefault(lies_in(item), []).append(item)
        asked = [
            self.ask(shard, partial(_called, call, mine)) for shard, mine in of.items()
        ]
        return dict(zip(of, await asyncio.gather(*asked), strict=True))

    # --- commands --------------------------------------------------------------------

    async def do(
        self, decision: Decision, kind: str, stream: str, said: dict[str, Any]
    ) -> Any:
        """Decide a command in its shard, or in all of them."""
        shards = self._told(kind, stream, said)
        call = partial(ShardKernel.do, decision=decision, kind=kind, stream=stream)
        if kind == "let_go":
            return await self._let_go(shards, partial(call, said=said))
        answers = await self._each(shards, partial(call, said=said))
        return answers[0]

    async def _let_go(
        self, shards: Iterable[int], call: Callable[[ShardKernel], Awaitable[list[str]]]
    ) -> list[str]:
        """Let an account go: it may be held in some shards and not in others."""
        refused: list[RuleBrokenError] = []

        async def let_go(part: ShardKernel) -> list[str]:
            try:
                return await call(part)
            except RuleBrokenError as exc:  # nothing holds it back in this shard
                refused.append(exc)
                return []

        named = await self._each(shards, let_go)
        if len(refused) == len(named):
            raise refused[0]
        return sorted({name for names in named for name in names})

    async def accept(
        self, inbound: Update, cursor: SourceCursor | None, plans: Mapping[str, Any]
    ) -> AcceptedTurn:
        """A cursor moves after the message is durable, in a commit of its own."""
        check_kind("inbound", inbound, Inbound, Unreadable)
        if cursor is not None:
            check_kind("cursor", cursor, SourceCursor)
        shard = self.of_update(inbound)
        done = await self.ask(shard, lambda part: part.accept(inbound, **plans))
        if cursor is not None:
            await self._host.advance(cursor)
        return done

    async def enqueue(
        self, route: Route, payloads: Sequence[Payload | str], how: Mapping[str, Any]
    ) -> Sent:
        """A key is unique over all shards."""
        check_kind("route", route, Route)
        return await self.ask(
            self.of_route(route), lambda part: part.enqueue(route, *payloads, **how)
        )

    async def answer(
        self, turn: str, payloads: Sequence[Payload | str], how: Mapping[str, Any]
    ) -> Sent:
        """The late answer to a turn."""
        shard = shard_of_id(turn, self.count)
        return await self.ask(shard, lambda part: part.answer(turn, *payloads, **how))

    async def batch(
        self, act: Act, batch: Sequence[tuple[str, int | None]], said: dict[str, Any]
    ) -> list[Acted]:
        """Each shard handles its targets in one batch; the results are in the order of
        all targets."""
        found = await self._apart(
            batch, self._of_first, lambda part, mine: part.batch(act, mine, said)
        )
        results = {shard: iter(acted) for shard, acted in found.items()}
        return [next(results[self._of_first(target)]) for target in batch]

    async def declare_restored(self, **said: Any) -> bool:
        """True if every shard has done it."""
        shards = range(self.count)
        done = await self._each(shards, lambda part: part.declare_restored(**said))
        return all(done)

    async def taken_up(self) -> bool:
        """True if every inbox has logged the commands that it held at the call."""
        return all(await self._each(range(self.count), ShardKernel.taken_up))

    # --- waiting ---------------------------------------------------------------------

    async def closed(
        self, stream: str, key: str | None, *, parked: bool
    ) -> Entry | Turn | Summary:
        """Wait for the end of a turn or an entry, from any host; the wait goes on when
        the shard is handed over."""
        shard = shard_of_id(stream, self.count)
        return await self.ask(
            shard, lambda part: part.closed(stream, key, parked=parked)
        )

    async def rests(self) -> bool:
        """Is every shard at rest? Raises OwnedError while other hosts have seats."""
        seats = [self.balance.seat(shard) for shard in range(self.count)]
        here = [seat for seat in seats if seat is not None]
        if len(here) == self.count:
            return all([await seat.rests() for seat in here])
        if not self._work or self.balance.others:
            owner = "hosts that have shards of their own"
            raise OwnedError(path=self._whole.address, owner=owner)
        return False  # this host is about to take all seats

    # --- pruning, archiving and importing --------------------------------------------

    async def prune(
        self, names: Sequence[list[Any]], wish: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Each shard prunes its own streams. Returns the sum."""
        done = await self._apart(
            names, self._of_first, lambda part, mine: part.prune_these(mine, dict(wish))
        )
        whole = Pruning()
        for more in done.values():
            whole = summed(whole, more)
        return {"streams": whole.streams, "events": whole.events, "left": whole.left}

    async def archive(
        self, folder: str | Path, how: Mapping[str, Any], tell: Tell
    ) -> Archives:
        """One shard after the other: a file holds records of one chain."""
        done = Archives()
        for shard in range(self.count):
            told = partial(_tell_both, tell, done)
            call = partial(ShardKernel.archive, folder=folder, tell=told, **how)
            done = _both(done, await self.ask(shard, call))
        return done

    async def bring(self, batch: Sequence[Delivery]) -> list[Left]:
        """Store deliveries of another gateway's queue, each in its shard."""
        left = await self._apart(
            batch,
            lambda one: self.of_route(one.route),
            lambda part, mine: part.bring(mine),
        )
        return [one for some in left.values() for one in some]

    async def erased(self, streams: Iterable[str]) -> bool:
        """True if no file of these shards holds the erased bytes. Only a shard's worker
        knows."""
        shards = {shard_of_id(stream, self.count) for stream in streams}
        seats = [self.balance.seat(shard) for shard in sorted(shards)]
        return all([seat is not None and await seat.erased() for seat in seats])

    # --- health ----------------------------------------------------------------------

    def facts(self) -> Mapping[str, Any]:
        """For `Kernel.health`. `seats`: the shards of this host, each with the facts of
        its kernel. `moving`: shards that are taken or handed over just now. `hosts`:
        how many hosts share the shards. `waits_for`: a silent host whose end is not
        known. `statement_waits_ms`: for how long a statement has had no answer, and
        `primary`: the server, of several hosts in the address. `strangers`: workers that
        have attached other accounts. `failing`: the balance, or a shard that cannot be moved, with the error.
        `fences_lost`: how many seats were lost. `stood_down`: what becomes of that; None
        if this host has come back since."""
        host = self._clients[0].store.facts()
        return {
            "shards": self.count,
            "waits_for": host.get("waits_for"),
            "statement_waits_ms": host.get("statement_waits_ms"),
            "primary": host.get("primary"),
            "strangers": host.get("strangers"),
            "unanswered": joined([part.unanswered() for part in self._clients]),
            **self.balance.facts(),
        }

    def judge(self, facts: Mapping[str, Any]) -> Wellness:
        """True if the host and all its seats are well."""
        return wellness(facts)


def _called(
    call: Callable[[ShardKernel, list[_Some]], Awaitable[_T]],
    mine: list[_Some],
    part: ShardKernel,
) -> Awaitable[_T]:
    return call(part, mine)


def _tell_both(tell: Tell, before: Archives, now: Archives) -> None:
    tell(_both(before, now))


def _both(before: Archives, more: Archives) -> Archives:
    pruned = {
        "streams": more.pruned.streams,
        "events": more.pruned.events,
        "left": more.pruned.left,
    }
    return evolve(
        more,
        files=(*before.files, *more.files),
        groups=before.groups + more.groups,
        again=before.again + more.again,
        pruned=summed(before.pruned, pruned),
    )


async def _close_all(kernels: Iterable[ShardKernel]) -> None:
    """Close each kernel, even if another one fails."""
    closing = [kernel.close() for kernel in kernels]
    for end in await asyncio.gather(*closing, return_exceptions=True):
        if isinstance(end, BaseException):
            _LOG.error("a shard was not closed in order: %s", end)
