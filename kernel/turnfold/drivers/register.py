"""The register of a process: the attempts that it has taken up, and the fate of each.

A commit hands out the attempts that it made durable, and a lane program may find the same
ones when it looks. Each is entered here before it is sent, with a note when its call has
begun; so it goes to the wire once, whoever starts its program and however often. An
attempt leaves when the log has moved past it, and its number never comes again.
"""

from turnfold.decide.draft import AttemptRef
from turnfold.machines.entry import Entry
from turnfold.ports.channel import Outcome
from turnfold.words import Phase


class Taken:
    """An attempt that was taken up, and what became of it so far."""

    __slots__ = ("attempt", "outcome", "sent")

    def __init__(self, attempt: AttemptRef) -> None:
        self.attempt = attempt
        self.sent = False  # its call has begun
        self.outcome: Outcome | None = None


class Register:
    """See the module. In the log at most one attempt of an entry is under way."""

    def __init__(self) -> None:
        self._taken: dict[str, Taken] = {}  # by entry
        self._lanes: dict[str, Taken] = {}  # by lane, the latest

    def enter(self, attempt: AttemptRef) -> None:
        """Take an attempt up. One that is in here already keeps its note."""
        if self.find(attempt) is None:
            taken = Taken(attempt)
            self._taken[attempt.entry] = self._lanes[attempt.lane] = taken

    def find(self, attempt: AttemptRef) -> Taken | None:
        taken = self._taken.get(attempt.entry)
        if taken is None or not _same(taken.attempt, attempt.part, attempt.number):
            return None
        return taken

    def holds(self, entry: Entry) -> bool:
        """Was the attempt that this entry is at taken up?"""
        taken = self._taken.get(entry.stream)
        return taken is not None and _same(taken.attempt, entry.part, entry.attempt)

    def moved(self, entry: Entry) -> None:
        """The log says this of an entry now."""
        taken = self._taken.get(entry.stream)
        if taken is None:
            return
        if entry.phase is Phase.DISPATCHED and _same(
            taken.attempt, entry.part, entry.attempt
        ):
            return
        del self._taken[entry.stream]
        if self._lanes.get(entry.lane) is taken:
            del self._lanes[entry.lane]

    def contents(self) -> frozenset[tuple[str, int, int, bool, str]]:
        """Entry, part and number of each attempt in it, and its note."""
        return frozenset(
            (*_ref(taken.attempt), taken.sent, repr(taken.outcome))
            for taken in self._taken.values()
        )

    def speaks_for(self, lane: str) -> AttemptRef | None:
        """The attempt whose end moves a lane on; without one its program must look."""
        taken = self._lanes.get(lane)
        return None if taken is None else taken.attempt


def _ref(attempt: AttemptRef) -> tuple[str, int, int]:
    return attempt.entry, attempt.part, attempt.number


def _same(attempt: AttemptRef, part: int, number: int) -> bool:
    return attempt.part == part and attempt.number == number
