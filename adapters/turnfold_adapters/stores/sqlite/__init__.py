"""The store in one SQLite file."""

from turnfold_adapters.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
