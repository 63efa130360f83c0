"""The mutants of an import: nothing of it is fresh, and a file is moved last."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_D = "turnfold._decide"
_API = "turnfold.api.importing"
_TESTS = "test:contract/test_import.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "decision", where, old, new, *killers)


IMPORTING: Final = (
    _broken(
        "a delivery of another gateway is never too old",
        f"{_D}.importing:is_too_old",
        "return draft.now >= expires_at",
        "return False",
        f"{_TESTS}::by_age",
    ),
    _broken(
        "what another gateway gave up is open again",
        f"{_D}.importing:bring_in",
        "foreign.dead or is_too_old(draft, event.expires_at)",
        "is_too_old(draft, event.expires_at)",
        f"{_TESTS}::by_age",
    ),
    _broken(
        "a delivery of another gateway ages by a clock that nobody trusts",
        f"{_D}.importing:_expiry",
        "since is None or draft.sure_from",
        "since is None",
        f"{_TESTS}::nothing_is_too_old",
    ),
    _broken(
        "a delivery from the future lives longer than a new one",
        f"{_D}.importing:_expiry",
        "min(since, draft.now)",
        "since",
        f"{_TESTS}::by_age",
    ),
    _broken(
        "the key of a delivery is not asked for",
        f"{_D}.importing:bring_in",
        "known is not None and known != foreign.entry",
        "False",
        f"{_TESTS}::two_imports",
    ),
    _broken(
        "what was parked before its plan is sent without one",
        f"{_D}.rules:plan_is_missing",
        "return not entry.planned and not entry.live",
        "return False",
        f"{_TESTS}::a_person_decides",
    ),
    _broken(
        "what may have arrived is aborted since its channel suppresses it",
        f"{_D}.outbox:plan",
        "entry.doubt and not made.parts",
        "False",
        f"{_TESTS}::its_channel_suppresses",
    ),
    _broken(
        "a plan that breaks is made for ever",
        f"{_D}.outcomes:refuse_plan",
        "rules.trial_needed(entry, Trial.PLAN)",
        "entry.phase is Phase.QUEUED and not entry.planned",
        f"{_TESTS}::a_plan_that_breaks",
    ),
    _broken(
        "a file is moved before the store has it",
        f"{_API}:Importing._take",
        "",
        "for each in batch:\n    archive(each)",
        f"{_TESTS}::killed_at_every_step",
        f"{_TESTS}::does_not_give_back",
    ),
    _broken(
        "a file is moved unverified",
        f"{_API}:Importing._take",
        "[one for one in batch if await self._is_there(one, there, done)]",
        "list(batch)",
        f"{_TESTS}::does_not_give_back",
    ),
    _broken(
        "a file is moved though the store holds other bytes",
        f"{_API}:verified",
        "not await _same(store, stream, first, one)",
        "False",
        f"{_TESTS}::a_second_run",
    ),
    _broken(
        "a file that has changed meanwhile is moved",
        f"{_API}:archive",
        "one.path.read_bytes() != one.raw",
        "False",
        f"{_TESTS}::changes_meanwhile",
    ),
    _broken(
        "the archive loses a file of the same name",
        f"{_API}:_free",
        "path.exists() and path.read_bytes() != raw",
        "False",
        f"{_TESTS}::both_files_of_one_name",
    ),
)
