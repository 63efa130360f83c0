"""Work spread over processes, with its results in the order they come."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int
) -> Iterator[Result]:
    """`work` must be importable and both sides of it must pickle. With one job it is
    done here, so that a debugger can follow."""
    if jobs <= 1:
        yield from map(work, tasks)
        return
    # Fresh processes: a fork would inherit threads and open stores of ours.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(work, task) for task in tasks]
        for done in as_completed(pending):
            yield done.result()


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
