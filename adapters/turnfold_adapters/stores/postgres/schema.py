"""The tables of the store in PostgreSQL, their creation and migration.

All tables lie in one schema of the database, so several stores fit into one database.
Every table has a column `shard`; the number of shards is fixed when the tables are
made.

`token`: the right to write to the shard now. It grows with each take-over, each
hand-over and after each commit of unknown outcome, so an earlier statement can never be
stored later."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import asyncpg

from turnfold.errors import NewerSchemaError, NotAStoreError, OlderSchemaError
from turnfold_adapters.stores.postgres import history

LAYOUT = 4

_TABLES = """
CREATE TABLE layout (number int NOT NULL, readable_by int NOT NULL);

CREATE TABLE worker (  -- one row per life of a worker; `expired` and `dead` are final
    id text PRIMARY KEY,
    boot text NOT NULL,
    room text NOT NULL,  -- the process ids that it can see: the pid namespace
    pid int NOT NULL,
    started bigint NOT NULL,
    host text NOT NULL,
    state text NOT NULL CHECK (state IN ('alive', 'expired', 'dead')),
    lease_until timestamptz NOT NULL,
    certified_by text
);

CREATE TABLE shard (  -- one narrow, hot row
    shard int PRIMARY KEY,
    position bigint NOT NULL,
    head bytea NOT NULL,
    last_at bigint NOT NULL,
    token bigint NOT NULL,
    owner text REFERENCES worker
) WITH (fillfactor = 10);

CREATE TABLE log (
    shard int NOT NULL,
    position bigint NOT NULL,
    stream bigint NOT NULL,  -- the position of its first record
    version int NOT NULL,
    count int NOT NULL,
    at bigint NOT NULL,
    wall bigint,
    events bytea NOT NULL,
    hash bytea NOT NULL,
    head bytea,  -- of the last record of a commit
    PRIMARY KEY (shard, position),
    UNIQUE (shard, stream, version)
);

CREATE TABLE stream (  -- the projection; `phase` is null for a stream without a summary
    shard int NOT NULL,
    id bigint NOT NULL,
    name text COLLATE "C" NOT NULL UNIQUE,
    version int NOT NULL,
    open bool NOT NULL,
    phase text COLLATE "C",
    created bigint,
    updated bigint,
    lane text COLLATE "C",
    parent text COLLATE "C",
    kind text COLLATE "C",
    due bigint,
    expires bigint,
    reason text COLLATE "C",
    failure text COLLATE "C",
    person bool NOT NULL,
    PRIMARY KEY (shard, id)
) WITH (fillfactor = 70);
CREATE INDEX stream_open ON stream (shard, id) WHERE open;
CREATE INDEX stream_person ON stream (shard, id) WHERE person;
CREATE INDEX stream_lane ON stream (lane, id) WHERE lane IS NOT NULL;
CREATE INDEX stream_parent ON stream (parent, id) WHERE parent IS NOT NULL;
CREATE INDEX stream_created ON stream (created);

CREATE TABLE body (  -- an erased body keeps its row: its place stays taken
    shard int NOT NULL,
    stream bigint NOT NULL,
    number int NOT NULL,
    salt bytea,
    data bytea,
    PRIMARY KEY (shard, stream, number)
);

CREATE TABLE dedupe (  -- held from the moment a command with the key is posted
    key text COLLATE "C" PRIMARY KEY,
    shard int NOT NULL,
    name text COLLATE "C" NOT NULL  -- of the stream, which may not be logged yet
);

CREATE TABLE inbox (
    shard int NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    id text COLLATE "C" NOT NULL UNIQUE,
    kind text NOT NULL,
    stream text NOT NULL,
    at bigint NOT NULL,
    data bytea NOT NULL,
    key text COLLATE "C" UNIQUE,
    bodies bytea,
    answer bool NOT NULL,
    PRIMARY KEY (shard, number)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE answer (
    shard int NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    id text COLLATE "C" PRIMARY KEY,
    at bigint NOT NULL,
    data bytea NOT NULL
);

CREATE TABLE mark (  -- where the log had got, and the time of the life that noted it
    shard int PRIMARY KEY,
    store text NOT NULL,  -- empty before the first note
    position bigint NOT NULL,
    head bytea NOT NULL,
    lived bytea,
    history text NOT NULL  -- in which the log was last known to be whole
);
"""

# Steps from the layout before to this one. After a step the programs of the layout
# before can still read the tables, or the step raises `readable_by`.
STEPS: Mapping[int, str] = MappingProxyType(
    {
        2: """
CREATE TABLE pruned (  -- what is left of a record that a prune took out
    shard int NOT NULL,
    position bigint NOT NULL,
    hash bytea NOT NULL,
    head bytea,
    by bigint NOT NULL,  -- the position of the record that says so
    PRIMARY KEY (shard, position)
);
CREATE TABLE pruned_tally (  -- streams that were pruned, as they would be counted
    shard int NOT NULL,
    hour bigint NOT NULL,
    family text NOT NULL,
    place text NOT NULL,
    kind text NOT NULL,
    phase text NOT NULL,
    reason text NOT NULL,
    failure text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (shard, hour, family, place, kind, phase, reason, failure)
);
""",
        3: """
ALTER TABLE layout ADD shards int NOT NULL DEFAULT 1;
ALTER TABLE worker ADD seats bool NOT NULL DEFAULT false;  -- it wants a share of them
ALTER TABLE shard ADD freed bigint;  -- the token under which its owner handed it over
ALTER TABLE stream DROP CONSTRAINT stream_name_key;
ALTER TABLE stream ADD CONSTRAINT stream_name UNIQUE (shard, name);
DROP INDEX stream_lane, stream_parent, stream_created;
CREATE INDEX stream_lane ON stream (shard, lane, id) WHERE lane IS NOT NULL;
CREATE INDEX stream_parent ON stream (shard, parent, id) WHERE parent IS NOT NULL;
CREATE INDEX stream_created ON stream (shard, created);
""",
        4: """
ALTER TABLE worker ADD instance text;  -- its name at the orchestrator that runs it
ALTER TABLE worker ADD attached text[];  -- its accounts; NULL if it has not said so
CREATE INDEX worker_instance ON worker (instance) WHERE instance IS NOT NULL;
""",
    }
)


async def prepare(
    connection: asyncpg.Connection, name: str, blank: bytes, shards: int
) -> None:
    """Make the tables unless they exist. Several processes may do so at once."""
    async with connection.transaction():
        # One at a time: else two that begin together would both make the tables.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", name)
        if await _layout(connection, name) is not None:
            return
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}")
        await connection.execute(_TABLES)
        for step in STEPS.values():
            await connection.execute(step)
        sql = "INSERT INTO layout VALUES ($1, $1, $2)"
        await connection.execute(sql, LAYOUT, shards)
        sql = """INSERT INTO shard
            SELECT n, 0, $1, 0, 0, NULL, NULL FROM generate_series(0, $2 - 1) AS n"""
        await connection.execute(sql, blank, shards)
        found = await history.name(connection) or ""
        sql = "INSERT INTO mark SELECT shard, '', 0, head, NULL, $1 FROM shard"
        await connection.execute(sql, found)


async def check(
    connection: asyncpg.Connection, name: str, address: str, *, read_only: bool
) -> int:
    """The number of shards. Raises NotAStoreError, NewerSchemaError or OlderSchemaError
    unless this layout can be used."""
    found = await _layout(connection, name)
    if found is None:
        problem = f"the database has no schema {name} with turnfold's tables"
        raise NotAStoreError(path=address, problem=problem)
    number, readable_by = found
    if number < LAYOUT:
        raise OlderSchemaError(path=address, found=number, known=LAYOUT)
    if number != LAYOUT and not (read_only and readable_by <= LAYOUT):
        raise NewerSchemaError(path=address, found=number, known=LAYOUT)
    shards: int = await connection.fetchval(f"SELECT shards FROM {quoted(name)}.layout")
    return shards


async def migrate(
    connection: asyncpg.Connection, name: str, address: str, *, dry: bool = False
) -> tuple[int, int]:
    """Take every step up to this layout, in one transaction. Returns the old layout and
    the new one. Raises NotAStoreError or NewerSchemaError."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", name)
        found = await _layout(connection, name)
        if found is None:
            problem = f"the database has no schema {name} with turnfold's tables"
            raise NotAStoreError(path=address, problem=problem)
        number = found[0]
        if number > LAYOUT:
            raise NewerSchemaError(path=address, found=number, known=LAYOUT)
        if not dry and number < LAYOUT:
            for step in range(number + 1, LAYOUT + 1):
                await connection.execute(STEPS[step])
            sql = f"UPDATE {quoted(name)}.layout SET number = $1"
            await connection.execute(sql, LAYOUT)
    return number, LAYOUT


async def _layout(connection: asyncpg.Connection, name: str) -> tuple[int, int] | None:
    table = f"{quoted(name)}.layout"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    row = await connection.fetchrow(f"SELECT number, readable_by FROM {table}")
    return None if row is None else (row[0], row[1])


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
