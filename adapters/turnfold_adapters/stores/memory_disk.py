"""The disk of a store in memory, and the processes around it.

A `MemoryDisk` survives a crash. The `Room` around it does not: the worker's lock, the
handles that wait for it, the listeners of the bell. A fork of the disk gets an empty
room, as after a crash of the machine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from attrs import define, field

from turnfold.ports.store import (
    BLANK,
    Answer,
    Body,
    BodyRef,
    Command,
    Head,
    Owner,
    Record,
    Summary,
    Watermark,
)
from turnfold_adapters.stores.processes import running_loop

_Call = tuple[asyncio.AbstractEventLoop, Callable[[], None]]


@define(eq=False)
class Room:
    """The processes around one disk."""

    holder: MemoryOwnership | None = None
    loop: asyncio.AbstractEventLoop | None = None  # where the holder took it
    record: Owner | None = None  # stays when the holder dies: for people only
    waiting: list[_Call] = field(factory=list)
    listening: list[_Call] = field(factory=list)
    lock: threading.Lock = field(factory=threading.Lock)


class MemoryDisk:
    """All durable data. All values are immutable, so a fork copies containers only: a
    crash explorer makes forks by the hundred thousand."""

    __slots__ = (
        "answers",
        "bodies",
        "created",
        "generation",
        "head",
        "inbox",
        "keys",
        "lock",
        "log",
        "mark",
        "pruned",
        "room",
        "streams",
        "summaries",
    )

    def __init__(self) -> None:
        self.created = False
        self.generation = 0  # the number of workers so far, for their ids
        self.head: Head = BLANK
        self.log: list[Record] = []
        self.streams: dict[str, tuple[Record, ...]] = {}
        self.summaries: dict[str, Summary] = {}
        self.bodies: dict[BodyRef, Body | None] = {}  # None: erased, never used again
        self.keys: dict[str, str] = {}
        self.inbox: dict[str, Command] = {}  # by id, the oldest first
        self.answers: dict[str, Answer] = {}
        self.mark: Watermark | None = None
        self.pruned: dict[tuple[int | str, ...], int] = {}  # counts, by COUNT_BY
        self.lock = threading.Lock()  # held while a write is merged
        self.room = Room()

    def fork(self) -> MemoryDisk:
        """A copy of all durable data, without a living process."""
        new = MemoryDisk()
        new.created = self.created
        new.generation = self.generation
        new.head = self.head
        new.log = self.log.copy()
        new.streams = self.streams.copy()
        new.summaries = self.summaries.copy()
        new.bodies = self.bodies.copy()
        new.keys = self.keys.copy()
        new.inbox = self.inbox.copy()
        new.answers = self.answers.copy()
        new.mark = self.mark
        new.pruned = self.pruned.copy()
        new.room.record = self.room.record
        return new


class MemoryOwnership:
    """One handle's claim to be the worker of a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk, check: Callable[[], object]) -> None:
        self._disk = disk
        self._check = check  # raises NotOpenError unless the store may be written

    async def take(self) -> Owner | None:
        """Become the owner; None while another handle or this one is the owner."""
        self._check()
        room = self._disk.room
        with room.lock:
            if room.holder is not None:
                return None
            self._disk.generation += 1
            number = self._disk.generation
            owner = Owner(
                id=f"m{number}", boot="memory", pid=number, started=0, host="memory"
            )
            room.holder, room.record = self, owner
            room.loop = running_loop()
            return owner

    async def current(self) -> Owner | None:
        return self._disk.room.record

    async def taken(self) -> bool | None:
        return self._disk.room.holder is not None

    @property
    def stopped(self) -> bool:
        return False  # it is this process

    def release(self) -> None:
        """Release the lock, if held, and wake waiting processes."""
        room = self._disk.room
        with room.lock:
            if room.holder is not self:
                return
            room.holder = None
            waiting, room.waiting = room.waiting, []
        _call(waiting)

    @property
    def held(self) -> bool:
        return self._disk.room.holder is self

    @property
    def ended(self) -> bool:
        room = self._disk.room
        loop = None if room.holder is None else room.loop
        return loop is not None and loop.is_closed()

    async def wait(self) -> None:
        room = self._disk.room
        loop = asyncio.get_running_loop()
        free = asyncio.Event()
        call = (loop, free.set)
        with room.lock:
            if room.holder is None:
                return
            room.waiting.append(call)
        try:
            await free.wait()
        finally:
            with room.lock:
                if call in room.waiting:
                    room.waiting.remove(call)


class MemoryDoorbell:
    """Wakes every listener in the same room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def ring(self) -> None:
        with self._room.lock:
            listening = self._room.listening.copy()
        _call(listening)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        call = (asyncio.get_running_loop(), wake)
        with self._room.lock:
            self._room.listening.append(call)

        def stop() -> None:
            with self._room.lock:
                if call in self._room.listening:
                    self._room.listening.remove(call)

        return stop


def _call(calls: list[_Call]) -> None:
    for loop, function in calls:
        if loop.is_closed():
            continue  # its process has ended
        loop.call_soon_threadsafe(function)
