"""The questions that decisions may ask of a worker's memory: which lane goes, and when.
`_runtime/flow.py` answers them."""

from typing import Protocol

from turnfold._state.entry import Entry


class Flow(Protocol):
    """The order and the pace of the lanes behind a gate whose time is over."""

    @property
    def knows(self) -> bool:
        """False: no gate has closed, so the other methods need not be called."""

    def turn_of(
        self, lane: str, now: int, asks: str | None = None, order: int = 0
    ) -> int | None:
        """None: the lane may attempt now. Else the log ms at which it asks again.
        `asks`: an entry that is to be looked up, not sent. `order`: of the entry."""

    def moved_to(self, lane: str, target: str) -> None:
        """A conversation has moved: the next entry for it goes to the new place."""

    def target(self, lane: str) -> str | None:
        """Where its conversation has moved to, if it has."""

    def wait_for_place(self, lane: str, order: int) -> None:
        """The lane asks again when a run has ended. `order`: of its turn."""

    def fails(self, lane: str) -> bool:
        """A lane met a transient failure: does its whole account fail?"""

    def limits(self, entry: Entry) -> bool:
        """A conversation met a rate limit: is it the limit of its account?"""

    def breaks(self, lane: str, entry: str) -> bool:
        """The adapter raised a bug for this entry: does it break for every entry?"""

    def refused(self, lane: str) -> int:
        """How many probes of its account were refused in a row."""
