"""What a person may decide: redrive, resolve a doubt, reschedule, acknowledge, bounce."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from turnfold import guards
from turnfold.bodies import digests_of, left_of
from turnfold.decide.attempting import attempt_if_free
from turnfold.decide.closing import after_close
from turnfold.decide.draft import Draft, all_of
from turnfold.decide.settling import accepted, fail_entry
from turnfold.errors import (
    DamagedError,
    MissingBodyError,
    RuleBrokenError,
    StillOpenError,
)
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.fold import family
from turnfold.machines.entry import Entry
from turnfold.machines.parts import SPOILED
from turnfold.machines.turn import Turn
from turnfold.names import part_key
from turnfold.ports.channel import Receipt
from turnfold.words import Phase, Reason


def redrive(draft: Draft, stream: str, by: str, accept_duplicate: bool = False) -> None:
    """Send a dead letter again: from its first unsettled part, with a new budget."""
    entry = draft.entry(stream)
    unknown = entry.doubtful or entry.reason == Reason.OUTCOME_UNKNOWN
    if entry.phase is Phase.FAILED and unknown and not accept_duplicate:
        raise RuleBrokenError(
            stream=stream,
            rule="no_doubt",
            why="it may have arrived; say accept_duplicate to send it again",
        )
    _must_have_bodies(entry)
    expires = draft.now + draft.settings.ttl_ms(entry.kind)
    spoiled = [s.part for s in entry.others if s.end in SPOILED]
    draft.emit(
        stream,
        o.Redriven(
            budget=draft.settings.attempts,
            expires_at=expires,
            by=by,
            accept_duplicate=accept_duplicate,
            keys=tuple([_new_key(entry, part) for part in spoiled]),
        ),
    )
    attempt_if_free(draft, entry.lane)


def _new_key(entry: Entry, part: int) -> str:
    """A key for a part that the platform has refused under its old one. Its letters are
    those of the old key, so it is in the platform's alphabet."""
    old = entry.parts[part].key
    name = f"{entry.stream}+{entry.version}"
    return part_key(name, part, "".join(sorted(set(old))), len(old))


def _must_have_bodies(state: Entry | Turn) -> None:
    if not guards.bodies_kept(state):
        why = "its content was erased; send it anew"
        raise RuleBrokenError(stream=state.stream, rule="bodies_kept", why=why)


def resolve(
    draft: Draft, stream: str, verdict: str, by: str, why: str = "", marked: bool = True
) -> None:
    """End a doubt. `verdict`: "delivered", "not_sent", "resend" or "give_up"."""
    entry = draft.entry(stream)
    if entry.phase not in (Phase.IN_DOUBT, Phase.PARKED):
        raise RuleBrokenError(stream=stream, rule="in_doubt", why=entry.status)
    match verdict:
        case "delivered":
            accepted(draft, entry, entry.attempt, Receipt(), by=by)
        case "not_sent" | "resend":
            resend = verdict == "resend"
            event = o.Resolved(
                part=entry.part,
                resend=resend,
                by=by,
                why=draft.text(stream, why),
                marked=marked and resend,
            )
            draft.emit(stream, event)
            _stop_if_aborted(draft, draft.entry(stream))
        case "give_up":
            fail_entry(draft, entry, Reason.OUTCOME_UNKNOWN)
        case _:
            raise RuleBrokenError(stream=stream, rule="verdict", why=verdict)
    attempt_if_free(draft, entry.lane)


def _stop_if_aborted(draft: Draft, entry: Entry) -> None:
    if entry.abort is not None and guards.abortable_as_unsent(entry):
        event = o.Aborted(reason=entry.abort, by=entry.abort_by)
        after_close(draft, draft.emit(entry.stream, event))


def reschedule(draft: Draft, stream: str, due: int, by: str) -> None:
    entry = draft.entry(stream)
    draft.emit(stream, o.Rescheduled(due=due, by=by))
    attempt_if_free(draft, entry.lane)


def acknowledge(draft: Draft, stream: str, by: str) -> None:
    """A person has seen a dead letter."""
    draft.entry(stream)
    draft.emit(stream, o.Acknowledged(by=by))


def bounce(draft: Draft, stream: str, part: int, detail: str = "") -> None:
    """The platform refused afterwards what it had accepted (B20): a turn whose final
    it was is amended. Raises RuleBrokenError for a part that has no receipt."""
    if not guards.was_accepted(draft.entry(stream), part):
        why = f"part {part} has no receipt that could bounce"
        raise RuleBrokenError(stream=stream, rule="was_accepted", why=why)
    event = o.Bounced(part=part, detail=draft.text(stream, detail))
    after_close(draft, draft.emit(stream, event))


def redact(draft: Draft, stream: str, by: str) -> None:
    """Erase the bodies of what is over; a turn takes its entries with it. What was
    erased before is left alone, unless something has come since."""
    turn = draft.turn(stream) if family(stream) == "turn" else None
    if turn is None:
        entries = [draft.entry(stream)]
    else:
        _over(turn)
        entries = all_of(partial(draft.entry, e) for e in draft.entries_of(stream))
    for entry in entries:
        _over(entry)
    _load_bodies(draft, [stream, *(e.stream for e in entries)])
    for entry in entries:
        _redact(draft, entry, o.Redacted(by=by))
    if turn is not None:
        _redact(draft, turn, t.TurnRedacted(by=by))


def _load_bodies(draft: Draft, streams: Iterable[str]) -> None:
    """Everything that is to be erased, in two fetches."""
    names = dict.fromkeys(streams)
    histories = all_of(partial(draft.history, name) for name in names)
    all_of(
        partial(_look, draft, name, ref)
        for name, history in zip(names, histories, strict=True)
        for event in history
        for ref in digests_of(event)
    )


def _look(draft: Draft, stream: str, ref: str) -> None:
    with suppress(MissingBodyError, DamagedError):  # erased all the same
        draft.stored(stream, ref)


def _redact(
    draft: Draft, state: Entry | Turn, event: o.Redacted | t.TurnRedacted
) -> None:
    stored = partial(draft.stored, state.stream)
    left = left_of(draft.history(state.stream), stored)
    if left or not state.redacted:
        draft.emit(state.stream, event)
        draft.erase(state.stream, left)


def _over(state: Entry | Turn) -> None:
    if state.open:
        raise StillOpenError(stream=state.stream, phase=_named(state))


def _named(state: Entry | Turn) -> str:
    return str(state.status if isinstance(state, Entry) else state.phase)


def resubmit(draft: Draft, stream: str, by: str) -> None:
    """Run a failed turn again, once."""
    turn = draft.turn(stream)
    if turn.resubmitted:
        raise RuleBrokenError(stream=stream, rule="resubmit_once", why="done before")
    _must_have_bodies(turn)
    if turn.finals:
        why = f"the outbox owns its answer; redrive {', '.join(turn.finals)}"
        raise RuleBrokenError(stream=stream, rule="not_answered", why=why)
    draft.emit(stream, t.Resubmitted(by=by))
