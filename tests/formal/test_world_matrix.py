"""Every configuration of the matrix, exhaustively: over a million distinct states."""

import pytest
from tests.least import LEAST

from turnfold_model.protocol_model import matrix
from turnfold_model.protocol_model.explorer import Result, always_ends, explore

ALL = [*matrix.kept(), *matrix.guarded(), *matrix.MATRIX]
DONE: dict[str, Result] = {}
STEPS = {
    "abort",
    "aborted",
    "accepted",
    "answer lost",
    "answered",
    "ask",
    "attempted",
    "computed",
    "conflict",
    "crash",
    "deferred",
    "delivered",
    "dispatched",
    "exhausted",
    "expired",
    "failed",
    "failed_retryable",
    "failed_terminal",
    "gate opens",
    "gave up",
    "handle gone",
    "held back",
    "hung",
    "inbound",
    "lands late",
    "late placeholder",
    "late receipt",
    "late request",
    "message gone",
    "never lands",
    "one part refused for good",
    "owner died",
    "parked",
    "part_refused",
    "placed",
    "prepare failed",
    "preview",
    "preview lands",
    "preview lost",
    "reconciled",
    "redriven",
    "refused",
    "refused for good",
    "request lost",
    "resolved",
    "resolved not sent",
    "resolved resend",
    "resolved sent",
    "run_failed",
    "sealed",
    "send",
    "stale",
    "stale run",
    "started",
    "starts",
    "stopped",
    "stray",
    "takes over",
    "time passes",
    "too old",
    "unknown",
    "wakes",
}


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.name)
def test_every_state_holds(config):
    DONE[config.name] = result = explore(config)
    assert (result.broken, result.complete) == ("", True), "\n".join(result.trace)


def test_the_matrix_is_large_and_every_step_was_taken():
    if len(DONE) < len(ALL):
        pytest.skip("needs the whole matrix in this process")
    distinct = sum(result.distinct for result in DONE.values())
    assert distinct >= LEAST["distinct states of the world"]
    assert len(DONE) >= LEAST["configurations of the world"]
    taken: set[str] = set().union(*(result.labels for result in DONE.values()))
    assert taken == STEPS


@pytest.mark.parametrize(
    "config",
    [c for c in matrix.MATRIX if "lane" in c.name or "turns" in c.name][:12],
    ids=lambda config: config.name,
)
def test_without_further_faults_everything_comes_to_rest(config):
    assert always_ends(config)
