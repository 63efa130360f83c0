"""One worker per store: a POSIX record lock on `<db>.worker`.

The lock ends with its process in every case, and a forked child does not have it. Two
problems are solved here. First, any close of the file drops the process's lock, and a
second take would silently succeed: so a registry is asked before the file is opened.
Second, an unlinked file defeats any lock: so the locked file is compared with the file
that now has the name, and with the file that the last owner locked.

The record in the database only names the owner; the lock alone decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import frozen

from turnfold.errors import DiskError
from turnfold.ports.store import Owner
from turnfold_adapters.stores.processes import (
    is_alive,
    is_stopped,
    running_loop,
    start_time,
    this_process,
)

if sys.platform != "win32":  # there opening the store reports it
    import fcntl

POLL_S = 0.25
_PAUSE_S = 0.02  # the owner is dead but its successor has not left a record yet
_TRIES = 8  # for a lock file that is unlinked repeatedly

_FLOCK = "hhqqi0q"  # struct flock: kind, whence, start, length, process

_Key = tuple[int, int, int]  # device, inode, process


@frozen(kw_only=True)
class Claim:
    """The record of an owner in the database, with the files of that time."""

    owner: Owner
    store: str  # device:inode of the database, since a copy also copies the record
    lock: str  # device:inode of the lock file


class Book(Protocol):
    """The store of claims."""

    def claim(self) -> Claim | None: ...

    def record_claim(self, claim: Claim) -> None: ...

    def intact(self) -> bool:
        """False if the files of the store are not the opened ones any more."""

    def check_writable(self) -> None:
        """Raises NotOpenError or ReadOnlyError."""

    async def in_turn(self, work: Callable[[], Owner | None]) -> Owner | None:
        """Run work that may wait for the disk, after all earlier writes."""

    def after_writing(self, work: Callable[[], None]) -> None:
        """Run work at once, or right after a write under way."""


class _Registry:
    """The lock files that this process has open; a file is never opened twice."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[_Key, int] = {}
        self.loops: dict[_Key, asyncio.AbstractEventLoop | None] = {}  # of the owners
        self.stranded: list[int] = []  # closing these would drop a lock
        self.released: set[str] = set()


_registry = _Registry()


class FileOwnership:
    """The ownership of one store by one handle."""

    def __init__(self, path: str, book: Book) -> None:
        self._path = path
        self._file = f"{path}.worker"
        self._book = book
        self._held: tuple[_Key, Owner] | None = None

    async def take(self) -> Owner | None:
        """Become the owner; None while another process or handle is.

        Raises DiskError if the lock file cannot be opened, BusyError or another
        StoreError if the record cannot be written; then nothing is held.
        """
        self._book.check_writable()
        take = partial(self._take, self._book.claim(), running_loop())
        return await self._book.in_turn(take)

    def _take(
        self, last: Claim | None, loop: asyncio.AbstractEventLoop | None
    ) -> Owner | None:
        with _registry.lock:
            key = self._lock()
            if key is None:
                return None
            try:
                owner = self._claim(last, key)
            except BaseException:
                _unlock(key)
                raise
            if owner is None:
                _unlock(key)
                return None
            self._held = (key, owner)
            _registry.loops[key] = loop
            return owner

    def _claim(self, last: Claim | None, key: _Key) -> Owner | None:
        store, lock = file_id(self._path), f"{key[0]}:{key[1]}"
        if last is not None and last.store == store and last.lock != lock:
            # The lock file was replaced: the last owner may still hold the old one.
            gone = last.owner.id in _registry.released or not is_alive(last.owner)
            if not gone:
                return None
        owner = this_process()
        self._book.record_claim(Claim(owner=owner, store=store, lock=lock))
        return owner

    async def current(self) -> Owner | None:
        claim = self._book.claim()
        return None if claim is None else claim.owner

    async def taken(self) -> bool | None:
        owner = await self.current()
        if owner is None:
            return False
        if owner.host != platform.node():
            return None
        locked = await asyncio.to_thread(_is_locked, self._file)
        return is_alive(owner) if locked is None else locked

    def release(self) -> None:
        """Release the lock, if held, after a commit that is under way. A forked child
        has no lock to release."""
        held, self._held = self._held, None
        if held is not None and held[0][2] == os.getpid():
            self._book.after_writing(partial(_let_go, *held))

    @property
    def held(self) -> bool:
        """True while this process has the lock, the locked file still has the name, and
        the database is the one that the lock was taken for."""
        if self._held is None or self._held[0][2] != os.getpid():
            return False
        try:
            return _key_of(self._file) == self._held[0] and self._book.intact()
        except DiskError:  # its folder is not reachable: the lock cannot be checked
            return False

    @property
    def stopped(self) -> bool:
        claim = self._book.claim()
        return claim is not None and is_stopped(claim.owner)

    @property
    def ended(self) -> bool:
        """The lock would be free only at the end of this process. It is not taken over:
        a call of the ended kernel may still be under way in a thread."""
        try:
            key = _key_of(self._file)
        except DiskError:  # its folder is not reachable
            return False
        loop = None if key is None else _registry.loops.get(key)
        return loop is not None and loop.is_closed()

    async def wait(self) -> None:
        """Return when the owner died, or after `POLL_S` in any case."""
        owner = await self.current()
        watch = None if owner is None else _watch(owner)
        if watch is None:
            await asyncio.sleep(POLL_S)
        elif watch < 0:
            await asyncio.sleep(_PAUSE_S)
        else:
            await _readable(watch)

    def _lock(self) -> _Key | None:
        for _ in range(_TRIES):
            if _key_of(self._file) in _registry.open:
                return None
            descriptor = self._open()
            key = _key(os.fstat(descriptor))
            if key in _registry.open:  # renamed in between; see `stranded`
                _registry.stranded.append(descriptor)
                return None
            if not _try_lock(descriptor, self._file):
                os.close(descriptor)
                return None
            if _key_of(self._file) == key:
                _registry.open[key] = descriptor
                return key
            os.close(descriptor)  # the locked file has lost its name
        return None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._file, flags, 0o600)
        except OSError as exc:
            raise DiskError(path=self._file, problem=str(exc)) from exc
        with contextlib.suppress(PermissionError):  # the file of another user
            os.fchmod(descriptor, 0o600)  # a process with read access may lock it
        return descriptor


def _let_go(key: _Key, owner: Owner) -> None:
    with _registry.lock:
        _registry.released.add(owner.id)
        _unlock(key)


def _try_lock(descriptor: int, path: str) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EAGAIN):
            return False
        os.close(descriptor)
        raise DiskError(path=path, problem=str(exc)) from exc
    return True


def _is_locked(path: str) -> bool | None:
    """Does a process hold the lock? None where the system does not say. The call takes
    no lock. If this process has the file open, it is not opened again: closing it would
    drop the lock."""
    with _registry.lock:
        key = _key_of(path)
        if key is None or key in _registry.open:
            return key is not None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # the file of another user
            return None
        if _key(os.fstat(descriptor)) in _registry.open:  # renamed in between
            _registry.stranded.append(descriptor)
            return True
        try:
            return _would_wait(descriptor)
        finally:
            os.close(descriptor)


def _would_wait(descriptor: int) -> bool | None:
    """F_GETLK: would a lock of the whole file have to wait for another one?"""
    if sys.platform != "linux":  # the answer has Linux's layout
        return None
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        told = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    except OSError:
        return None
    kind: int = struct.unpack(_FLOCK, told)[0]
    return kind != fcntl.F_UNLCK


def _unlock(key: _Key) -> None:
    _registry.loops.pop(key, None)
    os.close(_registry.open.pop(key))  # drops the lock, too


def file_id(path: str) -> str:
    """Device and inode of a file, empty if it is gone."""
    key = _key_of(path)
    return "" if key is None else f"{key[0]}:{key[1]}"


def _key_of(path: str) -> _Key | None:
    """Raises DiskError for a name that leads nowhere, such as a link to itself."""
    try:
        return _key(Path(path).stat())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise DiskError(path=path, problem=str(exc)) from exc


def _key(status: os.stat_result) -> _Key:
    return status.st_dev, status.st_ino, os.getpid()


def _watch(owner: Owner) -> int | None:
    """A descriptor that becomes readable when the owner dies; negative if the owner is
    dead; None where the system has none."""
    if not is_alive(owner):
        return -1
    if not hasattr(os, "pidfd_open"):  # macOS: the poll alone
        return None
    try:
        descriptor = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return -1
    except OSError:  # forbidden or unknown to this kernel: the poll alone
        return None
    if start_time(owner.pid) != owner.started:  # the id was reused meanwhile
        os.close(descriptor)
        return -1
    return descriptor


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(POLL_S):
            await ended.wait()
    except TimeoutError:
        return  # the poll remains
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
