"""The commands that act: for an id, for all that filters find, and for places."""

import asyncio
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_cli_look import HIDDEN, MARKUP, nasty
from typer.testing import CliRunner, Result

from turnfold import FailureClass, Settings
from turnfold.enums import Phase
from turnfold.ports.store import Store
from turnfold_cli import app
from turnfold_model.testing.gateway import (
    Gateway,
    entry,
    in_file,
    inbound,
    route,
    spin,
    until,
)
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

ACTS = ("retry", "discard", "ack", "abort", "open", "close", "unhold", "redact")
ACTS += ("resubmit",)


def run(path: Path, *arguments: str) -> Result:
    words = [*arguments, "-s", str(path)]
    return CliRunner().invoke(app(words), words, env={"COLUMNS": "100"})


def said(path: Path, *arguments: str) -> dict[str, Any]:
    result = run(path, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def counts(path: Path) -> dict[str, int]:
    rows = said(path, "list", "--limit", "1000")["rows"]
    words = [row["status"] for row in rows]
    return {word: words.count(word) for word in words}


def closed_gates(path: Path) -> list[dict[str, Any]]:
    return json.loads(run(path, "gates", "--json").stdout)["gates"]


def head(path: Path) -> str:
    return run(path, "head").stdout


async def incident(at: Path | Callable[[], Store], parked: int = 6) -> None:
    """Some parked, two dead on each of two accounts, one that waits, one failed turn."""
    store = in_file(at) if isinstance(at, Path) else at
    gateway = Gateway(store=store, settings=Settings(max_runs=1))
    for account in ("default", "b"):
        gateway.channels["t", account] = PlatformChannel(gateway.platform)

    async def handler(handle: Any) -> None:
        raise ValueError("no")

    gateway.handler = handler
    kernel = await gateway.start()
    for n in range(parked):
        gateway.platform.plays(unknown(), conversation=f"p{n}")
        await kernel.enqueue(route(f"p{n}"), "x")
    for n in range(4):
        gateway.platform.plays(reject(FailureClass.TARGET_GONE), conversation=f"d{n}")
        account = "b" if n % 2 else "default"
        await kernel.enqueue(route(f"d{n}", account=account), "x")
    await until(lambda: len(gateway.platform.calls) == parked + 4)
    await spin()
    await kernel.hold_back("t/default/w", by="ops")
    await kernel.enqueue(route("w"), "x")
    done = await kernel.accept(inbound("1", "q"))
    await done.settled(2_000)
    await spin()  # its notice
    await gateway.end()


@pytest.fixture(scope="module")
def after_an_incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("incident") / "gateway.db"
    asyncio.run(incident(path))
    return path


@pytest.fixture
def store(after_an_incident: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(after_an_incident, tmp_path / "copy.db"))


@pytest.mark.case("X11")
@pytest.mark.parametrize("verdict", ["delivered", "not_sent", "resend", "give_up"])
def test_the_short_page_names_who_decided_and_why(store: Path, verdict: str) -> None:
    parked = said(store, "list", "--parked")["rows"][0]["id"]
    before = run(store, "show", parked).stdout
    assert "ALICE" not in before
    done = run(store, "resolve", parked, verdict, "--by", "ALICE", "--why", "BECAUSE")
    assert done.exit_code == 0, done.output
    page = run(store, "show", parked).stdout
    (line,) = [line for line in page.splitlines() if "BECAUSE" in line]
    assert "by ALICE" in line
    shown = said(store, "show", parked)["happened"]
    assert [event["by"] for event in shown if event["by"]] == ["ALICE"]


def test_an_act_says_that_no_worker_is_there_to_go_on(store: Path) -> None:
    dead = said(store, "list", "--dead")["rows"][0]["id"]
    done = run(store, "retry", dead)
    assert "goes out now; no worker is running now" in done.stdout


def test_find_says_how_a_conversation_is_written(store: Path) -> None:
    done = run(store, "find", "t", "p 0")
    assert "if p 0 is a conversation: turnfold find 't/p 0'" in done.stdout


# --- many ---


@pytest.mark.case("X01", "N02")
def test_one_command_ends_all_that_filters_find(store: Path) -> None:
    words = ("resolve", "delivered", "--parked", "--since", "today", "--by", "ann")
    done = run(store, *words, "--why", "seen in the app", "--yes")
    assert done.exit_code == 0, done.output
    assert "resolve: 6 entries (t 6)" in done.stdout
    assert "6 done, by ann" in done.stdout
    assert "parked" not in counts(store)
    shown = run(store, "show", said(store, "list")["rows"][-1]["short"], "-v").stdout
    assert "by ann" in shown
    assert "seen in the app" in shown


@pytest.mark.case("X01")
def test_a_preview_names_what_would_be_done_and_changes_nothing(store: Path) -> None:
    before = head(store)
    shown = run(store, "retry", "--dead", "--dry-run")
    assert shown.exit_code == 0
    assert "retry: 4 entries (t 2, t/b 2)" in shown.stdout
    facts = said(store, "retry", "--dead", "--account", "b", "--dry-run")
    assert facts["count"] == 2
    assert [sorted(one) for one in facts["ids"]] == [["id", "version"]] * 2
    assert head(store) == before


@pytest.mark.case("X01")
def test_more_than_one_is_never_done_without_a_word(store: Path, monkeypatch) -> None:
    before = head(store)
    refused = run(store, "discard", "--dead")
    assert refused.exit_code == 2
    assert "say --yes or --dry-run" in refused.stderr
    assert run(store, "discard", "--dead", "--json").exit_code == 2
    monkeypatch.setattr("turnfold_cli.acting.check_asking", lambda: None)
    words = ["discard", "--dead", "-s", str(store)]
    no = CliRunner().invoke(app(words), words, input="n\n")
    assert (no.exit_code, "nothing was done" in no.output) == (0, True)
    assert head(store) == before
    yes = CliRunner().invoke(app(words), words, input="y\n")
    assert "4 done: acknowledged 4" in yes.output
    again = run(store, "ack", "--dead", "--yes")
    assert (again.exit_code, "4 others fit the filters" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("retry", "--dead"), 4),
        (("retry", "--reason", "target_gone", "--channel", "t"), 4),
        (("retry", "--dead", "--account", "b"), 2),
        (("discard", "--conversation", "d1"), 1),
        (("ack", "--unseen", "--since", "today"), 4),
        (("abort", "--status", "queued"), 1),
        (("abort", "--parked"), 6),
        (("redact", "--closed"), 5),
        (("redact", "--turns", "--closed"), 1),
        (("resubmit", "--status", "failed"), 1),
        (("retry", "--turns", "--status", "failed"), 1),
        (("unhold", "--held"), 0),
        (("resolve", "give_up", "--parked", "--conversation", "p1"), 1),
    ],
)
@pytest.mark.case("X01", "X17")
def test_every_act_takes_the_filters_of_a_list(store: Path, words, count) -> None:
    facts = said(store, *words, "--yes")
    assert facts["count"] == count
    assert sum(facts["done"].values()) == count
    assert facts["refused"] == []


@pytest.mark.case("N06")
def test_what_has_changed_since_the_preview_is_refused_and_told(
    store: Path, monkeypatch
) -> None:
    from turnfold_cli import acting

    shown, first = acting._show, said(store, "list", "--dead")["rows"][0]["id"]

    def then_somebody_else(*arguments: Any) -> None:
        shown(*arguments)
        assert run(store, "ack", first, "--by", "bob").exit_code == 0

    monkeypatch.setattr(acting, "_show", then_somebody_else)
    done = run(store, "retry", "--dead", "--yes")
    assert done.exit_code == 1
    assert "3 done: redriven 3" in done.stdout
    assert f"not {first}: " in done.stdout
    assert "has changed" in done.stdout


async def test_many_are_acted_on_beside_a_living_worker(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    gateway.platform.plays(*[unknown()] * 3)
    names = [(await kernel.enqueue(route(str(n)), "x")).entry_id for n in range(3)]
    await until(lambda: all(entry(kernel, n).phase is Phase.PARKED for n in names))
    words = ("resolve", "resend", "--parked", "--yes")
    done = await asyncio.to_thread(run, path, *words)
    assert done.exit_code == 0, done.output
    for name in names:
        await kernel.settled(name, 2_000)
        assert entry(kernel, name).phase is Phase.DELIVERED
    await gateway.end()


# --- one ---


@pytest.mark.case("N06")
def test_an_act_on_one_id_can_name_the_version_that_was_seen(store: Path) -> None:
    row = said(store, "list", "--dead")["rows"][0]
    before, stale = head(store), str(row["version"] - 1)
    refused = run(store, "ack", row["short"], "--seen", stale)
    assert (refused.exit_code, head(store)) == (2, before)
    assert "has changed since" in refused.stderr
    done = run(store, "ack", row["short"], "--seen", str(row["version"]))
    assert done.exit_code == 0
    assert "counts as seen" in done.stdout


def test_a_failed_turn_is_run_again_and_one_that_is_over_erased(store: Path) -> None:
    (row,) = said(store, "turns")["rows"]
    erased = run(store, "redact", row["short"], "--why", "asked for")
    assert "is erased" in erased.stdout
    assert "asked for" in run(store, "show", row["short"], "-v").stdout
    refused = run(store, "resubmit", row["short"])
    assert (refused.exit_code, "erased" in refused.stderr) == (2, True)


# --- places ---


@pytest.mark.case("X01")
def test_a_place_is_closed_and_opened(store: Path) -> None:
    closed = run(store, "close", "t/default", "--why", "new texts", "--by", "ann")
    assert closed.exit_code == 0, closed.output
    assert "t/default held back: gate:t/default, by ann" in closed.stdout
    gates = {gate["place"]: gate for gate in closed_gates(store)}
    assert gates["t/default"]["reason"] == "operator"
    assert gates["t/default"]["person"]
    shown = run(store, "show", "gate:t/default", "-v").stdout
    assert "by ann: new texts" in shown
    opened = said(store, "open", "--channel", "t", "--yes")["places"]
    assert {one["place"] for one in opened} == {"gate:t/default", "gate:t/default/w"}
    assert run(store, "gates").stdout == "all gates are open\n"
    assert run(store, "open", "t/default").exit_code == 2


def test_all_accounts_of_a_channel_are_closed_for_a_while(store: Path) -> None:
    places = said(store, "close", "--channel", "t", "--for", "2h", "--yes")["places"]
    assert {one["place"] for one in places} == {"gate:t/default", "gate:t/b"}
    gates = [g for g in closed_gates(store) if g["place"].count("/") == 1]
    assert all(gate["until"] is not None for gate in gates)


# --- wrong use, and text from outside ---


@pytest.mark.case("X20", "X17")
@pytest.mark.parametrize(
    "arguments",
    [
        *[[act] for act in ACTS],
        *[[act, "nonsense"] for act in ACTS],
        *[[act, "--channel", "nosuch", "--yes"] for act in ACTS],
        *[[act, "x", "--channel", "t"] for act in ACTS],
        ["resolve"],
        ["resolve", "delivered"],
        ["resolve", "nonsense", "delivered"],
        ["resolve", "resned", "--parked", "--yes"],
        ["resolve", "a", "b", "delivered"],
        ["resolve", "delivered", "--parked", "--seen", "3", "--yes"],
        ["retry", "--dead", "--yes", "--since", "whenever"],
        ["retry", "--status", "nonsense", "--yes"],
        ["retry", "--reason", "nonsense", "--yes"],
        ["retry", "--dead", "--by", "x" * 100_000, "--yes"],
        ["retry", "--dead", "--why", "x" * 100_000, "--yes"],
        *[[act, "--conversation", "nosuch", "--yes"] for act in ACTS],
        ["retry", "--seen", "0", "x"],
        ["close", "t"],
        ["close", "nosuch/default"],
        ["close", "t/nosuch"],
        ["close", "t/default", "--for", "ever"],
        ["unhold", "--dead", "--yes"],
        ["discard", "x", "--dry-run"],
    ],
)
def test_wrong_use_of_an_act_is_one_line_and_changes_nothing(
    store: Path, arguments: list[str]
) -> None:
    before = head(store)
    done = run(store, *arguments)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("turnfold: ")
    assert "Traceback" not in done.output
    assert head(store) == before


@pytest.mark.case("X03", "X04")
def test_an_act_shows_what_comes_from_outside_as_data(tmp_path: Path) -> None:
    path = tmp_path / "nasty.db"
    asyncio.run(nasty(path))
    person = f"ann{HIDDEN}{MARKUP}"
    name = said(path, "channels", "--since", "2020-01-01")["channels"][0]
    place = f"gate:{name['channel']}".replace("/", "%2F")
    outputs = [
        run(path, *words, "--by", person, "--why", person)
        for words in (
            ("retry", "--dead", "--dry-run"),
            ("resolve", "give_up", "--parked", "--yes"),
            ("ack", "--dead", "--yes"),
            ("redact", "--closed", "--yes"),
            ("redact", "--turns", "--closed", "--yes", "--json"),
            ("abort", "--status", "queued", "--yes"),
            ("close", "--channel", name["channel"], "--yes"),
            ("open", "--channel", name["channel"], "--yes"),
            ("open", "--channel", name["channel"], "--yes", "--json"),
            ("close", place),
            ("retry", f"{HIDDEN}{MARKUP}"),
        )
    ]
    for done in outputs:
        assert "Traceback" not in done.output
        for odd in HIDDEN:
            assert odd not in done.output, done.output
    assert any(MARKUP[:4] in done.output for done in outputs)


@pytest.mark.case("X01", "X16")
def test_a_turn_whose_answer_is_dead_says_what_can_be_done(tmp_path: Path) -> None:
    path = tmp_path / "g.db"

    async def answered_in_vain() -> None:
        gateway = Gateway(store=in_file(path))
        gateway.platform.plays(reject(FailureClass.TARGET_GONE))

        async def handler(turn: Any) -> None:
            await turn.reply("x")

        gateway.handler = handler
        kernel = await gateway.start()
        await kernel.accept(inbound("1", "q"))
        await spin()
        await gateway.end()

    asyncio.run(answered_in_vain())
    (dead,) = said(path, "list", "--dead")["rows"]
    following = said(path, "show", "t2")["next"]
    assert following["person"]
    assert following["text"].startswith(f"{dead['id']} nothing by itself: failed")
    commands = [command for _, command in following["commands"]]
    assert commands == [
        f"turnfold retry {dead['short']}",
        f"turnfold discard {dead['short']}",
    ]


@pytest.mark.case("X04")
def test_a_name_in_a_command_to_copy_is_one_word_of_a_shell(store: Path) -> None:
    """A conversation's name comes from outside, and a person pastes the command."""
    place = "t/default/x; touch $(id) 'y"
    assert run(store, "close", place).exit_code == 0
    gate = next(g for g in closed_gates(store) if "touch" in g["id"])
    shown = said(store, "show", gate["id"])["next"]["commands"]
    for command in (gate["next"], shown[0][1]):
        assert shlex.split(command) == ["turnfold", "open", gate["id"]]
    assert run(store, *shlex.split(gate["next"])[1:]).exit_code == 0
