"""The base that the parts of a kernel share: each other, and the shards of its store."""

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.driver import Driver
from turnfold._runtime.programs import Decision
from turnfold.api.client import Mailbox
from turnfold.api.portal import Home
from turnfold.api.telling import Missing
from turnfold.clock import Clock
from turnfold.errors import NotOpenError, ShardedStoreError
from turnfold.inspect import Inspect
from turnfold.ports.channel import Rate
from turnfold.ports.store import Store, Wanted
from turnfold.settings import Settings

if TYPE_CHECKING:
    from turnfold.api.callbacks import Handlers
    from turnfold.api.shards import Shards
    from turnfold.api.sources import Sources


@frozen(kw_only=True)
class Outfit:
    """The channels, sources and handler of a kernel, for the kernels of its shards."""

    desks: Mapping[tuple[str, str], AttachedChannel]
    views: Mapping[tuple[str, str], ChannelFacts]
    rates: Mapping[str, Rate]
    handlers: "Handlers"
    sources: "Sources"
    entropy: random.Random


class Spread:
    """The base of the parts of a Kernel, with what they use of each other; the Kernel
    implements it.

    `_shards` is set while a kernel is open on a store of several shards: then every
    call goes on to the kernel of its shard (decision 0042)."""

    settings: Settings
    _state: str
    _owns: bool
    _clock: Clock
    _home: Home
    _desks: dict[tuple[str, str], AttachedChannel]
    _missing: Missing
    _shards: "Shards | None" = None

    @property
    def store(self) -> Store:
        """The open store. Raises NotOpenError."""
        raise NotImplementedError

    @property
    def working(self) -> bool:
        """True while this kernel is the worker of its store."""
        raise NotImplementedError

    @property
    def inspect(self) -> Inspect:
        """Typed queries: the history of a message, and its next steps."""
        raise NotImplementedError

    def append(
        self, decision: Decision, wanted: Wanted | None = None
    ) -> asyncio.Future[Any]:
        """Decide and commit; the answer is durable."""
        raise NotImplementedError

    @property
    def _mailbox(self) -> Mailbox:
        raise NotImplementedError

    def _open_driver(self) -> Driver:
        raise NotImplementedError

    def _polls(self) -> bool:
        """Does it read the inbox without a ring, since one may be lost?"""
        return True

    @property
    def shards(self) -> int:
        """The number of shards of the store. Raises NotOpenError."""
        if self._state not in ("open", "draining"):
            raise NotOpenError(state=self._state)
        return 1 if self._shards is None else self._shards.count

    @property
    def seats(self) -> tuple[int, ...]:
        """The shards with this kernel as their worker."""
        if self._shards is not None:
            return self._shards.seats
        return (0,) if self.working else ()

    def _check_one(self, what: str) -> None:
        """Raises ShardedStoreError."""
        if self._shards is not None:
            raise ShardedStoreError(
                path=self.store.address,
                shards=self._shards.count,
                what=what,
                instead="the commands of the kernel and kernel.inspect work on all shards",
            )
