"""A server that fails over to a standby which lacks the last commits.

The standby is made by hand within one server: copies of the rows of one shard, and of
the lives of its host. To be promoted it is put back, all connections of the host are
ended, and the server names another history. The host runs on.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any, Final

import asyncpg

from turnfold_adapters.stores.postgres.connection import Place
from turnfold_model.crash_hosts.hosts import Host
from turnfold_model.crash_hosts.scenes import Stage

TIMELINE: Final = "2"
# What makes a difference if it is lost. A renewal or a ring makes none.
WRITES: Final = frozenset(
    {"register", "take", "next", "free", "commit", "post", "mark"}
)
_TABLES: Final = ("log", "stream", "body", "dedupe", "inbox", "answer", "mark", "shard")
_LIVES = "(SELECT jsonb_agg(t) FROM worker AS t WHERE id = ANY ($2::text[])) AS worker"
_NOTED = "(SELECT coalesce(max(n), 0) FROM seen WHERE shard = $1) AS seen"
_ROWS = ", ".join(
    f"(SELECT jsonb_agg(t) FROM {name} AS t WHERE shard = $1) AS {name}"  # noqa: S608  names of ours
    for name in _TABLES
)
_COPY: Final = f"SELECT to_jsonb(r) FROM (SELECT {_NOTED}, {_LIVES}, {_ROWS}) AS r"  # noqa: S608  names of ours
_BACK = (
    "INSERT INTO {0} OVERRIDING SYSTEM VALUE"
    " SELECT * FROM jsonb_populate_recordset(NULL::{0}, $1::jsonb)"
)
_END = "SELECT bool_and(pg_terminate_backend(pid, 5000)) FROM unnest($1::int[]) AS pid"


class Standby:
    """`host`: the one that runs on; `hosts`: all that see the new server. `lag`: how
    many of the last writes the standby lacks."""

    def __init__(self, stage: Stage, host: Host, hosts: list[Host], lag: int) -> None:
        self._stage, self._host, self._hosts = stage, host, hosts
        self._copies: deque[dict[str, Any]] = deque(maxlen=lag + 1)
        self._admin: asyncpg.Connection | None = None
        host.standby = self

    async def wrote(self, name: str) -> None:
        if name in WRITES or not self._copies:
            self._copies.append(await self._copy())

    async def _means(self) -> asyncpg.Connection:
        """A connection that nobody watches, on the loop of the host."""
        if self._admin is None:
            place = Place.parsed(self._stage.address)
            settings = {
                "search_path": place.schema,
                "session_replication_role": "replica",  # no trigger sees it
            }
            self._admin = await asyncpg.connect(place.dsn, server_settings=settings)
            self._host.keep(self._admin)
        return self._admin

    async def _copy(self) -> dict[str, Any]:
        admin = await self._means()
        found = await admin.fetchval(_COPY, self._stage.shard, [*self._host.lives])
        copied: dict[str, Any] = json.loads(found)
        return copied

    async def promoted(self) -> None:
        admin, copy = await self._means(), self._copies[0]
        await admin.fetchval(_END, [*self._host.backends])
        async with admin.transaction():
            await self._put_back(admin, copy)
        for host in self._hosts:
            host.timeline = TIMELINE
        [shard] = copy["shard"]
        noted = await admin.fetchval("SELECT coalesce(max(n), 0) FROM seen")
        self._stage.goes_back(shard["position"], noted)

    async def _put_back(self, admin: asyncpg.Connection, copy: dict[str, Any]) -> None:
        """The notes of the triggers go back, too: the new server has not seen what was
        lost."""
        number, lives = self._stage.shard, [*self._host.lives]
        for name in _TABLES:
            await admin.execute(f"DELETE FROM {name} WHERE shard = $1", number)  # noqa: S608
        await admin.execute("DELETE FROM worker WHERE id = ANY ($1::text[])", lives)
        await admin.execute(
            "DELETE FROM seen WHERE shard = $1 AND n > $2", number, copy["seen"]
        )
        for name in ("worker", *_TABLES):
            if copy[name]:
                await admin.execute(_BACK.format(name), json.dumps(copy[name]))
