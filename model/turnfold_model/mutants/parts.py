"""The mutants of what is frozen of a part and of what becomes of it: policies, the class
in force, refusals."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_POLICIES = "turnfold._runtime.policies:policies"
_OUTBOX = "turnfold._decide.outbox"
_ATTACH = "test:fast/test_attach.py"
_DOUBT = "test:contract/test_behaviour_doubt.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


PARTS: Final = (
    _broken(
        "a channel is attached though nobody said what an unknown outcome means",
        _POLICIES,
        "if missing:",
        "if False:",
        f"{_ATTACH}::a_policy_must_be_said",
    ),
    _broken(
        "a channel that shows no marks is given resend_marked",
        _POLICIES,
        "not offers.marks",
        "False",
        f"{_ATTACH}::needs_a_channel_that_shows",
    ),
    _broken(
        "a plan does not freeze the policy of its channel",
        f"{_OUTBOX}:_policy",
        "part.policy",
        "None",
        f"{_DOUBT}::plan_freezes_the_policy",
    ),
    _broken(
        "the policy of a channel overrides that of an entry",
        f"{_OUTBOX}:_policy",
        "said is None",
        "True",
        f"{_DOUBT}::plan_freezes_the_policy",
    ),
    _broken(
        "an entry goes out again unmarked though it asked for a mark",
        f"{_OUTBOX}:_policy",
        "not made.marks",
        "False",
        f"{_DOUBT}::cannot_ask_for_a_mark",
    ),
    _broken(
        "an entry may ask for a mark that its channel does not show",
        "turnfold.api.commands:_policy",
        "marked and desk is not None and (not desk.capabilities.marks)",
        "False",
        f"{_DOUBT}::cannot_ask_for_a_mark",
    ),
)
