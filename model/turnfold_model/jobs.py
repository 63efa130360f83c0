"""Work spread over processes, with its results in the order they come."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    jobs: int,
    *,
    fresh: bool = False,
) -> Iterator[Result]:
    """`work` must be importable and both sides of it must pickle. With one job it is
    done here, so that a debugger can follow. `fresh`: each task in a process of its
    own, for work that may leave something behind."""
    if jobs <= 1:
        yield from map(work, tasks)
        return
    # Never a fork of this process: it would inherit threads and open stores of ours.
    context = get_context("forkserver" if fresh else "spawn")
    if fresh:
        context.set_forkserver_preload([work.__module__])
    most = 1 if fresh else None
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=most) as pool:
        pending = [pool.submit(work, task) for task in tasks]
        for done in as_completed(pending):
            yield done.result()


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
