"""Turning decisions into commits: many decisions share one commit, and each has its own
result.

Decisions read memory. If one of them needs state that is not in memory, the committer
fetches all missing state in one call and decides all of them anew. A refused decision
leaves no trace, and a failing one does not fail the others. No caller gets a result
before the COMMIT of all state that it was decided on.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from msgspec import Struct, field
from msgspec.structs import replace

from turnfold._decide.missing import NotLoaded, together
from turnfold._decide.unit_of_work import AttemptRef, Context, Emitted, UnitOfWork
from turnfold._log.bodies import digested
from turnfold._log.codec import decode
from turnfold._log.events import StoreCreated
from turnfold._log.ids import ENTRY, TURN
from turnfold._runtime.damage import of_a_row
from turnfold._runtime.open_streams import OpenStreams
from turnfold._state.fold import STORE, State, StoreState, fold, summarize
from turnfold.errors import (
    BusyError,
    ConflictError,
    CorruptLogError,
    DiskError,
    FateUnknownError,
    KeyTakenError,
    LostStoreError,
    NoAccessError,
    NotAStoreError,
    NotOpenError,
    OwnedError,
    ReadOnlyError,
    StoreError,
    UnsafeStoreError,
)
from turnfold.ports.store import (
    Body,
    Head,
    Listing,
    Record,
    Refused,
    Store,
    Stored,
    Wanted,
    Write,
)

Decision = Callable[[UnitOfWork], Any]
_Failed = dict[int, BaseException]  # by the number of the decision
_PAGE = 1_000  # records
_FOR_A_PERSON = Listing(prefix="", person=True)  # every store has an index of these
# A person has changed the server, and can change it back: no commit is taken till then.
_MEDDLED = (NoAccessError, NotAStoreError, ReadOnlyError, UnsafeStoreError)
# The store takes nothing now, whatever the decision; later it may.
TAKES_NONE = (BusyError, DiskError, FateUnknownError, *_MEDDLED)
_RACES = 20  # commits of another process between deciding and storing


class Decided(Struct):
    """The result of one decision: a value, or the error that refused it."""

    value: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Commit(Struct):
    """The result of one commit. `moved`: the changed streams in their new state.
    `attempts`: attempts that are durable now and may go to the wire."""

    results: list[Decided]
    moved: dict[str, State] = field(default_factory=dict)
    emitted: list[Emitted] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    attempts: list[AttemptRef] = field(default_factory=list)


class Committer:
    """The one way to write to a store that this process owns.

    `context` is called once per commit. One commit at a time: the caller waits for each
    before it begins the next one (`GroupCommit` does).
    """

    def __init__(
        self, store: Store, book: OpenStreams, context: Callable[[], Context]
    ) -> None:
        self.store = store
        self.book = book
        self.context = context
        self._news: dict[str, State] = {}  # found after a commit of unknown outcome
        self._found: list[Emitted] = []
        self._lost = False  # a COMMIT failed: read the log again first
        self._suspicious = False  # another process may have appended
        # Set if another process owns the store, or may own it, or its files are gone.
        self.replaced: OwnedError | None = None
        self.trouble: StoreError | None = None  # of the store; None after a commit

    async def begin(self, new_id: Callable[[], str]) -> None:
        """Load; an empty store gets its first record. `new_id`: names the store."""
        await self.load()
        if self.book.position == 0:
            decision = partial(created, store_id=new_id())
            (await self.commit([decision])).results[0].get()

    async def load(self) -> None:
        """Read the head of the log, the open streams and the number of dead letters."""
        self.book.load(await self.store.load())
        counts = await self.store.count(_FOR_A_PERSON, ("family", "phase"))
        self.book.count_dead(counts)

    @property
    def store_id(self) -> str | None:
        """The id in the first event of the log."""
        state = self.book.state(STORE)
        return state.id if isinstance(state, StoreState) else None

    async def commit(
        self, decisions: Sequence[Decision], wanted: Sequence[Wanted] = ()
    ) -> Commit:
        """Decide and store. Never raises for a decision: its error is its result.

        `wanted`: state that the decisions are known to need, fetched before they run.
        """
        if self.replaced is not None:
            return _refused(decisions, self.replaced)
        lost = self._lost
        try:
            if lost:
                await self.reopen()
            elif self._suspicious:
                await self._look_behind()
            if wanted:
                await self._prefetch(wanted)
            return await self._transact(decisions, again=lost)
        except Exception as exc:  # noqa: BLE001  becomes the decision's result
            return await self._failed(decisions, exc)

    async def _prefetch(self, wanted: Sequence[Wanted]) -> None:
        missing = self.book.missing(wanted)
        if missing is not None:
            self.book.take(await self.store.fetch(missing))

    async def _failed(self, decisions: Sequence[Decision], exc: Exception) -> Commit:
        if isinstance(exc, TAKES_NONE):
            self.trouble = exc
        match exc:
            case FateUnknownError():
                self._lost = True
                return await self._after_unknown_fate(decisions, exc)
            case LostStoreError():
                self.replaced = exc
                return _refused(decisions, exc)
            case BusyError() | NotOpenError() | OwnedError():
                return _refused(decisions, exc)  # a smaller commit would fail, too
            case _ if isinstance(exc, _MEDDLED):
                return _refused(decisions, exc)
            case _:
                return await self._one_by_one(decisions, exc)

    async def _one_by_one(
        self, decisions: Sequence[Decision], exc: Exception
    ) -> Commit:
        """Commit each decision alone: only the failing one fails."""
        if len(decisions) <= 1:
            return _refused(decisions, exc)
        return _joined([await self.commit([decision]) for decision in decisions])

    async def _after_unknown_fate(
        self, decisions: Sequence[Decision], exc: FateUnknownError
    ) -> Commit:
        """The COMMIT may have reached the disk: read the log, then decide on its
        state."""
        try:
            await self.reopen()
            done = await self._transact(decisions, again=True)
        except (StoreError, NotOpenError) as again:
            self._lost = isinstance(again, FateUnknownError) or self._lost
            again.__context__ = exc
            return _refused(decisions, again)
        self.trouble = None  # the COMMIT that failed may have stored it all
        return done

    # --- after a commit of unknown fate ---

    def cut_off(self) -> None:
        """`commit` was ended where it stood, and so its COMMIT has an unknown fate: read
        the store before anything else. Its decisions may be made again."""
        self._lost = True

    @property
    def lost(self) -> bool:
        """The last COMMIT has an unknown outcome, and reading the log failed."""
        return self._lost

    async def suspects(self) -> bool:
        """Ask the store whether it holds records that memory does not know: of a commit
        of unknown outcome, or of an owner that lost the store and goes on. If so, the
        next commit reads them, even an empty one."""
        if not self._lost and not self._suspicious:
            self._suspicious = bool(await self.store.log(self.book.position, 1))
        return self._lost or self._suspicious

    def stand_down(self) -> None:
        """This process may have lost the store: every later decision is refused."""
        if self.replaced is None:
            owner = "perhaps another process; this one has lost it"
            self.replaced = OwnedError(path=self.store.address, owner=owner)

    async def _look_behind(self) -> None:
        self._suspicious = False
        position = self.book.position
        if await self.store.log(position, 1):
            await self._read_anew(position)
            self._check_replaced()

    async def reopen(self) -> None:
        """Forget all folded state and read it again. Records that were not known yet
        are news, even if this process wrote them."""
        known = self.book.position
        await self.store.reopen()
        await self._read_anew(known)
        self._lost = False

    async def _read_anew(self, known: int) -> None:
        await self.load()
        while records := await self.store.log(known, _PAGE):
            known = records[-1].position
            await self._rediscover(records)

    async def _rediscover(self, records: Sequence[Record]) -> None:
        streams = frozenset(record.stream for record in records)
        self.book.take(await self.store.fetch(Wanted(streams=streams)))
        for record in records:
            try:
                state = self.book.state(record.stream)
                events = decode(record)
            except CorruptLogError:
                continue  # set aside, shown by health
            if state is not None:
                self._news[record.stream] = state
                self._found += [(record.stream, event) for event in events]

    # --- one commit: decide, write, apply to memory ---

    async def _transact(
        self, decisions: Sequence[Decision], *, again: bool = False
    ) -> Commit:
        for _ in range(_RACES):
            draft, results = await self._decide(decisions, again=again)
            head = await self._store(draft) if draft.made else self.book.head
            if head is not None:
                return self._with_news(self._finish(draft, results, head))
        msg = f"another process appended {_RACES} times while this one decided"
        raise RuntimeError(msg)

    async def _decide(
        self, decisions: Sequence[Decision], *, again: bool
    ) -> tuple[UnitOfWork, list[Decided]]:
        """All decisions on one draft. A decision that emits and then fails is left out,
        and the others are decided anew. After a fetch all are decided anew."""
        context = self.context()
        if again:
            context = replace(context, again=True)
        failed: _Failed = {}
        asked: set[Wanted] = set()
        while True:
            draft, left = UnitOfWork(self.book, context), len(failed)
            missing: list[Wanted] = []
            results = [
                _one(draft, decision, failed, missing, number)
                for number, decision in enumerate(decisions)
            ]
            if missing:
                await self._fetch(missing, asked)
            elif len(failed) == left:
                return draft, results

    async def _fetch(self, missing: Sequence[Wanted], asked: set[Wanted]) -> None:
        """`asked`: all that this commit has fetched before. A decision that asks again
        for state that was fetched would ask for ever."""
        if again := asked.intersection(missing):
            msg = f"the store was asked and a decision still misses {again.pop()}"
            raise RuntimeError(msg)
        asked.update(missing)
        found = await self.store.fetch(together(missing))
        if found.bodies:
            found = evolve(found, bodies=await digested(found.bodies))
        self.book.take(found)

    async def _store(self, draft: UnitOfWork) -> Head | None:
        """Write the commit. Returns the new head; None if the log had moved and the
        decisions are stale."""
        write = Write(
            base=self.book.head,
            records=draft.records(),
            summaries=[summarize(state) for state in draft.touched.values()],
            bodies=draft.bodies,
            keys=list(draft.keys.items()),
            erase=draft.erased,
            done=draft.done,
            answers=draft.answers,
            prune=draft.prune,
        )
        (answer,) = await self.store.commit((write,))
        if isinstance(answer, Stored):
            self.trouble = None
            return answer.head
        await self._was_refused(answer)
        return None

    async def _was_refused(self, answer: Refused) -> None:
        """Memory was wrong about the log: an owner that lost the store goes on writing,
        or this process is that owner. The later epoch stays."""
        if isinstance(answer.why, KeyTakenError) and await self._learn(answer.why):
            return
        before = self.book.head
        await self._read_anew(before.position)
        if self.book.head == before:  # what the store has in memory may be wrong, too
            await self.reopen()
        if self.book.head == before:  # no other record came: damage of a state or row
            await self._set_aside(answer.why)
            raise answer.why
        self._check_replaced()

    async def _set_aside(self, why: ConflictError) -> None:
        """Set a stream aside whose row and log differ, now that both were read anew."""
        if not why.stream.startswith((ENTRY, TURN)):
            return
        found = await self.store.fetch(Wanted(streams=frozenset((why.stream,))))
        try:
            damage = of_a_row(why, fold(found.streams[why.stream]))
        except CorruptLogError as exc:
            damage = exc
        if damage is not None:
            self.book.set_aside(why.stream, damage)

    async def _learn(self, why: KeyTakenError) -> bool:
        """Fetch the holder of a taken key: a command that came meanwhile. True if that
        is news."""
        known = self.book.holder(why.key)
        found = await self.store.fetch(Wanted(keys=frozenset((why.key,))))
        self.book.take(found)
        return found.keys[why.key] != known

    def _check_replaced(self) -> None:
        state, fence = self.book.state(STORE), self.context().fence
        if fence is None or (
            isinstance(state, StoreState) and state.epoch > fence.epoch
        ):
            owner = "a process of a later epoch, whose records follow ours"
            self.replaced = OwnedError(path=self.store.address, owner=owner)
            raise self.replaced

    def _finish(self, draft: UnitOfWork, results: list[Decided], head: Head) -> Commit:
        """Apply the durable commit to memory."""
        if draft.prune is not None:
            self.book.drop(draft.prune)
        self.book.absorb(draft.touched, head, draft.keys)
        self.book.forget_fetched()
        return Commit(
            results, draft.touched, draft.emitted, draft.bodies, draft.attempts
        )

    def _with_news(self, commit: Commit) -> Commit:
        if self._news:
            commit.moved = {**self._news, **commit.moved}
            self._news = {}
        if self._found:
            commit.emitted = [*self._found, *commit.emitted]
            self._found = []
        return commit


def _one(
    draft: UnitOfWork,
    decision: Decision,
    failed: _Failed,
    missing: list[Wanted],
    number: int,
) -> Decided:
    """Make one decision. An error is its own result."""
    if number in failed:
        return Decided(error=failed[number])
    before = draft.made
    try:
        return Decided(decision(draft))
    except NotLoaded as miss:
        missing.append(miss.wanted)
        return Decided()
    except BaseException as exc:  # noqa: BLE001  the result of this decision alone
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


def created(draft: UnitOfWork, store_id: str) -> None:
    """The first event of a new store."""
    if draft.state(STORE) is None:
        draft.emit(STORE, StoreCreated(store=store_id))
