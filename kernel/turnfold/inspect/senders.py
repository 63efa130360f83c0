"""The turns in which a person's messages lie, for erasing what the person wrote.

The sender of a message stands in the events of its turn, and no index has it: the log is
read from its beginning to its end.
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
    """`turns`: in which a message of the sender lies, the oldest first. `shared`: how
    many of them hold messages of others, too. `erased`: of them, those without any text
    left. `nameless`: updates that nobody could read, so that nobody knows whose they
    are. `unreadable`: records of turns that are damaged."""

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
    """Are there messages of others, and is all of it erased?"""
    try:
        events = [event for record in records for event in decode(record)]
    except CorruptLogError:
        return False, False
    senders = {event.sender for event in events if isinstance(event, _MESSAGES)}
    return senders != {sender}, isinstance(events[-1], t.TurnRedacted)
