"""The acts of a person: inside the worker, beside it, without one, and as commands."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from turnfold import FailureClass, Kernel
from turnfold.enums import Phase, TurnOutcome
from turnfold.errors import NotFoundError, RuleBrokenError
from turnfold_cli import app
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    events,
    in_file,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
)
from turnfold_model.testing.platform import reject, unknown

GONE = FailureClass.TARGET_GONE


async def dead(gateway: Gateway, kernel: Kernel, text: str = "hello") -> str:
    """An entry that the platform has refused for good."""
    gateway.platform.plays(reject(GONE))
    done = await kernel.enqueue(route(), text)
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.FAILED
    return done.entry_id


async def parked(gateway: Gateway, kernel: Kernel) -> str:
    gateway.platform.plays(unknown())
    done = await kernel.enqueue(route(), "hello")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.PARKED
    return done.entry_id


def whys(kernel: Kernel, stream: str) -> list[tuple[str | None, str]]:
    """Who decided, and the reasons, as the log has them."""
    store = peek(kernel)
    return [
        (getattr(event, "by", None), store.body(stream, event.why).decode())
        for event in events(kernel, stream)
        if getattr(event, "why", None)
    ]


@pytest.mark.case("N02")
async def test_a_retry_sends_a_dead_letter_again_and_the_log_says_who(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    name = await dead(gateway, kernel)
    assert await kernel.retry(name, by="ops", why="the chat is back") == "redriven"
    await kernel.settled(name, 1000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert whys(kernel, name) == [("ops", "the chat is back")]


async def test_a_retry_of_a_turn_redrives_its_answer(gateway: Gateway) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    gateway.handler = answer
    gateway.platform.plays(reject(GONE))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    assert await done.settled(1000) is TurnOutcome.FAILED
    assert await kernel.retry(done.turn_id, by="ops") == "redriven"
    await spin()
    assert turn(kernel, done.turn_id).outcome is TurnOutcome.REPLIED
    with pytest.raises(RuleBrokenError, match="delivered"):
        await kernel.retry(done.turn_id, by="ops")


async def test_a_retry_hurries_what_waits_for_its_time(gateway: Gateway) -> None:
    gateway.platform.plays(reject(FailureClass.CANCELLED))
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hello")
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.RETRYABLE
    assert await kernel.retry(done.entry_id, by="ops") == "rescheduled"
    await spin()
    assert entry(kernel, done.entry_id).phase is Phase.DELIVERED


async def test_a_retry_of_doubt_is_refused_and_names_the_command_that_helps(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    name = await parked(gateway, kernel)
    before = story(kernel, name)
    with pytest.raises(RuleBrokenError, match="resolve"):
        await kernel.retry(name, by="ops")
    assert story(kernel, name) == before
    with pytest.raises(NotFoundError):
        await kernel.retry("entry:none", by="ops")


@pytest.mark.case("N02")
async def test_a_discarded_dead_letter_counts_as_seen(gateway: Gateway) -> None:
    kernel = await gateway.start()
    name = await dead(gateway, kernel)
    assert await kernel.discard(name, by="ops", why="phoned") == "acknowledged"
    assert entry(kernel, name).acknowledged
    assert whys(kernel, name) == [("ops", "phoned")]


async def test_discarded_doubt_ends_as_unknown_and_is_never_called_undelivered(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    name = await parked(gateway, kernel)
    assert await kernel.discard(name, by="ops", why="old") == "acknowledged"
    found = entry(kernel, name)
    assert (found.phase, found.reason) == (Phase.FAILED, "outcome_unknown")
    assert found.acknowledged
    assert whys(kernel, name) == [("ops", "old")]
    assert len(gateway.platform.calls) == 1


async def test_what_waits_is_aborted_by_a_discard_and_what_is_over_is_left(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    done = await kernel.enqueue(route(), "hello")
    assert await kernel.discard(done.entry_id, by="ops") == "aborted"
    await kernel.connected("t")
    await spin()
    assert gateway.platform.calls == []
    with pytest.raises(RuleBrokenError, match="already"):
        await kernel.discard(done.entry_id, by="ops")


async def test_a_discarded_turn_takes_its_dead_letters_with_it(
    gateway: Gateway,
) -> None:
    async def answer(handle) -> None:
        await handle.reply("a")

    gateway.handler = answer
    gateway.platform.plays(reject(GONE))
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await done.settled(1000)
    assert await kernel.discard(done.turn_id, by="ops") == "acknowledged"
    assert entry(kernel, turn(kernel, done.turn_id).finals[0]).acknowledged


async def test_an_account_is_let_go_by_its_name_or_by_what_waits_for_it(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    for stream in ("t/default", "entry"):
        await kernel.disconnected("t")
        done = await kernel.enqueue(route(), "hello")
        await spin()
        assert entry(kernel, done.entry_id).phase is Phase.QUEUED
        wanted = done.entry_id if stream == "entry" else stream
        (gate,) = await kernel.let_go(wanted, by="ops", why="new token")
        await spin()
        assert entry(kernel, done.entry_id).phase is Phase.DELIVERED
        opening = events(kernel, gate)[-1]
        assert (opening.by, opening.note) == ("ops", "new token")
    with pytest.raises(RuleBrokenError, match="nothing holds"):
        await kernel.let_go("t/default", by="ops")


async def test_an_abort_keeps_who_and_why(gateway: Gateway) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    done = await kernel.enqueue(route(), "hello")
    await kernel.abort(done.entry_id, by="ops", why="wrong person")
    assert whys(kernel, done.entry_id) == [("ops", "wrong person")]
    await kernel.redact(done.entry_id, by="ops")
    store = peek(kernel)
    named = [e.why for e in events(kernel, done.entry_id) if getattr(e, "why", None)]
    assert [store.kept(done.entry_id, ref) for ref in named] == [None]


# --- as commands ---


def run(*arguments: str) -> Result:
    words = list(arguments)
    return CliRunner().invoke(app(words), words)


async def _dead_in_file(path: Path) -> str:
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    name = await dead(gateway, kernel)
    await gateway.end()
    return name


@pytest.mark.case("N02")
def test_a_command_acts_where_no_worker_lives(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    name = asyncio.run(_dead_in_file(path))
    short = name.removeprefix("entry:")[:9]
    words = ("-s", str(path), "--by", "ann", "--why", "it was down")
    done = run("retry", short, *words, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["id"], facts["act"], facts["by"]) == (name, "redriven", "ann")
    shown = run("show", name, "-v", "-s", str(path)).stdout
    assert "by ann" in shown
    assert "it was down" in shown
    again = run("discard", short, *words)
    assert again.exit_code == 0, again.output
    assert "aborted" in again.stdout
    assert f"turnfold show {name}" in again.stdout


async def test_a_command_acts_beside_a_living_worker(tmp_path: Path) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    name = await parked(gateway, kernel)
    words = ("resolve", name, "delivered", "-s", str(tmp_path / "g.db"), "--by", "ann")
    done = await asyncio.to_thread(run, *words)
    assert done.exit_code == 0, done.output
    assert entry(kernel, name).phase is Phase.DELIVERED
    await gateway.end()


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry", "nonsense"],
        ["discard", "nonsense"],
        ["abort", "nonsense"],
        ["open", "nonsense"],
        ["open", "nobody/default"],
        ["resolve", "nonsense", "delivered"],
        ["resolve", "nonsense", "resned"],
        ["retry", ""],
        ["retry"],
    ],
)
def test_wrong_use_is_exit_2_and_changes_nothing(tmp_path: Path, arguments) -> None:
    path = tmp_path / "g.db"
    asyncio.run(_dead_in_file(path))
    head = run("head", "-s", str(path)).stdout
    done = run(*arguments, "-s", str(path))
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert run("head", "-s", str(path)).stdout == head


def test_an_act_makes_no_store(tmp_path: Path) -> None:
    done = run("retry", "x", "-s", str(tmp_path / "none.db"))
    assert done.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.case("W14")
async def test_a_person_says_that_a_store_is_a_restored_copy(tmp_path: Path) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    kernel = await gateway.start()
    await kernel.disconnected("t")
    waits = (await kernel.enqueue(route(), "x")).entry_id
    words = ("restored", "-s", str(tmp_path / "g.db"), "--by", "ann")
    done = await asyncio.to_thread(run, *words)
    assert done.exit_code == 0, done.output
    assert "what was open waits for a person, by ann" in " ".join(done.stdout.split())
    assert entry(kernel, waits).phase is Phase.PARKED
    await gateway.end()
