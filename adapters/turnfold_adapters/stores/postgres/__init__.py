"""A store in a PostgreSQL database (specs/postgres.md)."""

from turnfold.errors import MissingExtraError

try:
    from turnfold_adapters.stores.postgres.store import PostgresStore
except ModuleNotFoundError as exc:
    if exc.name != "asyncpg":
        raise
    raise MissingExtraError(extra="postgres", package="asyncpg") from exc

__all__ = ["PostgresStore"]
