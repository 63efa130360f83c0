"""Two cases that no other file is about: an account that is gone since, and the kinds of
entries."""

from typing import Any

import pytest

from turnfold import Settings
from turnfold.enums import Kind, Phase, Reason
from turnfold_model.testing.gateway import Gateway, entry, inbound, peek, route, spin
from turnfold_model.testing.platform import PlatformChannel

HOUR = 3_600_000


@pytest.mark.case("L06")
async def test_an_account_that_is_gone_ends_what_waits_for_it_without_a_call(
    lone: Gateway,
) -> None:
    """It is waited for, since it may come back, but not beyond the expiry."""
    lone.settings = Settings(final_ttl_ms=HOUR)
    kernel = await lone.start()
    await kernel.disconnected("t")
    waits = (await kernel.enqueue(route(), "x")).entry_id
    await lone.end()
    lone.alive.clear()
    lone.channels = {("other", "default"): PlatformChannel(lone.platform)}
    kernel = await lone.start()
    await spin()
    assert entry(kernel, waits).phase is Phase.QUEUED
    await lone.advance(HOUR + 1)
    ended = entry(kernel, waits)
    assert (ended.phase, ended.reason) == (Phase.FAILED, Reason.EXPIRED)
    assert lone.platform.messages == []


@pytest.mark.case("N07")
async def test_every_kind_of_entry_is_in_the_one_store(lone: Gateway) -> None:
    async def answer(handle: Any) -> None:
        await handle.tool("looking it up")
        await handle.block("first half")
        await handle.reply("second half")

    lone.handler = answer
    kernel = await lone.start()
    done = await kernel.accept(inbound())
    await spin()
    notice = (await kernel.enqueue(route(), "by the way", kind="notice")).entry_id
    await spin()
    names = [*peek(kernel).children(done.turn_id), notice]
    assert {entry(kernel, name).kind for name in names} == set(Kind)
    rows = await kernel.inspect.list()
    assert {row.id for row in rows} >= {*names, done.turn_id}
