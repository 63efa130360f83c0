"""The progress of a demo on a terminal; without a terminal no output."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from turnfold_cli.demo_plan import Plan
from turnfold_cli.demo_run import Progress

_REFRESH_S = 0.1


@contextmanager
def watching(progress: Progress, plan: Plan) -> Iterator[None]:
    """Show the progress on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TextColumn("{task.fields[note]}"), console=console) as bars:
        posted = bars.add_task("accepted", total=len(plan.messages), note="")
        killed = bars.add_task("killed", total=len(plan.kills), note="")
        done = threading.Event()

        def follow() -> None:
            while not done.wait(_REFRESH_S):
                _draw(bars, progress, posted, killed)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            _draw(bars, progress, posted, killed)


def _draw(bars: Bars, progress: Progress, posted: TaskID, killed: TaskID) -> None:
    again = f"{progress.redelivered} delivered again" if progress.redelivered else ""
    bars.update(posted, completed=progress.posted, note=again)
    bars.update(killed, completed=progress.kills, note=progress.stage)
