"""Both stores through the public checks, one test per check and store."""

from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold.errors import FateUnknownError, StoreError
from turnfold.ports.store import Store
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store import (
    CHECKS,
    Check,
    CheckFailedError,
    Place,
    check_store,
    run_check,
)


def memory(_: Path) -> Place:
    disk = MemoryDisk()
    return Place(handle=lambda: CutMemoryStore(disk), cut=cut_memory)


class CutMemoryStore(MemoryStore):
    """Its next commit or post is cut, before or after it was stored."""

    cut: bool | None = None

    async def commit(self, writes: Any) -> Any:
        return await self._cut(super().commit, writes)

    async def post(self, commands: Any) -> Any:
        return await self._cut(super().post, commands)

    async def _cut(self, call: Any, values: Any) -> Any:
        stored, self.cut = self.cut, None
        if stored is None:
            return await call(values)
        if stored:
            await call(values)
        raise FateUnknownError(path=self.address, problem="cut by a test")


def cut_memory(store: Store, stored: bool) -> None:
    assert isinstance(store, CutMemoryStore)
    store.cut = stored


def sqlite(folder: Path, **how: Any) -> Place:
    path = folder / "store.db"
    several = not how.get("exclusive")
    make = partial(SqliteStore, path, **how)
    return Place(handle=make, several=several, cut=cut_sqlite)


def cut_sqlite(store: Store, stored: bool) -> None:
    """The COMMIT of the next transaction fails as on a disk that loses its answer."""
    assert isinstance(store, SqliteStore)
    writing = store._writing
    assert writing is not None
    run = writing._run

    def failing(sql: str, *bindings: Any) -> Any:
        if sql != "COMMIT":
            return run(sql, *bindings)
        if stored:
            run(sql)
        raise apsw.IOError("cut by a test")

    writing._run = failing


PLACES = {
    "memory": memory,
    "sqlite": sqlite,
    "sqlite on the loop": partial(sqlite, flush="loop"),
    "sqlite in a thread": partial(sqlite, flush="thread"),
    "sqlite exclusive": partial(sqlite, exclusive=True),
}


@pytest.mark.case("Q06")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_a_store_keeps_its_contract(place: str, check: Check, tmp_path: Path) -> None:
    run_check(check, lambda: PLACES[place](tmp_path))


def test_a_store_that_forgets_is_caught() -> None:
    """The checks bite: a handle with a disk of its own loses all at reopening."""
    with pytest.raises((CheckFailedError, StoreError)) as caught:
        check_store(lambda: Place(handle=MemoryStore))
    assert "check of the store" in caught.value.__notes__[0]


def test_no_check_is_left_out_of_the_list() -> None:
    names = [check.__name__ for check in CHECKS]
    assert len(set(names)) == len(names) > 60
