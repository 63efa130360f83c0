"""A turn, an entry or a ledger as one view, with its next step. The next step needs the
decisions, so `Inspect` imports this module only for a view."""

from functools import partial

from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._state import fold
from turnfold._state.entry import Entry
from turnfold._state.fold import Cursor, Gate, StoreState
from turnfold._state.turn import Turn
from turnfold.clock import Clock
from turnfold.inspect import outlook, timeline
from turnfold.inspect.lookup import ReadModel, word_of
from turnfold.inspect.outlook import told, verdict
from turnfold.inspect.timeline import Text
from turnfold.inspect.times import seen_at, to_come
from turnfold.inspect.views import (
    CommandView,
    EntryView,
    LedgerView,
    TurnView,
    trial_of,
)


def turn_view(
    model: ReadModel,
    turn: Turn,
    waiting: tuple[CommandView, ...],
    alive: bool | None,
    draft: UnitOfWork,
) -> TurnView:
    entries = [
        entry_view(model, draft.entry(name), (), alive, draft)
        for name in draft.entries_of(turn.stream)
    ]
    finals = [e for e in entries if e.id in turn.finals]
    shift = draft.context.shift()
    going = [e for e in finals if not e.phase.closed or e.next.person]
    going.sort(key=lambda e: e.phase.closed)
    unsettled = [(e.id, told(e.next, -shift)) for e in going]
    named = [(e.id, e.run) for e in entries]
    found = outlook.next_of_turn(draft, turn, alive, unsettled)
    next_ = told(found, shift)
    records, text = model.records(turn.stream), partial(model.text, turn.stream)
    return TurnView(
        id=turn.stream,
        short=outlook.short(turn),
        version=turn.version,
        phase=turn.phase,
        outcome=turn.outcome,
        reason=turn.reason or turn.silent,
        lane=turn.lane,
        control=turn.control,
        created=seen_at(records[0]),
        updated=seen_at(records[-1]),
        inbound=timeline.inbound_of(records, partial(model.said, turn.stream), text),
        runs=timeline.runs_of(records, text, named),
        finals=turn.finals,
        notice=turn.notice,
        entries=tuple(entries),
        verdict=verdict(turn, entries, next_),
        next=next_,
        happened=timeline.happened(records, text),
        waiting=waiting,
    )


def entry_view(
    model: ReadModel,
    e: Entry,
    waiting: tuple[CommandView, ...],
    alive: bool | None,
    draft: UnitOfWork,
) -> EntryView:
    records = model.records(e.stream)
    text: Text = partial(model.text, e.stream)
    shift = draft.context.shift()
    return EntryView(
        id=e.stream,
        short=outlook.short(e),
        version=e.version,
        turn=e.turn,
        run=e.run,
        key=e.key,
        kind=e.kind,
        status=word_of(e.phase),
        phase=e.phase,
        channel=e.channel,
        account=e.account,
        conversation=e.conversation,
        thread=e.thread,
        lane=e.lane,
        policy=e.on_unknown,
        created=seen_at(records[0]),
        updated=seen_at(records[-1]),
        expires_at=e.expires_at - shift,
        due=to_come(e.due, shift),
        reason=None if e.reason is None else str(e.reason),
        doubt=e.doubtful,
        delivered=len(e.receipts),
        parts=timeline.parts_of(records, text, partial(model.preview, e.stream)),
        verdict=outlook.entry_verdict(e, timeline.last_detail(records, text)),
        next=told(outlook.next_of_entry(draft, e, alive), shift),
        happened=timeline.happened(records, text),
        under_way=trial_of(e.phase) if e.trying else None,
        waiting=waiting,
    )


def ledger_view(
    model: ReadModel, state: Gate | Cursor | StoreState, clock: Clock
) -> LedgerView:
    records, shift = model.records(state.stream), clock.shift()
    summary = fold.summarize(state)
    is_gate = isinstance(state, Gate)
    text = partial(model.text, state.stream)
    return LedgerView(
        id=state.stream,
        state=summary.phase,
        reason=summary.reason,
        until=to_come(summary.due, shift) if is_gate else None,
        created=seen_at(records[0]),
        updated=seen_at(records[-1]),
        next=told(outlook.next_of_ledger(state, clock.now()), shift),
        happened=timeline.happened(records, text),
    )
