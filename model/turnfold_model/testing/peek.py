"""Looking at a store from a test, without an event loop.

Reads of the stores in memory and in SQLite do not suspend, so they can be driven by
hand. Nothing here belongs into a gateway: there, the reads of a store are awaited.
"""

from collections.abc import Iterable, Iterator, Sequence

from turnfold._log.bodies import checked, place_of
from turnfold._log.codec import decode
from turnfold._log.events import NAMES, Event
from turnfold._state.fold import State, family, fold
from turnfold.enums import Phase, TurnPhase
from turnfold.ports.store import (
    Body,
    Command,
    Found,
    Head,
    Listing,
    Record,
    Store,
    Summary,
    Wanted,
    Watermark,
    now,
)

_PAGE = 1_000


class Peek:
    """The commits in an open store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def head(self) -> Head:
        return now(self.store.load()).head

    def log(self, after: int = 0) -> Iterator[Record]:
        """Every record after a position."""
        while records := now(self.store.log(after, _PAGE)):
            yield from records
            after = records[-1].position

    def happened(self) -> Iterator[tuple[Record, Event]]:
        """Every event with the record that it stands in."""
        for record in self.log():
            for event in () if record.pruned else decode(record):
                yield record, event

    def names(self) -> list[str]:
        """The name of every event, in order."""
        return [NAMES[type(event)] for _, event in self.happened()]

    def read(self, stream: str) -> Sequence[Record]:
        return self._fetch(Wanted(streams=frozenset((stream,)))).streams[stream]

    def events(self, stream: str) -> list[Event]:
        return [event for record in self.read(stream) for event in decode(record)]

    def state(self, stream: str) -> State | None:
        return fold(self.read(stream))

    def summary(self, stream: str) -> Summary | None:
        return self._fetch(Wanted(summaries=frozenset((stream,)))).summaries[stream]

    def lookup(self, key: str) -> str | None:
        return self._fetch(Wanted(keys=frozenset((key,)))).keys[key]

    def children(self, turn: str) -> Sequence[str]:
        return self._fetch(Wanted(children=frozenset((turn,)))).children[turn]

    def list(self, listing: Listing) -> Sequence[Summary]:
        return now(self.store.list(listing))

    def body(self, stream: str, ref: str) -> bytes:
        """Raises MissingBodyError or DamagedError."""
        return checked(ref, self.kept(stream, ref))

    def kept(self, stream: str, ref: str) -> Body | None:
        place = place_of(stream, ref)
        return self._fetch(Wanted(bodies=frozenset((place,)))).bodies[place]

    def inbox(self) -> Sequence[Command]:
        return now(self.store.inbox())

    def watermark(self) -> Watermark | None:
        upkeep = self.store.maintenance
        return None if upkeep is None else now(upkeep.watermark())

    def _fetch(self, wanted: Wanted) -> Found:
        return now(self.store.fetch(wanted))


def at_rest(open_rows: Iterable[Summary]) -> bool:
    """Given the summaries of all open streams: does nothing move by itself any more?

    A parked entry waits for a person, and so does the turn that it answers. Any other
    open entry or turn has something to do; gates are not asked.
    """
    rows = list(open_rows)
    entries = [row for row in rows if family(row.stream) == "entry"]
    parked = {row.parent for row in entries if row.phase == Phase.PARKED}
    return all(row.phase == Phase.PARKED for row in entries) and all(
        row.phase == TurnPhase.ANSWERED and row.stream in parked
        for row in rows
        if family(row.stream) == "turn"
    )
