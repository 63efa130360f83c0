"""Pruning: by a call, or by the worker itself as its settings say (specs/keep.md).

The caller reads the store for candidates and gives their names to the owner, a few at a
time. The owner checks each group again, and takes the groups out in one commit. So
messages go on between two batches, and a death between two batches loses nothing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from attrs import frozen

from turnfold._decide import pruning
from turnfold._log.ids import ENTRY, TURN
from turnfold.api.commands import Commands
from turnfold.enums import Phase, TurnPhase
from turnfold.errors import (
    InvalidInputError,
    NotOpenError,
    StoreError,
    StoreFullError,
    UsageError,
)
from turnfold.logs import lines
from turnfold.messages import (
    check_flag,
    check_function,
    check_id,
    check_kind,
    check_ms,
    check_text,
    check_why,
    items,
)
from turnfold.ports.store import Keeping, Listing, Store, Summary, Wanted, summary_pages

_LOG = lines()
BATCH = 50  # turns with their entries, in one commit
_EVERY_S = 3_600.0
_FIRST_S = 60.0  # after a start the worker has other work
_LOOK_S = 5.0
_AT_ONCE = 500  # summaries that are asked for in one call
_PAUSE_S = 0.05  # between two batches of the worker's own
_PHASES = frozenset([*(p for p in Phase if p.closed), *TurnPhase])


@frozen(kw_only=True)
class Pruning:
    """The pruned turns and entries so far. `left`: by reason, how many turns, and
    entries without a turn, were old enough and stayed."""

    streams: int = 0
    events: int = 0
    left: Mapping[str, int] = {}


@frozen
class Archived:
    """The content of an archive (`Kernel.archive`). `digest`: SHA-256 of its lines.
    `groups`: by each turn, and each entry without a turn, the versions of its streams."""

    digest: str
    groups: Mapping[str, Mapping[str, int]]


class Keeps(Commands):
    """The part of a Kernel that keeps its store small."""

    async def prune(
        self,
        *,
        older_ms: int,
        by: str,
        why: str = "",
        statuses: Sequence[str] = (),
        dead: bool = False,
        archived: Archived | None = None,
        clock_is_right: bool = False,
        batch: int = BATCH,
        tell: Callable[[Pruning], None] | None = None,
    ) -> Pruning:
        """Take closed turns and entries out of the log that have not moved for
        `older_ms`. A turn goes with all its entries. A turn or an entry that waits for
        a person stays unless `dead`. One with a dedupe key inside `Settings.dedupe_ms`
        stays.

        `statuses`: only streams in one of these phases. `archived`: only streams that
        this archive holds at their current version. `clock_is_right`: a person says so;
        otherwise nothing is pruned while the clock is not trusted. `batch`: turns in
        one commit. `tell` is called with the progress. A second call goes on where the
        first one ended.
        """
        wish = checked_wish(older_ms, by, why, statuses, dead=dead, sure=clock_is_right)
        check_ms("batch", batch, least=1)
        if archived is not None:
            check_kind("archived", archived, Archived)
        if tell is not None:
            check_function("tell", tell)
        self._check_keeping()
        done = Pruning()
        async for names in self._batches(older_ms, archived, batch):
            held = {} if archived is None else _held(archived, names)
            done = summed(done, await self._prune(names, wish | held))
            if tell is not None:
                tell(done)
        return done

    def _check_keeping(self) -> None:
        if not isinstance(self.store.maintenance, Keeping):
            problem = "this kind of store cannot be pruned"
            raise InvalidInputError(field="store", problem=problem)

    async def _prune(self, names: list[list[Any]], wish: dict[str, Any]) -> Any:
        if self._shards is not None:
            return await self._shards.prune(names, wish)
        arguments = {"names": names, **wish}
        decision = partial(pruning.prune, stream="store", **arguments)
        return await self._do(decision, "prune", "store", arguments)

    async def _batches(
        self, older_ms: int, archived: Archived | None, batch: int
    ) -> AsyncIterator[list[list[Any]]]:
        """Names with versions."""
        names: list[list[Any]] = []
        found = candidates(self.store, await self.latest() - older_ms)
        if archived is not None:
            found = _left_of(self.store, archived)
        async for summary in found:
            names.append([summary.stream, summary.version])
            if len(names) >= batch:
                yield names
                names = []
        if names:
            yield names

    async def latest(self) -> int:
        """An estimate of log time that is not too early; the owner checks again."""
        last = await self.store.last()
        known = (self._clock.now(), self._clock.wall_now())
        return max(*known, 0 if last is None else last.at)

    async def watch_room(self) -> None:
        """Refuse new messages while the store, or its disk, is at a limit of Settings.
        Accepted messages go on: their answers are still stored."""
        limits = (self.settings.max_store_bytes, self.settings.min_free_bytes)
        while any(limit is not None for limit in limits):
            before, self._full = self._full, self._measured()
            if self._full is not None and before is None:
                _LOG.error("%s", self._full, extra=self._full.facts)
            elif before is not None and self._full is None:
                _LOG.info("%s takes new messages again", self.store.address)
            await asyncio.sleep(_LOOK_S)

    def _measured(self) -> StoreFullError | None:
        facts, path = self.store.facts(), self.store.address
        taken, left = facts.get("bytes"), facts.get("free_bytes")
        most, least = self.settings.max_store_bytes, self.settings.min_free_bytes
        if most is not None and isinstance(taken, int) and taken > most:
            limit = "max_store_bytes"
            return StoreFullError(path=path, limit=limit, bytes=taken, allowed=most)
        if least is not None and isinstance(left, int) and left < least:
            limit = "min_free_bytes"
            return StoreFullError(path=path, limit=limit, bytes=left, allowed=least)
        return None

    async def prune_for_ever(self) -> None:
        """The worker's own pruning, by its settings."""
        settings = self.settings
        if settings.prune_after_ms is None or settings.archive_first:
            return
        await asyncio.sleep(_FIRST_S)
        while True:
            try:
                await self._prune_now(settings.prune_after_ms)
            except NotOpenError:
                return
            except (StoreError, UsageError) as exc:
                _LOG.warning(
                    "pruning %s ended early, the next one goes on: %s",
                    self.store.address,
                    exc,
                )
            await asyncio.sleep(_EVERY_S)

    async def _prune_now(self, older_ms: int) -> None:
        done = Pruning()
        wish = {
            "older_ms": older_ms,
            "dead": self.settings.prune_dead,
            "by": "settings",
        }
        async for names in self._batches(older_ms, None, BATCH):
            done = summed(done, await self._prune(names, wish))
            await asyncio.sleep(_PAUSE_S)
        if done.streams:
            _LOG.info(
                "pruned %s streams with %s events from %s",
                done.streams,
                done.events,
                self.store.address,
                extra={"streams": done.streams, "events": done.events},
            )


def checked_wish(
    older_ms: int, by: str, why: str, statuses: Sequence[str], *, dead: bool, sure: bool
) -> dict[str, Any]:
    """The arguments of a prune, for the owner. Raises InvalidInputError."""
    said = {"by": check_id("by", by), "why": check_why(why)}
    check_ms("older_ms", older_ms)
    check_flag("dead", dead)
    check_flag("clock_is_right", sure)
    check_kind("statuses", statuses, list, tuple)
    words = [check_text("statuses", word) for word in items("statuses", statuses)]
    odd = [word for word in words if word not in _PHASES]
    if odd:
        problem = f"{odd[0]!r:.80} is none of {', '.join(sorted(_PHASES))}"
        raise InvalidInputError(field="statuses", problem=problem)
    wish = {"older_ms": older_ms, "phases": words, "dead": dead}
    return {**wish, **said, "sure": sure}


def _held(archived: Archived, names: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The digest of the archive, and the versions of these streams in it, for the
    owner."""
    rows = (archived.groups[name].items() for name, _ in names)
    versions = [list(row) for group in rows for row in group]
    return {"archive": archived.digest, "versions": versions}


async def _left_of(store: Store, archived: Archived) -> AsyncIterator[Summary]:
    """The streams that the store still has at the version in the archive."""
    roots = iter(archived.groups)
    while names := frozenset(islice(roots, _AT_ONCE)):
        found = (await store.fetch(Wanted(summaries=names))).summaries
        for name, summary in found.items():
            held = archived.groups[name].get(name)
            if summary is not None and summary.version == held:
                yield summary


def summed(done: Pruning, more: Mapping[str, Any]) -> Pruning:
    """The sum of both."""
    return Pruning(
        streams=done.streams + more["streams"],
        events=done.events + more["events"],
        left=dict(Counter(done.left) + Counter(more["left"])),
    )


async def candidates(store: Store, before: int) -> AsyncIterator[Summary]:
    """Closed turns, and closed entries without a turn, that have not moved since
    `before`, newest first."""
    for prefix in (TURN, ENTRY):
        listing = Listing(prefix=prefix, open=False, until=before)
        async for page in summary_pages(store, listing):
            for summary in page:
                if summary.parent is None and summary.updated < before:
                    yield summary
