"""What the hosts of a store know of each other: an account that is attached on one of them
only, and a second gateway that was given the same schema."""

import asyncio
import json
import logging
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import Kernel, Route
from turnfold.enums import DeliveryClass, Status
from turnfold.inspect import many
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_cli import app
from turnfold_model.testing.gateway import until
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres


def host(address: str, *channels: str) -> Kernel:
    kernel = Kernel(address)
    for name in channels:
        kernel.attach(name, channel_of(Platform()), on_unknown="hold")
    return kernel


def channel_of(platform: Platform) -> PlatformChannel:
    return PlatformChannel(platform, DeliveryClass.KEYED)


async def status(address: str) -> tuple[int, Any]:
    words = ["status", "-s", address, "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, app(words), words)
    return done.exit_code, json.loads(done.output)


@pytest.mark.parametrize("shards", ["", "&shards=2"])
async def test_status_names_an_account_that_its_worker_has_not_attached(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, shards: str
) -> None:
    """It waits as long as that host works, and "nobody is needed" was said of it."""
    monkeypatch.setattr(many, "_LATE_MS", 0)
    address = postgres.address() + f"&lease_ms=2000{shards}"
    to = Route(channel="b", conversation="1")
    async with host(address, "a") as one:
        await until(lambda: one.working and len(one.seats) != (1 if shards else 0), 30)
        sent = await one.enqueue(to, "x", key="x")
        code, said = await status(address)
        assert code == 1
        ((text, command),) = said["needed"]
        assert text.startswith("1 wait for b/default, which pid ")
        assert text.endswith("has not attached: attach it on every host")
        assert command == "turnfold list --channel b"
        one.attach("b", channel_of(Platform()), on_unknown="hold")
        assert await sent.settled(10_000) is Status.DELIVERED
        async with asyncio.timeout(20):  # the next renewal tells it
            store = PostgresStore(address)
            await store.open(read_only=True)
            while (await store.hosts())[0].attached != {"a/default", "b/default"}:
                await asyncio.sleep(0.05)
            await store.close()
        assert (await status(address))[0] == 0


async def test_status_names_the_host_that_has_it(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_LATE_MS", 0)
    address = postgres.address() + "&shards=2"
    async with host(address, "a") as one, host(address, "a", "b") as two:
        await until(lambda: len(one.seats) == len(two.seats) == 1, 30)
        for number in range(8):  # some lie in the shard of `one`
            to = Route(channel="b", conversation=str(number))
            await two.enqueue(to, "x", key=str(number))
        await until(lambda: not one.is_well(), 30)
        assert any("channel b with account" in why for why in one.is_well().reasons)
        _, said = await status(address)
        ((text, _),) = said["needed"]
        assert " has it)" in text
        assert one.health()["strangers"] is None


@pytest.mark.parametrize("shards", ["", "&shards=2"])
async def test_two_gateways_in_one_schema_are_told(
    postgres: Postgres, caplog: pytest.LogCaptureFixture, shards: str
) -> None:
    """Each works for the other, or waits for it, and none of them knew."""
    caplog.set_level(logging.WARNING, "turnfold")
    address = postgres.address() + shards
    async with host(address, "a") as one:
        await until(lambda: one.working, 30)
        async with host(address, "b") as two:
            await until(lambda: bool(two.health().get("strangers")), 30)
            assert "(a/default)" in two.health()["strangers"]
            (why,) = [w for w in two.is_well().reasons if "another gateway" in w]
            assert "give each gateway its own `schema`" in why
            two.attach("a", channel_of(Platform()), on_unknown="hold")
            await until(lambda: not two.health().get("strangers"), 30)
    lines = [r.getMessage() for r in caplog.records if "shares this store" in r.message]
    assert 1 <= len(lines) <= 2  # of each host one at most


async def test_every_host_knows_by_the_lease_if_a_worker_lives(
    postgres: Postgres,
) -> None:
    """One of another machine was "on another host", alive or dead."""
    address = postgres.address()
    schema = address.partition("schema=")[2]
    worker, other = PostgresStore(address), PostgresStore(address)
    await worker.open()
    await other.open(read_only=True)
    assert await other.ownership().taken() is False
    assert await worker.ownership().take() is not None
    assert await other.ownership().taken() is True  # its process
    for change, taken in (
        ("boot = 'another'", True),
        ("lease_until = now() - interval '1 s'", None),
        ("state = 'dead'", False),
    ):
        await postgres.execute(f"UPDATE {schema}.worker SET {change}")
        assert await other.ownership().taken() is taken
    for store in (worker, other):
        await store.close()
