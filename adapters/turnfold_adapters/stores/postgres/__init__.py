"""A store in a PostgreSQL database (specs/postgres.md)."""

from turnfold_adapters.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
