"""The one file of the bench that looks inside turnfold.

Everything else uses the public API, SQLite's VFS layer or the process itself.
"""

from turnfold_adapters.stores.sqlite import SqliteStore

LEVELS = {"FULL": 2, "NORMAL": 1}


def check_durability(store: SqliteStore) -> None:
    """Read journal mode and level back from the connection that writes."""
    writer, level = store._writer, store._settings.synchronous
    assert writer is not None, "the store is not open"
    found = writer.pragma("journal_mode"), writer.pragma("synchronous")
    assert found == ("wal", LEVELS[level]), found
