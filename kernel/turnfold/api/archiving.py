"""Archiving: streams go into a file before a prune removes them (specs/keep.md).

A file is durable before any of its streams is pruned, and the owner prunes only streams
whose version the file holds. If a run is killed between archiving and pruning, the next
run prunes those streams and does not archive them twice.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, evolve, field, frozen

from turnfold._decide import pruning
from turnfold._log.canonical import Record
from turnfold._log.codec import decode
from turnfold._log.events import Event, StoreCreated
from turnfold._log.ids import TURN
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, fold
from turnfold._state.turn import Turn
from turnfold.api.keeping import (
    Archived,
    Keeps,
    Pruning,
    candidates,
    checked_wish,
    summed,
)
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.inspect import archive, export
from turnfold.inspect.archive import Manifest
from turnfold.messages import check_flag, check_function, check_ms, check_path
from turnfold.ports.store import Store, Wanted

T = TypeVar("T")
PER_FILE = 5_000  # turns, and entries without a turn
_AT_ONCE = 200  # turns that are read in one call, records in one look for bodies
_Group = Mapping[str, Sequence[Record]]  # the records of each of its streams


@frozen(kw_only=True)
class Archives:
    """The progress of an archiving. `files`: the new files. `groups`: turns, and
    entries without a turn, in them. `again`: streams that an earlier run archived and
    could not prune. `pruned`: the streams that left the store."""

    files: tuple[Path, ...] = ()
    groups: int = 0
    again: int = 0
    pruned: Pruning = field(factory=Pruning)


Tell = Callable[[Archives], None]


def _silent(so_far: Archives) -> None:
    del so_far


class Archiving(Keeps):
    """The part of a Kernel that moves closed streams into archives."""

    async def archive(
        self,
        folder: str | Path,
        *,
        older_ms: int,
        by: str,
        why: str = "",
        statuses: Sequence[str] = (),
        dead: bool = False,
        clock_is_right: bool = False,
        text: bool = True,
        per_file: int = PER_FILE,
        tell: Tell = _silent,
    ) -> Archives:
        """Write the streams that `prune` would take into new files in a folder, then
        prune them. The arguments are those of `prune`. `text`: with the bodies.
        `per_file`: the most turns in a file. A second call goes on where the first one
        ended. Only one call at a time may use a folder. Raises DiskError, and the
        errors of `prune`."""
        folder = check_path("folder", folder)
        check_ms("per_file", per_file, least=1)
        check_flag("text", text)
        check_function("tell", tell)
        checked_wish(older_ms, by, why, statuses, dead=dead, sure=clock_is_right)
        wish = {
            "older_ms": older_ms,
            "by": by,
            "why": why,
            "statuses": statuses,
            "dead": dead,
            "clock_is_right": clock_is_right,
        }
        if self._shards is not None:
            how = {**wish, "text": text, "per_file": per_file}
            return await self._shards.archive(folder, how, tell)
        made = self._clock.wall_now()
        run = _Run(self, _folder(folder), wish, made, text=text, tell=tell)
        await run.finish()
        await run.go_on(per_file)
        return run.done


class _Run:
    def __init__(
        self,
        kernel: Archiving,
        folder: Path,
        wish: dict[str, Any],
        made: int,
        *,
        text: bool,
        tell: Tell,
    ) -> None:
        self._kernel, self._store, self._folder = kernel, kernel.store, folder
        self._wish, self._made = wish, made
        self._text, self._tell = text, tell
        self._there: dict[str, Mapping[str, int]] = {}  # archived, and still stored
        self.done = Archives()

    async def finish(self) -> None:
        """Prune the streams that earlier runs have archived."""
        await asyncio.to_thread(archive.clear, self._folder)
        store_id = await _id_of(self._store)
        found = await asyncio.to_thread(lambda: [*archive.manifests(self._folder)])
        for _, manifest in found:
            if manifest.store == store_id:
                before = self.done.pruned.streams
                await self._prune(manifest)
                gone = self.done.pruned.streams - before
                self.done = evolve(self.done, again=self.done.again + gone)
                self._there |= await self._left(manifest)

    async def _left(self, manifest: Manifest) -> Mapping[str, Mapping[str, int]]:
        roots = frozenset(manifest.groups)
        found = (await self._store.fetch(Wanted(summaries=roots))).summaries
        return {n: manifest.groups[n] for n, row in found.items() if row is not None}

    async def go_on(self, per_file: int) -> None:
        before = await self._kernel.latest() - self._wish["older_ms"]
        found = [row async for row in candidates(self._store, before)]
        found.sort(key=lambda row: row.order)
        for rows in _some((row.stream for row in found), per_file):
            await self._take(rows)

    async def _take(self, names: Sequence[str]) -> None:
        groups: dict[str, _Group] = {}
        for some in _some(names, _AT_ONCE):
            groups |= await self._that_may_go(some)
        if not groups:
            return
        records = [
            r for group in groups.values() for rows in group.values() for r in rows
        ]
        records.sort(key=lambda record: record.position)
        facts = {
            "store": await _id_of(self._store),
            "made": self._made,
            "by": self._wish["by"],
            "groups": {name: _versions(group) for name, group in groups.items()},
            "records": len(records),
            "text": self._text,
        }
        lines = _lines(self._store, records, text=self._text)
        path, manifest = await archive.write(self._folder, facts, lines)
        self.done = evolve(
            self.done,
            files=(*self.done.files, path),
            groups=self.done.groups + len(groups),
        )
        await self._prune(manifest)

    async def _prune(self, manifest: Manifest) -> None:
        archived = Archived(manifest.digest, manifest.groups)
        more = await self._kernel.prune(**self._wish, archived=archived)
        pruned = summed(self.done.pruned, asdict(more))
        self.done = evolve(self.done, pruned=pruned)
        self._tell(self.done)

    async def _that_may_go(self, names: Sequence[str]) -> dict[str, _Group]:
        now = await self._kernel.latest()
        wish = pruning.Wish(
            now=now,
            before=now - self._wish["older_ms"],
            phases=frozenset(self._wish["statuses"]),
            dead=self._wish["dead"],
            sure=True,  # the owner judges if the clock is trusted
            dedupe_ms=self._kernel.settings.dedupe_ms,
        )
        found = await _groups(self._store, names)
        return {
            name: group
            for name, group in found.items()
            if _may_go(group, wish) and self._there.get(name) != _versions(group)
        }


def _folder(path: Path) -> Path:
    try:
        if path.is_dir():
            return path
    except (OSError, ValueError) as exc:  # a name that is no valid path
        raise InvalidInputError(field="folder", problem=str(exc)[:200]) from exc
    raise InvalidInputError(field="folder", problem="there is no such folder")


def _some(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some


def _versions(group: _Group) -> Mapping[str, int]:
    return {name: records[-1].version for name, records in group.items()}


def _may_go(group: _Group, wish: pruning.Wish) -> bool:
    try:
        states = [fold(records) for records in group.values()]
        histories = {name: _events(records) for name, records in group.items()}
    except CorruptLogError:
        return False
    known = [state for state in states if isinstance(state, Entry | Turn)]
    return pruning.obstacle(known, histories, wish) is None


def _events(records: Sequence[Record]) -> Sequence[Event]:
    return [event for record in records for event in decode(record)]


async def _groups(store: Store, names: Sequence[str]) -> dict[str, _Group]:
    """The records of turns with their entries, and of entries without a turn."""
    turns = frozenset(name for name in names if name.startswith(TURN))
    children = (await store.fetch(Wanted(children=turns))).children
    whole = {name: [name, *children.get(name, ())] for name in names}
    wanted = frozenset(stream for row in whole.values() for stream in row)
    found = (await store.fetch(Wanted(streams=wanted))).streams
    return {
        name: {stream: found[stream] for stream in row}
        for name, row in whole.items()
        if all(found[stream] for stream in row)
    }


async def _lines(
    store: Store, records: Sequence[Record], *, text: bool
) -> AsyncIterator[bytes]:
    for page in _some(records, _AT_ONCE):
        bodies = await export.bodies_of(store, page) if text else [None] * len(page)
        for record, named in zip(page, bodies, strict=True):
            yield export.dump(record, named)


async def _id_of(store: Store) -> str:
    """Raises CorruptLogError, InvalidInputError."""
    records = (await store.fetch(Wanted(streams=frozenset((STORE,))))).streams[STORE]
    for event in _events(records[:1]):
        if isinstance(event, StoreCreated):
            return event.store
    raise InvalidInputError(field="store", problem="it has no first event")
