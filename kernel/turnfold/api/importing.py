"""Taking in the queue of another gateway: commit, verify, then move the file away.

A file is moved only after its entry was read back from the store. So the process may
die at any point: the next run reads an unmoved file again, and finds its key in the
store (specs/import.md).
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import define, field, frozen

from turnfold._decide import importing, inbox
from turnfold._decide.importing import Foreign
from turnfold._log import bodies
from turnfold._log import outbox_events as o
from turnfold._log.bodies import contents_in, pack, place_of
from turnfold._log.codec import decode
from turnfold._log.ids import ENTRY, outbound_key
from turnfold.api.commands import Commands
from turnfold.api.deliveries import ARCHIVE, Delivery, Queue, read_queue
from turnfold.errors import (
    InvalidInputError,
    MissingBodyError,
    OwnedError,
    RequestedError,
    UsageError,
)
from turnfold.logs import lines
from turnfold.messages import check_function, check_path
from turnfold.ports.store import Body, BodyRef, Store, Wanted

_LOG = lines()
_BATCH = 50  # an inbox is read 100 commands at a time
ORIGIN = "delivery-queue"


@frozen(kw_only=True)
class Left:
    """A file that was not moved, and the reason."""

    path: Path
    why: str


@define(kw_only=True)
class Imported:
    """The result of an import. `parked` and `dead`: entries by their first status, also
    those of an earlier run if their file was still there. `moved`: files in the archive
    now."""

    folder: Path
    found: int = 0
    parked: int = 0
    dead: int = 0
    again: int = 0  # of them, those that an earlier run had brought in
    moved: int = 0
    left: list[Left] = field(factory=list)


Step = Callable[[str, int, int], None]


def _silent(step: str, done: int, total: int) -> None:
    del step, done, total


class Importing(Commands):
    """The part of a Kernel that takes in the queue of another gateway."""

    async def import_queue(
        self, directory: str | Path, *, on_step: Step = _silent
    ) -> Imported:
        """Take in the JSON delivery files of a folder and of its `failed/`, then move
        each into `imported/` there. Each delivery is in doubt: its entry is parked, or
        a dead letter if it is too old or had failed. A repeat is harmless.

        `on_step(step, done, total)` is called for each batch that is "stored",
        "verified" and "moved". Stop the other gateway first. Raises InvalidInputError
        if the folder cannot be read. A file that cannot be read stays, and is named in
        `left`.
        """
        self._home.check()
        folder = check_path("directory", directory)
        check_function("on_step", on_step)
        try:
            queue = await asyncio.to_thread(read_queue, folder)
        except (OSError, ValueError) as exc:  # a name that is no valid path
            raise InvalidInputError(field="directory", problem=str(exc)[:200]) from exc
        done = begun(queue)
        for at in range(0, len(queue.deliveries), _BATCH):
            batch = queue.deliveries[at : at + _BATCH]
            await self._take(
                batch, done, lambda step: on_step(step, done.moved, done.found)
            )
        return done

    async def _take(
        self, batch: Sequence[Delivery], done: Imported, step: Callable[[str], None]
    ) -> None:
        before = await stored(self.store, batch)
        fresh = [one for one in batch if one.key not in before]
        refused = await self._bring(fresh)
        done.left += refused
        step("stored")
        there = await stored(self.store, batch)
        sound = [one for one in batch if await self._is_there(one, there, done)]
        step("verified")
        for one in sound:
            why = await asyncio.to_thread(archive, one)
            if why:
                done.left.append(Left(path=one.path, why=why))
                continue
            done.moved += 1
            done.again += one.key in before
            step("moved")

    async def _bring(self, batch: Sequence[Delivery]) -> list[Left]:
        """Store each delivery. Returns those that cannot be stored."""
        if self._shards is not None:
            return await self._shards.bring(batch)
        left: list[Left] = []
        made: list[tuple[Delivery, Foreign]] = []
        for one in batch:
            try:
                made.append((one, await asyncio.to_thread(self._foreign, one)))
            except InvalidInputError as exc:  # a file was removed just now
                left.append(Left(path=one.path, why=str(exc)))
        if self.working:
            try:
                await self._append_all([foreign for _, foreign in made])
            except OwnedError:
                pass  # not the owner any more: post it to the owner's inbox
            else:
                return left
        return left + await self._post_all(made)

    def _foreign(self, one: Delivery) -> Foreign:
        return Foreign(
            entry=f"{ENTRY}{self._new_id()}",
            route=one.route,
            kind=one.kind,
            packed=tuple(map(pack, one.payloads)),
            key=one.key,
            origin=ORIGIN,
            enqueued_at=one.enqueued_at,
            tries=one.tries,
            detail=one.error,
            dead=one.dead,
        )

    async def _append_all(self, foreign: Iterable[Foreign]) -> None:
        appends = [
            self.append(
                partial(importing.bring_in, foreign=one),
                Wanted(keys=frozenset((outbound_key(one.key),))),
            )
            for one in foreign
        ]
        await asyncio.gather(*appends)

    async def _post_all(self, made: Sequence[tuple[Delivery, Foreign]]) -> list[Left]:
        """Post the deliveries to the inbox of the owner. If no process owns the store,
        this one applies the inbox. Deliveries without an answer are left for another
        run."""
        at = self._clock.wall_now()
        commands = [inbox.import_command(foreign, at) for _, foreign in made]
        try:
            answers = await self._mailbox.ask_all(commands) if commands else ()
        except RequestedError:
            return []  # a look at the store says which of them are there
        refused = zip(made, answers, strict=True)
        return [
            Left(path=one.path, why=str(answer))
            for (one, _), answer in refused
            if isinstance(answer, UsageError)
        ]

    async def _is_there(
        self, one: Delivery, there: Mapping[str, str], done: Imported
    ) -> bool:
        """Read a delivery back from the store: only then may its file be moved."""
        if one.key not in there:
            if not any(left.path == one.path for left in done.left):
                why = "no worker has taken it in yet; run the import again"
                done.left.append(Left(path=one.path, why=why))
            return False
        phase = await verified(self.store, there[one.key], one)
        if phase is None:
            why = f"{one.key} is in the store with other bytes"
            done.left.append(Left(path=one.path, why=why))
            return False
        done.parked += phase == "parked"
        done.dead += phase == "dead"
        return True


def begun(queue: Queue) -> Imported:
    """The report before the first delivery is stored."""
    left = [Left(path=path, why=why) for path, why in queue.problems]
    left += [Left(path=path, why="no delivery file") for path in queue.others]
    return Imported(folder=queue.folder, found=len(queue.deliveries), left=left)


# --- The entries of the store ---


async def stored(store: Store, batch: Iterable[Delivery]) -> dict[str, str]:
    """The deliveries of a batch that the log holds, by key, each with its entry. A
    command in the inbox holds its key, too, and has no entry yet."""
    names = {
        one.key: (outbound_key(one.key), inbox.import_id(one.key)) for one in batch
    }
    keys = frozenset([name for name, _ in names.values()])
    commands = frozenset([command for _, command in names.values()])
    found = await store.fetch(Wanted(keys=keys, answers=commands))
    return {
        key: stream
        for key, (name, command) in names.items()
        if (stream := found.keys[name]) is not None and command not in found.waiting
    }


async def verified(store: Store, stream: str, one: Delivery) -> str | None:
    """The first status of the entry, "parked" or "dead", if the store holds exactly
    this delivery; "gone" if the entry was pruned or erased since."""
    records = (await store.fetch(Wanted(streams=frozenset((stream,))))).streams[stream]
    if not records:
        return "gone"
    events = decode(records[0])
    first = events[0]
    if not isinstance(first, o.Imported):
        return None
    try:
        if not await _same(store, stream, first, one):
            return None
    except MissingBodyError:
        return "gone"
    return "dead" if any(isinstance(e, o.FailedTerminal) for e in events) else "parked"


async def _same(store: Store, stream: str, first: o.Imported, one: Delivery) -> bool:
    lane = one.route.lane, one.route.reply_to
    packed = await asyncio.to_thread(lambda: [*map(pack, one.payloads)])
    if (first.lane, first.reply_to) != lane or len(first.body) != len(packed):
        return False
    kept = await _bodies(store, stream, first.body)

    def body(ref: str) -> bytes:
        return bodies.checked(ref, kept.get(place_of(stream, ref)), store.address)

    pairs = zip(packed, first.body, strict=True)
    return all(bodies.same(piece, ref, body) for piece, ref in pairs)


async def _bodies(
    store: Store, stream: str, refs: Sequence[str]
) -> dict[BodyRef, Body]:
    """The bodies that an event names, and the file contents that those bodies name."""
    found = await _fetched(store, {place_of(stream, ref) for ref in refs})
    inner = [ref for body in found.values() for ref in contents_in(body.data)]
    places = {place_of(stream, ref) for ref in inner}
    return found | (await _fetched(store, places) if places else {})


async def _fetched(store: Store, places: set[BodyRef]) -> dict[BodyRef, Body]:
    found = (await store.fetch(Wanted(bodies=frozenset(places)))).bodies
    return {place: body for place, body in found.items() if body is not None}


# --- The files ---


def archive(one: Delivery) -> str:
    """Move the file of a stored delivery into the archive. Returns the problem, or
    None."""
    try:
        if one.path.read_bytes() != one.raw:
            return "it has changed meanwhile; run the import again"
        place = one.path.parent / ARCHIVE
        if one.dead:
            place = one.path.parent.parent / ARCHIVE / one.path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        one.path.replace(_free(place / one.path.name, one.raw))
        _synced(place)
        _synced(one.path.parent)
    except OSError as exc:
        return f"it is in the store, and cannot be moved: {exc.strerror or exc}"
    return ""


def _free(target: Path, raw: bytes) -> Path:
    """A name that no other file of the archive has."""
    number, path = 0, target
    while path.exists() and path.read_bytes() != raw:
        number += 1
        path = target.with_suffix(f".{number}{target.suffix}")
    return path


def _synced(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# --- At open: a gateway that switches over ---


async def import_at_open(kernel: Importing, directory: str | Path) -> None:
    """Import the deliveries, and log a warning for each file that was left."""
    if not await asyncio.to_thread(check_path("import_from", directory).is_dir):
        _LOG.warning("nothing to import: %s is no folder", directory)
        return
    done = await kernel.import_queue(directory)
    for left in done.left:
        _LOG.warning("import: %s was left: %s", left.path, left.why)
    if done.moved:
        text = "%s: %s deliveries imported, %s parked and %s dead: nobody knows if they"
        told = (done.folder, done.moved, done.parked, done.dead)
        _LOG.warning(f"{text} were sent", *told)
