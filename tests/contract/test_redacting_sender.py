"""Everything that a person wrote is erased, with the answers to it, and the audit says so."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import FailureClass, Kernel
from turnfold.errors import InvalidInputError
from turnfold.inbound import Unreadable
from turnfold_cli import app
from turnfold_cli.of_sender import NOT_COVERED
from turnfold_model.testing.gateway import (
    Gateway,
    in_file,
    inbound,
    spin,
)
from turnfold_model.testing.platform import reject

SECRET = "written-by-7"


async def _accepted(
    kernel: Kernel, number: str, chat: str, sender: str, text: str, **how: Any
) -> str:
    message = inbound(number, chat, text, sender=sender)
    return (await kernel.accept(message, **how)).turn_id


async def test_the_turns_of_a_sender_are_those_with_a_message_of_theirs(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    own = await _accepted(kernel, "1", "42", "7", SECRET)
    joined = await _accepted(kernel, "2", "43", "8", "of 8")
    await _accepted(kernel, "3", "43", "7", SECRET, busy="join")
    for number, sender in enumerate(("8", "77", '"7"', "7\\")):
        await _accepted(kernel, f"9{number}", f"9{number}", sender, "x")
    found = await kernel.inspect.of_sender("7")
    assert (found.turns, found.shared) == ((own, joined), 1)
    assert (found.erased, found.nameless, found.unreadable) == (0, 0, 0)
    assert (await kernel.inspect.of_sender('"7"')).turns != found.turns
    assert (await kernel.inspect.of_sender("nobody")).turns == ()
    with pytest.raises(InvalidInputError):
        await kernel.inspect.of_sender("")


async def test_an_update_that_nobody_could_read_is_counted(lone: Gateway) -> None:
    kernel = await lone.start()
    await kernel.accept(Unreadable("t", raw=b"\xff", error="no JSON"))
    assert (await kernel.inspect.of_sender("7")).nameless == 1


async def _store_of(path: Path, dead: str = "") -> None:
    """`dead`: the conversations that are gone."""

    async def answer(handle: Any) -> None:
        await handle.reply(f"you said {handle.inbound.body['text']}")

    gateway = Gateway(store=in_file(path))
    gateway.handler = answer
    for chat in dead:
        gateway.platform.plays(reject(FailureClass.TARGET_GONE), conversation=chat)
    kernel = await gateway.start()
    for number, sender in enumerate("78787"):
        text = SECRET if sender == "7" else "kept"
        await _accepted(kernel, str(number), str(number), sender, text)
        await spin()
    await gateway.end()


def _run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app([*words]), [*words])
    assert done.exit_code == code, done.output
    return done


def _facts(*words: str) -> Any:
    return json.loads(_run(*words, "--json").stdout)


@pytest.mark.case("N03")
def test_the_command_erases_all_of_a_sender_and_nothing_else(tmp_path: Path) -> None:
    asyncio.run(_store_of(tmp_path / "g.db"))
    store = ("-s", str(tmp_path / "g.db"))
    assert _in_files(tmp_path, SECRET)
    seen = _facts("redact", "--sender", "7", "--dry-run", *store)
    assert (seen["count"], seen["erased_before"], seen["shared"]) == (3, 0, 0)
    assert seen["not_covered"] == list(NOT_COVERED)
    shown = _run("redact", "--sender", "7", "--dry-run", *store).output
    assert "not covered: plugin state" in shown
    assert _in_files(tmp_path, SECRET)
    here = ("--channel", "t", "--conversation", "2")
    assert _facts("redact", "--sender", "7", *here, "--dry-run", *store)["count"] == 1
    done = _facts("redact", "--sender", "7", "--yes", *store)
    assert (done["done"], done["refused"]) == ({"done": 3}, [])
    assert not _in_files(tmp_path, SECRET)
    assert _in_files(tmp_path, "kept")
    report = _facts("audit", *store)
    assert (report["passed"], report["redacted"]) == (True, 6)
    assert "redacted: 6 turns and entries" in _run("audit", *store).output
    again = _facts("redact", "--sender", "7", "--yes", *store)
    assert (again["count"], again["erased_before"]) == (3, 3)
    assert _facts("audit", *store)["redacted"] == 6


def _in_files(folder: Path, text: str) -> bool:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return any(text.encode() in file.read_bytes() for file in files)


def test_filters_of_entries_are_refused_where_turns_are_meant(tmp_path: Path) -> None:
    asyncio.run(_store_of(tmp_path / "g.db"))
    store = ("-s", str(tmp_path / "g.db"))
    odd = (("--dead",), ("--kind", "final"), ("--turn", "0"), ("--channel", "no"))
    for words in odd:
        refused = _run("redact", "--sender", "7", *words, "--yes", *store, code=2)
        assert len(refused.output.splitlines()) == 1
    _run("retry", "--turns", "--dead", "--yes", *store, code=2)
    assert _in_files(tmp_path, SECRET)


@pytest.mark.case("X01")
def test_every_act_takes_a_sender_beside_its_other_filters(tmp_path: Path) -> None:
    asyncio.run(_store_of(tmp_path / "g.db", dead="0124"))
    store = ("-s", str(tmp_path / "g.db"))
    seen = _facts("ack", "--sender", "7", "--dead", "--dry-run", *store)
    assert (seen["count"], seen["not_covered"]) == (3, [])
    here = ("--conversation", "1", "--dry-run", *store)
    assert _facts("retry", "--sender", "7", "--dead", *here)["count"] == 0
    assert _facts("retry", "--sender", "8", "--dead", *here)["count"] == 1
    done = _facts("discard", "--sender", "7", "--yes", *store)
    assert (done["done"], done["refused"]) == ({"acknowledged": 3}, [])
    left = _facts("list", "--dead", "--unseen", *store)["rows"]
    assert [row["conversation"] for row in left] == ["1"]
    assert _facts("resubmit", "--sender", "7", "--dry-run", *store)["count"] == 3
    for act in (["resolve", "delivered"], ["abort"], ["unhold"]):
        assert _facts(*act, "--sender", "7", "--dry-run", *store)["count"] == 0
