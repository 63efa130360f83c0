"""Enqueueing: once per key, planned here or later, attempted at once if it can be."""

from functools import partial

from turnfold import packing
from turnfold.decide.attempting import attempt_if_free
from turnfold.decide.closing import after_close
from turnfold.decide.draft import Draft
from turnfold.decide.queueing import Intent, frozen_plan, queue
from turnfold.errors import BackPressureError
from turnfold.frozen import frozen, maker
from turnfold.machines.entry import Entry
from turnfold.names import outbound_key
from turnfold.planning import Plan
from turnfold.words import Status


@frozen(kw_only=True)
class Enqueued:
    """`new` is false when the key (or the entry) was there before; `differs` says that
    this call brought other bytes than the first one, which stand."""

    entry_id: str
    status: Status
    new: bool | None  # None: only the owner of the store can know
    differs: bool = False


_enqueued = maker(Enqueued)


def enqueue(draft: Draft, intent: Intent) -> Enqueued:
    if intent.fresh:
        draft.fresh(intent.entry)
    known = draft.find_entry(intent.entry)
    if known is None and intent.key is not None and intent.turn is None:
        stream = draft.lookup(outbound_key(intent.key))
        known = draft.find_entry(stream) if stream else None
    if known is not None:
        return _known(draft, known, intent)
    limit = draft.settings.waiting
    if draft.open_count >= limit and not intent.promised:
        raise BackPressureError(
            what="open entries", waiting=draft.open_count, limit=limit
        )
    entry = queue(draft, intent)
    if intent.key is not None and intent.turn is None:
        draft.key(outbound_key(intent.key), intent.entry)
    attempt_if_free(draft, entry.lane)
    status = draft.latest(entry).phase.status
    return _enqueued(entry_id=intent.entry, status=status, new=True)


def _known(draft: Draft, entry: Entry, intent: Intent) -> Enqueued:
    same = entry.redacted or _same(draft, entry, intent)  # erased: nobody can tell
    # Without a turn the stream is fresh for every call: then this call made it, in a
    # COMMIT that reached the disk though it seemed to fail.
    ours = intent.turn is None and entry.stream == intent.entry
    return Enqueued(
        entry_id=entry.stream,
        status=entry.status,
        new=ours,
        differs=not same and not ours,
    )


def _same(draft: Draft, entry: Entry, intent: Intent) -> bool:
    return len(entry.body) == len(intent.packed) and all(
        packing.same(packed, digest, partial(draft.stored, entry.stream))
        for packed, digest in zip(intent.packed, entry.body, strict=True)
    )


def plan(draft: Draft, stream: str, made: Plan) -> None:
    """Freeze the parts of an entry that was queued where its channel was not."""
    entry = draft.entry(stream)
    if not entry.planned and entry.open:
        entry = draft.emit(stream, frozen_plan(draft, stream, made, {}))
        if not entry.open:
            after_close(draft, entry)
