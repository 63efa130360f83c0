"""Public checks of a store: run any implementation of the port through them.

    check_store(lambda: Place(handle=lambda: MyStore(new_folder())))

No test library is needed. To have one test per check, loop over `CHECKS` and call
`run_check`. What they check is the port (turnfold.ports.store) word by word; what a
disk does when it fails needs tests of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from turnfold_model import (
    store_life_checks,
    store_log_checks,
    store_side_checks,
    store_upkeep_checks,
)
from turnfold_model.store_kit import CheckFailedError, Place

Check = Callable[[Place], None]

CHECKS: tuple[Check, ...] = (
    *store_log_checks.CHECKS,
    *store_side_checks.CHECKS,
    *store_upkeep_checks.CHECKS,
    *store_life_checks.CHECKS,
)

__all__ = ["CHECKS", "Check", "CheckFailedError", "Place", "check_store", "run_check"]


def check_store(factory: Callable[[], Place]) -> None:
    """Every check, each in a new place. Raises at the first that fails, naming it."""
    for check in CHECKS:
        run_check(check, factory)


def run_check(check: Check, factory: Callable[[], Place]) -> None:
    """One check. Raises CheckFailedError if the store does not do what the port says;
    any other error is the store's own."""
    place = factory()
    try:
        check(place)
    except Exception as exc:
        exc.add_note(f"check of the store: {check.__name__.replace('_', ' ')}")
        raise
    finally:
        place.end()
