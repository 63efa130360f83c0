"""Facts that the writer of a SQLite store remembers from one commit to the next."""

from collections.abc import Iterable, Mapping

import apsw
from attrs import define, field

from turnfold.ports.store import BLANK, Head
from turnfold_adapters.stores.sqlite.connection import row_of
from turnfold_adapters.stores.sqlite.digest import blocks_of

_REMEMBERED = 10_000  # streams
_HEAD = "SELECT position, head FROM log ORDER BY position DESC LIMIT 1"

Kept = tuple[tuple[bool, bool], int, str | None, str | None, str | None]


@define
class Known:
    """A stream in the log; version 0: there is none.

    `kept`: the fields `open` and `person`, `created`, `lane`, `parent` and `kind` of its
    summary, which seldom change, or None if the writer has not seen them.
    """

    id: int
    version: int
    last: int  # position of its last record
    kept: Kept | None = None


@define
class Remembered:
    """Valid until another process commits. SQLite's data version shows that without a
    statement. Usually a client has posted a command; then the head is the same and all
    other facts stay valid."""

    streams: dict[str, Known] = field(factory=dict)
    head: Head = BLANK
    last_body: int = -1  # the largest key in table `body`
    digested: int = 0  # blocks
    places: set[str] = field(factory=set)  # that table `key_place` surely holds
    _version: int | None = None

    def check(self, conn: apsw.Connection) -> None:
        """Call this inside a write transaction, before any fact is used. The data
        version changes with own commits, too, so a commit that was interrupted before
        `keep` is noticed."""
        if conn.data_version() == self._version:
            return
        head = head_of(conn)
        if head != self.head:
            self.streams.clear()
            self.places.clear()
            self.head = head
        row = row_of(conn, "SELECT max(id) FROM body")
        self.last_body = -1 if row is None or row[0] is None else row[0]
        self.digested = blocks_of(conn)

    def keep(
        self,
        conn: apsw.Connection,
        head: Head,
        last_body: int,
        digested: int,
        moved: Mapping[str, Known],
        closed: Iterable[str],
    ) -> None:
        """Call this right after a COMMIT. A closed stream hardly ever moves again, and
        the garbage collector spends its time on thousands of small objects."""
        self.head, self.last_body, self.digested = head, last_body, digested
        self._version = conn.data_version()
        self.streams.update(moved)
        for stream in closed:
            self.streams.pop(stream, None)
        if len(self.streams) > _REMEMBERED:
            self.streams.clear()
        if len(self.places) > _REMEMBERED:
            self.places.clear()

    def forget(self) -> None:
        """Forget the facts: rows are about to be repaired, or a statement has
        failed."""
        self.streams.clear()
        self.places.clear()
        self._version = None


def head_of(conn: apsw.Connection) -> Head:
    """The end of the log. `hash` is empty if the last row does not end a commit."""
    row = row_of(conn, _HEAD)
    if row is None:
        return BLANK
    return Head(row[0], row[1] or b"")
