"""Where decisions become commits: many of them in one, each on its own.

Inside the write transaction the journal first reads what others appended, then lets
each decision work on the one draft of the commit. A refused decision leaves no trace; a
failing one does not fail its neighbours. Nobody learns a result before the COMMIT of
everything it was decided on.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
from attrs import define, field

from turnfold.book import Book
from turnfold.codec import Record, decode
from turnfold.decide.draft import AttemptRef, Context, Draft, Emitted
from turnfold.errors import (
    BusyError,
    CorruptLogError,
    FateUnknownError,
    NotOpenError,
    ReadOnlyError,
    StoreError,
)
from turnfold.events.ledger import StoreCreated
from turnfold.fold import STORE, State, summarize
from turnfold.frozen import frozen
from turnfold.ports.store import Append, Body, Store, Tx

Decision = Callable[[Draft], Any]


@frozen
class Decided:
    """What became of one decision: a value, or the error it was refused with."""

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


@define
class Commit:
    """What one commit did. `moved`: every stream that changed, by us or by others.
    `attempts`: those that are durable now and may go to the wire."""

    results: list[Decided]
    moved: dict[str, State] = field(factory=dict)
    emitted: list[Emitted] = field(factory=list)
    bodies: list[Body] = field(factory=list)
    attempts: list[AttemptRef] = field(factory=list)


class Journal:
    """The one way to write. `context` is asked once per commit."""

    def __init__(
        self, store: Store, book: Book, context: Callable[[], Context]
    ) -> None:
        self.store = store
        self.book = book
        self.context = context
        self._news: dict[str, State] = {}  # read from others, not yet reported
        self._found: list[Emitted] = []  # the same for commits of unknown fate
        self._lost = False  # a COMMIT failed: nothing is true before it is read again

    def commit(self, decisions: Sequence[Decision]) -> Commit:
        """Decide and store. Never raises for a decision: its error is its result."""
        try:
            return self._transact(decisions)
        except Exception as exc:  # noqa: BLE001  it becomes the result of its decision
            return self.failed(decisions, exc)

    def failed(self, decisions: Sequence[Decision], exc: Exception) -> Commit:
        """What to do when a transaction raised."""
        match exc:
            case FateUnknownError():
                self._lost = True
                return self._after_unknown_fate(decisions, exc)
            case BusyError() | NotOpenError() | ReadOnlyError():
                return _refused(decisions, exc)  # no smaller commit fares better
            case _:
                return self._one_by_one(decisions, exc)

    def _one_by_one(self, decisions: Sequence[Decision], exc: Exception) -> Commit:
        """Find the culprit: the others must not fail for it."""
        if len(decisions) <= 1:
            return _refused(decisions, exc)
        return _joined([self.commit([decision]) for decision in decisions])

    def _after_unknown_fate(
        self, decisions: Sequence[Decision], exc: FateUnknownError
    ) -> Commit:
        """The COMMIT may have reached the disk: read, then decide on what is there."""
        try:
            self.reopen()
            return self._transact(decisions, again=True)
        except (StoreError, NotOpenError) as again:
            self._lost = isinstance(again, FateUnknownError) or self._lost
            again.__context__ = exc
            return _refused(decisions, again)

    def reopen(self) -> None:
        """Forget everything that was folded and read it again. What is there and was
        not known yet is news, even if we wrote it ourselves."""
        known = self.book.position
        self.store.reopen()
        self.book.load()
        for record in self.store.since(known):
            self._rediscover(record)
        self._lost = False

    def _rediscover(self, record: Record) -> None:
        try:
            state = self.book.state(record.stream)
            event = decode(record)
        except CorruptLogError:
            return  # set aside, shown by health
        if state is not None:
            self._news[record.stream] = state
            self._found.append((record.stream, event))

    @property
    def lost(self) -> bool:
        """The last COMMIT has an unknown fate, and nobody could read what it did."""
        return self._lost

    def refresh(self) -> dict[str, State]:
        """Read what others appended, outside a transaction. If a commit of unknown
        fate could not be read yet, that is tried again: programs that only look would
        otherwise wait for somebody to append."""
        if self._lost:
            self.reopen()
        moved, self._news = {**self._news, **self.book.catch_up(self.store)}, {}
        return moved

    # --- one transaction: begun, decided, written, taken over ---

    def _transact(
        self, decisions: Sequence[Decision], *, again: bool = False
    ) -> Commit:
        begun = self.begin(decisions, again=again)
        begun.write()
        return self.finish(begun)

    def begin(self, decisions: Sequence[Decision], *, again: bool = False) -> "Begun":
        """Decide everything inside a transaction that is still open."""
        if self._lost:
            self.reopen()
        transaction = self.store.write()
        tx = transaction.__enter__()
        try:
            self.book.reads = tx
            if moved := self.book.catch_up(tx):
                self._news.update(moved)
            draft, results = self._decide(tx, decisions, again=again)
        except BaseException:
            transaction.__exit__(*sys.exc_info())
            raise
        finally:
            self.book.reads = self.store
        return Begun(transaction, draft, results)

    def finish(self, begun: "Begun") -> Commit:
        """Take over what is durable now."""
        draft = begun.draft
        moved, emitted = draft.touched, draft.emitted
        self.book.absorb(moved, draft.position)
        if self._news:
            moved, self._news = {**self._news, **moved}, {}
        if self._found:
            emitted, self._found = [*self._found, *emitted], []
        return Commit(begun.results, moved, emitted, draft.bodies, draft.attempts)

    def _decide(
        self, tx: Tx, decisions: Sequence[Decision], *, again: bool
    ) -> tuple[Draft, list[Decided]]:
        """Each on top of the others. One that failed when it had made something is
        left out, and the others are decided anew: that is rare, and a way back out
        of every draft is not."""
        context = self.context()
        if again:
            context = attrs.evolve(context, again=True)
        failed: dict[int, Exception] = {}
        while True:
            draft, left = Draft(self.book, context), len(failed)
            results = [
                _one(draft, decision, failed, number)
                for number, decision in enumerate(decisions)
            ]
            if len(failed) == left:
                break
        if draft.made:
            tx.append(_append(draft))
        return draft, results


@frozen
class Begun:
    """A transaction with everything in it but its COMMIT. `write` may run in another
    thread: it touches the store's writing connection and nothing else."""

    transaction: AbstractContextManager[Tx]
    draft: Draft
    results: list[Decided]

    def write(self) -> None:
        """COMMIT. Raises like the store's `write()`."""
        self.transaction.__exit__(None, None, None)


def _one(
    draft: Draft, decision: Decision, failed: dict[int, Exception], number: int
) -> Decided:
    """One decision. What it raises is its own result."""
    if number in failed:
        return Decided(error=failed[number])
    before = draft.made
    try:
        return Decided(decision(draft))
    except Exception as exc:  # noqa: BLE001  the result of this decision alone
        if draft.made != before:
            failed[number] = exc
        return Decided(error=exc)


def _refused(decisions: Sequence[Decision], exc: Exception) -> Commit:
    return Commit([Decided(error=exc) for _ in decisions])


def _joined(commits: Sequence[Commit]) -> Commit:
    whole = Commit([])
    for commit in commits:
        whole.results += commit.results
        whole.moved.update(commit.moved)
        whole.emitted += commit.emitted
        whole.bodies += commit.bodies
        whole.attempts += commit.attempts
    return whole


def _append(draft: Draft) -> Append:
    return Append(
        records=draft.records,
        summaries=[summarize(state) for state in draft.touched.values()],
        bodies=draft.bodies,
        keys=list(draft.keys.items()),
        erase=draft.erased,
    )


def created(draft: Draft, store_id: str) -> None:
    """The first event of a new store."""
    if draft.state(STORE) is None:
        draft.emit(STORE, StoreCreated(store=store_id))
