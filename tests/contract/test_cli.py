"""The command line: what it prints, how it exits, and that it changes nothing."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner, Result

import turnfold_cli
from turnfold.enums import FailureClass
from turnfold.inspect import export
from turnfold_cli import COMMANDS, app
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import reject, unknown

ESCAPE = "\x1b"


async def worked(path: Path) -> None:
    """One turn answered, one entry parked, one dead letter, one message with tricks."""
    gateway = Gateway(store=in_file(path))

    async def answer(turn):
        await turn.reply(f"re: {turn.inbound.text}", "two")

    gateway.handler = answer
    kernel = await gateway.start()
    for number, text in (("1001", "hello"), ("1002", f"{ESCAPE}[2Jgone\u202e[bold]")):
        turn = await kernel.accept(inbound(number, number, text))
        await turn.settled(5_000)
    gateway.platform.plays(unknown(), conversation="parked")
    await kernel.enqueue(route("parked"), "maybe")
    await spin()
    await gateway.advance(10_000)
    gateway.platform.plays(reject(FailureClass.PERMISSION), conversation="dead")
    await kernel.enqueue(route("dead"), "never")
    await spin()
    witness = [{"key": m.key, "id": m.id} for m in gateway.platform.messages]
    (path.parent / "witness.json").write_text(json.dumps({"messages": witness}))
    await gateway.end()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    asyncio.run(worked(folder / "gateway.db"))
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, and in it."""
    made = tmp_path / "here"
    shutil.copytree(template, made)
    monkeypatch.chdir(made)
    monkeypatch.delenv("TURNFOLD_STORE", raising=False)
    return made


def run(*arguments: str, stdin: bytes = b"", **env: str) -> Result:
    words = list(arguments)
    return CliRunner().invoke(app(words), words, input=stdin, env=env)


def as_json(*arguments: str) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def script(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real thing in a process of its own."""
    code = "import sys; from turnfold_cli import main; sys.argv[0] = 'turnfold'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | env,
    )


# --- every command -----------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    done = script("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if name not in done.stdout] == []


def test_a_command_that_a_distribution_leaves_out_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = dict(COMMANDS) | {"demo": ("no_such_module", "demo", "Gone.")}
    monkeypatch.setattr(turnfold_cli, "COMMANDS", rows)
    result = run("--help")
    assert result.exit_code == 0
    assert "Gone." not in result.output


def test_without_the_extra_it_lists_the_commands_and_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(turnfold_cli, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        turnfold_cli.main()
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert "pip install 'turnfold[cli]'" in text
    assert "typer, rich" in text
    assert [name for name in COMMANDS if f"turnfold {name}" not in text] == []


def test_main_imports_neither_typer_nor_rich_nor_the_kernel() -> None:
    """So that it can say what is missing, and that help is quick."""
    code = "import sys, turnfold_cli; print([m for m in ('typer', 'rich', 'attrs') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_command_that_reads_loads_no_kernel() -> None:
    """The kernel is a third of what a command would import."""
    modules = "status stats list_ find show gates inbox size backup health tail log audit head"
    code = (
        f"import sys, importlib; [importlib.import_module('turnfold_cli.' + m) for m in {modules.split()}]; "
        "print([m for m in sys.modules if m.startswith(('turnfold.api', 'turnfold._runtime', 'cattrs'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_command_has_help_json_and_a_store(name: str) -> None:
    result = run(name, "--help", COLUMNS="120")
    assert result.exit_code == 0
    assert "--json" in result.output
    if name != "copy":  # which names two stores
        assert "--store" in result.output
        assert "TURNFOLD_STORE" in result.output


@pytest.mark.parametrize("arguments", [["list"], ["head"], ["audit"], ["log"]])
def test_a_store_that_is_not_there_is_exit_3(tmp_path: Path, arguments) -> None:
    path = str(tmp_path / "none.db")
    result = run(*arguments, "--store", path)
    assert result.exit_code == 3
    assert "it does not exist" in result.stderr
    assert list(tmp_path.iterdir()) == []
    if arguments != ["log"]:
        result = run(*arguments, "--store", path, "--json")
        assert result.exit_code == 3
        assert json.loads(result.stdout)["error"]["code"] == "store.not_a_store"


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0 but damaged", b"text"])
def test_a_file_that_is_no_store_is_exit_3(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    assert run("list", "-s", str(path)).exit_code == 3
    assert path.read_bytes() == content


def test_a_newer_schema_is_exit_3(folder: Path) -> None:
    connection = apsw.Connection("gateway.db")
    connection.pragma("user_version", 99)
    connection.execute("UPDATE layout SET readable_by = 99").fetchall()
    connection.close()
    result = run("list")
    assert result.exit_code == 3
    assert "upgrade turnfold" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["list", "--status", "nonsense"],
        ["list", "--since", "nonsense"],
        ["show", "nonsense"],
        ["show"],
        ["audit", "--witness", "nonsense"],
        ["audit", "--head", "witness.json"],
        ["audit", "--witness", "gateway.db"],
        ["audit", "--witness", "/dev/zero"],
        ["audit", "--head", "/dev/zero"],
        ["serve", "--token-file", "/dev/zero"],
        [],
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_usage_is_exit_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.case("X04", "X17")
@pytest.mark.parametrize("tail", [[], ["--json"]])
@pytest.mark.parametrize(
    "words", [["bad\x9b\u202e"], ["list", "--bad\u200b"], ["show"], ["list", "-n", "x"]]
)
def test_wrong_usage_is_one_line_without_hidden_characters(words, tail) -> None:
    result = run(*words, *tail)
    said = result.stdout if tail else result.stderr
    assert result.exit_code == 2
    assert len(said.splitlines()) == 1
    assert not {"\x9b", "\u202e", "\u200b"} & set(result.output)


def test_an_option_before_its_command_is_told_where_to_stand() -> None:
    said = run("-s", "gateway.db", "status").stderr
    assert "the options of a command stand behind its name" in said


@pytest.mark.case("X17")
def test_it_says_its_version_and_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "turnfold", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"turnfold {version('turnfold')}\n"
    assert "completion" not in run("--help").stdout


def test_the_store_comes_from_option_environment_or_default(folder: Path) -> None:
    folder.joinpath("gateway.db").rename(folder / "other.db")
    assert run("head").exit_code == 3
    assert run("head", TURNFOLD_STORE="other.db").exit_code == 0
    assert run("head", "-s", "other.db", TURNFOLD_STORE="none.db").exit_code == 0


@pytest.mark.case("N10")
@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "1001", "-v"],
        ["status"],
        ["stats"],
        ["list"],
        ["turns"],
        ["find", "t/1001"],
        ["gates"],
        ["worker"],
        ["channels"],
        ["inbox"],
        ["audit"],
        ["head"],
        ["log", "--bodies"],
        ["tail", "--from", "1", "-n", "3"],
    ],
)
def test_no_command_changes_a_file_or_makes_one(folder: Path, arguments) -> None:
    def contents() -> dict[str, tuple[int, int, bytes]]:
        files = {f.name: (f.stat(), f.read_bytes()) for f in folder.iterdir()}
        return {n: (s.st_mtime_ns, s.st_ino, data) for n, (s, data) in files.items()}

    before, stamp = contents(), folder.stat().st_mtime_ns
    assert run(*arguments).exit_code in (0, 1)
    assert (contents(), folder.stat().st_mtime_ns) == (before, stamp)


@pytest.mark.case("N10")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_can_be_looked_into(folder: Path) -> None:
    folder.chmod(0o500)
    try:
        assert run("audit").exit_code == 0
    finally:
        folder.chmod(0o700)


# --- show -----------------------------------------------------------------------------------


@pytest.mark.case("N08")
@pytest.mark.usefixtures("folder")
def test_show_tells_one_timeline_in_plain_words() -> None:
    result = run("show", "1001", "-v", COLUMNS="120")
    assert result.exit_code == 0
    for words in (
        "message 1001 accepted",
        "run 1 started",
        "part 1 of 2",
        "re: hello",
        "attempt 1, ",
        "receipt m1",
        "over: replied",
        "Answered: the platform accepted all 2 part(s)",
        "nothing: it is over",
    ):
        assert words in result.stdout


@pytest.mark.usefixtures("folder")
def test_show_as_json_has_the_same_facts() -> None:
    value = as_json("show", "1001")
    assert (value["what"], value["outcome"]) == ("turn", "replied")
    (final,) = value["entries"]
    assert [part["receipt"] for part in final["parts"]] == [["m1"], ["m2"]]
    assert value["next"] == {
        "text": "nothing: it is over",
        "at": None,
        "person": False,
        "commands": [],
    }


@pytest.mark.usefixtures("folder")
def test_show_says_what_happens_next_and_who_must_act() -> None:
    (parked,) = as_json("list", "--status", "parked")["rows"]
    shown = as_json("show", parked["id"])
    assert shown["next"]["person"] is True
    assert "somebody must say if it arrived" in run("show", parked["id"]).stdout


@pytest.mark.usefixtures("folder")
def test_show_knows_gates_and_the_store_itself() -> None:
    assert as_json("show", "store")["what"] == "store"
    assert "epoch" in run("show", "store").stdout


@pytest.mark.usefixtures("folder")
def test_a_message_cannot_move_the_cursor_or_turn_the_text_around() -> None:
    result = run("show", "1002")
    assert result.exit_code == 0
    assert ESCAPE not in result.stdout
    assert "\u202e" not in result.stdout
    assert "[bold]" in result.stdout


# --- list ------------------------------------------------------------------------------------


@pytest.mark.case("N08")
@pytest.mark.usefixtures("folder")
def test_list_filters_add_up() -> None:
    def ids(*arguments: str) -> list[str]:
        return [row["conversation"] for row in as_json("list", *arguments)["rows"]]

    assert ids("--status", "parked", "--status", "failed_terminal") == [
        "dead",
        "parked",
    ]
    assert [r["conversation"] for r in as_json("turns")["rows"]] == ["1002", "1001"]
    assert ids("--reason", "permanent") == ids("--reason", "permission") == ["dead"]
    assert ids("--status", "parked,failed_terminal") == ["dead", "parked"]
    assert ids("--parked") == ids("--unseen", "--open") == ["parked"]
    assert ids("--dead", "--since", "today") == ["dead"]
    assert ids("--dead", "--until", "1w") == []
    assert ids("--open") == ["parked"]
    assert ids("--kind", "final", "--conversation", "1001") == ["1001"]
    assert ids("--until", "2020-01-01") == []
    assert len(ids("--since", "2020-01-01T00:00")) == 4
    assert ids("-n", "1") == ["dead"]
    assert as_json("list", "-n", "1")["more"] is True


@pytest.mark.usefixtures("folder")
def test_a_list_of_nothing_says_so() -> None:
    result = run("list", "--until", "2020-01-01")
    assert (result.exit_code, result.stdout) == (0, "nothing that fits\n")


VIEWS = (
    ["status"],
    ["stats", "--since", "2020-01-01"],
    ["list"],
    ["turns"],
    ["find", "t/1001"],
    ["show", "1001"],
    ["show", "1001", "-v"],
    ["gates"],
    ["worker"],
    ["channels", "--since", "2020-01-01"],
    ["tail", "--from", "1", "-n", "20"],
    ["inbox"],
    ["audit"],
)


@pytest.mark.case("X13")
@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.usefixtures("folder")
def test_tables_fit_a_narrow_terminal(width: int) -> None:
    for arguments in VIEWS:
        result = run(*arguments, COLUMNS=str(width))
        lines = [x for x in result.stdout.splitlines() if "turnfold " not in x]
        table = [x for x in lines if not x.startswith("head ")]
        assert max(map(len, table)) <= width, (arguments, result.stdout)


@pytest.mark.usefixtures("folder")
def test_the_columns_that_matter_stay_longest() -> None:
    narrow = run("list", COLUMNS="60").stdout
    assert "status" in narrow
    assert "expires" not in narrow
    assert "created" in run("list", COLUMNS="200").stdout


@pytest.mark.usefixtures("folder")
def test_there_are_no_colours_in_a_pipe() -> None:
    done = script("list", FORCE_COLOR="", TERM="xterm-256color")
    assert done.returncode == 0
    assert ESCAPE not in done.stdout


# --- log, tail, head -------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_the_log_comes_as_lines_that_are_read_back() -> None:
    result = run("log")
    assert result.exit_code == 0
    records = list(export.read(result.stdout_bytes.splitlines()))
    head = as_json("head")
    assert records[-1].position == len(records) == head["position"]
    tail = run("log", "--from", str(len(records))).stdout.splitlines()
    assert tail == result.stdout.splitlines()[-1:]


@pytest.mark.usefixtures("folder")
def test_the_bodies_come_with_the_log_on_request() -> None:
    lines = [json.loads(line) for line in run("log", "--bodies").stdout.splitlines()]
    record, queued = next(
        (line, data)
        for line in lines
        for kind, _, data in line["events"]
        if kind == "outbox.queued"
    )
    number = queued["body"][0].partition(".")[0]
    body = export.bytes_of(record["bodies"][number]["data"])
    assert json.loads(body)["text"] == "re: hello"


@pytest.mark.case("Q01")
@pytest.mark.usefixtures("folder")
def test_a_row_that_cannot_be_read_is_exported_as_it_is() -> None:
    connection = apsw.Connection("gateway.db")
    connection.execute("UPDATE log SET events = x'7b00' WHERE position = 5").fetchall()
    connection.close()
    lines = [json.loads(line) for line in run("log").stdout.splitlines()]
    assert "raw" in lines[4]
    told = run("tail", "--from", "5", "-n", "1").stdout
    assert "cannot be read" in told
    listed = run("audit", "--json")
    assert (listed.exit_code, json.loads(listed.stdout)["audit"]) == (1, "chain.hash")


@pytest.mark.usefixtures("folder")
def test_tail_tells_events_in_words_or_as_lines() -> None:
    told = run("tail", "--from", "2", "-n", "2").stdout.splitlines()
    assert len(told) == 3  # the day stands above
    assert "message 1001 accepted" in told[1]
    lines = run("tail", "--from", "2", "-n", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["position"] for line in lines] == [2, 3]


def test_tail_follows_a_store_that_is_written_to(folder: Path) -> None:
    last = as_json("head")["position"]
    code = "from turnfold_cli import main; import sys; sys.argv[0] = 'turnfold'; main()"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "tail", "--json", "--from", str(last)],
        stdout=subprocess.PIPE,
        text=True,
        # started in the background of a script, this process ignores it, and its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  no threads here
    )

    def told() -> dict:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "error" not in line, line
        return json.loads(line)

    async def more() -> None:
        gateway = Gateway(store=in_file(folder / "gateway.db"))
        kernel = await gateway.start()
        await kernel.enqueue(route("new"), "hi")
        await gateway.end()

    try:
        assert told()["position"] == last  # it looks
        asyncio.run(more())
        assert told()["position"] == last + 1
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.usefixtures("folder")
def test_head_is_the_same_in_both_forms() -> None:
    value = as_json("head")
    assert run("head").stdout == f"{value['position']} {value['hash']}\n"
    assert len(value["hash"]) == 64
    assert value["store"]


# --- inbox ------------------------------------------------------------------------------------


def test_what_waits_in_the_inbox_is_listed_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "g.db"

    async def posted() -> str:
        gateway = Gateway(store=in_file(path))
        client = await gateway.start(work=False)
        turn = await client.accept(inbound("7", "42"))
        await gateway.end()
        return turn.turn_id

    turn = asyncio.run(posted())
    value = as_json("inbox", "--store", str(path))
    assert [(c["kind"], c["stream"]) for c in value["commands"]] == [("accept", turn)]
    assert turn in run("inbox", "--store", str(path)).stdout
    shown = as_json("show", "7", "--store", str(path))
    assert (shown["what"], shown["stream"]) == ("command", turn)
    text = run("show", turn, "--store", str(path)).stdout
    assert "not in the log yet" in text
    assert "waits in the inbox" in text


@pytest.mark.usefixtures("folder")
def test_an_empty_inbox_is_said_to_be_empty() -> None:
    assert run("inbox").stdout == "nothing waits\n"


# --- audit --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_a_good_store_passes_with_its_witness() -> None:
    result = run("audit", "--witness", "witness.json")
    assert result.exit_code == 0, result.output
    assert "4 parts that the platform accepted" in result.stdout
    value = as_json("audit", "--witness", "witness.json")
    assert (value["audit"], value["passed"], value["witnessed"]) == ("passed", True, 4)


def test_a_witness_of_more_than_the_log_announced_is_exit_1(folder: Path) -> None:
    value = json.loads((folder / "witness.json").read_text())
    value["messages"].append({"key": "x", "id": "m9"})
    (folder / "more.json").write_text(json.dumps(value["messages"]))
    result = run("audit", "--witness", "more.json")
    assert result.exit_code == 1
    assert "broken: INV-3" in result.stdout
    assert run("audit", "--witness", "more.json", "--channel", "x").exit_code == 1


def test_an_export_is_audited_like_its_store(folder: Path) -> None:
    data = run("log").stdout_bytes
    (folder / "log.ndjson").write_bytes(data)
    assert run("audit", "log.ndjson", "--witness", "witness.json").exit_code == 0
    assert run("audit", "-", stdin=data).exit_code == 0
    lines = data.splitlines(keepends=True)
    (folder / "less.ndjson").write_bytes(b"".join(lines[:3] + lines[4:]))
    result = run("audit", "less.ndjson", "--json")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    assert value["audit"] == value["findings"][0]["rule"] == "chain.position"


def test_a_head_that_was_kept_shows_a_tail_that_is_gone(folder: Path) -> None:
    data = run("log").stdout_bytes
    for name, form in (("a.txt", []), ("b.json", ["--json"])):
        (folder / name).write_bytes(run("head", *form).stdout_bytes)
        assert run("audit", "--head", name).exit_code == 0
        cut = b"".join(data.splitlines(keepends=True)[:-1])
        result = run("audit", "-", "--head", name, stdin=cut)
        assert result.exit_code == 1
        assert "its tail is gone" in result.stdout


@pytest.mark.usefixtures("folder")
def test_findings_beyond_the_limit_are_counted() -> None:
    connection = apsw.Connection("gateway.db")
    connection.execute("UPDATE log SET at = at + 1").fetchall()
    connection.close()
    result = run("audit", "-n", "2")
    assert result.exit_code == 1
    assert "broken: chain.hash" in result.stdout
    assert " more\n" in result.stdout
