"""The kernel's own programs under every crash and fault of small scenarios.

TURNFOLD_LONG=1 takes the whole matrix, each row for as long as it needs.
"""

import os

import pytest

from turnfold._log.codec import decode
from turnfold._log.events import NAMES
from turnfold.ports.store import now
from turnfold_model.__main__ import main
from turnfold_model.crash import command, replays
from turnfold_model.crash.explore import explore, replay
from turnfold_model.crash.matrix import LARGE, MATRIX, SMALL, named
from turnfold_model.crash.scenario import Scenario
from turnfold_model.crash.verdict import broken
from turnfold_model.crash.world import World
from turnfold_model.mutants.code import applied
from turnfold_model.mutants.table import MUTANTS
from turnfold_model.testing.peek import Peek

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
SLOW = {  # the `crash` command has them
    "editable-abort",
    "editable-late",
    "zombie-fault",
    "zombie-resend",
    "client",
    "client-abort",
    "abort-reply",
    "stale-blocks",
}
ROWS = MATRIX if LONG else [row for row in SMALL if row.name not in SLOW]


@pytest.mark.case("A01", "A02", "A03", "A04", "A05", "A06", "A18")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_crash_and_no_fault_breaks_a_rule(row: Scenario) -> None:
    done = explore(row, seconds=600 if LONG else 60)
    assert not done.violations
    assert done.complete or row in LARGE


def test_a_violation_comes_with_tapes_that_reproduce_it() -> None:
    mutant = next(m for m in MUTANTS if m.name == "resend_allowed is always True")
    with applied(mutant):
        found = explore(named("blind-hold"), most=1).violations[0]
        assert found.rule in broken(replay(named("blind-hold"), found.path))


def test_a_life_that_goes_in_circles_is_a_violation() -> None:
    mutant = next(m for m in MUTANTS if m.name == "abortable_as_unsent is always False")
    with applied(mutant):
        found = explore(named("abort-reply"), most=1).violations
    assert "INV-14 a life that never rests" in [v.rule for v in found]


def test_what_two_executions_share_is_lived_through_once() -> None:
    done = explore(named("zombie"))
    assert done.complete
    assert done.merged > done.executions // 2


@pytest.mark.parametrize("name", ["abort", "client", "both"])
def test_a_commit_that_is_taken_over_leaves_what_a_new_one_would(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every moment that is reached, with the log, memory and programs of each process."""
    quick = explore(named(name))
    monkeypatch.setattr(replays, "_KEPT", 0)
    slow = explore(named(name))
    assert quick.moments == slow.moments
    assert quick == slow


def test_a_world_and_its_copy_have_one_future_and_go_apart_in_it() -> None:
    world = World.new(named("one"))
    twin = world.copy()
    assert twin.identity() == world.identity()
    twin.acked |= {"in0"}
    twin.platform.pending.append((1, None))
    assert twin.identity() != world.identity()
    assert world.platform.pending == []


def test_a_worker_that_slept_wakes_up_before_and_after_all_was_over() -> None:
    """Its late success is evidence for what its successor had parked by then, and
    nothing is ever sent twice in a class that never sends again by itself."""
    seen: set[str] = set()

    def check(world: World) -> list[str]:
        store = world.handle()
        now(store.open())
        kinds = [
            NAMES[type(event)].removeprefix("outbox.")
            for record in Peek(store).log()
            if record.stream.endswith(".final")  # a hold is told by a notice, too
            for event in decode(record)
        ]
        seen.add(" ".join(kinds))
        now(store.close())
        return broken(world)

    done = explore(named("paused-blind"), check=check, seconds=60)
    assert done.complete
    assert not done.violations
    began = "queued planned attempted"
    assert f"{began} unknown parked lane_yielded late_receipt" in seen
    assert f"{began} unknown late_receipt" in seen
    assert f"{began} unknown parked lane_yielded" in seen  # it never woke up
    assert f"{began} delivered" in seen


def test_names_in_the_matrix_are_unique() -> None:
    names = [row.name for row in MATRIX]
    assert len(set(names)) == len(names)


def test_the_command_says_how_much_it_explored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["crash", "--json", "--only", "lookup-two-faults", "--jobs", "1"])
    shown = capsys.readouterr()
    assert code == 0
    assert '"executions": ' in shown.out
    assert '"violations": 0' in shown.out
    assert "complete" in shown.err


def test_the_command_stops_when_its_time_is_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["crash", "--json", "--only", "three", "--jobs", "1", "--seconds", "1"]
    assert main(words) == 3
    assert '"complete": false' in capsys.readouterr().out
    assert command.HELP
