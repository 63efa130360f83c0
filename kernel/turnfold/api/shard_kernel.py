"""The kernel of one shard on one host, and the shards of places and ids."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from attrs import evolve

from turnfold._decide.accepting import Acceptance, SourceCursor, Update
from turnfold._decide.outbox import Enqueued, Intent
from turnfold._runtime.worker import Worker
from turnfold.api.handle import AcceptedTurn
from turnfold.api.kernel import Kernel
from turnfold.api.sent import Sent, sent
from turnfold.errors import OtherShardError
from turnfold.inbound import Inbound
from turnfold.messages import Route, check_kind, escape
from turnfold.ports.store import Store

if TYPE_CHECKING:
    from turnfold.api.shards import ShardedKernel

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


class ShardKernel(Kernel):
    """The kernel of one shard on one host. Its channels belong to the host, its ids
    name its shard, and its handles go on working when the seat is handed over."""

    def __init__(
        self, host: "ShardedKernel", shard: int, store: Store, *, work: bool
    ) -> None:
        super().__init__(store, settings=host.settings, work=work)
        self._host, self._shard = host, shard
        for name in ("terminal", "parked", "bounced", "stalled", "held", "unread"):
            setattr(self.hooks, name, getattr(host.hooks, name))
        self.hooks.restored = host.hooks.restored

    @property
    def fences_lost(self) -> int:
        """1 if this seat was lost, also after it is closed."""
        return self._worker.fences_lost if self._worker else 0

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
        if cursor is None or self._host.shard_of_update(inbound) == self._shard:
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
        other = self._host.shard_of_route(route)
        if other != self._shard:
            place = f"{route.channel}/{route.account}/{route.conversation}"
            raise OtherShardError(route=place, shard=self._shard, other=other)

    def _accepted(self, done: Acceptance, key: str | None = None) -> AcceptedTurn:
        turn = super()._accepted(done, key)
        return evolve(turn, kernel=cast("Kernel", self._host))

    def sent(self, done: Enqueued, key: str | None = None) -> Sent:
        """An entry as its caller holds it."""
        return sent(cast("Kernel", self._host), done, key)

    async def _let_go(self, worker: Worker | None) -> None:
        self._keep_channels()
        await super()._let_go(worker)

    def _keep_channels(self) -> None:
        """Closing this kernel leaves the channels open: they belong to the host."""
        self._desks = {}
