"""An operator who changes the server under a gateway: nothing is lost, `health` says
why nothing goes on, and it goes on by itself when the change is taken back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from turnfold import Kernel
from turnfold.audit import audit_store
from turnfold.errors import DiskError, StoreError, UnsafeStoreError
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres

TO = Route(channel="t", conversation="1")
_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = '{role}' AND pid <> pg_backend_pid()
"""


class Scene:
    """A worker with a role of its own, and a client that the operator leaves alone."""

    def __init__(self, postgres: Postgres, schema: str) -> None:
        self.postgres, self.schema = postgres, schema
        self.platform = Platform()
        self.address = postgres.address(schema)

    async def says(self, script: str) -> None:
        words = {"role": f"{self.schema}_gw", "schema": self.schema}
        await self.postgres.execute_all(script.format(**words))

    @asynccontextmanager
    async def plays(self) -> AsyncIterator[tuple[Kernel, Kernel]]:
        async with Kernel(self.address, work=False):
            pass  # makes the tables
        await self.says(
            "CREATE ROLE {role} LOGIN PASSWORD 'first';"
            "GRANT USAGE ON SCHEMA {schema} TO {role};"
            "GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};"
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
        )
        theirs = self.address.replace("postgres@", f"{self.schema}_gw:first@")
        worker, client = Kernel(theirs), Kernel(self.address, work=False)
        for kernel in (worker, client):
            channel = PlatformChannel(self.platform)
            kernel.attach("t", channel, on_unknown="hold")
        async with worker, client:
            yield worker, client

    async def shown(self, count: int) -> None:
        await until(lambda: len(self.platform.contents) >= count)
        assert len({*self.platform.contents}) == len(self.platform.contents) == count


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


CHANGES = {
    "rights of one table": (
        "REVOKE INSERT ON {schema}.log FROM {role}",
        "GRANT INSERT ON {schema}.log TO {role}",
    ),
    "the role may not log in": (
        f"ALTER ROLE {{role}} NOLOGIN; {_BACKENDS}",
        "ALTER ROLE {role} LOGIN",
    ),
    "the schema has another name": (
        "ALTER SCHEMA {schema} RENAME TO {schema}_away",
        "ALTER SCHEMA {schema}_away RENAME TO {schema}",
    ),
    "commits that are not durable": (
        f"ALTER ROLE {{role}} SET synchronous_commit = off; {_BACKENDS}",
        f"ALTER ROLE {{role}} RESET synchronous_commit; {_BACKENDS}",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_under_a_worker_is_told_and_it_goes_on_when_that_is_taken_back(
    postgres: Postgres, change: str
) -> None:
    schema = f"m{[*CHANGES].index(change)}"
    scene = Scene(postgres, schema)
    there, back = CHANGES[change]
    async with scene.plays() as (worker, client):
        await worker.enqueue(TO, "before")
        await scene.shown(1)
        if "name" not in change:
            posted = client
            await scene.says(there)
            await posted.enqueue(TO, "posted meanwhile")
        else:
            await client.enqueue(TO, "posted before")
            await scene.says(there)
        with pytest.raises(StoreError):
            await worker.enqueue(TO, "refused")
        await until(lambda: not worker.is_well())
        assert "took no append" in str(worker.is_well())
        await scene.says(back)
        await scene.shown(2)
        await worker.enqueue(TO, "after")
        await scene.shown(3)
        await until(worker.is_well)
        report = await audit_store(worker.store)
        assert report.passed, report.first


async def test_a_server_that_may_forget_commits_is_refused(postgres: Postgres) -> None:
    """Here by an option of the address, which goes to the server."""
    store = PostgresStore(f"{postgres.address()}&synchronous_commit=off")
    with pytest.raises(UnsafeStoreError, match="synchronous_commit = off"):
        await store.open()


async def test_a_worker_begins_only_if_it_can_renew_its_lease(
    postgres: Postgres,
) -> None:
    """Bells are left without a connection, not the lease: else it would begin, and lose
    its lease."""
    scene = Scene(postgres, "m8")
    async with scene.plays() as (worker, client):
        await worker.close()
        await scene.says("ALTER ROLE {role} CONNECTION LIMIT 3")
        theirs = scene.address.replace("postgres@", "m8_gw:first@")
        limited = Kernel(theirs)
        limited.attach("t", PlatformChannel(scene.platform), on_unknown="hold")
        with pytest.raises(DiskError, match="too many connections"):
            await limited.open()
        await scene.says("ALTER ROLE {role} CONNECTION LIMIT 4")
        async with limited:
            await client.enqueue(TO, "found by the poll")
            await scene.shown(1)
            life = limited.store._shared.life  # type: ignore[attr-defined]
            assert await life._renewed(life.owner.id, 10.0)
