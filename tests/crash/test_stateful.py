"""The Hypothesis machine over a real SQLite file.

By default 120 examples, the same ones each time, in about a quarter of a minute;
TURNFOLD_LONG=1 plays 3,000 longer ones, others each time, in about an hour.
"""

import os

import pytest

from turnfold.decide import settling
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model import stateful
from turnfold_model.crash.scenario import Scenario
from turnfold_model.stateful_gateway import StatefulGateway

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
# What every run must have seen at least, whatever else it saw: (phase, event) or
# (event, why), and what came from outside.
MUST = {
    ("message", "new"),
    ("message", "delivered again"),
    ("process", "killed"),
    ("clock", "forward"),
    ("clock", "back"),
    ("gate.closed", "rate_limited"),
    ("gate.closed", "not_connected"),
    ("gate.opened", "connected"),
    ("none", "turn.accepted"),
    ("running", "turn.answered"),
    ("running", "turn.run_failed"),
    ("running", "turn.released"),
    ("running", "turn.step_done"),
    ("answered", "turn.completed"),
    ("answered", "turn.failed"),
    ("turn.completed", "replied"),
    ("turn.completed", "partially_replied"),
    ("turn.completed", "silent"),
    ("turn.aborted", "aborted"),
    ("turn.aborted", "superseded"),
    ("none", "outbox.queued"),
    ("queued", "outbox.planned"),
    ("queued", "outbox.attempted"),
    ("queued", "outbox.aborted"),
    ("attempted", "outbox.dispatched"),
    ("attempted", "outbox.failed_retryable"),
    ("dispatched", "outbox.part_delivered"),
    ("dispatched", "outbox.delivered"),
    ("dispatched", "outbox.unknown"),
    ("dispatched", "outbox.deferred"),
    ("dispatched", "outbox.failed_retryable"),
    ("dispatched", "outbox.failed_terminal"),
    ("dispatched", "outbox.abort_requested"),
    ("retryable", "outbox.attempted"),
    ("in_doubt", "outbox.attempted"),
    ("in_doubt", "outbox.reconciled"),
    ("in_doubt", "outbox.parked"),
    ("in_doubt", "outbox.resolved"),
    ("in_doubt", "outbox.late_receipt"),
    ("failed", "outbox.lane_yielded"),
    ("failed", "outbox.redriven"),
    ("delivered", "outbox.bounced"),
    ("outbox.failed_terminal", "expired"),
    ("outbox.failed_terminal", "permanent"),
    ("outbox.failed_terminal", "outcome_unknown"),
    ("outbox.aborted", "user"),
    ("outbox.aborted", "superseded"),
}


@pytest.mark.case("A01", "A02", "A03", "A19")
def test_whatever_people_platforms_and_crashes_do_all_checkers_agree() -> None:
    stateful.SEEN.clear()
    stateful.run(3_000 if LONG else 120, 60 if LONG else 40, derandomize=not LONG)
    if not stateful.SEEN >= MUST:  # another kernel, other ways: look a little longer
        stateful.run(160, 50, derandomize=not LONG)
    assert stateful.SEEN >= MUST, MUST - stateful.SEEN
    assert len(stateful.SEEN) >= (95 if LONG else 75)


def test_a_late_receipt_between_announcement_and_call_stops_the_call(tmp_path) -> None:
    gateway = StatefulGateway(stateful.ROWS[0], str(tmp_path / "g.db"))
    gateway.accept(0)
    gateway.lose_answers(80)
    (entry,) = gateway.entries()
    lost = {"part": entry.part, "number": entry.attempt}
    attempted = entry.attempt + 1
    gateway.live(80, None, (), lambda: gateway.entries()[0].attempt == attempted)
    assert not gateway.world.flying
    receipt = Receipt(ids=(gateway.world.platform.find(entry.current.key) or "",))
    late = Accepted(receipt=receipt)
    gateway.tell(settling.settle, stream=entry.stream, outcome=late, **lost)
    gateway.settle()
    gateway.judge()
    gateway.close()


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
