"""Typed queries over a store: `kernel.inspect`, or `Inspect(store)` without a kernel.

Queries do not write, lock or migrate: with a store that was opened with
`read_only=True` an operator may look at a gateway that runs, hangs or is dead.

    await store.open(read_only=True)
    inspect = Inspect(store)
    await inspect.show("06gv")         # a turn or entry, by any unique piece of its id
    await inspect.answer_to("telegram", conversation="42", message_id="1001")
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import tzinfo
from functools import partial
from typing import TypeGuard

from attrs import evolve

from turnfold._decide.unit_of_work import ChannelFacts, Context, Fence
from turnfold._log.ids import ENTRY, TURN, inbound_key
from turnfold._state import fold
from turnfold._state.entry import Entry
from turnfold._state.fold import Cursor, Gate, StoreState
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.errors import InvalidInputError, NotFoundError
from turnfold.inbound import Inbound
from turnfold.inspect import many, senders
from turnfold.inspect.lookup import (
    INBOX,
    AnyDesk,
    Filter,
    ReadModel,
    makes,
    resolve,
    row_of,
    rows,
)
from turnfold.inspect.places import Place, place_of
from turnfold.inspect.senders import OfSender
from turnfold.inspect.times import clock_of
from turnfold.inspect.views import (
    NOBODY,
    Answer,
    AttemptView,
    ChannelView,
    CommandView,
    EntryView,
    EventView,
    Found,
    GateView,
    InboundView,
    LedgerView,
    Next,
    Overview,
    Page,
    PartView,
    Row,
    RunView,
    Tally,
    TurnView,
    WorkerView,
)
from turnfold.messages import check_flag, check_id, check_kind, check_ms, check_text
from turnfold.ports.store import Command, Record, Store, Wanted, record_pages
from turnfold.settings import Settings

__all__ = [
    "Answer",
    "AttemptView",
    "ChannelView",
    "CommandView",
    "EntryView",
    "EventView",
    "Filter",
    "Found",
    "GateView",
    "InboundView",
    "Inspect",
    "LedgerView",
    "Next",
    "Overview",
    "Page",
    "PartView",
    "Place",
    "Row",
    "RunView",
    "Tally",
    "TurnView",
    "View",
    "WorkerView",
]
View = TurnView | EntryView | LedgerView | CommandView
_SEARCHED = 500  # turns whose words are read together


def _is_turn(view: View) -> TypeGuard[TurnView]:
    return isinstance(view, TurnView)


def _checked(want: Filter | None) -> Filter:
    want = Filter() if want is None else want
    check_kind("want", want, Filter)
    return want


def _check_words(field: str, words: object) -> None:
    """Raises InvalidInputError for any value but a list, tuple or set of texts."""
    check_kind(field, words, list, tuple, set, frozenset)
    for word in words if isinstance(words, Iterable) else ():
        check_text(field, word)


class Inspect:
    """`clock`, `settings` and `desks` (the attached channels) come from the kernel, if
    there is one; from outside all channels count as attached. `alive`: does a worker
    live? (None: not known)."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        desks: Mapping[tuple[str, str], ChannelFacts] | None = None,
        alive: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or Settings()
        self._desks = AnyDesk() if desks is None else desks
        self._alive = alive

    # --- questions ---

    async def show(self, wanted: str) -> View:
        """The history of one turn, entry or ledger, and its next step. `wanted`: a full
        id, one without its prefix, the beginning of one, or an inbound message's id. A
        turn or entry that is only posted so far is returned as a CommandView.

        Raises NotFoundError, InvalidInputError (several fit), CorruptLogError.
        """
        return await self._show(await resolve(self._store, wanted))

    async def _show(self, stream: str) -> View:
        from turnfold.inspect import whole  # noqa: PLC0415  half of all imports

        waiting = await self._waiting(stream)
        model = ReadModel(self._store)
        await model.read((stream,))
        match model.state(stream):
            case Turn() as turn:
                return await self._turn_of(model, turn, waiting)
            case Entry() as entry:
                await self._read_around(model, (entry,))
                await model.read_bodies((stream,))
                view = whole.entry_view
                question = partial(view, model, entry, waiting, self._alive())
                return await model.ask(await self._context(), question)
            case Gate() | Cursor() | StoreState() as state:
                await model.read_bodies((stream,))
                return whole.ledger_view(model, state, await self._now())
            case None:
                for command in waiting:
                    if command.new:
                        return command
                raise NotFoundError(what="stream", id=stream)

    async def inbound(
        self,
        channel: str,
        *,
        conversation: str,
        message_id: str,
        account: str = "default",
        event: str = "message",
        revision: str | None = None,
    ) -> TurnView | None:
        """The turn of an inbound message, with its runs, entries, parts, attempts and
        receipts; None if the message is not in the log."""
        message = Inbound(
            channel,
            account=account,
            conversation=conversation,
            message_id=message_id,
            event=event,
            revision=revision,
        )
        return await self._inbound(inbound_key(message))

    async def _inbound(self, key: str | None) -> TurnView | None:
        if key is None:
            raise InvalidInputError(field="message_id", problem="is None")
        stream = (await self._store.fetch(Wanted(keys=frozenset((key,))))).keys[key]
        found = None if stream is None else await self._show(stream)
        return found if isinstance(found, TurnView) else None

    async def answer_to(
        self,
        channel: str,
        *,
        conversation: str,
        message_id: str,
        account: str = "default",
        event: str = "message",
        revision: str | None = None,
    ) -> Answer:
        """The answer to a message, or the reason why there is none."""
        message = Inbound(
            channel,
            account=account,
            conversation=conversation,
            message_id=message_id,
            event=event,
            revision=revision,
        )
        key = inbound_key(message)
        # The inbox first: a command moves from the inbox to the log, never back.
        waiting = [c for c in await self.inbox() if c.key == key]
        turn = await self._inbound(key)
        if turn is not None:
            return Answer(text=turn.verdict, turn=turn)
        for command in waiting:
            text = f"the message arrived and has no answer yet: {command.next.text}"
            return Answer(text=text, waiting=command)
        text = f"{channel} never handed message {message_id} over to this gateway"
        return Answer(text=text)

    async def list(self, want: Filter | None = None) -> tuple[Row, ...]:
        """Turns and entries, newest first, without `words`. Raises InvalidInputError for
        a channel or an account that does not exist."""
        return tuple(await rows(self._store, _checked(want), await self._now()))

    async def page(self, want: Filter | None = None) -> Page:
        """As `list`, with `words`, and with the beginning of the next page."""
        want = _checked(want)
        more_by_one = evolve(want, limit=want.limit + 1)
        found = await rows(self._store, more_by_one, await self._now())
        shown = await many.with_words(self._store, found[: want.limit])
        more = len(found) > want.limit
        return Page(rows=shown, before=shown[-1].order if more and shown else None)

    async def rows(
        self, streams: Sequence[str], *, words: bool = False
    ) -> tuple[Row, ...]:
        """The rows of the turns and entries among these streams."""
        _check_words("streams", streams)
        check_flag("words", words)
        wanted = Wanted(summaries=frozenset(streams))
        found = (await self._store.fetch(wanted)).summaries
        shift = (await self._now()).shift()
        rows_ = [row_of(s, shift) for name in streams if (s := found[name]) is not None]
        known = [row for row in rows_ if row.id.startswith((TURN, ENTRY))]
        return await many.with_words(self._store, known) if words else tuple(known)

    async def of_sender(self, sender: str) -> OfSender:
        """The turns with messages of a sender, for erasing them. Reads the whole log."""
        return await senders.of_sender(self._store, check_id("sender", sender))

    async def find(
        self, place: Place, want: Filter | None = None, words: str = ""
    ) -> tuple[Found, ...]:
        """The turns of a place, newest first: each message with its answer. `want`:
        time and limit. `words`: a text in the message, in upper or lower case."""
        want = _checked(want)
        check_kind("place", place, Place)
        words = check_text("words", words)
        here = evolve(
            want,
            what="turn",
            channel=place.channel,
            account=place.account,
            conversation=place.conversation,
        )
        found: list[Found] = []
        size = max(want.limit, _SEARCHED if words else 0)
        before, clock = want.before, await self._now()
        while len(found) < want.limit:
            page = await rows(
                self._store, evolve(here, before=before, limit=size), clock
            )
            found += await self._found(page, words.casefold(), want.limit - len(found))
            if len(page) < size:
                break
            before = page[-1].order
        return tuple(found)

    async def _found(
        self, page: Sequence[Row], words: str, most: int
    ) -> Sequence[Found]:
        """At most so many of these turns that say these words."""
        said = await many.said(self._store, page) if words else {}
        fit = [row for row in page if words in said.get(row.id, "").casefold()]
        found: list[Found] = []
        for row in fit[:most]:
            view = await self._show(row.id)
            if _is_turn(view):
                text = view.inbound[0].text
                found.append(Found(at=row.created, text=text, turn=view))
        return found

    async def stats(
        self,
        by: Sequence[str] = ("channel",),
        want: Filter | None = None,
        zone: tzinfo | None = None,
    ) -> tuple[Tally, ...]:
        """Counts by channel, account, kind, reason, status, day or hour. `zone`: the
        time zone of days and hours; None is the zone of this process."""
        _check_words("by", by)
        if zone is not None:
            check_kind("zone", zone, tzinfo)
        return await many.stats(
            self._store, by, _checked(want), zone, await self._now()
        )

    async def overview(self) -> Overview:
        """Is a person needed, and for which turns, entries and gates?"""
        return await many.overview(self._store, await self._now(), alive=self._alive())

    async def gates(self) -> tuple[GateView, ...]:
        """The closed gates: the reason of each, and how many entries wait behind it."""
        return await many.gates(self._store, await self._now())

    async def worker(self) -> WorkerView:
        """The worker of the store: its process, and whether it lives."""
        return await many.worker(self._store, await self._now(), alive=self._alive())

    async def channels(self, want: Filter | None = None) -> tuple[ChannelView, ...]:
        """Every account with a message."""
        return await many.channels(self._store, _checked(want), await self._now())

    async def resolve(self, wanted: str) -> str:
        """The full stream name for an id, a piece of one or a message id; raises as
        `show` does."""
        return await resolve(self._store, wanted)

    async def place(self, text: str) -> Place:
        """A place from a text: `channel`, `channel/conversation`, `channel/account`,
        `channel/account/conversation`."""
        return await place_of(self._store, check_text("text", text))

    async def inbox(self) -> tuple[CommandView, ...]:
        """The commands that wait for the worker, the oldest first."""
        return tuple(map(self._command, await self._store.inbox(INBOX)))

    async def events(self, after: int = 0) -> AsyncIterator[EventView]:
        """Every event after a position, in words; an unreadable record is shown as
        such."""
        check_ms("after", after)
        async for page in record_pages(self._store, after):
            for happening in await self.tell(page):
                yield happening

    async def tell(self, records: Sequence[Record]) -> tuple[EventView, ...]:
        """The events of these records, in words."""
        from turnfold.inspect import timeline  # noqa: PLC0415  as in _show

        check_kind("records", records, list, tuple)
        for record in records:
            check_kind("records", record, Record)
        records = [record for record in records if not record.pruned]
        model = ReadModel(self._store)
        await model.read_bodies_of(records)
        return tuple(
            happening
            for record in records
            for happening in timeline.happened(
                (record,), partial(model.text, record.stream)
            )
        )

    # --- reads before a question ---

    async def _now(self) -> Clock:
        return await clock_of(self._store) if self._clock is None else self._clock

    async def _context(self) -> Context:
        wanted = Wanted(summaries=frozenset((fold.STORE,)))
        row = (await self._store.fetch(wanted)).summaries[fold.STORE]
        worker = None if row is None else fold.restore(row)
        epoch, owner = 0, ""
        if isinstance(worker, StoreState):
            epoch, owner = worker.epoch, worker.owner or ""
        clock = await self._now()
        return Context(
            now=clock.now(),
            shift=clock.shift,
            settings=self._settings,
            fence=Fence(epoch=epoch, owner=owner),
            desks=self._desks,
        )

    async def _waiting(self, stream: str) -> tuple[CommandView, ...]:
        return tuple(c for c in await self.inbox() if c.stream == stream)

    async def _read_around(self, model: ReadModel, entries: Sequence[Entry]) -> None:
        """Read the lanes of open entries."""
        for entry in entries:
            if entry.open:
                await model.read_lane(ENTRY, entry.lane)

    async def _turn_of(
        self, model: ReadModel, turn: Turn, waiting: tuple[CommandView, ...]
    ) -> TurnView:
        from turnfold.inspect import whole  # noqa: PLC0415  as in _show

        names = await model.read_entries(turn.stream)
        await model.read_bodies((turn.stream, *names))
        states = [model.state(name) for name in names]
        await self._read_around(model, [s for s in states if isinstance(s, Entry)])
        await model.read_lane(TURN, turn.lane)
        question = partial(whole.turn_view, model, turn, waiting, self._alive())
        return await model.ask(await self._context(), question)

    # --- views ---

    def _command(self, command: Command) -> CommandView:
        alive = self._alive()
        text = "waits in the inbox for the worker to take it up"
        if alive is False:
            text += NOBODY
        return CommandView(
            id=command.id,
            kind=command.kind,
            stream=command.stream,
            at=command.at,
            key=command.key,
            new=makes(command),
            next=Next(text=text),
        )
