"""`turnfold demo` as people run it: processes, sockets, SIGKILL."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace as N
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from turnfold._decide import blame, outcomes, schedule, turns
from turnfold._log.events import CLASSES
from turnfold._runtime import programs
from turnfold.enums import TurnPhase
from turnfold_cli import demo as demo_command
from turnfold_cli import demo_hosts, demo_processes, demo_report, demo_run
from turnfold_cli.demo_plan import PATH, RECOVERY, Class, make_plan

FIELDS = {"messages", "turns", "delivered", "lost", "doubled", "parked", "kills"}
FIELDS |= {"restarts", "cuts", "audit", "seconds"}


def demo(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "turnfold_cli.demo", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command(*flags: str) -> Result:
    """The same inside of this process."""
    application = typer.Typer()
    application.command()(demo_command.demo)
    return CliRunner().invoke(application, flags)


@pytest.mark.parametrize("delivery", list(Class))
def test_a_small_demo_loses_nothing_and_doubles_nothing(
    delivery: Class, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    sizes = ("--messages=16", "--kills=3", "--seed=3")
    done = demo(*sizes, f"--class={delivery}", "--json", f"--keep={kept}")
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.keys() >= FIELDS
    assert (told["lost"], told["doubled"], told["audit"]) == (0, 0, "passed")
    assert told["kills"] == told["restarts"] == 3
    assert told["delivered"] + told["parked"] == told["turns"] == 16
    if delivery is not Class.BLIND:
        assert told["parked"] == 0
    names = {path.name for path in kept.iterdir()}
    assert names >= {"gateway.db", "witness.json", "platform.jsonl", "gateway.log"}


@pytest.mark.parametrize("name", ["gateway.db", "pg"])
def test_a_folder_that_holds_a_store_already_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).touch()
    done = demo(f"--keep={tmp_path}")
    assert done.returncode == 2
    assert name in done.stderr


@pytest.mark.parametrize("words", ["--hosts=2", "--store=postgresql --faults=nonsense"])
def test_a_demo_that_cannot_be_run_says_so_as_json(words: str) -> None:
    done = command(*words.split(), "--json")
    assert (done.exit_code, done.stderr) == (2, "")
    assert json.loads(done.stdout)["error"]["message"].startswith("demo: --")


def test_a_demo_that_is_too_slow_says_nothing_of_turnfold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 1 would mean that a message was lost."""
    monkeypatch.setattr(demo_processes, "_STARTS_WITHIN_S", 0.001)
    done = command("--messages=1", "--kills=0")
    assert done.exit_code == 2
    assert "the platform did not listen within 0.001 s" in done.stderr


def test_a_demo_that_does_not_come_to_rest_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_run, "SETTLES_WITHIN_S", 0.0)
    monkeypatch.setattr(demo_report, "SETTLES_WITHIN_S", 0.0)
    kept = tmp_path / "a[/b]"  # no markup
    done = command("--messages=1", "--kills=0", f"--keep={kept}")
    assert done.exit_code == 1, done.output
    assert "not all came to rest within 0 s" in done.stdout
    assert f"kept in {kept}" in done.stdout.replace("\n", "")


def test_the_same_seed_is_the_same_plan() -> None:
    assert make_plan(50, 9, 7, Class.KEYED) == make_plan(50, 9, 7, Class.KEYED)
    assert make_plan(50, 9, 7, Class.KEYED) != make_plan(50, 9, 8, Class.KEYED)


def test_every_message_has_its_place_in_one_life() -> None:
    plan = make_plan(50, 9, 7, Class.KEYED)
    batches = plan.batches()
    assert len(batches) == 10
    assert [m for batch in batches for m in batch] == plan.messages


def test_every_point_that_a_plan_names_is_one_that_exists() -> None:
    modules = (schedule, turns, blame, outcomes)
    for point in {*PATH, *(name for names in RECOVERY.values() for name in names)}:
        what, _, which = point.partition(" ")
        match what:
            case "commit":
                assert which in CLASSES
            case "Append":
                assert any(hasattr(module, which) for module in modules), point
            case _:
                assert hasattr(programs, what)


@pytest.mark.parametrize(("yields", "said"), [(False, ["a2"]), (True, [])])
def test_only_an_entry_that_holds_its_lane_can_be_overtaken(
    yields: bool, said: list[str]
) -> None:
    """A live reply yields its lane once its first part is seen."""
    events = [N(kind="outbox.queued", position=1)]
    if yields:
        events.append(N(kind="outbox.lane_yielded", position=2))
    reply = N(lane="l", happened=events, parts=[N(key="a1"), N(key="a2")])
    queued = [N(kind="outbox.queued", position=3)]
    other = N(lane="l", happened=queued, parts=[N(key="b1")])
    turns: Any = {"m1": N(entries=[reply]), "m2": N(entries=[other])}
    seen: Any = N(witness=[{"key": key} for key in ("a1", "b1", "a2")])
    found = list(demo_report._overtaken(turns, seen))
    assert found == [f"{key} was overtaken in l" for key in said]


class Ends:
    """A gateway that ends with 1 in each of these lives: True if it had listened."""

    def __init__(self, lives: list[bool]) -> None:
        self.lives, self.starts, self.served = lives, 0, False

    async def ended(self) -> int:
        if not self.lives:
            await asyncio.Event().wait()
        self.served = self.lives.pop(0)
        return 1

    async def start(self) -> None:
        self.starts += 1


@pytest.mark.parametrize(
    ("lives", "goes_on"),
    [([False, False], True), ([False] * 3, False), ([True], False)],
)
async def test_a_gateway_whose_start_was_cut_off_is_started_again(
    lives: list[bool], goes_on: bool
) -> None:
    gateway: Any = Ends(lives)
    hosts: Any = N(_ending=False, _forgives=False)
    keeping = asyncio.ensure_future(demo_hosts.Hosts._keep(hosts, gateway))
    await asyncio.wait({keeping}, timeout=0.05)
    assert keeping.done() is not goes_on
    if goes_on:
        assert gateway.starts == 2
        keeping.cancel()
    else:
        assert isinstance(keeping.exception(), demo_processes.DemoError)


async def test_a_command_that_is_taken_up_meanwhile_is_not_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new worker of a shard moves it from the inbox into the log between the two
    looks of the demo."""
    asked: list[str] = []
    turn = N(stream="turn:1", phase=TurnPhase.ACCEPTED)

    class Moving:
        """The first look finds a command, and each later one finds its open turn."""

        async def inbox(self, _: int) -> list[str]:
            asked.append("inbox")
            return ["command"] if len(asked) == 1 else []

        async def load(self) -> Any:
            asked.append("load")
            moved = 1 < len(asked) < 5
            return N(open=[turn] if moved else [])

    @asynccontextmanager
    async def reading(_: str) -> AsyncIterator[Any]:
        yield Moving()

    monkeypatch.setattr(demo_run, "reading", reading)
    monkeypatch.setattr(demo_run, "_POLL_S", 0.0)
    assert await demo_run.settle("", demo_run.Progress())
    assert asked == ["inbox", "inbox", "load", "inbox", "load"]
