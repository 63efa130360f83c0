"""The Hypothesis machine over a real SQLite file; TURNFOLD_LONG=1 plays far more."""

import os

import pytest

from turnfold_model import stateful
from turnfold_model.crash.scenario import Scenario
from turnfold_model.stateful_gateway import StatefulGateway

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
# What every run must have seen at least, whatever else it saw.
MUST = {
    ("none", "turn.accepted"),
    ("none", "outbox.queued"),
    ("Q", "outbox.planned"),
    ("Q", "outbox.attempted"),
    ("A", "outbox.dispatched"),
    ("D", "outbox.part_delivered"),
    ("D", "outbox.delivered"),
    ("D", "outbox.unknown"),
    ("D", "outbox.failed_terminal"),
    ("D", "outbox.abort_requested"),
    ("U", "outbox.attempted"),
    ("Q", "outbox.aborted"),
    ("Q", "outbox.failed_terminal"),
    ("F", "outbox.lane_yielded"),
    ("F", "outbox.redriven"),
    ("running", "turn.answered"),
    ("running", "turn.run_failed"),
    ("answered", "turn.completed"),
    ("answered", "turn.failed"),
}


@pytest.mark.case("A01", "A02", "A03", "A19")
def test_whatever_people_platforms_and_crashes_do_all_checkers_agree() -> None:
    stateful.SEEN.clear()
    stateful.run(3_000 if LONG else 60, 60 if LONG else 40, derandomize=not LONG)
    assert stateful.SEEN >= MUST, MUST - stateful.SEEN
    assert len(stateful.SEEN) >= (56 if LONG else 30)


def test_a_gateway_that_is_killed_at_each_moment_settles(tmp_path) -> None:
    """Every moment of one conversation, one after the other on the same file."""
    row = Scenario(name="each", classes=stateful.ROWS[1].classes, lanes=2, fates=())
    gateway = StatefulGateway(row, str(tmp_path / "g.db"))
    for number in range(12):
        gateway.accept(number)
        gateway.live(100, 2 * number, [number])
        gateway.compare()
    gateway.settle()
    gateway.judge()
    turns = gateway.turns()
    gateway.close()
    assert len(turns) == 12
    assert not [turn for turn in turns if turn.open]
