"""The rules of an outbox entry (specs/design.md 4), one function per event.

Each takes the entry, the `data` of the event and its wall time, and gives the next
entry or raises Breach. Parts are numbered from 0, attempts from 1. Read from that
page, not from the kernel: when both agree, that says something.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from turnfold_model.reference_kinds import (
    Record,
    need,
    one_of,
    texts,
    whole,
    words,
)
from turnfold_model.reference_shapes import (
    ABORTS,
    DEFERS,
    ENDS,
    FAILURES,
    KINDS,
    POLICIES,
    PROVEN_BY_REFUSAL,
    REASONS,
    Entry,
    Part,
)
from turnfold_model.transition_table import CLOSED


def _begun(data: Record, phase: str) -> Entry:
    need(whole(data, "expires_at") > 0, "INV-12", "every entry has an expiry")
    words(data, "body") if isinstance(data.get("body"), str) else texts(data, "body")
    return Entry(
        phase=phase,
        kind=one_of(data, "kind", KINDS),
        lane=words(data, "lane"),
        expires_at=whole(data, "expires_at"),
        policy=one_of({"policy": data.get("policy", "hold")}, "policy", POLICIES),
        turn=data.get("turn"),
        place=(
            words(data, "channel"),
            words(data, "account"),
            words(data, "conversation"),
        ),
    )


def queued(data: Record) -> Entry:
    if data.get("turn") is not None and data.get("kind") in ("block", "tool"):
        whole(data, "run", 1)  # keys of blocks and tools are scoped by run
    return _begun(data, "queued")


def imported(data: Record) -> Entry:
    phase = one_of(data, "phase", frozenset({"queued", "parked", "failed"}))
    words(data, "origin")
    return replace(_begun(data, phase), doubt=phase == "parked")


def planned(entry: Entry, data: Record, at: int) -> Entry:
    del at
    need(entry.parts is None, "INV-7", "the plan is frozen")
    raw = data.get("parts", ())
    keys = [words(part, "key") for part in raw]
    need(len(set(keys)) == len(keys), "INV-7", "two parts have one key")
    parts = tuple(
        Part(
            classes=frozenset(texts(part, "classes")),
            window=None
            if part.get("key_window_ms") is None
            else whole(part, "key_window_ms"),
        )
        for part in raw
    )
    ids = bool(data.get("ids", True))
    return replace(entry, parts=parts, budget=whole(data, "budget", 1), ids=ids)


def _may_resend(entry: Entry, at: int) -> bool:
    """In doubt: the platform's key still protects, or a word in the log allows it.

    The wall clock may lose half of a key's window across a restart, and a log does not
    show where the clock was set back. So nobody relies on more than half of a window.
    """
    part = entry.part
    if entry.grant:
        return True
    if "keyed" not in part.classes:
        return False
    return part.window is None or 2 * (at - part.first_at) < part.window


def attempted(entry: Entry, data: Record, at: int) -> Entry:
    part, attempt = whole(data, "part"), whole(data, "attempt", 1)
    fence = whole(data, "fence")
    words(data, "owner")
    need(entry.parts is not None, "INV-7", "attempted before it was planned")
    need(not entry.abort, "INV-11", "attempted after an abort was requested")
    need(at < entry.expires_at, "INV-12", "attempted after it expired")
    need(part == entry.settled, "INV-4", f"part {part}, but {entry.settled} is next")
    here = entry.part
    need(attempt == here.attempts + 1, "INV-6", f"attempt {attempt} is not the next")
    need(entry.used < entry.budget, "INV-6", "no budget left")
    need(fence >= entry.fence, "INV-5", f"fence {fence} is older than {entry.fence}")
    if entry.phase == "in_doubt":
        need(_may_resend(entry, at), "INV-2", "in doubt, and nothing allows it")
    if entry.marked:
        need(bool(data.get("marked")), "INV-2", "the duplicate must be marked")
    begun = replace(here, attempts=attempt)
    if attempt == 1:
        begun = replace(begun, first_at=at)
    return replace(
        _with_part(entry, begun),
        phase="dispatched" if data.get("on_wire") else "attempted",
        used=entry.used + 1,
        fence=fence,
        grant=False,
        marked=False,
    )


def _with_part(entry: Entry, part: Part) -> Entry:
    parts = list(entry.parts or ())
    parts[entry.settled] = part
    return replace(entry, parts=tuple(parts))


def _current(entry: Entry, data: Record) -> None:
    """INV-5: the outcome is that of the last attempt."""
    part, attempt = whole(data, "part"), whole(data, "attempt")
    now = (entry.settled, entry.attempts)
    need((part, attempt) == now, "INV-5", f"of {(part, attempt)}, current is {now}")


def dispatched(entry: Entry, data: Record, at: int) -> Entry:
    _current(entry, data)
    need(not entry.abort, "INV-11", "dispatched after an abort was requested")
    need(at < entry.expires_at, "INV-12", "dispatched after it expired")
    return replace(entry, phase="dispatched")


def _receipt(entry: Entry, data: Record) -> None:
    ids = texts(data, "receipt")
    proven = bool(ids) and all(ids)
    need(proven or not entry.ids, "INV-4", "delivered without a receipt")


def _settled(entry: Entry, data: Record) -> Entry:
    """The current part is over; doubt about it is too, and the budget starts anew."""
    _current(entry, data)
    if not (data.get("suppressed") or data.get("by")):
        _receipt(entry, data)
        sending = entry.phase in ("attempted", "dispatched") or bool(
            data.get("looked_up")
        )
        need(sending, "INV-5", "delivered when nobody was sending")
    return _past(entry)


def _past(entry: Entry) -> Entry:
    return replace(
        entry,
        settled=entry.settled + 1,
        used=0,
        doubt=False,
        grant=False,
        marked=False,
    )


def part_delivered(entry: Entry, data: Record, at: int) -> Entry:
    del at
    done = _settled(entry, data)
    need(done.settled < done.count, "INV-10", "the last part is delivered")
    return replace(done, phase="queued")


def delivered(entry: Entry, data: Record, at: int) -> Entry:
    del at
    done = _settled(entry, data)
    need(done.settled == done.count, "INV-10", "parts are left to be sent")
    return replace(done, phase="delivered", reason=None)


def deferred(entry: Entry, data: Record, at: int) -> Entry:
    del at
    _current(entry, data)
    need(not entry.doubt, "INV-2", "deferred while an older attempt is in doubt")
    one_of(data, "failure", DEFERS)
    return replace(entry, phase="queued", used=entry.used - 1)


def failed_retryable(entry: Entry, data: Record, at: int) -> Entry:
    del at
    _current(entry, data)
    need(not entry.doubt, "INV-2", "failed while an older attempt is in doubt")
    failure = one_of(data, "failure", FAILURES - ENDS)
    dead_on_wire = failure == "owner_died" and entry.phase == "dispatched"
    need(not dead_on_wire, "INV-4", "a dead owner's request may have arrived")
    whole(data, "due")
    return replace(entry, phase="retryable")


def unknown(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "cause")
    whole(data, "due")
    _current(entry, data)
    return replace(entry, phase="in_doubt", doubt=True)


def reconciled(entry: Entry, data: Record, at: int) -> Entry:
    del at
    part = whole(data, "part")
    need(
        part == entry.settled, "INV-5", f"part {part}, but {entry.settled} is in doubt"
    )
    need("lookup" in entry.part.classes, "INV-2", "this part cannot be read back")
    if data.get("absent"):
        return replace(entry, phase="retryable", doubt=False, grant=False, marked=False)
    return entry


def parked(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "reason")
    return replace(entry, phase="parked", grant=False, marked=False)


def resolved(entry: Entry, data: Record, at: int) -> Entry:
    """Ends a doubt. Who says "send it" means it: one attempt more than the budget had
    left, if it had none."""
    del at
    words(data, "by")
    entry = replace(entry, used=max(0, min(entry.used, entry.budget - 1)))
    if data.get("resend"):
        marked = bool(data.get("marked"))
        return replace(entry, phase="in_doubt", grant=True, marked=marked)
    return replace(entry, phase="retryable", doubt=False, grant=False, marked=False)


def failed_terminal(entry: Entry, data: Record, at: int) -> Entry:
    reason = one_of(data, "reason", REASONS)
    if entry.phase in ("in_doubt", "parked") or entry.doubt:
        need(reason == "outcome_unknown", "INV-12", f"in doubt, but said {reason}")
    elif entry.phase == "dispatched":
        need(reason in PROVEN_BY_REFUSAL, "INV-12", f"on the wire, but said {reason}")
    else:
        need(reason != "outcome_unknown", "INV-12", "nothing is in doubt")
    if reason == "expired":
        need(at >= entry.expires_at, "INV-12", "expired before its time")
    if reason == "attempts_exhausted":
        need(entry.used >= entry.budget, "INV-6", "budget is left")
    return replace(entry, phase="failed", reason=reason, grant=False, marked=False)


def abort_requested(entry: Entry, data: Record, at: int) -> Entry:
    del at
    one_of(data, "reason", ABORTS)
    return replace(entry, abort=True)


def aborted(entry: Entry, data: Record, at: int) -> Entry:
    del at
    reason = one_of(data, "reason", ABORTS)
    wrong = reason == "rerun" and entry.kind not in ("block", "tool")
    need(not wrong, "INV-9", f"a {entry.kind} does not belong to a run")
    need(not entry.doubt, "INV-11", "a doubtful part is never rewritten to aborted")
    return replace(entry, phase="aborted", reason=reason)


def late_receipt(entry: Entry, data: Record, at: int) -> Entry:
    del at
    part, attempt = whole(data, "part"), whole(data, "attempt", 1)
    need(part < len(entry.parts or ()), "INV-4", f"there is no part {part}")
    _receipt(entry, data)
    if part < entry.settled:
        return entry
    begun = part == entry.settled and attempt <= entry.attempts
    need(begun, "INV-5", f"attempt {attempt} of part {part} never began")
    done = _past(entry)
    if done.settled == done.count:
        return replace(done, phase="delivered", reason=None)
    return replace(done, phase=done.phase if done.phase in CLOSED else "queued")


def rescheduled(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "by")
    whole(data, "due")
    return entry


def redriven(entry: Entry, data: Record, at: int) -> Entry:
    words(data, "by")
    need(not entry.redacted, "INV-7", "the bodies are erased")
    need(whole(data, "expires_at") > at, "INV-12", "redriven into the past")
    if entry.doubt or entry.reason == "outcome_unknown":
        accepted = bool(data.get("accept_duplicate"))
        need(accepted, "INV-2", "redriven in doubt, and nobody accepts a duplicate")
    return replace(
        entry,
        phase="queued",
        doubt=False,
        abort=False,
        reason=None,
        used=0,
        budget=whole(data, "budget", 1),
        expires_at=whole(data, "expires_at"),
    )


def acknowledged(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "by")
    return entry


def bounced(entry: Entry, data: Record, at: int) -> Entry:
    del at
    need(whole(data, "part") < entry.settled, "INV-4", "this part was never accepted")
    return replace(entry, bounced=True)


def doubted(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "reason")
    return replace(entry, phase="parked", doubt=True)


def lane_yielded(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "reason")
    return replace(entry, yielded=True)


def redacted(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "by")
    return replace(entry, redacted=True)


Rule = Callable[[Entry, Record, int], Entry]
FIRST: Final[Mapping[str, Callable[[Record], Entry]]] = MappingProxyType(
    {"outbox.queued": queued, "outbox.imported": imported}
)
_RULES: tuple[Callable[..., Any], ...] = (
    planned,
    attempted,
    dispatched,
    part_delivered,
    delivered,
    deferred,
    failed_retryable,
    unknown,
    reconciled,
    parked,
    resolved,
    failed_terminal,
    abort_requested,
    aborted,
    late_receipt,
    rescheduled,
    redriven,
    acknowledged,
    bounced,
    doubted,
    lane_yielded,
    redacted,
)
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {f"outbox.{rule.__name__}": rule for rule in _RULES}
)
