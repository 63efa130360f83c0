"""Commits that an earlier execution made in the same place are taken over from it.

Every execution of an image begins at its boot, so most of its steps were taken before:
after the same choices a life stands where another one stood, and its commits there has
the same answer, and leaves the same disk and the same memory. Nothing is decided twice.
This needs a store without choices of its own.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from attrs import frozen

from turnfold._decide.unit_of_work import Context
from turnfold._runtime.committer import Commit, Committer, Decision
from turnfold._runtime.open_streams import OpenStreams
from turnfold.ports.store import Wanted
from turnfold_adapters.stores.memory import MemoryStore

_KEPT: Final = 5_000  # commits, of those that were wanted last
_DURABLE: Final = (
    *("head", "log", "streams", "summaries", "bodies", "keys"),
    *("inbox", "answers"),
)
_ELSEWHERE: Final = frozenset({"store", "book", "context", "_disk", "_replays"})


@frozen
class _After:
    """A commit and its result."""

    commit: Commit
    disk: dict[str, Any]
    book: dict[str, Any]
    own: dict[str, Any]  # of the committer itself


Memo = dict[Hashable, _After]


class Replays:
    """Of one life. `choices`: those that it has taken so far. `memo`: shared by all lives
    of an image."""

    def __init__(self, memo: Memo, choices: Callable[[], Hashable]) -> None:
        self._memo, self._choices = memo, choices
        self._commits = 0

    def place(self) -> Hashable:
        self._commits += 1
        return self._choices(), self._commits

    def find(self, place: Hashable) -> _After | None:
        found = self._memo.pop(place, None)
        if found is not None:
            self._memo[place] = found  # wanted last
        return found

    def keep(self, place: Hashable, after: _After) -> None:
        self._memo[place] = after
        if len(self._memo) > _KEPT:
            del self._memo[next(iter(self._memo))]


class ReplayedCommitter(Committer):
    """A committer of a store in memory that is part of such a life."""

    def __init__(
        self,
        store: MemoryStore,
        book: OpenStreams,
        context: Callable[[], Context],
        replays: Replays,
    ) -> None:
        super().__init__(store, book, context)
        self._disk, self._replays = store.disk, replays

    async def commit(
        self, decisions: Sequence[Decision], wanted: Sequence[Wanted] = ()
    ) -> Commit:
        place = self._replays.place()
        after = self._replays.find(place)
        if after is None:
            commit = await super().commit(decisions, wanted)
            self._replays.keep(place, self._after(commit))
            return commit
        self._take_over(after)
        return after.commit

    def _after(self, commit: Commit) -> _After:
        own = {n: v for n, v in vars(self).items() if n not in _ELSEWHERE}
        disk = {name: getattr(self._disk, name) for name in _DURABLE}
        return _After(commit, _copied(disk), _copied(vars(self.book)), _copied(own))

    def _take_over(self, after: _After) -> None:
        for name, value in _copied(after.disk).items():
            setattr(self._disk, name, value)
        vars(self.book).update(_copied(after.book))
        vars(self).update(_copied(after.own))
        for result in after.commit.results:
            if result.error is not None:
                result.error.__traceback__ = None  # it would grow with every life


def _copied(value: Any) -> Any:
    """The containers anew, with the same states and records in them."""
    match value:
        case dict():
            return {key: _copied(held) for key, held in value.items()}
        case list():
            return list(value)
        case _:
            return value
