"""Typed queries over a store: `kernel.inspect`, or `Inspect(store)` without a kernel.

Nothing here writes, locks or migrates: with a store that was opened with
`read_only=True` an operator may look at a gateway that runs, hangs or is dead.

    store.open(read_only=True)
    Inspect(store).show("06gv")        # a turn or entry, by any unique piece of its id
    Inspect(store).answer_to("telegram", conversation="42", message_id="1001").text
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from turnfold import canonical, fold
from turnfold.codec import Record, decode
from turnfold.decide.draft import Context, Desk, Draft, Fence
from turnfold.errors import (
    CorruptLogError,
    InvalidInputError,
    MissingBodyError,
    NotFoundError,
)
from turnfold.inspect import build, nexts
from turnfold.inspect.find import Filter, resolve, rows
from turnfold.inspect.state import AnyDesk, StoreView
from turnfold.inspect.tell import told
from turnfold.inspect.verdict import verdict
from turnfold.inspect.views import (
    Answer,
    AttemptView,
    EntryView,
    Happening,
    InboundView,
    LedgerView,
    Next,
    PartView,
    Row,
    RunView,
    TurnView,
)
from turnfold.machines.entry import Entry
from turnfold.machines.ledger import Cursor, Gate, StoreState
from turnfold.machines.turn import Turn
from turnfold.names import inbound_key
from turnfold.payloads import Inbound
from turnfold.ports.store import Store
from turnfold.settings import Settings

__all__ = [
    "Answer",
    "AttemptView",
    "EntryView",
    "Filter",
    "Happening",
    "InboundView",
    "Inspect",
    "LedgerView",
    "Next",
    "PartView",
    "Row",
    "RunView",
    "TurnView",
]
_PREVIEW = 200  # characters of a body that a view shows


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Inspect:
    """`now`, `settings` and `desks` (what is attached) are the kernel's where there is
    one; from outside all channels count as attached. `alive` tells if a worker lives
    (None: not known)."""

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], int] = _wall_ms,
        settings: Settings | None = None,
        desks: Mapping[tuple[str, str], Desk] | None = None,
        alive: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._store = store
        self._now = now
        self._settings = settings or Settings()
        self._desks = AnyDesk() if desks is None else desks
        self._alive = alive

    # --- questions ---

    def show(self, wanted: str) -> TurnView | EntryView | LedgerView:
        """All that happened to one thing, and what happens next. `wanted`: an id in
        full, without its prefix, the beginning of one, or an inbound message's id.

        Raises NotFoundError, InvalidInputError (several fit), CorruptLogError.
        """
        stream = resolve(self._store, wanted)
        draft = self._draft()
        records = self._store.read(stream)
        state = fold.fold(records)
        match state:
            case Turn():
                return self._turn(draft, state, records)
            case Entry():
                return self._entry(draft, state, records)
            case None:
                raise NotFoundError(what="stream", id=stream)
            case Gate() | Cursor() | StoreState():
                return self._ledger(state, records)

    def inbound(
        self,
        channel: str,
        *,
        conversation: str,
        message_id: str,
        account: str = "default",
        event: str = "message",
    ) -> TurnView | None:
        """The turn of an inbound message, with its runs, entries, parts, attempts and
        receipts; none if the message was never accepted."""
        message = Inbound(
            channel,
            account=account,
            conversation=conversation,
            message_id=message_id,
            event=event,
        )
        stream = self._store.lookup(inbound_key(message))
        found = None if stream is None else self.show(stream)
        return found if isinstance(found, TurnView) else None

    def answer_to(
        self,
        channel: str,
        *,
        conversation: str,
        message_id: str,
        account: str = "default",
        event: str = "message",
    ) -> Answer:
        """ "I wrote and got no answer": why."""
        turn = self.inbound(
            channel,
            conversation=conversation,
            message_id=message_id,
            account=account,
            event=event,
        )
        if turn is None:
            text = f"{channel} never handed message {message_id} over to this gateway"
            return Answer(text=text)
        return Answer(text=turn.verdict, turn=turn)

    def list(self, want: Filter | None = None) -> tuple[Row, ...]:
        """Turns and entries, newest first."""
        return tuple(rows(self._store, want or Filter()))

    def events(self, after: int = 0) -> Iterator[Happening]:
        """Every event after a position, in words; one that cannot be read says so."""
        return map(self.tell, self._store.log(after))

    def tell(self, record: Record) -> Happening:
        try:
            text = told(decode(record), self._text)
        except CorruptLogError as exc:
            text = f"cannot be read: {exc.problem}"
        return Happening(
            position=record.position,
            at=record.at,
            stream=record.stream,
            kind=record.kind,
            text=text,
        )

    # --- views ---

    def _draft(self) -> Draft:
        store = StoreView(self._store)
        worker = store.state(fold.STORE)
        epoch, owner = 0, ""
        if isinstance(worker, StoreState):
            epoch, owner = worker.epoch, worker.owner or ""
        context = Context(
            now=self._now(),
            settings=self._settings,
            fence=Fence(epoch=epoch, owner=owner),
            desks=self._desks,
        )
        return Draft(store, context)

    def _turn(self, draft: Draft, turn: Turn, records: Sequence[Record]) -> TurnView:
        entries = [
            self._entry_of(draft, name) for name in draft.entries_of(turn.stream)
        ]
        finals = [e for e in entries if e.id in turn.finals]
        waiting = [(e.id, e.next) for e in finals if not e.phase.closed]
        named = [(e.id, e.run) for e in entries]
        next_ = nexts.next_of_turn(draft, turn, self._alive(), waiting)
        return TurnView(
            id=turn.stream,
            phase=turn.phase,
            outcome=turn.outcome,
            reason=turn.reason or turn.silent,
            lane=turn.lane,
            control=turn.control,
            created=turn.created,
            updated=turn.updated,
            inbound=build.inbound_of(records, self._preview),
            runs=build.runs_of(records, self._text, named),
            finals=turn.finals,
            notice=turn.notice,
            entries=tuple(entries),
            verdict=verdict(turn, entries, next_),
            next=next_,
            happened=build.happened(records, self._text),
        )

    def _entry_of(self, draft: Draft, stream: str) -> EntryView:
        return self._entry(draft, draft.entry(stream), self._store.read(stream))

    def _entry(self, draft: Draft, e: Entry, records: Sequence[Record]) -> EntryView:
        return EntryView(
            id=e.stream,
            turn=e.turn,
            run=e.run,
            key=e.key,
            kind=e.kind,
            status=e.status,
            phase=e.phase,
            channel=e.channel,
            account=e.account,
            conversation=e.conversation,
            thread=e.thread,
            lane=e.lane,
            policy=e.policy,
            created=e.created,
            updated=e.updated,
            expires_at=e.expires_at,
            due=e.due,
            reason=None if e.reason is None else str(e.reason),
            doubt=e.doubtful,
            delivered=len(e.receipts),
            parts=build.parts_of(records, self._text, self._preview),
            next=nexts.next_of_entry(draft, e, self._alive()),
            happened=build.happened(records, self._text),
        )

    def _ledger(
        self, state: Gate | Cursor | StoreState, records: Sequence[Record]
    ) -> LedgerView:
        summary = fold.summarize(state)
        is_gate = isinstance(state, Gate)
        return LedgerView(
            id=state.stream,
            state=summary.phase,
            reason=summary.reason,
            until=summary.due if is_gate else None,
            created=state.created,
            updated=state.updated,
            next=nexts.next_of_ledger(state, self._now()),
            happened=build.happened(records, self._text),
        )

    # --- bodies ---

    def _text(self, digest: str | None) -> str | None:
        """The free text behind a digest, if it is still there."""
        if digest is None:
            return None
        try:
            return self._store.body(digest).decode("utf-8", "replace")
        except (MissingBodyError, CorruptLogError, InvalidInputError):
            return "(text not kept)"

    def _preview(self, digest: str) -> str | None:
        """The beginning of what a body says to a reader; none if it is gone."""
        try:
            body = canonical.loads(self._store.body(digest))
        except (MissingBodyError, CorruptLogError, InvalidInputError):
            return None
        match body:
            case {"text": str(text)}:
                return text[:_PREVIEW]
            case {"name": str(name)}:
                return f"file {name}"
            case _:
                return canonical.dumps(body).decode()[:_PREVIEW]
