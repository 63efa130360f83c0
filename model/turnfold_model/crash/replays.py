"""Commits that an earlier execution made in the same place are taken over from it.

Every execution of an image begins at its boot, so most of its steps were taken before:
after the same choices a life stands where another one stood, and its commit there
has the same answer, and leaves the same disk and the same memory. Nothing is decided
twice. This needs a store that makes no choices of its own.

What a commit left is kept as it is and shared by all lives that come by; a life that goes on
from there with a commit of its own takes a copy first.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from attrs import frozen

from turnfold._decide.unit_of_work import Context
from turnfold._runtime.committer import Commit, Committer, Decision
from turnfold._runtime.open_streams import OpenStreams
from turnfold.ports.store import Wanted
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore

_KEPT: Final = 5_000  # commits, of those that were wanted last
_DURABLE: Final = (
    *("head", "log", "streams", "summaries", "bodies", "keys"),
    *("inbox", "answers"),
)
_ELSEWHERE: Final = frozenset(
    {"store", "book", "context", "_disk", "_replays", "_book_is_shared"}
)


@frozen
class _After:
    """A commit and its result, in containers that nobody changes."""

    commit: Commit
    disk: dict[str, Any]
    book: dict[str, Any]
    own: dict[str, Any]  # of the committer itself


Memo = dict[Hashable, _After]


class Replays:
    """Of one life. `choices`: those that it has taken so far. `memo`: shared by all lives
    of an image. `shares`: nothing but a commit writes on the disk."""

    def __init__(
        self, memo: Memo, choices: Callable[[], Hashable], *, shares: bool
    ) -> None:
        self._memo, self._choices, self.shares = memo, choices, shares
        self._commits = 0
        self.disk_is_shared = False

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
        self._book_is_shared = False

    async def commit(
        self, decisions: Sequence[Decision], wanted: Sequence[Wanted] = ()
    ) -> Commit:
        place = self._replays.place()
        after = self._replays.find(place)
        if after is None:
            self.own()
            commit = await super().commit(decisions, wanted)
            self._replays.keep(place, self._after(commit))
            return commit
        self._take_over(after)
        return after.commit

    def own(self) -> None:
        """Before anything is written: a copy of what is shared."""
        if self._replays.disk_is_shared:
            self._replays.disk_is_shared = False
            _put(self._disk, _copied(_durable(self._disk)))
        if self._book_is_shared:
            self._book_is_shared = False
            vars(self.book).update(_copied(vars(self.book)))

    def _after(self, commit: Commit) -> _After:
        own = {n: v for n, v in vars(self).items() if n not in _ELSEWHERE}
        after = _After(
            commit, _durable(self._disk), vars(self.book).copy(), _copied(own)
        )
        self._share(after)
        return after

    def _share(self, after: _After) -> None:
        """Lists of a memory are taken from without a commit, such as the deadlines."""
        lists = {n: list(v) for n, v in after.book.items() if isinstance(v, list)}
        vars(self.book).update(after.book | lists)
        self._replays.disk_is_shared = self._book_is_shared = True
        if not self._replays.shares:
            self.own()

    def _take_over(self, after: _After) -> None:
        _put(self._disk, after.disk)
        self._share(after)
        vars(self).update(_copied(after.own))
        for result in after.commit.results:
            if result.error is not None:
                result.error.__traceback__ = None  # it would grow with every life


def _durable(disk: MemoryDisk) -> dict[str, Any]:
    return {name: getattr(disk, name) for name in _DURABLE}


def _put(disk: MemoryDisk, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(disk, name, value)


def _copied(value: Any) -> Any:
    """The containers anew, with the same states and records in them."""
    match value:
        case dict():
            return {key: _copied(held) for key, held in value.items()}
        case list():
            return list(value)
        case _:
            return value
