"""The Hypothesis machine over a real SQLite file.

Some plays are directed; then come 80 random ones, the same each time. Both take half a
minute. TURNFOLD_LONG=1 plays 3,000 longer ones, others each time, in about an hour. A
play that breaks a rule tells its seed.
"""

import os
import secrets
import signal

import pytest

from turnfold._decide import outcomes
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.crash.scenario import Scenario
from turnfold_model.mutants import checkers
from turnfold_model.stateful import gateway_machine
from turnfold_model.stateful.gateway import StatefulGateway

LONG = bool(os.environ.get("TURNFOLD_LONG"))
# For what hangs, and far beyond what a busy machine needs. A time-out that raised inside
# of a play would look like a broken rule to Hypothesis: this one ends the process.
pytestmark = pytest.mark.timeout(14_400 if LONG else 400, method="thread")
# What every run must have seen besides, whatever else it saw: (phase, event) or
# (event, why), and what came from outside.
MUST = {
    ("message", "new"),
    ("message", "delivered again"),
    ("process", "killed"),
    ("clock", "forward"),
    ("clock", "back"),
    ("gate.opened", "connected"),
    ("none", "turn.accepted"),
    ("running", "turn.answered"),
    ("running", "turn.released"),
    ("running", "turn.step_done"),
    ("answered", "turn.completed"),
    ("answered", "turn.failed"),
    ("turn.completed", "replied"),
    ("turn.completed", "silent"),
    ("none", "outbox.queued"),
    ("queued", "outbox.planned"),
    ("queued", "outbox.attempted"),
    ("attempted", "outbox.dispatched"),
    ("attempted", "outbox.failed_retryable"),
    ("dispatched", "outbox.part_delivered"),
    ("dispatched", "outbox.delivered"),
    ("dispatched", "outbox.unknown"),
    ("retryable", "outbox.attempted"),
    ("in_doubt", "outbox.attempted"),
    ("in_doubt", "outbox.parked"),
    ("failed", "outbox.lane_yielded"),
    ("outbox.failed_terminal", "expired"),
    ("outbox.failed_terminal", "permanent"),
    ("outbox.failed_terminal", "outcome_unknown"),
    ("outbox.aborted", "user"),
    ("outbox.aborted", "superseded"),
}


# What luck makes too seldom to be relied on: directed plays make it.
RARE = {
    ("running", "turn.run_failed"),
    ("failed", "turn.resubmitted"),
    ("process", "killed by a handler"),
    ("turn.held", "quarantined"),
    ("accepted", "turn.unheld"),
    ("outbox.failed_terminal", "too_old"),
    ("turn.completed", "partially_replied"),
    ("turn.aborted", "aborted"),
    ("turn.aborted", "superseded"),
    ("queued", "outbox.aborted"),
    ("dispatched", "outbox.deferred"),
    ("dispatched", "outbox.failed_retryable"),
    ("dispatched", "outbox.failed_terminal"),
    ("dispatched", "outbox.part_refused"),
    ("dispatched", "outbox.abort_requested"),
    ("in_doubt", "outbox.reconciled"),
    ("in_doubt", "outbox.resolved"),
    ("in_doubt", "outbox.late_receipt"),
    ("failed", "outbox.redriven"),
    ("delivered", "outbox.bounced"),
    ("gate.closed", "rate_limited"),
    ("gate.closed", "not_connected"),
}


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    gateway_machine.SEEN.clear()


@pytest.mark.case("A01", "A02", "A03", "A19")
def test_whatever_people_platforms_and_crashes_do_all_checkers_agree() -> None:
    gateway_machine.directed()
    assert gateway_machine.SEEN >= RARE, RARE - gateway_machine.SEEN
    if LONG:
        gateway_machine.run(3_000, 60, seed=secrets.randbits(32))
    else:
        gateway_machine.run(80, 40)
    assert gateway_machine.SEEN >= MUST, MUST - gateway_machine.SEEN
    assert len(gateway_machine.SEEN) >= (95 if LONG else 75)


def test_a_play_that_is_cut_short_is_not_judged(monkeypatch) -> None:
    """What stops a commit half-way leaves programs without their answers."""
    monkeypatch.setattr(StatefulGateway, "judge", lambda _: pytest.fail("judged"))
    with pytest.raises(KeyboardInterrupt):
        _cut_short()


def _cut_short() -> None:
    machine = gateway_machine.GatewayMachine()
    machine.begin(gateway_machine.ROWS[0])
    try:
        raise KeyboardInterrupt
    finally:
        machine.teardown()


def test_a_limit_of_time_counts_for_each_play_and_not_for_all_of_them(
    monkeypatch,
) -> None:
    """A limit that ended a play in its middle made Hypothesis call the plays flaky."""
    left: list[float] = []

    def play(*_: object, **__: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 1, 1)  # as after a long play
        gateway_machine.GatewayMachine().teardown()
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])

    monkeypatch.setattr(gateway_machine, "run", play)
    assert checkers.check("stateful") is None
    assert left[0] > 100
    assert not gateway_machine.BEGINS


def test_a_late_receipt_between_announcement_and_call_stops_the_call(tmp_path) -> None:
    gateway = StatefulGateway(gateway_machine.ROWS[0], str(tmp_path / "g.db"))
    gateway.accept(0)
    gateway.lose_answers(80)
    (entry,) = gateway.entries()
    lost = {"part": entry.part, "number": entry.attempt}
    attempted = entry.attempt + 1
    gateway.live(80, None, (), lambda: gateway.entries()[0].attempt == attempted)
    assert not gateway.world.flying
    receipt = Receipt(ids=(gateway.world.platform.find(entry.current.key) or "",))
    late = Accepted(receipt=receipt)
    gateway.tell(outcomes.settle, stream=entry.stream, outcome=late, **lost)
    gateway.settle()
    gateway.judge()
    gateway.close()


def test_a_gateway_that_is_killed_at_each_moment_settles(tmp_path) -> None:
    """Every moment of one conversation, one after the other on the same file."""
    row = Scenario(
        name="each", classes=gateway_machine.ROWS[1].classes, lanes=2, fates=()
    )
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
