"""A part of the matrix, exhaustively. `python -m turnfold_model explore` searches all of
it, a million distinct states and more, and says which steps were never taken."""

import pytest
from tests.least import LEAST

from turnfold_model.__main__ import main
from turnfold_model.protocol_model import command, matrix
from turnfold_model.protocol_model.explorer import always_ends, explore
from turnfold_model.protocol_model.steps import STEPS

_LONG = ("ageing", "alone", "leases", "live-", "parts", "resend-turn", "-hung")
PART = [c for c in matrix.MATRIX if not any(word in c.name for word in _LONG)]
SMALL = [*matrix.kept(), *matrix.guarded()]


@pytest.mark.parametrize("config", [*SMALL, *PART], ids=lambda config: config.name)
def test_every_state_holds(config):
    result = explore(config)
    assert (result.broken, result.complete) == ("", True), "\n".join(result.trace)
    assert result.labels <= STEPS


def test_the_matrix_is_large():
    assert len({*SMALL, *matrix.MATRIX}) >= LEAST["configurations of the world"]


def test_the_command_misses_a_step_that_was_never_taken(monkeypatch, capsys):
    monkeypatch.setattr(command, "STEPS", {"a step of nobody"})
    monkeypatch.setattr(matrix, "MATRIX", [])
    assert main(["explore", "--json"]) == 1
    assert '"steps_never_taken": ["a step of nobody"]' in capsys.readouterr().out


@pytest.mark.parametrize(
    "config",
    [c for c in matrix.MATRIX if "lane" in c.name or "turns" in c.name][:12],
    ids=lambda config: config.name,
)
def test_without_further_faults_everything_comes_to_rest(config):
    assert always_ends(config)
