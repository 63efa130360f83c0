"""The mutants of owning a store: who may append, the inbox of those who may not, and
clients that take a store for a moment because no worker lives."""

from typing import Final

from turnfold_model.mutants_code import Mutant, one

_JOURNAL = "turnfold._runtime.committer:Committer"
_ALONE = "turnfold.api.client:Alone"
_INBOX = "test:contract/test_inbox.py"
_COMMITS = "test:contract/test_group_commit.py"
_FAULTS = "test:contract/test_behaviour_faults.py"
_UPKEEP = "test:contract/test_upkeep.py"
_RESTORED = "test:contract/test_restored.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "recovery", where, old, new, *killers)


OWNING: Final = (
    _broken(
        "a commit begins while another one is under way",
        "turnfold._runtime.committer:GroupCommit._run",
        "await self._commit()",
        "_ = asyncio.ensure_future(self._commit())\nawait asyncio.sleep(0)",
        f"{_COMMITS}::come_meanwhile",
    ),
    _broken(
        "a commit that was refused is decided again on the same state",
        f"{_JOURNAL}._was_refused",
        "await self._read_anew(before.position)",
        "pass",
        f"{_FAULTS}::not_the_one_any_more",
    ),
    _broken(
        "a store in doubt is not read by the poll",
        f"{_JOURNAL}.suspects",
        "return self._lost or self._suspicious",
        "return self._suspicious",
        f"{_COMMITS}::is_found_by_the_poll",
    ),
    _broken(
        "a worker that has lost its store appends all the same",
        "turnfold._runtime.driver:Driver.stand_down",
        "self.journal.stand_down()",
        "pass",
        f"{_UPKEEP}::a_success_after_the_loss",
    ),
    _broken(
        "only the first event of a stream in a commit knows its position",
        "turnfold._decide.unit_of_work:UnitOfWork.emit",
        "position = self._places[stream]",
        "position = self._places[stream] if items is None else 0",
        f"{_RESTORED}::what_was_queued",
    ),
    _broken(
        "a log begins without the event that names it",
        f"{_JOURNAL}.begin",
        "self.book.position == 0",
        "False",
        f"{_INBOX}::begins_a_new_store",
    ),
    _broken(
        "a client goes on with an older copy of the store",
        f"{_ALONE}._apply",
        "await self._upkeep.lost_history(journal.store_id) is not None",
        "False",
        f"{_RESTORED}::only_a_worker",
    ),
    _broken(
        "a worker that lost the store uses its old right as a client",
        f"{_ALONE}._without_rights",
        "",
        "return self._context()",
        f"{_INBOX}::without_rights",
    ),
    _broken(
        "a client that is cancelled keeps the store",
        f"{_ALONE}.apply",
        "await asyncio.shield(self._task)",
        "await self._task",
        f"{_INBOX}::that_is_cancelled",
    ),
    _broken(
        "a client does not follow the time of the log",
        f"{_ALONE}._apply",
        "self._clock.at_least(journal.book.last_at)",
        "pass",
        f"{_INBOX}::the_time_of_the_log",
    ),
    _broken(
        "a posted payload expires by the time of its logging",
        "turnfold._decide.inbox:_enqueue",
        "data['expires_at']",
        "None",
        f"{_INBOX}::expires_by_the_time",
    ),
)
