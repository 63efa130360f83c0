"""Shared by the commands: the error for a missing tool, and work in processes of
its own, with its results in the order they come."""

import gc
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import (
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar, cast

Task = TypeVar("Task")
Result = TypeVar("Result")


_MEMORY = Path("/dev/shm")  # noqa: S108  only as a folder to make a private one in
# Where a model puts files that no power loss threatens. A dead process cannot make a disk
# forget, so a disk for deaths may be memory: it is quicker, and does not wait for other
# users of the real one. None: the usual place.
ROOM = _MEMORY if os.access(_MEMORY, os.W_OK) else None


class UnavailableError(RuntimeError):
    """A command cannot run on this machine: the text names the missing tool (exit 2)."""


def check_word(word: str, names: Collection[str], what: str) -> None:
    """Raises UnavailableError for a word of `--only` that fits no name: a search of
    nothing would say that all is well."""
    if not any(word in name for name in names):
        there = ", ".join(sorted(names))
        raise UnavailableError(f"no {what} has the word {word!r}; there are: {there}")


def fair_share(share: float, until: float | None, lines: float) -> float:
    """The seconds that one of several searches may take: a small one leaves its time to
    the others. `share`: at most. `until`: wall time for all, and `lines`: how many still
    have to share it, for each process."""
    left = share if until is None else (until - time.time()) / max(1.0, lines)
    return max(0.05, min(share, left))


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage inside. A search of states keeps millions of tuples and drops no
    cycles: to look through them all again and again takes up to a fifth of its time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def spread(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int
) -> Iterator[Result]:
    """Run tasks in processes. `work` must be importable, and its arguments and results
    must pickle. With one job it runs in this process, for a debugger."""
    if jobs <= 1:
        yield from map(work, tasks)
        return
    # Fresh processes: a fork would inherit threads and open stores of this one.
    yield from _all(ProcessPoolExecutor(jobs, get_context("spawn")), work, tasks)


def isolate(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int, ready: str
) -> Iterator[Result]:
    """The same with a process for each task, for work that leaves something behind.
    `ready`: a module that all of them get imported. A process that dies is a
    ChildDiedError."""
    context = get_context("forkserver")
    context.set_forkserver_preload([ready])
    # Not a pool that renews its processes, which can hang in Python 3.11.
    yield from _all(ThreadPoolExecutor(jobs), partial(_apart, work), tasks)


class ChildDiedError(RuntimeError):
    """A process ended without a result."""


def _all(
    pool: Executor, work: Callable[[Task], Result], tasks: Iterable[Task]
) -> Iterator[Result]:
    with pool:
        pending = [pool.submit(work, task) for task in tasks]
        for done in as_completed(pending):
            yield done.result()


def _apart(work: Callable[[Task], Result], task: Task) -> Result:
    ours, theirs = get_context("forkserver").Pipe(duplex=False)
    child = get_context("forkserver").Process(target=_child, args=(theirs, work, task))
    child.start()
    theirs.close()
    try:
        well, result = ours.recv()
    except EOFError:
        child.join()
        raise ChildDiedError(f"{task} ended with {child.exitcode}") from None
    child.join()
    if not well:
        raise result
    return cast("Result", result)


def _child(there: Connection, work: Callable[[Task], Result], task: Task) -> None:
    try:
        there.send((True, work(task)))
    except Exception as exc:  # noqa: BLE001  raised again in the parent
        there.send((False, exc))


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
