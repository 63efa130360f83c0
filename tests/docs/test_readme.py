"""The README's promises that a machine can check."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_has_exactly_two_commands() -> None:
    commands = _blocks("sh")
    assert len(commands) == 2
    assert all(len(command.strip().splitlines()) == 1 for command in commands)
    assert commands[0].strip().endswith("turnfold demo")
    assert "pytest" in commands[1]


def test_its_example_runs_and_sends_once_in_two_runs(tmp_path: Path) -> None:
    (example,) = _blocks("python")
    (tmp_path / "gateway.py").write_text(example)

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "gateway.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    assert run() == "You said: hello\nreplied\n"
    assert run() == "replied\n"


def test_it_names_every_command_of_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import turnfold_cli; turnfold_cli.main()", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    for command in ("show", "list", "tail", "log", "audit", "demo"):
        assert command in done.stdout
        assert f"turnfold {command}" in README
