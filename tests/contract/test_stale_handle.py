"""A handle on a store whose memory of the log is wrong."""

from typing import Any

import pytest

from turnfold._log.events import GateClosed
from turnfold_model.testing.gateway import Gateway, peek, route


class Stale:
    """A handle that does not see what others append, until it is opened again."""

    def __init__(self, store: Any) -> None:
        self._store, self.kept, self.opened = store, None, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def load(self) -> Any:
        return self.kept or await self._store.load()

    async def log(self, after: int = 0, limit: int = 1000) -> Any:
        found = await self._store.log(after, limit)
        if self.kept is None:
            return found
        return [r for r in found if r.position <= self.kept.head.position]

    async def reopen(self) -> None:
        self.kept = None
        self.opened += 1
        await self._store.reopen()


@pytest.mark.case("F05", "F10")
async def test_a_handle_whose_memory_is_wrong_is_opened_again(lone: Gateway) -> None:
    old = await lone.start(wrap=Stale)
    stale = old.store
    assert isinstance(stale, Stale)
    stale.kept = await stale.load()
    lone.store().disk.room.holder = None  # the lock is gone
    new = await lone.start()
    await new.enqueue(route(), "new")
    closed = GateClosed(reason="auth", until=None)
    await old.append(lambda draft: draft.emit("gate:x/y", closed))
    assert stale.opened == 1
    assert peek(new).names()[-1] == "gate.closed"
