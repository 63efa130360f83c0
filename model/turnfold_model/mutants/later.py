"""The mutants of turns that are left open, and answered by their ids."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_LATER = "turnfold._decide.later"
_TURNS = "turnfold._decide.turns"
_RULES = "turnfold._decide.rules"
_TEST = "test:contract/test_later.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


LATER: Final = (
    _broken(
        "what is left open holds its lane",
        f"{_TURNS}:next_turn",
        "turn.left_open is not None",
        "False",
        f"{_TEST}::holds_nobody_back",
    ),
    _broken(
        "a turn that is left open waits for ever",
        f"{_TURNS}:_left_open_step",
        "not rules.wait_is_over(turn, draft.now)",
        "True",
        f"{_TEST}::fails_in_time",
    ),
    _broken(
        "a turn that is left open ends before its time",
        f"{_RULES}:wait_is_over",
        "turn.left_open is not None and now >= turn.left_open",
        "True",
        f"{_TEST}::fails_in_time",
    ),
    _broken(
        "a handler that returns ends the wait that it began",
        f"{_TURNS}:returned",
        "turn.left_open is not None",
        "False",
        f"{_TEST}::answered_by_its_id",
    ),
    _broken(
        "a run that left its turn open is over twice",
        f"{_RULES}:runs",
        "turn.phase is TurnPhase.RUNNING and turn.left_open is None",
        "turn.phase is TurnPhase.RUNNING",
        f"{_TEST}::changes_nothing",
    ),
    _broken(
        "a turn that runs takes an answer from elsewhere",
        f"{_RULES}:waits_for_answer",
        "turn.phase is TurnPhase.RUNNING and turn.left_open is not None",
        "turn.phase is TurnPhase.RUNNING",
        f"{_TEST}::only_what_was_left_open",
    ),
    _broken(
        "an answer to a turn that somebody else answers",
        f"{_LATER}:answer",
        "not rules.waits_for_answer(turn)",
        "False",
        f"{_TEST}::only_what_was_left_open",
    ),
    _broken(
        "a second answer with other bytes is swallowed",
        f"{_LATER}:answer",
        "if first.differs:",
        "if False:",
        f"{_TEST}::answered_by_its_id",
    ),
    _broken(
        "a turn is left open twice",
        f"{_LATER}:leave_open",
        "rules.not_answered(turn) and turn.left_open is None",
        "rules.not_answered(turn)",
        f"{_TEST}::changes_nothing",
    ),
)
