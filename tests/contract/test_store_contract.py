"""Both stores through the public checks, one test per check and store."""

from pathlib import Path

import pytest

from turnfold.errors import StoreError
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.store_checks import (
    CHECKS,
    Check,
    CheckFailedError,
    Place,
    check_store,
    run_check,
)


def memory(_: Path) -> Place:
    disk = MemoryDisk()
    return Place(handle=lambda: MemoryStore(disk))


def sqlite(folder: Path) -> Place:
    path = folder / "store.db"
    return Place(handle=lambda: SqliteStore(path))


def sqlite_exclusive(folder: Path) -> Place:
    path = folder / "store.db"
    return Place(handle=lambda: SqliteStore(path, exclusive=True), several=False)


@pytest.mark.case("Q06")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [memory, sqlite, sqlite_exclusive])
def test_a_store_keeps_its_contract(make, check: Check, tmp_path: Path) -> None:
    run_check(check, lambda: make(tmp_path))


def test_a_store_that_forgets_is_caught() -> None:
    """The checks bite: a handle with a disk of its own loses all at reopening."""
    with pytest.raises((CheckFailedError, StoreError)) as caught:
        check_store(lambda: Place(handle=MemoryStore))
    assert "check of the store" in caught.value.__notes__[0]


def test_no_check_is_left_out_of_the_list() -> None:
    names = [check.__name__ for check in CHECKS]
    assert len(set(names)) == len(names) > 35
