"""The turns with a person's messages, for erasing these messages.

Only the events of a turn name the sender of a message, and there is no index: the whole
log is read.
"""

from collections.abc import AsyncIterator, Sequence

from attrs import frozen

from turnfold._log import canonical
from turnfold._log import events as t
from turnfold._log.canonical import Record
from turnfold._log.codec import decode
from turnfold._log.ids import TURN
from turnfold.errors import CorruptLogError
from turnfold.inspect.shards import shards_of
from turnfold.ports.store import Store, Wanted, record_pages

_MESSAGES = (t.Accepted, t.Joined, t.Dead)
_AT_ONCE = 500


@frozen(kw_only=True)
class OfSender:
    """`turns`: with a message of the sender, the oldest first. `shared`: how many of
    them hold messages of others, too. `erased`: how many of them have no text left.
    `nameless`: updates that could not be read, so that their sender is not known.
    `unreadable`: damaged records of turns."""

    turns: tuple[str, ...]
    shared: int = 0
    erased: int = 0
    nameless: int = 0
    unreadable: int = 0


async def of_sender(store: Store, sender: str) -> OfSender:
    """All turns of a sender."""
    named: dict[str, None] = {}
    nameless = unreadable = 0
    said = canonical.dumps({"sender": sender})[1:-1]  # one value has one encoding
    async for record in _of_turns(store):
        if said in record.events:
            named[record.stream] = None
        elif b'"turn.dead"' in record.events:
            nameless += b'"sender":' not in record.events
        elif not record.events.startswith(b"["):
            unreadable += 1
    shared = erased = 0
    names = [*named]
    for first in range(0, len(names), _AT_ONCE):
        wanted = Wanted(streams=frozenset(names[first : first + _AT_ONCE]))
        for records in (await store.fetch(wanted)).streams.values():
            others, gone = _look(records, sender)
            shared, erased = shared + others, erased + gone
    return OfSender(
        turns=tuple(names),
        shared=shared,
        erased=erased,
        nameless=nameless,
        unreadable=unreadable,
    )


async def _of_turns(store: Store) -> AsyncIterator[Record]:
    """The records of all turns, shard by shard."""
    for chain in shards_of(store):
        async for page in record_pages(chain):
            for record in page:
                if record.stream.startswith(TURN):
                    yield record


def _look(records: Sequence[Record], sender: str) -> tuple[bool, bool]:
    """Does a turn hold messages of others, and is its text erased?"""
    try:
        events = [event for record in records for event in decode(record)]
    except CorruptLogError:
        return False, False
    senders = {event.sender for event in events if isinstance(event, _MESSAGES)}
    return senders != {sender}, isinstance(events[-1], t.TurnRedacted)
