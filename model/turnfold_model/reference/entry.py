"""The rules of an outbox entry (specs/design.md 4), one function per event.

Each takes the entry, the `data` of the event and its wall time, and gives the next
entry or raises Breach. Parts are numbered from 0, attempts from 1. Read from that
page, not from the kernel: when both agree, that says something.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from turnfold_model.reference.kinds import Record, need, one_of, texts, whole, words
from turnfold_model.reference.parts import (
    current,
    freed,
    kept,
    next_part,
    numbered,
    settled,
)
from turnfold_model.reference.sending import (
    amended_part,
    attempted,
    dispatched,
    part_refused,
    placed,
    planned,
    policy_of,
    tried,
)
from turnfold_model.reference.shapes import (
    ABORTS,
    DEFERS,
    KINDS,
    PROVEN_BY_REFUSAL,
    REASONS,
    RETRIES,
    Entry,
    Part,
)


def _begun(data: Record, phase: str) -> Entry:
    need(whole(data, "expires_at") > 0, "INV-12", "every entry has an expiry")
    words(data, "body") if isinstance(data.get("body"), str) else texts(data, "body")
    return Entry(
        phase=phase,
        kind=one_of(data, "kind", KINDS),
        lane=words(data, "lane"),
        expires_at=whole(data, "expires_at"),
        policy=policy_of(data),
        turn=data.get("turn"),
        place=(
            words(data, "channel"),
            words(data, "account"),
            words(data, "conversation"),
        ),
    )


def queued(data: Record) -> Entry:
    if data.get("turn") is not None and data.get("kind") in ("block", "tool"):
        # A key of a block or a tool's message holds in its run, or over all runs.
        words(data, "key") if data.get("run") is None else whole(data, "run", 1)
    whole({"waited_ms": 0, **data}, "waited_ms")
    live, cause = bool(data.get("live")), data.get("cause")
    behind = whole({"behind": 0, **data}, "behind")
    need(not behind or cause is not None, "INV-8", "no notice, and not at the end")
    return replace(_begun(data, "queued"), live=live, cause=cause, behind=behind)


def imported(data: Record) -> Entry:
    """Any delivery of another system's queue may have been sent."""
    words(data, "origin")
    return kept(_begun(data, "parked"), 0, doubt=True)


def _receipt(entry: Entry, data: Record) -> tuple[str, ...]:
    ids = texts(data, "receipt")
    proven = bool(ids) and all(ids)
    need(proven or not entry.ids, "INV-4", "delivered without a receipt")
    return ids


def _settled(entry: Entry, data: Record) -> Entry:
    """The current part is over, and doubt about it is too."""
    current(entry, data)
    if not (data.get("suppressed") or data.get("by")):
        _receipt(entry, data)
        sending = entry.phase in ("attempted", "dispatched") or bool(
            data.get("looked_up")
        )
        need(sending, "INV-5", "delivered when nobody was sending")
    return settled(entry, entry.at, texts(data, "receipt"))


def part_delivered(entry: Entry, data: Record, at: int) -> Entry:
    del at
    done = next_part(_settled(entry, data))
    need(not done.whole, "INV-10", "the last part is delivered")
    return replace(done, phase="parked" if done.doubt else "queued")


def delivered(entry: Entry, data: Record, at: int) -> Entry:
    del at
    done = next_part(_settled(entry, data))
    need(done.whole, "INV-10", "parts are left to be sent")
    return replace(done, phase="delivered", reason=None)


def deferred(entry: Entry, data: Record, at: int) -> Entry:
    """An older doubt stays, and so does the word that allowed this attempt."""
    del at
    current(entry, data)
    one_of(data, "failure", DEFERS | {"decoration"} if entry.doubt else DEFERS)
    back = kept(entry, entry.at, used=entry.part.used - 1)
    phase = "in_doubt" if entry.doubt else "queued"
    marked = entry.marked and entry.granted
    return replace(back, phase=phase, grant=entry.granted, marked=marked)


def failed_retryable(entry: Entry, data: Record, at: int) -> Entry:
    del at
    current(entry, data)
    need(not entry.doubt, "INV-2", "failed while an older attempt is in doubt")
    failure = one_of(data, "failure", RETRIES)
    dead_on_wire = failure == "owner_died" and entry.phase == "dispatched"
    need(not dead_on_wire, "INV-4", "a dead owner's request may have arrived")
    whole(data, "due")
    placed = entry.part.placed and failure != "handle_gone"
    used = entry.part.used - (failure == "owner_died")
    return replace(kept(entry, entry.at, placed=placed, used=used), phase="retryable")


def unknown(entry: Entry, data: Record, at: int) -> Entry:
    del at
    cause = words(data, "cause")
    whole(data, "due")
    current(entry, data)
    used = entry.part.used - (cause in ("shutdown", "owner_died"))
    return replace(kept(entry, entry.at, doubt=True, used=used), phase="in_doubt")


def reconciled(entry: Entry, data: Record, at: int) -> Entry:
    del at
    part = whole(data, "part")
    need(part == entry.at, "INV-5", f"part {part}, but {entry.at} is in doubt")
    need("lookup" in entry.part.classes, "INV-2", "this part cannot be read back")
    if data.get("failure") is not None:
        one_of(data, "failure", DEFERS)
    if data.get("absent"):
        return freed(kept(entry, part, doubt=False), "retryable")
    return entry


def parked(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "reason")
    return replace(entry, phase="parked", grant=False, marked=False)


def resolved(entry: Entry, data: Record, at: int) -> Entry:
    """Ends a doubt. The word "send it" grants one attempt more than the budget had
    left, if it had none."""
    del at
    by = words(data, "by")
    number, part = numbered(entry, data)
    need(part.doubt, "INV-2", f"part {number} is not in doubt")
    if by.startswith("policy:"):
        frozen = part.policy or entry.policy or "hold"
        need(by == f"policy:{frozen}", "INV-2", f"{by}, but the plan says {frozen}")
    used = max(0, min(part.used, entry.budget - 1))
    if data.get("expires_at") is not None:
        expires = whole(data, "expires_at")
        need(expires > entry.expires_at, "INV-12", "a word takes time from its entry")
        entry = replace(entry, expires_at=expires)
    if data.get("resend"):
        marked = bool(data.get("marked"))
        again = kept(entry, number, used=used)
        return replace(again, phase="in_doubt", at=number, grant=True, marked=marked)
    return freed(kept(entry, number, used=used, doubt=False), "retryable")


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
    if reason == "too_old":
        waits = entry.phase in ("queued", "retryable")
        need(waits, "INV-12", f"too old in phase {entry.phase}")
        seen = any(p.placed or p.end in ("delivered", "bounced") for p in entry.parts)
        need(not seen, "INV-12", "too old, but a part of it was shown")
    if reason == "attempts_exhausted":
        need(entry.used >= entry.budget, "INV-6", "budget is left")
    if reason == "partial":
        need(entry.over and not entry.whole, "INV-10", "partial, but parts are left")
    if entry.over and entry.phase == "queued":
        said = "partial" if entry.delivered else "refused"
        need(reason == said, "INV-10", f"all parts have ended: that is {said}")
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
    """Evidence for one part. Of a part that has its receipt it says nothing, nor does a
    receipt that bounced."""
    del at
    number, part = numbered(entry, data)
    need(entry.planned, "INV-4", f"there is no part {number}")
    attempt = whole(data, "attempt", 1)
    need(attempt <= part.attempts, "INV-5", f"attempt {attempt} never began")
    receipt = _receipt(entry, data)
    old = part.end in ("delivered", "bounced") or bool(part.void == receipt != ())
    if old:
        idle = entry.phase in ("in_doubt", "retryable")
        need(not idle, "table", "outbox.late_receipt brings nothing new")
        return entry
    done = settled(entry, number, receipt)
    if done.whole:
        return replace(next_part(done), phase="delivered", reason=None)
    if not entry.open:
        return next_part(done)
    if done.over:
        return replace(next_part(done), phase="failed", reason="partial")
    if entry.phase in ("attempted", "dispatched") and number != entry.at:
        return done
    phase = "parked" if done.doubt else "queued"
    return replace(next_part(done), phase=phase, grant=False, marked=False)


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
    again = next_part(replace(entry, parts=_renewed(entry, texts(data, "keys"))))
    return replace(
        again,
        phase="in_doubt" if entry.doubt else "queued",
        grant=entry.doubt,
        reason=None,
        abort=False,
        budget=whole(data, "budget", 1),
        expires_at=whole(data, "expires_at"),
    )


def _renewed(entry: Entry, keys: tuple[str, ...]) -> tuple[Part, ...]:
    """Delivered parts are never sent again; refused and bounced ones get a new key."""
    spoiled = [part for part in entry.parts if part.end in ("refused", "bounced")]
    need(
        len(keys) == len(spoiled), "INV-7", "one new key for each part that was refused"
    )
    used = {part.key for part in entry.parts}
    need(not used & set(keys), "INV-7", "a part is sent again under its old key")
    left = iter(keys)
    return tuple(
        part
        if part.end == "delivered"
        else Part(
            kind=part.kind,
            classes=part.classes,
            window=part.window,
            policy=part.policy,
            key=part.key if part.end is None else next(left),
            attempts=part.attempts,
            doubt=part.doubt,
            void=part.void,
            dropped=part.dropped,
        )
        for part in entry.parts
    )


def acknowledged(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "by")
    return entry


def bounced(entry: Entry, data: Record, at: int) -> Entry:
    del at
    number, part = numbered(entry, data)
    need(part.end == "delivered", "INV-4", "this part was never accepted")
    gone = kept(entry, number, end="bounced", void=part.receipt)
    if entry.phase == "delivered":
        return replace(gone, phase="failed", reason="bounced")
    return gone


def doubted(entry: Entry, data: Record, at: int) -> Entry:
    del at
    words(data, "reason")
    need(not entry.over, "INV-2", "in doubt, though each part has ended")
    parts = tuple(replace(p, doubt=p.end is None) for p in entry.parts)
    return next_part(replace(entry, parts=parts, phase="parked"))


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
    placed,
    tried,
    part_refused,
    amended_part,
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
