"""Inbound sources: updates are accepted in order, each in one commit with its cursor.

An update that cannot be read becomes a dead turn, and its source goes on.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from turnfold._decide.accepting import SourceCursor, Update
from turnfold._log.ids import cursor_of
from turnfold._runtime.calls import (
    CallResult,
    Calls,
    answered,
    cancels,
    is_of_network,
    own_cancels,
    report,
    told,
)
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.lasting import Lasting
from turnfold._state.fold import Cursor
from turnfold._state.turn import Turn
from turnfold.api.handle import inbound_of
from turnfold.api.portal import Home
from turnfold.api.spread import Spread
from turnfold.enums import Busy
from turnfold.errors import InvalidInputError
from turnfold.inbound import Evidence, Inbound, Unreadable, evidence_of
from turnfold.logs import lines
from turnfold.messages import check_enum, check_id, check_span
from turnfold.wrong_calls import explained_call

if TYPE_CHECKING:
    from turnfold.api.store_kernel import StoreKernel

_LOG = lines()
Reader = Callable[[Any], Inbound | Unreadable | None]
LaneOf = Callable[[Inbound], str | None]
Desks = Mapping[tuple[str, str], AttachedChannel]
_SHAPE = "a source gives pairs of (message or None, cursor)"
_LONGEST = 65_536  # characters of the text in the place of an update without bytes
UNREAD_MOST = 20  # dead turns in a row; then the source is started again
_PAUSE_S = 1.0  # before the first new start of a source
_PAUSE_MAX_S = 60.0
_STEADY_S = 60.0  # a source that ran for so long works


class UnreadableSourceError(Exception):
    """A source brought nothing but what cannot be read."""


class UnreadError(Exception):
    """A person resubmitted a dead turn, and it still cannot be read."""


def steady_s(silent: float) -> float:
    """How long a source has to run, even if it brings nothing, until it counts as
    working again. `silent`: the time without a sign of life before it broke last. A
    source may break by a timeout, again and again, so it has to run for longer.

    >>> [steady_s(silent) for silent in (0.0, 5.0, 300.0)]
    [60.0, 60.0, 600.0]
    """
    return max(_STEADY_S, 2 * silent)


def pause_s(broken: int) -> float:
    """The pause before the next start of a source that broke `broken` times in a row
    without bringing an item that could be read.

    >>> [pause_s(times) for times in (0, 1, 2, 3, 7, 2_000)]
    [1.0, 1.0, 2.0, 4.0, 60.0, 60.0]
    """
    return min(_PAUSE_S * 2.0 ** min(max(broken, 1) - 1, 30), _PAUSE_MAX_S)


@define
class SourceFacts:
    """`state`: "waiting" (for the worker), "reading" or "pausing" (until its next
    start). `quiet_ms`: since the last accepted item or cursor, else since its first
    start. `failing_ms`: since the source last worked, if it has ended, and since then
    has brought nothing that can be read, and has not run for long (`steady_s`)."""

    state: str
    restarts: int
    items: int
    quiet_ms: int | None
    failing_ms: int | None
    error: str | None


def _function(value: object, field: str, what: str) -> None:
    if value is not None and not callable(value):
        raise InvalidInputError(field=field, problem=f"expected a function {what}")


def _busy(word: Any) -> Busy:
    return check_enum("busy", word, Busy)


def _debounce(value: Any) -> int:
    return check_span("debounce_ms", value)


@frozen(kw_only=True)
class Taking:
    """How the updates of a source are read, and the plan for a message whose lane is
    busy; see `Kernel.source`. Raises InvalidInputError."""

    read: Reader | None = None
    lane: LaneOf | None = None
    busy: Busy = field(default=Busy.QUEUE, converter=_busy)
    debounce_ms: int = field(default=0, converter=_debounce)

    def __attrs_post_init__(self) -> None:
        _function(self.read, "read", "that makes an Inbound of an update")
        _function(self.lane, "lane", "that names the lane of an Inbound")


class Pulling(Spread):
    """The method of a kernel that takes a source."""

    _home: Home
    _sources: "Sources"

    @explained_call
    def source(
        self,
        name: str,
        stream: Callable[..., Any],
        *,
        account: str = "default",
        read: Reader | None = None,
        busy: Busy | str = Busy.QUEUE,
        debounce_ms: int = 0,
        lane: LaneOf | None = None,
    ) -> None:
        """Accept the updates of a Source, in order, while this kernel is the worker.
        Its cursor moves in one commit with the update that it has passed.

        With `read` the source brings raw updates, and `read(update)` makes the Inbound,
        or returns None for an update that is no message. An update that `read` cannot
        read becomes a dead turn, and the source goes on; a person can have it read
        again. `busy` and `debounce_ms`: as of `accept`. `lane(inbound)`: the lane of a
        message that names none, such as its sender; None for the lane of its place."""
        self._home.check()
        name, account = check_id("name", name), check_id("account", account)
        taking = Taking(read=read, lane=lane, busy=busy, debounce_ms=debounce_ms)
        self._sources.add(name, account, stream, taking)
        if self._shards is not None:
            self._shards.source(name, account, stream, taking)


class Sources:
    """The sources of a kernel; they run only while it is the worker."""

    def __init__(self, kernel: "StoreKernel", calls: Calls, desks: Desks) -> None:
        self._kernel, self._calls, self._desks = kernel, calls, desks
        self._sources: dict[tuple[str, str], _Pull] = {}
        self._tasks: list[Lasting] = []
        self._begun = False

    def add(
        self, name: str, account: str, stream: Callable[..., Any], taking: Taking
    ) -> None:
        """Raises InvalidInputError if there is a source of this name and account."""
        if not callable(stream):
            problem = "a source is a function that takes a cursor"
            raise InvalidInputError(field="stream", problem=problem)
        if (name, account) in self._sources:
            problem = f"there is a source {name}/{account} already"
            raise InvalidInputError(field="name", problem=problem)
        facts = name, account, stream, taking
        pull = _Pull(self._kernel, self._calls, *facts, self._desks)
        self._sources[name, account] = pull
        if self._begun:
            self._run(pull)

    def hand_on(self, other: "Sources", lies_there: Callable[[str, str], bool]) -> None:
        """Give another kernel the sources of its shard."""
        for pull in self._sources.values():
            if lies_there(*pull.place):
                other.add(*pull.place, *pull.means)

    def start(self) -> None:
        """This kernel is the worker from now on."""
        self._begun = True
        for pull in self._sources.values():
            self._run(pull)

    def _run(self, pull: "_Pull") -> None:
        self._tasks.append(Lasting(pull.where, pull.forever))

    def facts(self) -> Mapping[str, SourceFacts]:
        """The facts about each source, for `health`."""
        return {f"{n}/{a}": pull.facts() for (n, a), pull in self._sources.items()}

    def read_again(self, turn: Turn, raw: bytes) -> Inbound:
        """The message in a dead turn, read again by the `read` of its source. Raises
        UnreadError."""
        first = turn.first
        pull = self._sources.get((turn.channel, turn.account))
        could_be_read = getattr(first, "differs", None) is not None
        if not could_be_read and pull is not None and pull.reads:
            update = pull.update_of(Evidence(first.form, raw).value)
            if isinstance(update, Inbound):
                return update
            problem = "it is no message" if update is None else update.error
            raise UnreadError(problem)
        if not turn.conversation:
            problem = "its conversation is not known, and no source has a `read` for it"
            raise UnreadError(problem)
        return inbound_of(turn, raw)

    async def stop(self) -> None:
        self._begun = False
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*[task.stop() for task in tasks])


class _Pull:
    """One source, started again after each end."""

    def __init__(
        self,
        kernel: "StoreKernel",
        calls: Calls,
        name: str,
        account: str,
        stream: Callable[..., Any],
        taking: Taking,
        desks: Desks,
    ) -> None:
        self._kernel, self._calls, self._stream = kernel, calls, stream
        self._taking = taking
        self.place, self.means = (name, account), (stream, taking)
        self._name, self._account = name, account
        self._desks = desks
        self._broken = 0  # ends in a row without an item that could be read
        self._unread = 0  # items since the last one that could be read, in this start
        self._state = "waiting"
        self._starts = self._items = 0
        self._alive_at: float | None = None  # loop time of the last sign of life
        self._started_at = 0.0  # loop time
        self._steady_s = _STEADY_S  # of this start
        self._error: str | None = None

    def facts(self) -> SourceFacts:
        quiet = None
        if self._alive_at is not None:
            quiet = int((_now() - self._alive_at) * 1_000)
        well = not self._broken or self._is_steady()
        return SourceFacts(
            state=self._state,
            restarts=max(0, self._starts - 1),
            items=self._items,
            quiet_ms=quiet,
            failing_ms=None if well else quiet,
            error=None if well else self._error,
        )

    @property
    def where(self) -> str:
        """Its name, for the log."""
        return f"source {self._name}/{self._account}"

    async def forever(self) -> None:
        """Run the source until its task is cancelled. A source that cancels itself ends
        only its own call, not this loop."""
        try:
            while True:
                self._state = "reading"
                self._starts += 1
                self._started_at = _now()
                self._note_life(only_first=True)
                end = await self._calls.ask(self._once)
                self._note_end()
                self._state, pause = "pausing", pause_s(self._broken)
                self._say(end, pause)
                await asyncio.sleep(pause)
        finally:
            self._state = "waiting"

    def _note_end(self) -> None:
        if self._is_steady():
            self._works()
        self._broken += 1
        since = max(self._started_at, self._alive_at or 0.0)
        self._steady_s = steady_s(_now() - since)

    def _is_steady(self) -> bool:
        """A platform may be quiet for days, and its source works all the same."""
        runs = self._state == "reading"
        return runs and _now() - self._started_at >= self._steady_s

    def _works(self) -> None:
        self._broken = 0
        self._error = None

    def _say(self, end: CallResult | None, pause: float) -> None:
        error = None if end is None else end.error
        if error is None:
            self._error = "it ended"
            _LOG.warning("%s ended; again in %.0f s", self.where, pause)
            return
        self._error, what = told(error), f"{self.where} broke; again in {pause:.0f} s"
        desk = self._desks.get(self.place)
        if is_of_network(error) or (desk is not None and desk.knows(error)):
            _LOG.warning("%s: %s", what, self._error)
        else:
            report(what, error)

    async def _once(self) -> None:
        start = answered(self._stream, await self._cursor())
        if start.error is not None:
            raise start.error
        async with _closing(start.value) as pairs:
            self._unread = 0
            async for item in pairs:
                dead = await self._take(item)
                self._items += 1
                self._note_life()
                self._judge(dead)

    def _note_life(self, *, only_first: bool = False) -> None:
        if self._alive_at is None or not only_first:
            self._alive_at = _now()

    def _judge(self, dead: Unreadable | None) -> None:
        """An item is taken. A source that brings nothing but what cannot be read would
        fill the store with dead turns, as fast as it can. So it gets a pause."""
        if dead is None:
            self._unread = 0
            self._works()
            return
        self._unread += 1
        if self._unread >= UNREAD_MOST:
            problem = f"{self._unread} updates in a row cannot be read: {dead.error}"
            raise UnreadableSourceError(problem)

    async def _take(self, item: Any) -> Unreadable | None:
        """Returns what became a dead turn."""
        asked = cancels()
        update, value = self._parted(item)
        if await own_cancels(asked):
            _LOG.warning(
                "%s: reading an update cancelled the source's task", self.where
            )
        cursor = None if value is None else self._cursor_at(value)
        if update is not None:
            return await self._accept(update, cursor)
        if cursor is not None:
            await self._kernel.advance(cursor)
        return None

    def _cursor_at(self, value: Any) -> SourceCursor | None:
        """None for one that no log can keep: its message is taken all the same, and may
        come again after a restart, when its key tells that it is known."""
        channel, account = self._name, self._account
        try:
            return SourceCursor(channel=channel, account=account, value=value)
        except InvalidInputError as exc:
            _LOG.warning("%s: a cursor is not kept: %s", self.where, exc)
            return None

    async def _accept(
        self, update: Update, cursor: SourceCursor | None
    ) -> Unreadable | None:
        how = self._taking
        if cursor is None:
            update = _named(update)
        try:
            await self._kernel.accept(
                update, cursor=cursor, busy=how.busy, debounce_ms=how.debounce_ms
            )
        except InvalidInputError as exc:
            if isinstance(update, Unreadable):
                raise
            # The store cannot keep one of its names, but it can keep the bytes.
            update = self._unreadable(update.evidence, str(exc))
            update = update if cursor is not None else _named(update)
            await self._kernel.accept(update, cursor=cursor)
        return update if isinstance(update, Unreadable) else None

    def _parted(self, item: Any) -> tuple[Update | None, Any]:
        match item:
            case (update, str() | int() as value) if type(value) is not bool:
                return self.update_of(update), value
            case Inbound() | Unreadable():
                return self.update_of(item), None
            case _:
                error = f"{_SHAPE}, not {type(item).__name__}"
                return self._unreadable(item, error), None

    @property
    def reads(self) -> bool:
        return self._taking.read is not None

    def update_of(self, given: Any) -> Update | None:
        """Read an update and give it its lane. Never raises."""
        update = self._read(given)
        lane = self._taking.lane
        if lane is None or not isinstance(update, Inbound) or update.own_lane:
            return update
        end = answered(lane, update)
        if end.error is None:
            end = answered(_in_lane, update, end.value)
        if end.error is not None:
            report(f"{self.where}: a lane", end.error)
            return self._unreadable(update.evidence, told(end.error))
        laned: Inbound = end.value
        return laned

    def _read(self, given: Any) -> Update | None:
        if given is None or isinstance(given, Update):
            return given
        if self._taking.read is None:
            return self._unreadable(given, f"{_SHAPE}, not {type(given).__name__}")
        end = answered(self._taking.read, given)
        if end.error is not None:
            report(f"{self.where}: an update", end.error)
            return self._unreadable(given, told(end.error))
        if end.value is None or isinstance(end.value, Update):
            return end.value
        kind = type(end.value).__name__
        return self._unreadable(given, f"`read` gave a {kind}, not an Inbound")

    def _unreadable(self, given: Any, error: str) -> Unreadable:
        return Unreadable(
            self._name, account=self._account, raw=_evidence(given), error=error
        )

    async def _cursor(self) -> str | None:
        name = cursor_of(self._name, self._account)
        state = await self._kernel.look(lambda draft: draft.cursor(name))
        return state.value if isinstance(state, Cursor) else None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _in_lane(inbound: Inbound, lane: str | None) -> Inbound:
    return evolve(inbound, lane=lane)


@asynccontextmanager
async def _closing(pairs: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Close a generator and its connections at once, not when it is collected. An
    iterator of another kind need not have aclose()."""
    try:
        yield pairs
    finally:
        close = getattr(pairs, "aclose", None)
        if close is not None:
            await close()


def _named(update: Update) -> Update:
    """A source without a cursor brings everything again after each start. An update
    that nobody can read may have no id, so it is known by its bytes."""
    if not isinstance(update, Unreadable) or update.dedupe_key is not None:
        return update
    form, raw = update.evidence.form, update.evidence.raw
    digest = hashlib.sha256(f"{form} ".encode() + raw).hexdigest()
    return evolve(update, key=f"unread/{digest}")


def _evidence(given: Any) -> Evidence:
    """The bytes of an update, or its `repr` if it has none."""
    end = answered(evidence_of, given)
    if isinstance(end.value, Evidence):
        return end.value
    shown = answered(repr, given).value
    return evidence_of(
        shown[:_LONGEST] if isinstance(shown, str) else object.__repr__(given)
    )
