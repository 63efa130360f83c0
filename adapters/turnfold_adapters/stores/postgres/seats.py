"""The seats of one host: what it sees of all shards and of the other hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import asyncpg

from turnfold.logs import lines
from turnfold.ports.shards import Host, Limit, Seating
from turnfold_adapters.stores.postgres.bell import Bells, channel
from turnfold_adapters.stores.postgres.connection import Session
from turnfold_adapters.stores.postgres.ownership import (
    Life,
    Seat,
    boot_time,
    free_seat,
    is_free,
    is_gone,
)
from turnfold_adapters.stores.postgres.rows import kept, shown

_LOG = lines()
# All that a host asks a few times a second: shards with their owners, what waits in them
# and which accounts are limited in them, and the lives without a shard.
_LOOK = """
SELECT s.shard, s.token, s.freed, s.position,
    EXISTS (SELECT FROM inbox AS i WHERE i.shard = s.shard) AS waiting,
    g.names, g.since, g.until,
    w.id, w.boot, w.pid, w.started, w.host, w.room, w.state, w.seats, w.instance,
    w.attached,
    w.lease_until < clock_timestamp() AS lease_over,
    w.lease_until + make_interval(secs => $1) < clock_timestamp() AS lapsed,
    extract(epoch FROM w.lease_until - clock_timestamp())::float8 + $1 AS lapses_in
FROM shard AS s FULL JOIN worker AS w ON w.id = s.owner
    CROSS JOIN LATERAL (
        SELECT array_agg(t.name) AS names, array_agg(t.updated) AS since,
            array_agg(t.due) AS until
        FROM stream AS t WHERE t.shard = s.shard AND t.name = ANY ($2::text[])
            AND t.open AND t.reason = 'rate_limited' AND t.due IS NOT NULL) AS g
WHERE s.shard IS NOT NULL OR w.state = 'alive'
"""


_HOSTS = """
SELECT w.id, w.host, w.pid, w.attached,
    EXISTS (SELECT FROM shard AS s WHERE s.owner = w.id AND s.freed IS DISTINCT FROM s.token)
        AS works
FROM worker AS w WHERE w.state = 'alive' AND w.lease_until > clock_timestamp() ORDER BY w.id
"""


class LeaseSeats:
    """The seats of one of several hosts that share the shards."""

    def __init__(self, life: Life, bells: Bells) -> None:
        self._life, self._bells = life, bells
        # The other living hosts of the last look, and when each is taken as dead.
        self._others: list[tuple[asyncpg.Record, float]] = []

    async def enter(self) -> None:
        """Count as a host from now on. Raises DiskError."""
        self._life.stays = True
        await self._life.asked(self._life.begin)

    async def leave(self) -> None:
        await self._life.end()

    @property
    def held(self) -> bool:
        """True until the lease of this host is over."""
        return self._life.held

    async def look(self, gates: Sequence[str] = ()) -> Seating:
        """See the port. A host that is found dead is certified."""
        names = [kept(gate) for gate in gates]
        self._bells.rang = False
        return await self._life.asked(partial(self._look, gates=names))

    def must_look(self) -> bool:
        if self._bells.rang:
            return True
        now = boot_time()
        return any(now > over or is_gone(row) for row, over in self._others)

    async def _look(self, connection: Session, gates: list[str]) -> Seating:
        life, pause = self._life, self._life.terms.max_pause_ms / 1000
        asked = boot_time()
        rows = await connection.fetch(_LOOK, pause, gates)
        lives = [*{row["id"]: row for row in rows if row["state"] == "alive"}.values()]
        me = None if life.owner is None else life.owner.id
        others = [row for row in lives if row["id"] != me]
        dead = await life.dead_of(connection, others)
        self._others = [
            (row, asked + row["lapses_in"]) for row in others if row["id"] not in dead
        ]
        hosts = sum(
            row["seats"] and not row["lease_over"] and row["id"] not in dead
            for row in lives
        )
        shards = [row for row in rows if row["shard"] is not None]
        await self._give_back(connection, shards)
        elsewhere = [row for row in shards if row["shard"] not in life.seated]
        free = [
            row["shard"] for row in elsewhere if row["id"] in dead or is_free(row, life)
        ]
        return Seating(
            free=tuple(sorted(free)),
            hosts=max(hosts, 1),
            waiting=tuple(row["shard"] for row in shards if row["waiting"]),
            ends={row["shard"]: row["position"] for row in shards},
            limits=[limit for row in elsewhere for limit in _limits(row)],
        )

    async def _give_back(
        self, connection: Session, shards: Sequence[asyncpg.Record]
    ) -> None:
        """Free what this living host owns and does not use: a hand-over or the answer of
        a take was lost. No other host may take it, and this one has its share."""
        life = self._life
        for row in shards:
            if life.owner is None or row["id"] != life.owner.id:
                continue
            if row["shard"] not in life.seated and row["freed"] != row["token"]:
                seat = Seat(owner=life.owner, token=row["token"], asked=row["token"])
                one = Session(connection.connection, row["shard"])
                await free_seat(one, seat, channel(life.terms.schema))
                text = "%s: shard %s is given back; its hand-over had been lost"
                _LOG.info(text, life.terms.address, row["shard"])


async def hosts_of(connection: Session) -> Sequence[Host]:
    """The workers whose leases are not over."""
    return [
        Host(
            id=row["id"],
            host=row["host"],
            pid=row["pid"],
            works=row["works"],
            attached=_shown(row["attached"]),
        )
        for row in await connection.fetch(_HOSTS)
    ]


def _shown(accounts: Sequence[str] | None) -> frozenset[str] | None:
    return None if accounts is None else frozenset(map(shown, accounts))


def _limits(row: asyncpg.Record) -> Iterable[Limit]:
    columns = (row["names"] or (), row["since"] or (), row["until"] or ())
    return [Limit(shown(name), *times) for name, *times in zip(*columns, strict=True)]
