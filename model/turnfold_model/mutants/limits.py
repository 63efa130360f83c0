"""The mutants of rate limits that name a conversation while the account's is meant."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_LIMITS = "turnfold._runtime.limits"
_GATES = "turnfold._decide.gates"
_TEST = "test:contract/test_account_limits.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "program", where, old, new, *killers)


LIMITS: Final = (
    _broken(
        "a delivery between refusals ends no row",
        f"{_LIMITS}:Limits.delivered",
        "row is not None and not row.found",
        "False",
        f"{_TEST}::a_delivery_between_them",
    ),
    _broken(
        "a delivery ends what is known of an account's limit",
        f"{_LIMITS}:Limits.delivered",
        "row is not None and not row.found",
        "row is not None",
        f"{_TEST}::one_refusal_is_enough",
    ),
    _broken(
        "refusals of one day are a row",
        f"{_LIMITS}:Row.add",
        "self._forget(now - TOGETHER_MS)",
        "pass",
        f"{_TEST}::far_from_each_other",
    ),
    _broken(
        "the refused probe of a limited account is its own conversation's",
        f"{_LIMITS}:Limits.refused",
        "row.add(entry, now) or (probe and row.found)",
        "row.add(entry, now)",
        f"{_TEST}::probe_speaks_for_the_account",
    ),
    _broken(
        "a decision that is made again counts a refusal twice",
        f"{_LIMITS}:Row.add",
        "(old.entry, old.attempt) == (entry.stream, entry.attempt)",
        "False",
        f"{_TEST}::made_again_gets_the_same_answer",
    ),
    _broken(
        "an account that nothing slows is limited for ever",
        f"{_LIMITS}:Limits.over",
        "self._rows.pop(account, None)",
        "pass",
        f"{_TEST}::nothing_slows_it_any_more",
    ),
    _broken(
        "a guess holds an account as long as one conversation",
        f"{_GATES}:_guessed",
        "min(wait, guess)",
        "wait",
        f"{_TEST}::a_wrong_guess_holds",
    ),
    _broken(
        "calls that come back prolong a guess",
        f"{_GATES}:_guessed",
        "gate is None or not gate.holds(draft.now)",
        "True",
        f"{_TEST}::under_way_do_not_prolong",
    ),
    _broken(
        "a conversation forgets what the platform asked for",
        f"{_GATES}:_guessed",
        "wait <= guess",
        "True",
        f"{_TEST}::third_conversation",
    ),
)
