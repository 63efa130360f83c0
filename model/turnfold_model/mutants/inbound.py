"""The mutants of what comes in: its keys, its evidence, the updates that nobody can read."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_TURNS = "turnfold._decide.turns"
_INBOUND = "test:contract/test_inbound.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


INBOUND: Final = (
    _broken(
        "a message without an id is taken twice by a commit of unknown fate",
        f"{_TURNS}:_made_before",
        "None if draft.find_turn(turn) is None else turn",
        "None",
        f"{_INBOUND}::taken_once_by_a_commit",
    ),
    _broken(
        "an edit is not linked to the turn that it changes",
        f"{_TURNS}:_changed",
        "None if original is None else draft.lookup(original)",
        "None",
        f"{_INBOUND}::linked_to_the_turn",
    ),
    _broken(
        "the revision is no part of the key",
        "turnfold.inbound:Inbound.dedupe_key.fget",
        "self.revision is None",
        "True",
        f"{_INBOUND}::linked_to_the_turn",
    ),
)
