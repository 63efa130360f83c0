"""The Kernel, which a gateway embeds. Async; `turnfold.api.blocking` is the same in a
thread.

Making one does no I/O and changes nothing outside it. Two kernels in one process share
nothing but the rule that one store has one worker.
"""

from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._runtime.calls import step_outside
from turnfold._runtime.channel import AttachedChannel, close_channels
from turnfold.api.callbacks import Handler
from turnfold.api.shards import Shards
from turnfold.api.spread import Outfit
from turnfold.api.store_kernel import StoreKernel
from turnfold.api.telling import say_closed
from turnfold.errors import InvalidInputError
from turnfold.inspect.shards import AllShards
from turnfold.ports.channel import Rate
from turnfold.ports.shards import Sharded
from turnfold.ports.store import Store


class Kernel(StoreKernel):
    """`store`: an address or a Store, of one shard or of many. `work=False`: never the
    worker, only a client that accepts, enqueues, aborts and reads. `clock`: both times,
    timers and jitter, of a store of one shard; so is `probe`.
    `entropy`: the source of ids and salts, which a test may want to repeat.
    `import_from`: the queue of another gateway, taken in at open (specs/import.md).

    On a store of several shards it makes a kernel for each, and hands every call on
    (decision 0042)."""

    _shards: Shards | None = None

    @property
    def whole(self) -> "Kernel":
        return self

    async def _assemble(self, store: Store) -> None:
        if not isinstance(store, Sharded) or store.shards == 1:
            await super()._assemble(store)
            return
        self._shards = shards = self._make_shards(store)
        self._store = AllShards(await shards.open(), store)
        self._state = "open"

    def _make_shards(self, whole: Sharded) -> Shards:
        if self._own_time or self._probe is not None:
            problem = f"each of the {whole.shards} shards has its own; leave it out"
            raise InvalidInputError(field="clock, probe", problem=problem)
        outfit = Outfit(
            desks=self._desks,
            views=self._views,
            rates=self._rates,
            handlers=self._handlers,
            sources=self._sources,
            entropy=self._entropy,
        )
        return Shards(self, whole, outfit, work=self._work)

    async def _undo(self, store: Store | None) -> None:
        shards, self._shards = self._shards, None
        try:
            if shards is not None:
                await shards.close()
        finally:
            await super()._undo(store)

    async def _close(self) -> None:
        if self._shards is None:
            await super()._close()
        else:
            await self._close_shards(self._shards)

    async def _close_shards(self, shards: Shards) -> None:
        """Hand every seat over, in order; then let go of the store."""
        step_outside()  # a handler may have begun this, and its kernel waits for it
        self._state = "draining"
        try:
            await shards.close()
        finally:
            self._state, self._shards = "closed", None
            say_closed(self.store.address)
            try:
                await close_channels(self._calls, self._desks.values())
            finally:
                await self._leave()

    # --- shared by all shards ---

    def _take_desk(
        self, desk: AttachedChannel, facts: ChannelFacts, rate: Rate | None
    ) -> None:
        super()._take_desk(desk, facts, rate)
        if self._shards is not None:
            self._shards.take_desk(desk, facts, rate)

    def _register(self, handler: Handler, *, resume: bool) -> Handler:
        known = super()._register(handler, resume=resume)
        if self._shards is not None:
            self._shards.register(handler, resume=resume)
        return known

    def _inside(self) -> bool:
        inside = self._shards is not None and self._shards.inside()
        return inside or super()._inside()

    async def _drain(self, wait_ms: int) -> int:
        if self._shards is not None:
            return await self._shards.drain(wait_ms)
        return await super()._drain(wait_ms)

    async def _erased(self, *streams: str) -> bool:
        if self._shards is not None:
            return await self._shards.erased(streams)
        return await super()._erased(*streams)

    @property
    def working(self) -> bool:
        """True while this kernel is the worker of its store, or of some of its shards."""
        return super().working if self._shards is None else bool(self._shards.seats)
