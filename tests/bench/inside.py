"""The one file of the bench that knows the store's insides and its calls.

Everything else uses the Kernel, SQLite's VFS layer or the process itself.
"""

import time
from pathlib import Path

from turnfold.audit import audit_log, audit_store
from turnfold_adapters.stores.sqlite import SqliteStore

LEVELS = {"FULL": 2, "NORMAL": 1}


def check_durability(store: SqliteStore, level: str) -> None:
    """Read journal mode and level back from the connection that writes."""
    writer = store._writer
    assert writer is not None, "the store is not open"
    found = writer.pragma("journal_mode"), writer.pragma("synchronous")
    assert found == ("wal", LEVELS[level]), found


def audited(path: Path, *, beside: bool) -> float:
    """Events a second of processor time: the log alone, or all that lies beside it."""
    store = SqliteStore(path)
    store.open(read_only=True)
    began = time.process_time()
    report = audit_store(store) if beside else audit_log(store.log())
    passed = time.process_time() - began
    store.close()
    assert report.passed, report.first
    return report.events / passed
