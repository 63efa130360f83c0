"""A standby that lacks the last commits, made by hand within one server."""

from .postgres import Postgres

TABLES = ("worker", "shard", "log", "stream", "body", "dedupe", "inbox", "mark")


class Standby:
    """The tables as a standby has them that hears nothing more."""

    def __init__(self, postgres: Postgres, schema: str) -> None:
        self._postgres, self._schema = postgres, schema

    async def falls_behind(self) -> None:
        copies = "; ".join(
            f"CREATE TABLE {self._schema}.{name}_copy AS TABLE {self._schema}.{name}"
            for name in TABLES
        )
        await self._postgres.execute_all(copies)

    async def promote(self) -> None:
        s = self._schema
        order = ("shard", *TABLES)  # a shard names its owner
        gone = [f"DELETE FROM {s}.{name}" for name in order]
        back = [
            f"INSERT INTO {s}.{name} OVERRIDING SYSTEM VALUE TABLE {s}.{name}_copy"
            for name in TABLES
        ]
        await self._postgres.execute_all("; ".join(gone + back))
