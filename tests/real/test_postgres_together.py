"""Commits of several shards of one host in one statement: each has its own answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from turnfold.errors import (
    DiskError,
    FateUnknownError,
    KeyTakenError,
    LostStoreError,
)
from turnfold.ports.store import Answer, Head, Refused, Stored, Write
from turnfold_adapters.stores.postgres import PostgresStore, combining
from turnfold_adapters.stores.postgres.combining import Part
from turnfold_model.checks.store import CHECKS, Check, run_check
from turnfold_model.checks.store_kit import (
    body,
    body_in,
    command,
    head_of,
    holder,
    put,
    record,
    running,
    summary,
    whole_log,
    write,
)

from .postgres import Postgres, cut, place

_TABLES = ("shard", "log", "stream", "body", "dedupe", "inbox", "answer")


class Scene:
    """A host with the seats of some shards. Each has the stream `entry:a` with a body,
    and two commands in its inbox. `statements`: the shards of each one so far."""

    def __init__(self, postgres: Postgres, schema: str, store: PostgresStore) -> None:
        self.postgres, self.schema, self.store = postgres, schema, store
        self.parts: list[PostgresStore] = []
        self.statements: list[list[int]] = []

    async def begin(self, shard: int) -> None:
        part = self.store.shard(shard)
        await part.open()
        self.parts.append(part)
        assert await part.ownership().take()
        await put(part, "entry:a")
        await write(part, bodies=[body("entry:a", 1, b"old")])
        kept = command(f"kept{shard}", stream="turn:w", key=f"kept{shard}")
        left = command(f"left{shard}", stream="turn:x", key=f"left{shard}")
        await part.post([kept, left])

    async def sql(self, text: str, *values: object) -> Any:
        connection = await asyncpg.connect(self.postgres.address().partition("&")[0])
        try:
            await connection.execute(f"SET search_path TO {self.schema}")
            return await connection.fetch(text, *values)
        finally:
            await connection.close()

    async def rows(self, shard: int) -> list[str]:
        """All that the server has of a shard."""
        found = []
        for table in _TABLES:
            text = (
                f"SELECT t::text AS row FROM {table} AS t WHERE shard = $1 ORDER BY 1"
            )
            found += [f"{table}: {row['row']}" for row in await self.sql(text, shard)]
        return found

    async def heads(self) -> list[Head]:
        return [await head_of(part) for part in self.parts]

    async def together(
        self, writes: Sequence[Write]
    ) -> list[Stored | Refused | BaseException]:
        """Hand one write in for each shard in one tick."""
        self.statements.clear()
        doing = [p.commit([w]) for p, w in zip(self.parts, writes, strict=True)]
        answers = await asyncio.gather(*doing, return_exceptions=True)
        return [a if isinstance(a, BaseException) else a[0] for a in answers]

    def recorded(self) -> None:
        commits = self.store._shared.commits
        together, alone = commits._together, commits._alone

        async def of_many(connection: Any, batch: Sequence[Part]) -> list[bool]:
            self.statements.append([part.shard for part in batch])
            return await together(connection, batch)

        async def of_one(connection: Any, part: Part) -> Any:
            self.statements.append([part.shard])
            return await alone(connection, part)

        commits._together = of_many  # type: ignore[method-assign]
        commits._alone = of_one  # type: ignore[method-assign]


@asynccontextmanager
async def scene(
    postgres: Postgres, schema: str, shards: int = 3
) -> AsyncIterator[Scene]:
    store = PostgresStore(postgres.address(schema) + f"&shards={shards}")
    await store.open()
    made = Scene(postgres, schema, store)
    for shard in range(shards):
        await made.begin(shard)
    made.recorded()
    try:
        yield made
    finally:
        for part in made.parts:
            await part.close()
        await store.close()


def full(base: Head, shard: int) -> Write:
    """A write with something for every table."""
    new = record(base.position + 1, "entry:new", 1)
    return Write(
        base=base,
        records=[new],
        summaries=[summary("entry:new", 1, new.position)],
        bodies=[body("entry:new", 1, b"new")],
        keys=[(f"new{shard}", "entry:new"), (f"kept{shard}", "entry:new")],
        erase=[("entry:a", 1)],
        done=[f"kept{shard}", f"left{shard}"],
        answers=[Answer(id=f"kept{shard}", at=1000, data=b"{}")],
    )


async def full_writes(made: Scene) -> list[Write]:
    return [full(base, shard) for shard, base in enumerate(await made.heads())]


async def check_stored(made: Scene, shard: int, write_: Write) -> None:
    part, log = made.parts[shard], write_.records
    assert (await whole_log(part))[-1] == log[0]
    assert await head_of(part) == running(log, write_.base)
    assert await body_in(part, "entry:new", 1) == write_.bodies[0]
    erased = await body_in(part, "entry:a", 1)
    assert erased is None or erased.data is None
    assert await holder(part, f"new{shard}") == "entry:new"
    assert await holder(part, f"kept{shard}") == "entry:new"
    assert await holder(part, f"left{shard}") is None
    assert await part.inbox() == []
    assert any(row.startswith("answer") for row in await made.rows(shard))


async def test_commits_of_one_tick_go_in_one_statement(postgres: Postgres) -> None:
    async with scene(postgres, "g1") as made:
        writes = await full_writes(made)
        answers = await made.together(writes)
        assert made.statements == [[0, 1, 2]]
        for shard, (answer, write_) in enumerate(zip(answers, writes, strict=True)):
            assert answer == Stored(running(write_.records, write_.base))
            await check_stored(made, shard, write_)
        made.statements.clear()
        await put(made.parts[1], "entry:b")
        assert made.statements == [[1]]


async def _one_is_refused(made: Scene, writes: Sequence[Write], *how: type) -> None:
    """The second shard stores nothing, the others store everything, in one statement."""
    before = await made.rows(1)
    answers = await made.together(writes)
    assert made.statements == [[0, 1, 2]]
    assert isinstance(answers[1], how)
    assert await made.rows(1) == before
    for shard in (0, 2):
        assert isinstance(answers[shard], Stored)
        await check_stored(made, shard, writes[shard])


async def test_a_shard_whose_token_is_outdated_stores_nothing(
    postgres: Postgres,
) -> None:
    async with scene(postgres, "g2") as made:
        writes = await full_writes(made)
        await made.sql("UPDATE shard SET token = token + 1 WHERE shard = 1")
        await _one_is_refused(made, writes, LostStoreError)


async def test_a_shard_of_another_owner_stores_nothing(postgres: Postgres) -> None:
    """A failover lost a take: the other owner has the same token."""
    async with scene(postgres, "g3") as made:
        writes = await full_writes(made)
        await made.sql(
            "INSERT INTO worker SELECT 'another', boot, room, pid, started, host, state,"
            " lease_until, certified_by, seats FROM worker LIMIT 1"
        )
        await made.sql("UPDATE shard SET owner = 'another' WHERE shard = 1")
        await _one_is_refused(made, writes, LostStoreError)


async def test_a_shard_whose_log_has_moved_stores_nothing(postgres: Postgres) -> None:
    """Its write has no record, so no place in the log refuses it."""
    async with scene(postgres, "g4") as made:
        writes = await full_writes(made)
        writes[1] = Write(
            base=writes[1].base, answers=[Answer(id="x", at=1000, data=b"{}")]
        )
        beside = made.store.shard(1)
        await beside.open()
        await put(beside, "entry:b")
        await _one_is_refused(made, writes, Refused)
        await beside.close()


async def test_a_shard_with_another_head_stores_nothing(postgres: Postgres) -> None:
    async with scene(postgres, "g5") as made:
        writes = await full_writes(made)
        await made.sql("UPDATE shard SET head = sha256('other') WHERE shard = 1")
        await _one_is_refused(made, writes, Refused)


async def test_a_key_that_one_shard_may_not_have_stops_no_other(
    postgres: Postgres,
) -> None:
    async with scene(postgres, "g6") as made:
        writes = [
            Write(
                base=base,
                records=[record(base.position + 1, f"entry:{shard}", 1)],
                keys=[(("same", "same", "own")[shard], f"entry:{shard}")],
            )
            for shard, base in enumerate(await made.heads())
        ]
        answers = await made.together(writes)
        assert made.statements == [[0, 1, 2], [0], [1], [2]]
        assert isinstance(answers[0], Stored)
        assert isinstance(answers[2], Stored)
        assert isinstance(answers[1], Refused)
        assert isinstance(answers[1].why, KeyTakenError)
        assert answers[1].why.stream == "entry:0"


async def test_a_key_of_a_shard_that_is_refused_stays_free(postgres: Postgres) -> None:
    """A command of one shard ends, and a shard that is fenced would have used its key."""
    async with scene(postgres, "g7") as made:
        writes = await full_writes(made)
        used = record(writes[1].base.position + 1, "entry:new", 1)
        writes[1] = Write(
            base=writes[1].base, records=[used], keys=[("left0", "entry:new")]
        )
        await made.sql("UPDATE shard SET token = token + 1 WHERE shard = 1")
        await _one_is_refused(made, writes, LostStoreError)


def _fails(state: str, shard: int = 1) -> str:
    """Make the server fail whatever goes into the log of a shard."""
    return f"""
    CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.shard = {shard} THEN RAISE SQLSTATE '{state}'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER fails BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION fails();
    """


async def _break(made: Scene, state: str) -> None:
    script = f"SET search_path TO {made.schema};{_fails(state)}"
    await made.postgres.execute_all(script)


async def test_an_error_that_stored_nothing_is_that_of_the_culprit_alone(
    postgres: Postgres,
) -> None:
    async with scene(postgres, "g8") as made:
        writes = await full_writes(made)
        await _break(made, "53100")
        answers = await made.together(writes)
        assert made.statements == [[0, 1, 2], [0], [1], [2]]
        assert isinstance(answers[1], DiskError)
        for shard in (0, 2):
            await check_stored(made, shard, writes[shard])


async def test_after_an_unknown_fate_each_commit_goes_alone(postgres: Postgres) -> None:
    """Damage in the rows of one shard: all are asked for once more, and then one fails."""
    async with scene(postgres, "g9") as made:
        writes = await full_writes(made)
        await _break(made, "XX001")
        answers = await made.together(writes)
        assert made.statements == [[0, 1, 2]]
        assert [type(answer) for answer in answers] == [FateUnknownError] * 3
        for part in made.parts:
            await part.reopen()
        assert await made.heads() == [write_.base for write_ in writes]
        answers = await made.together(writes)
        assert made.statements == [[0], [1], [2]]
        assert isinstance(answers[1], FateUnknownError)
        for shard in (0, 2):
            await check_stored(made, shard, writes[shard])
        await made.sql("DROP TRIGGER fails ON log")
        await made.parts[1].reopen()
        assert isinstance((await made.parts[1].commit([writes[1]]))[0], Stored)
        await made.together([Write(base=base) for base in await made.heads()])
        assert made.statements == [[0, 1, 2]]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_cut_leaves_every_shard_with_a_commit_of_unknown_fate(
    postgres: Postgres, stored: bool
) -> None:
    async with scene(postgres, f"g10_{stored}".lower()) as made:
        writes = await full_writes(made)
        cut(made.store, stored)
        answers = await made.together(writes)
        assert [type(answer) for answer in answers] == [FateUnknownError] * 3
        seats = [part.ownership().seat for part in made.parts]
        await asyncio.gather(*(part.reopen() for part in made.parts))
        for shard, part in enumerate(made.parts):
            before, now = seats[shard], part.ownership().seat
            assert before is not None
            assert now == (before[0], before[1] + 1)
            if not stored:
                assert isinstance((await part.commit([writes[shard]]))[0], Stored)
            await check_stored(made, shard, writes[shard])


async def test_connections_are_made_anew_once_for_all_shards_of_a_cut(
    postgres: Postgres,
) -> None:
    async with scene(postgres, "g11") as made:
        writes = await full_writes(made)
        cut(made.store, False)
        await made.together(writes)
        await asyncio.gather(*(part.reopen() for part in made.parts))
        assert made.store._shared.renewals == 1
        await made.parts[0].reopen()
        assert made.store._shared.renewals == 2


async def test_two_handles_of_one_shard_never_share_a_statement(
    postgres: Postgres,
) -> None:
    async with scene(postgres, "g12", 2) as made:
        bases = await made.heads()
        beside = made.store.shard(1)
        await beside.open()
        await beside.commit([Write(base=bases[1])])
        made.parts.append(beside)
        made.statements.clear()
        new = record(bases[1].position + 1, "entry:b", 1)
        late = Write(base=bases[1], answers=[Answer(id="x", at=1000, data=b"{}")])
        writes = [Write(base=bases[0]), Write(base=bases[1], records=[new]), late]
        answers = await made.together(writes)
        assert made.statements == [[0, 1], [1]]
        assert [type(answer) for answer in answers] == [Stored, Stored, Refused]
        assert await head_of(beside) == running([new], bases[1])


async def test_a_statement_has_an_end(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Much text goes in several statements."""
    monkeypatch.setattr(combining, "_MOST_BYTES", 1_000)
    async with scene(postgres, "g13") as made:
        writes = [
            Write(base=base, bodies=[body("entry:a", 2, b"x" * 600)])
            for base in await made.heads()
        ]
        answers = await made.together(writes)
        assert made.statements == [[0], [1], [2]]
        assert [type(answer) for answer in answers] == [Stored] * 3


async def test_statements_of_two_hosts_wait_for_each_other_in_one_order(
    postgres: Postgres,
) -> None:
    """Each is handed the shards in another order, and both wait for both rows."""
    async with scene(postgres, "g14", 2) as made:
        base = [await part.load() for part in made.parts]
        other = PostgresStore(postgres.address("g14"))
        await other.open()
        blocker = await asyncpg.connect(postgres.address().partition("&")[0])
        sql = "SELECT sum(deadlocks)::int FROM pg_stat_database"
        before = await blocker.fetchval(sql)
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("SELECT FROM g14.shard FOR UPDATE")
        at = [other.shard(1), other.shard(0)]
        for part in at:
            await part.open()
        doing = [
            part.commit([Write(base=base[n].head)])
            for part, n in [
                *zip(made.parts, (0, 1), strict=True),
                *zip(at, (1, 0), strict=True),
            ]
        ]
        waiting = asyncio.gather(*doing)
        await asyncio.sleep(0.3)
        await lock.rollback()
        answers = await waiting
        assert [type(answer) for (answer,) in answers] == [Stored] * 4
        assert await blocker.fetchval(sql) == before
        await blocker.close()
        for store in (*at, other):
            await store.close()


async def test_whoever_cancels_all_tasks_ends_no_later_commit(
    postgres: Postgres,
) -> None:
    """The statement that was under way is stored, or never will be."""
    async with scene(postgres, "g15") as made:
        writes = await full_writes(made)
        blocker = await asyncpg.connect(postgres.address().partition("&")[0])
        lock = blocker.transaction()
        await lock.start()
        await blocker.execute("SELECT FROM g15.shard FOR UPDATE")
        doing = asyncio.ensure_future(made.together(writes))
        while made.statements != [[0, 1, 2]]:
            await asyncio.sleep(0.01)
        task = made.store._shared.commits._task
        assert task is not None
        task.cancel()
        answers = await doing
        assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 3
        await lock.rollback()
        await blocker.close()
        for shard, part in enumerate(made.parts):
            await part.reopen()
            if await head_of(part) == writes[shard].base:
                assert isinstance((await part.commit([writes[shard]]))[0], Stored)
            await check_stored(made, shard, writes[shard])
            await put(part, "entry:b")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_statement_of_several_shards_keeps_the_contract(
    check: Check, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combining, "_FEWEST", 1)
    blank = check.__name__ == "a_read_only_store_takes_no_write"
    run_check(check, lambda: place(postgres, blank=blank))
