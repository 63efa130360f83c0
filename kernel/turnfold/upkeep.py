"""What a worker does for its store beside the work, and when.

Nothing of it is on the path of a message. While appends come, only the mark is moved on
now and then; the rest waits until none has come for a second. What fails is logged once
and tried again; it stops no work.
"""

import logging
from collections.abc import Callable

from turnfold.errors import NotOpenError, StoreError
from turnfold.ports.store import Mark, Store

IDLE_S = 1.0
MARK_S = 5.0  # while busy: a file written and synced, which some message waits for

_LOG = logging.getLogger("turnfold")


class Upkeep:
    """`store_id` names the store in its mark; none: it cannot be read, so no mark.
    `land` waits for a transaction that is being written."""

    def __init__(
        self,
        store: Store,
        store_id: Callable[[], str | None],
        land: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._land = store, land
        self._store_id = store_id
        self._seen = -1
        self._since = 0.0
        self._marked = float("-inf")
        self._swept = False
        self._trusted = False
        self._rested = False
        self.owing = False
        self.trouble: Exception | None = None

    def look(self, now: float, position: int, *, worker: bool) -> None:
        """Call it a few times a second, with a time that only goes forward."""
        if position != self._seen:
            self._seen, self._since, self._rested = position, now, False
            if worker and now - self._marked >= MARK_S:
                self._marked = now
                self.mark()
        elif not self._rested and now - self._since >= IDLE_S:
            self._since = now  # what is not done now waits for another such time
            self._rested = self._rest(worker=worker)

    def owe(self) -> None:
        """Something was erased, but a reader still needs it: try again when idle."""
        self.owing, self._rested = True, False

    def _rest(self, *, worker: bool) -> bool:
        """True if everything is done until the next append."""
        if not worker:
            return self._checkpoint() if self.owing else True
        # The checkpoint first: at a weaker `synchronous` only that makes it durable.
        done = [self._checkpoint(), self.mark(), self._sweep()]
        return all(done)

    def mark(self) -> bool:
        """Note outside the log how far it has got; also the last thing of a worker."""
        store_id = self._store_id()
        if store_id is None or not self._trusted:
            return True
        return self._does(lambda: self._store.mark(store_id))

    def lost_history(self) -> Mark | None:
        """The mark, if the log that it speaks of is not the one that is here: then an
        older copy was put in its place. Raises StoreError.

        A mark of another store is a leftover. A copy that was made together with its
        mark cannot be told from the original.
        """
        mark, store_id = self._store.marked(), self._store_id()
        if mark is None or mark.store != store_id or self._store.had(mark.head):
            return None
        return mark

    def trust(self) -> None:
        """The log is the one that the mark speaks of, or what follows from the
        difference is stored: only now may the mark be replaced."""
        self._trusted = True

    def _checkpoint(self) -> bool:
        left: list[bool] = []
        if not self._does(lambda: left.append(not self._store.checkpoint())):
            return False
        self.owing = self.owing and left[0]
        return not left[0]

    def _sweep(self) -> bool:
        """Once per worker: only a process that died leaves something behind."""
        if not self._swept:
            self._swept = self._does(self._store.sweep)
        return self._swept

    def _does(self, work: Callable[[], object]) -> bool:
        try:
            self._land()
            work()
        except (StoreError, NotOpenError) as exc:
            if str(exc) != str(self.trouble):
                _LOG.warning("upkeep of %s: %s", self._store.address, exc)
            self.trouble = exc
            return False
        self.trouble = None
        return True
