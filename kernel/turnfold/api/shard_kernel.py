"""The kernel of one shard on one host, and the shards of places and ids."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from attrs import evolve

from turnfold._decide.accepting import SourceCursor, Update
from turnfold._decide.outbox import Intent
from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._log.ids import GATE, account_scope
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.committer import Commit
from turnfold._runtime.programs import Decision
from turnfold._runtime.worker import Worker
from turnfold._state.entry import Entry
from turnfold._state.fold import Gate
from turnfold._state.turn import Turn
from turnfold.api.acts import Act, Acted
from turnfold.api.deliveries import Delivery
from turnfold.api.handle import AcceptedTurn
from turnfold.api.importing import Left
from turnfold.api.sources import Taking
from turnfold.api.spread import Outfit
from turnfold.api.store_kernel import StoreKernel
from turnfold.enums import FailureClass
from turnfold.errors import OtherShardError
from turnfold.inbound import Inbound
from turnfold.messages import Route, check_kind, escape
from turnfold.ports.channel import Rate
from turnfold.ports.shards import Limit, Seating
from turnfold.ports.store import Store, Summary

if TYPE_CHECKING:
    from turnfold.api.kernel import Kernel
    from turnfold.api.shards import Shards

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_ID = 26  # characters of an id; the last two name the shard


def shard_of_place(channel: str, account: str, conversation: str, shards: int) -> int:
    """The shard of a conversation. It never changes.

    >>> [shard_of_place("telegram", "default", name, 8) for name in ("1", "2", "3")]
    [7, 5, 3]
    """
    place = "/".join(map(escape, (channel, account, conversation)))
    return crc32(place.encode()) % shards


def shard_of_id(stream: str, shards: int) -> int:
    """The shard of a turn or an entry: its id ends with the number of its shard."""
    base = stream.partition(":")[2][:_ID]
    try:
        return int(base[-2:], 32) % shards
    except ValueError:
        return 0  # no id of ours: no shard has it


def part_of(rate: Rate, shards: int) -> Rate:
    """The rate of one shard: all shards together send no more than `rate` allows."""
    account = None if rate.account is None else rate.account / shards
    return Rate(account=account, conversation=rate.conversation)


def _limits_account(gate: Gate) -> bool:
    limited = gate.closed and gate.reason == FailureClass.RATE_LIMITED
    return limited and gate.stream.count("/") == 1


class ShardKernel(StoreKernel):
    """The kernel of one shard on one host. Its channels belong to the host, its ids
    name its shard, and its handles go on working when the seat is handed over."""

    _after_loss = "its host gives the seat back"

    def __init__(
        self, host: "Kernel", shards: "Shards", shard: int, store: Store, *, work: bool
    ) -> None:
        super().__init__(store, settings=host.settings, work=work)
        self._host, self._all, self._shard = host, shards, shard
        self._heeded: dict[str, int] = {}  # gates of other hosts, until when
        for name in ("terminal", "parked", "bounced", "stalled", "held", "unread"):
            setattr(self.hooks, name, getattr(host.hooks, name))
        self.hooks.restored = host.hooks.restored

    @property
    def whole(self) -> "Kernel":
        return self._host

    # --- channels, sources and handler of its host ---

    def equip(self, outfit: Outfit) -> None:
        """Attach the host's channels and handler, before this kernel is opened. A
        worker also gets the sources of its shard's accounts."""
        self._entropy = outfit.entropy
        for key, desk in outfit.desks.items():
            rate = outfit.rates.get(f"{GATE}{account_scope(*key)}")
            self.equip_desk(desk, outfit.views[key], rate)
        handler = outfit.handlers.handler
        if handler is not None:
            self._register(handler, resume=outfit.handlers.resumes)
        if self._work:
            outfit.sources.hand_on(self._sources, self._has_account)

    def _has_account(self, channel: str, account: str) -> bool:
        return shard_of_place(channel, account, "", self._all.count) == self._shard

    def equip_desk(
        self, desk: AttachedChannel, facts: ChannelFacts, rate: Rate | None
    ) -> None:
        """Attach a channel of the host. Each shard counts its own calls of it."""
        own = AttachedChannel(desk.name, desk.account, desk.channel, desk.on_unknown)
        self._take_desk(
            own, facts, None if rate is None else part_of(rate, self._all.count)
        )

    def equip_source(
        self, name: str, account: str, stream: Callable[..., Any], taking: Taking
    ) -> None:
        """Add a source of the host."""
        self._sources.add(name, account, stream, taking)

    # --- calls of its host ---

    async def do(
        self, decision: Decision, kind: str, stream: str, said: dict[str, Any]
    ) -> Any:
        """Decide a command here, or post it to the worker of this shard."""
        return await self._do(decision, kind, stream, said)

    async def closed(
        self, stream: str, key: str | None, *, parked: bool
    ) -> Entry | Turn | Summary:
        """Wait for the end of a turn or an entry."""
        return await self._closed(stream, key, parked=parked)

    async def rests(self) -> bool:
        """Does every open entry and turn wait for a person?"""
        return await self._rests()

    async def batch(
        self, act: Act, batch: Sequence[tuple[str, int | None]], said: dict[str, Any]
    ) -> list[Acted]:
        """Carry out one act on several streams."""
        return await self._batch(act, batch, said)

    async def prune_these(self, names: list[list[Any]], wish: dict[str, Any]) -> Any:
        """Prune the named streams that may go."""
        return await self._prune(names, wish)

    async def bring(self, batch: Sequence[Delivery]) -> list[Left]:
        """Store deliveries of another gateway's queue."""
        return await self._bring(batch)

    async def erased(self) -> bool:
        """Is every file of this shard free of redacted bytes?"""
        return await self._erased()

    def unanswered(self) -> dict[str, Any]:
        """The commands of this process to the worker of this shard, for health."""
        return self._mailbox.unanswered.facts()

    @property
    def fences_lost(self) -> int:
        """1 if this seat was lost, also after it is closed."""
        return self._worker.fences_lost if self._worker else 0

    def _saw(self, commit: Commit) -> None:
        """A limit of an account is told to the other shards of this host."""
        super()._saw(commit)
        for state in commit.moved.values():
            if isinstance(state, Gate) and _limits_account(state):
                wait = (state.until or 0) - self._clock.now()
                self._all.limited(self, state.stream, wait)

    def wait_out(self, gate: str, wait_ms: int) -> None:
        """Send nothing behind this gate for so long: another shard was refused."""
        if self._driver is not None and self.working:
            self._driver.flow.wait_out(gate, wait_ms)

    def _polls(self) -> bool:
        """The look of the host at all shards finds what a lost ring has left: no shard
        asks by itself, except where no look is made, or after a commit of unknown
        outcome."""
        return not self._all.balance.looks or self._open_driver().journal.lost

    def stir(self, seating: Seating) -> None:
        """Read the inbox and the end of the log, if the look of the host found more in
        the store than this kernel knows. While a commit is under way, the look may have
        seen it before its answer came; what it lacks is then found by the next one."""
        driver = self._open_driver()
        rests = driver.group_commit.waiting_ms() is None
        more = rests and seating.ends.get(self._shard, 0) > driver.book.position
        if (more or self._shard in seating.waiting) and self._worker is not None:
            self._worker.wake()

    def heed(self, limit: Limit) -> None:
        """Wait out a limit that another host has met, once. Its clock may be ahead: the
        wait is no longer than the platform said."""
        now = self._clock.now()
        wait = min(limit.until - now, limit.until - limit.since)
        if wait > 0 and self._heeded.get(limit.gate, 0) < limit.until:
            self._heeded[limit.gate] = limit.until
            self.wait_out(limit.gate, wait)

    def inside(self) -> bool:
        """Does the call come from foreign code of this shard?"""
        return self._inside()

    def _new_id(self) -> str:
        return self._placed(super()._new_id())

    def _placed(self, new_id: str) -> str:
        shard = self._shard
        return f"{new_id[:-2]}{_DIGITS[shard >> 5]}{_DIGITS[shard & 31]}"

    async def accept(
        self, inbound: Update, *, cursor: SourceCursor | None = None, **plan: Any
    ) -> AcceptedTurn:
        """Accept for this shard, or for another shard if a source of this one read the
        message."""
        if cursor is None or self._all.of_update(inbound) == self._shard:
            return await super().accept(inbound, cursor=cursor, **plan)
        return await self._of_source(inbound, cursor, plan)

    async def _of_source(
        self, inbound: Update, cursor: SourceCursor, plan: Mapping[str, Any]
    ) -> AcceptedTurn:
        """The message goes to its own shard first, then the cursor moves. If a crash
        comes between, the key of the message finds the repeat."""
        if isinstance(inbound, Inbound) and inbound.dedupe_key is None:
            came = f"{cursor.channel}/{cursor.account}/{cursor.name}/{cursor.value}"
            inbound = evolve(inbound, key=f"source/{came}")
        done = await self._host.accept(inbound, **plan)
        await self.advance(cursor)
        return done

    async def intend(
        self, *, route: Route, turn: str | None = None, **of: Any
    ) -> Intent:
        """As in Kernel. Raises OtherShardError for an answer to another shard."""
        if turn is not None:
            self._check_stays(route)
        return await super().intend(route=route, turn=turn, **of)

    def _check_stays(self, route: Route) -> None:
        check_kind("route", route, Route)
        other = self._all.of_route(route)
        if other != self._shard:
            place = f"{route.channel}/{route.account}/{route.conversation}"
            raise OtherShardError(route=place, shard=self._shard, other=other)

    async def _let_go(self, worker: Worker | None) -> None:
        self._keep_channels()
        await super()._let_go(worker)

    def _keep_channels(self) -> None:
        """Closing this kernel leaves the channels open: they belong to the host."""
        self._desks = {}
