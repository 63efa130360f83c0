"""The dashboard over a store in PostgreSQL: it looks and decides, and shows no password."""

import asyncio
import json

from tests.contract.test_cli_acts import incident
from tests.contract.test_dashboard import TOKEN, browser
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_cli import app
from turnfold_cli.dashboard.app import LOOKS
from turnfold_cli.dashboard.site import Site
from turnfold_cli.serve import _look

from .postgres import Postgres


async def test_the_audit_page_tells_of_each_shard(postgres: Postgres) -> None:
    address = f"{postgres.address()}&shards=2"
    async with Kernel(address):
        pass
    async with browser(Site(address=address, port=8911)) as client:
        await client.post("/audit")
        async with asyncio.timeout(30):
            while "shard 1: passed" not in (text := (await client.get("/audit")).text):
                await asyncio.sleep(0.02)
        assert "shard 0: passed" in text
        told = (await client.get("/audit.json")).json()
    words = ["audit", address, "--json"]
    typed = json.loads(
        (await asyncio.to_thread(CliRunner().invoke, app(words), words)).stdout
    )
    assert [one["head"] for one in told["shards"]] == [
        one["head"] for one in typed["shards"]
    ]
    assert told.keys() == typed.keys()


async def test_pages_and_acts_of_a_store_in_postgres(postgres: Postgres) -> None:
    address = postgres.address()
    with_password = address.replace("postgres@", "postgres:secret-word@")
    await incident(lambda: PostgresStore(address), parked=3)
    site = Site(address=with_password, token=TOKEN, acts=True, port=8911)
    site.shown = await _look(with_password)
    async with browser(site, authorization=f"Bearer {TOKEN}") as client:
        for name in LOOKS:
            answer = await client.get(f"/{name}?id=1" if name == "show" else f"/{name}")
            assert answer.status_code == 200, answer.text
            assert "secret-word" not in answer.text
        told = (await client.get("/act.json?do=discard&parked=1")).json()
        form = {"preview": told["preview"], "by": "ann"}
        begun = await client.post("/act", data=form)
        where = begun.headers["location"].replace("/run?", "/run.json?")
        async with asyncio.timeout(30):
            while (done := (await client.get(where)).json())["state"] == "under way":
                await asyncio.sleep(0.02)
        assert done["done"] == {"acknowledged": 3}, done
