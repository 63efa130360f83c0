"""The folded state that decisions may read, of a running kernel or a store at rest."""

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from turnfold._log.events import Event
from turnfold._state.entry import Entry
from turnfold._state.fold import Gate, State
from turnfold.ports.store import Body, BodyRef, Record


class View(Protocol):
    """Folded state, ready to be read. State that is not in memory raises NotLoaded."""

    @property
    def position(self) -> int: ...

    def state(self, stream: str) -> State | None: ...

    def lookup(self, key: str) -> str | None:
        """The stream that a dedupe key belongs to."""

    @property
    def gated(self) -> bool:
        """Is any gate closed? Every attempt asks this first; mostly none is."""

    def holding(self, gate: str) -> Gate | None:
        """A gate, if it is closed (its time may be over)."""

    def closed_gates(self) -> Sequence[Gate]:
        """All gates that are closed (the time of some may be over)."""

    def lane(self, lane: str) -> Iterator[Entry]:
        """The open entries of a lane, in the order of their queueing."""

    def turn_lane(self, lane: str) -> Iterator[str]:
        """The accepted and running turns of a lane, in order."""

    def open_streams(self) -> Sequence[str]:
        """Every entry that is open and every turn that is not answered yet."""

    @property
    def left_under_way(self) -> Sequence[str]:
        """The turns and entries that were running or being sent when this process took
        the store."""

    @property
    def suspected(self) -> bool:
        """Is any turn or entry suspect of a death? Mostly none is."""

    def running(self) -> Collection[str]:
        """The turns that run. Not in proportion to what this commit has touched: a
        commit of many messages asks for each."""

    def flying(self) -> Collection[str]:
        """The entries that are on their way, if any is suspect."""

    def entries_of(self, turn: str) -> Sequence[str]:
        """All entries of a turn, closed ones too, in order."""

    def lacks(self, turn: str, entry: str) -> bool:
        """Is it known, without a read, that a turn has no such entry?"""

    def stored(self, place: BodyRef) -> Body | None:
        """A body beside the log, or None if it is not there."""

    def history(self, stream: str) -> Sequence[Event]:
        """All events of a stream."""

    def records(self, stream: str) -> Sequence[Record]:
        """All records of a stream."""

    @property
    def open_count(self) -> int: ...

    def open_of(self, account: str) -> int:
        """How many entries of an account are open. `account`: the name of its gate."""

    def turns_waiting(self, lane: str) -> int:
        """How many turns of a lane have no answer yet."""
