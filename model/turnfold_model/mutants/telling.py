"""The mutants of the news for hooks and the notices for readers."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_HOOKS = "turnfold.api.hooks"
_TEST = "test:contract/test_hooks.py"
_PLACE = "test:contract/test_notice_place.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "program", where, old, new, *killers)


TELLING: Final = (
    _broken(
        "a notice that the lost history may have told is told again",
        "turnfold._decide.outbox:_queue_notice",
        "not all((rules.history_is_whole(e, draft.restored_at) for e in about))",
        "False",
        "test:contract/test_restored_notice.py::is_not_told_again",
    ),
    _broken(
        "a reader who stopped an answer in doubt is told that it was interrupted",
        "turnfold._decide.outbox:_notice_for",
        "entry.abort is not None",
        "False",
        f"{_PLACE}::stopped_in_doubt_is_not_told",
    ),
    _broken(
        "news of this life are told as news of an earlier one, too",
        "turnfold.api.retelling:Retelling.page",
        "record.position <= span.stop",
        "True",
        "test:contract/test_restored.py::is_told_of_a_restoring_once",
    ),
    _broken(
        "the mark passes over news of an earlier life that could not be read",
        f"{_HOOKS}:Hooks._note",
        "self._behind is not None",
        "False",
        f"{_TEST}::are_not_passed_over",
    ),
    _broken(
        "what a dead process did not tell its hooks is never told",
        f"{_HOOKS}:Hooks.begin",
        "mark < position",
        "False",
        f"{_TEST}::told_again_with_the_same_id",
    ),
    _broken(
        "news count as told before the hooks are called",
        f"{_HOOKS}:Hooks._tell_new",
        "await self._call(*self._news.popleft())",
        "await self._note()\nawait self._call(*self._news.popleft())",
        f"{_TEST}::told_again_with_the_same_id",
    ),
    _broken(
        "what hooks were told is not noted",
        f"{_HOOKS}:Hooks._note",
        "await self._means.note(seen)",
        "False",
        f"{_TEST}::noted_and_not_told_again",
    ),
    _broken(
        "news of a time without hooks are told",
        f"{_HOOKS}:Hooks.begin",
        "self._noted = position if mark is None else mark",
        "self._noted = mark = mark or 0",
        f"{_TEST}::before_the_first_hook",
    ),
    _broken(
        "a notice stands at the end of its lane",
        "turnfold._decide.outbox:_behind",
        "max(orders + begun)",
        "0",
        f"{_PLACE}::a_refusal_is_told",
    ),
    _broken(
        "a notice goes out between two parts of an answer",
        "turnfold._decide.outbox:_behind",
        "orders + begun",
        "orders",
        f"{_PLACE}::cuts_no_answer",
    ),
    _broken(
        "an entry of which a part was seen counts as not begun",
        "turnfold._decide.rules:not_begun",
        "nothing_seen(entry)",
        "True",
        f"{_PLACE}::cuts_no_answer",
    ),
    _broken(
        "the commit that queues a notice attempts the entry after it",
        "turnfold._decide.unit_of_work:UnitOfWork._queued",
        "lane in self._placed",
        "False",
        f"{_PLACE}::a_hold_is_told",
    ),
    _broken(
        "a notice falls back to the end of its lane when its commit is done",
        "turnfold._runtime.open_streams:OpenStreams._enter",
        "entry.behind",
        "False",
        f"{_PLACE}::keeps_its_place",
    ),
    _broken(
        "a notice falls back to the end of its lane when the worker dies",
        "turnfold._runtime.open_streams:OpenStreams._load",
        "row.kind == Kind.NOTICE",
        "False",
        f"{_PLACE}::keeps_its_place",
    ),
    _broken(
        "a question about a lane does not know the places of its notices",
        "turnfold.inspect.lookup:ReadModel.read_lane",
        "row.kind == Kind.NOTICE",
        "False",
        f"{_PLACE}::the_order_of_sending",
    ),
)
