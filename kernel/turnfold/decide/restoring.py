"""The store is an older copy of itself: what is open in it may be over already.

Between the copy and now there was a history that nobody here knows. Whatever the copy
calls open may have been sent, answered or run in it, so all of it is called doubtful or
held, in the first commit of the first worker that finds out, before anything is tried.
"""

from collections.abc import Iterable
from functools import partial

from turnfold.decide.closing import after_close
from turnfold.decide.draft import Draft, all_of
from turnfold.decide.running import start_if_free
from turnfold.errors import CorruptLogError, RuleBrokenError
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.events.ledger import Restored
from turnfold.fold import STORE, State
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.ports.store import Watermark
from turnfold.words import FailureClass, Phase, TurnPhase

REASON = "restored"


def restored(draft: Draft, mark: Watermark, streams: Iterable[str]) -> bool:
    """`mark` tells of the history that is gone; `streams` are all that are open. False
    if this was done before, and only the mark was not rewritten since."""
    event = Restored(
        position_seen=mark.head.position,
        position_found=draft.position,
        hash=mark.head.hash.hex(),
    )
    if any(_same(event, known) for known in draft.history(STORE)):
        return False
    names = list(streams)
    all_of(partial(_readable, draft, stream) for stream in names)  # in one fetch
    draft.fence()
    draft.emit(STORE, event)
    for stream in names:
        _suspect(draft, stream)
    return True


def _same(event: Restored, known: object) -> bool:
    return (
        isinstance(known, Restored)
        and known.position_seen == event.position_seen
        and known.hash == event.hash
    )


def _readable(draft: Draft, stream: str) -> State | None:
    try:
        return draft.state(stream)
    except CorruptLogError:
        return None  # set aside: nothing is done with it


def _suspect(draft: Draft, stream: str) -> None:
    match _readable(draft, stream):
        case Entry() as entry:
            _doubt(draft, entry)
        case Turn() as turn:
            _hold(draft, turn)
        case _:
            pass


def _doubt(draft: Draft, entry: Entry) -> None:
    """An attempt that was under way is in doubt even where it had not reached the wire:
    it may have gone on. What is in doubt or parked already stays so."""
    match entry.phase:
        case Phase.QUEUED | Phase.RETRYABLE:
            event = o.Doubted(reason=REASON)
            after_close(draft, draft.emit(entry.stream, event))
        case Phase.ATTEMPTED | Phase.DISPATCHED:
            unknown = o.OutcomeUnknown(
                part=entry.part,
                attempt=entry.attempt,
                cause=FailureClass.OWNER_DIED,
                due=draft.now,
            )
            draft.emit(entry.stream, unknown)
        case _:
            pass


def _hold(draft: Draft, turn: Turn) -> None:
    runs = turn.phase in (TurnPhase.ACCEPTED, TurnPhase.RUNNING)
    if runs and not turn.held:
        draft.emit(turn.stream, t.Held(reason=REASON))


def unhold(draft: Draft, stream: str, by: str) -> None:
    """A person says that a turn has not been answered: it runs."""
    turn = draft.turn(stream)
    if not turn.held:
        raise RuleBrokenError(stream=stream, rule="held", why=f"it is {turn.phase}")
    draft.emit(stream, t.Unheld(by=by))
    start_if_free(draft, stream)
