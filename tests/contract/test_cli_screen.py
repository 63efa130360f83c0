"""The command line and its streams: none, full ones, narrow ones, and what a short
command loads."""

import asyncio
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnfold_cli import app
from turnfold_cli.screen import Line, Screen, screen_at
from turnfold_model.testing.gateway import Gateway, in_file, route, spin

TOO_MUCH = ("rich.console", "rich.text", "cattrs", "pydantic", "turnfold.api.kernel")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("screen") / "g.db"

    async def make() -> None:
        gateway = Gateway(store=in_file(path))
        kernel = await gateway.start()
        await kernel.enqueue(route(), "hello \U0001f44b")
        await spin()
        await gateway.end()

    asyncio.run(make())
    return path


def run(words: str, redirection: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        f"{sys.executable} -m turnfold {words} {redirection}",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | more,
        timeout=60,
    )


@pytest.mark.case("X20")
@pytest.mark.parametrize("words", ["list", "list --json", "log", "audit"])
def test_output_without_room_is_one_line_and_exit_code_2(
    store: Path, words: str
) -> None:
    done = run(f"{words} -s {store}", ">/dev/full")
    line = "turnfold: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.case("X20")
@pytest.mark.parametrize("words", ["list", "list --json", "status", "backup b.db"])
def test_without_any_stream_a_command_ends_and_writes_into_no_file(
    store: Path, tmp_path: Path, words: str
) -> None:
    before = store.read_bytes()
    words = words.replace("b.db", str(tmp_path / "b.db"))
    done = run(f"{words} -s {store}", "<&- >&- 2>&-")
    assert (done.returncode, store.read_bytes() == before) == (0, True)


@pytest.mark.case("X20")
@pytest.mark.parametrize("words", ["restore g.db -s", "import . -s", "audit", "list"])
def test_a_path_that_no_file_can_have_is_one_line(store: Path, words: str) -> None:
    done = run(f"{words} {'a' * 300}", "", TURNFOLD_STORE=str(store))
    assert done.returncode in (2, 3), done.stderr
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert "File name too long" in done.stderr


@pytest.mark.case("X20")
@pytest.mark.parametrize("key", ["a\0b", "\ud800"])
def test_a_key_file_that_no_system_can_name_is_refused(store: Path, key: str) -> None:
    words = ["list", "-s", str(store), "--key-file", key]
    done = CliRunner().invoke(app(words), words)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


@pytest.mark.case("X20")
def test_a_stream_with_few_characters_gets_the_others_escaped(store: Path) -> None:
    done = run(f"list -s {store}", "", PYTHONIOENCODING="ascii")
    assert (done.returncode, "hello \\U0001f44b" in done.stdout) == (0, True)


@pytest.mark.case("X13")
@pytest.mark.parametrize("width", [1, 2, 20, 80])
def test_a_line_is_broken_at_the_width_and_loses_no_word(width: int) -> None:
    text = "one 二二二二二二二二二二二二 three " + "four" * 30 + "  end"
    stream = io.StringIO()
    screen = Screen(stream, width, colours=False)
    screen.print(Line().and_(text[:7]).and_(text[7:], "dim"), indent=4)
    lines = stream.getvalue().splitlines()
    assert "".join(stream.getvalue().split()) == "".join(text.split())
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(len(line) <= max(24, width) for line in lines[1:])


@pytest.mark.case("X13")
def test_colours_are_for_terminals_only_and_not_where_nobody_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        found = screen_at(terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        plain = screen_at(terminal)
        monkeypatch.setenv("COLUMNS", "0" * 9)
        assert screen_at(terminal).width == 80
        monkeypatch.setenv("COLUMNS", "33")
        assert screen_at(terminal).width == 33
    os.close(ours)
    assert (found.colours, found.width, plain.colours) == (True, 80, False)
    assert not screen_at(io.StringIO()).colours


@pytest.mark.parametrize("words", ["list", "status", "gates"])
def test_a_short_command_loads_only_what_it_needs(store: Path, words: str) -> None:
    """Loading is nearly all that a short command does: each of these costs a tenth of
    it, and more."""
    code = (
        "import sys, turnfold_cli; words = sys.argv[1:]\n"
        "try: turnfold_cli.app(words)(words)\n"
        f"finally: sys.stderr.write(str([n for n in {TOO_MUCH} if n in sys.modules]))"
    )
    command = [sys.executable, "-c", code, words, "-s", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "[]", done.stderr


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    "words",
    ["backup ''", "backup .", "backup /", "restore g.db -s .", "copy g.db /"],
)
def test_a_folder_in_place_of_a_file_is_one_line(store: Path, words: str) -> None:
    words = words.replace("g.db", str(store))
    done = run(words, "", TURNFOLD_STORE=str(store))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "is a folder" in done.stderr


@pytest.mark.case("X20")
def test_restore_moves_nothing_away_that_is_no_file(
    store: Path, tmp_path: Path
) -> None:
    """A device, as root: the machine would have none. A pipe stands for it here."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = run(f"restore {store} --replace -s {pipe}", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no file" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()


@pytest.mark.case("X20")
@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_word_that_no_shell_can_pass_is_one_line(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["list", word], ["backup", word], ["audit", "--head", word]):
        with pytest.raises(SystemExit) as end:
            app(words)(words)
        assert end.value.code == 2
        assert "no argument" in capsys.readouterr().err


def test_a_channel_that_there_is_not_is_no_reason_to_follow(store: Path) -> None:
    done = run(f"tail --channel nosuch -s {store}", "")
    assert done.returncode == 2
    assert "no channel 'nosuch'; there are: " in done.stderr
