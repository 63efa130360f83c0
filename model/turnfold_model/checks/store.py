"""Public checks of a store: run any implementation of the port through them.

    check_store(lambda: Place(handle=lambda: MyStore(new_folder())))

No test library is needed. To have one test per check, loop over `CHECKS` and call
`run_check`. They check the port (turnfold.ports.store) word by word; the behaviour of
a disk that fails needs tests of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from turnfold_model.checks import (
    store_inbox,
    store_life,
    store_log,
    store_owner,
    store_side,
    store_upkeep,
)
from turnfold_model.checks.store_kit import CheckFailedError, Place

Check = Callable[[Place], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    *store_log.CHECKS,
    *store_side.CHECKS,
    *store_inbox.CHECKS,
    *store_upkeep.CHECKS,
    *store_life.CHECKS,
    *store_owner.CHECKS,
)

__all__ = ["CHECKS", "Check", "CheckFailedError", "Place", "check_store", "run_check"]


def check_store(factory: Callable[[], Place]) -> None:
    """Every check, each in a new place and a new event loop. Raises at the first failed
    check, and names it. Not to be called from a running event loop."""
    for check in CHECKS:
        run_check(check, factory)


def run_check(check: Check, factory: Callable[[], Place]) -> None:
    """One check. Raises CheckFailedError if the store breaks the contract of the port;
    any other error is the store's own."""
    asyncio.run(_run(check, factory()))


async def _run(check: Check, place: Place) -> None:
    try:
        await check(place)
    except Exception as exc:
        name = getattr(check, "__name__", str(check))
        exc.add_note(f"check of the store: {name.replace('_', ' ')}")
        raise
    finally:
        await place.end()
