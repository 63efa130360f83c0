"""The identity of a process, so that a reused process id is not taken for it.

A process is identified by its id, its start time and its boot. Where the system hides
the start time (no /proc), it is 0, and the process counts as alive.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
from collections.abc import Sequence
from pathlib import Path

from turnfold.ports.store import Owner

_PROC = Path("/proc")
_STATE, _THREADS, _START = 0, 17, 19  # fields after the name, see proc_pid_stat(5)
UNKNOWN = 0  # a start time that the system hides


def this_process() -> Owner:
    """This process under a new id."""
    pid = os.getpid()
    return Owner(
        id=secrets.token_hex(4),
        boot=boot_id(),
        pid=pid,
        started=start_time(pid) or UNKNOWN,
        host=platform.node(),
    )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, for a claim that lives as long as it."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def boot_id() -> str:
    """The system's name for its current boot, empty where it has none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def start_time(pid: int) -> int | None:
    """Clock ticks since boot, `UNKNOWN` if hidden, None if there is no such process. A
    process that has ended and whose parent has not asked for its end is none."""
    fields = _status(pid)
    if fields is None:
        return UNKNOWN if _exists(pid) else None
    return None if _is_over(fields) else int(fields[_START])


def _status(pid: int) -> list[str] | None:
    """The fields of /proc after the name, None if there are none or they are hidden."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name in parentheses may hold any text, so count from its end.
    return text.rpartition(")")[2].split()


def _is_over(fields: Sequence[str]) -> bool:
    """A first thread may end before the others: then the process lives on."""
    return fields[_STATE] in "ZX" and int(fields[_THREADS]) <= 1


def is_stopped(owner: Owner) -> bool:
    """Does the process live on this host, and stand still until somebody wakes it?"""
    fields = _status(owner.pid) if is_alive(owner) else None
    return fields is not None and fields[_STATE] in "Tt"


def is_alive(owner: Owner) -> bool:
    """True if this process lives on this host, or if the system hides that. False for a
    process of another host or of an earlier boot."""
    if owner.host != platform.node() or owner.boot != boot_id():
        return False
    started = start_time(owner.pid)
    if started is None:
        return False
    return UNKNOWN in (started, owner.started) or started == owner.started


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process is a process, too
        return True
    return True
