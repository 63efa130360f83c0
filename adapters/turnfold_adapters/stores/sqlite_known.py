"""What the writer of a SQLite store remembers from one transaction to the next."""

from collections.abc import Sequence

import apsw
from attrs import define

from turnfold.ports.store import Head

_REMEMBERED = 10_000  # streams


@define
class Known:
    """A stream as this transaction sees it; version 0 is one that is not there."""

    id: int
    version: int
    last: int  # position


NOBODY = Known(0, 0, 0)


class Remembered:
    """What a writer knows after its own commit: true until somebody else commits,
    which SQLite's data version tells without a statement. It spares the look at the
    head and, for each stream that moves again, the one at its row."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.streams: dict[str, Known] = {}
        self.head: Head | None = None
        self._version = -1

    def check(self, conn: apsw.Connection) -> None:
        """Right after BEGIN IMMEDIATE: forget all if another connection has written."""
        if conn.data_version() != self._version:
            self.forget()

    def keep(self, conn: apsw.Connection, head: Head, closed: Sequence[str]) -> None:
        """Right after COMMIT. What is closed hardly ever moves again, and thousands of
        small objects are what the garbage collector takes its time for."""
        self.head, self._version = head, conn.data_version()
        for stream in closed:
            self.streams.pop(stream, None)
        if len(self.streams) > _REMEMBERED:
            self.streams.clear()

    def forget(self) -> None:
        """After a rollback too: nothing of it may stay."""
        self.kinds.clear()
        self.streams.clear()
        self.head = None
        self._version = -1
