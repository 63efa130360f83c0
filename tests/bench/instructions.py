"""Instructions per message, counted by valgrind: `python -m tests.bench.instructions`.

The count of a process that sends 1,000 messages less that of one that sends 200, divided
by 800. Start-up, imports and warm caches cancel out, and the load of the machine has
next to no influence, so this figure is the gate. Commits do not sync here: waiting
for a disk is not work of the processor.

The parent imports everything and forks a child for each load. Valgrind follows a fork
and prints the count of each process, so start-up runs once.
"""

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from tests.bench import floor, ours

from turnfold._runtime import worker
from turnfold_adapters.stores.sqlite import writing

FEW, MANY = 200, 1000
SENDERS = (100, 1)
TURN = "turnfold, a turn"  # accepted, answered by a handler, delivered
SUBJECTS = ("turnfold", TURN, *(layout.name for layout in floor.LAYOUTS))
_TOOL = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_COUNT = re.compile(rb"==(\d+)== I +refs: +([\d,]+)")
_LIMIT_S = 1200


class UncountedError(Exception):
    """There is no valgrind, or its count could not be read."""


def count() -> dict[str, float]:
    """Thousands of instructions per message, by subject and number of senders."""
    if shutil.which("valgrind") is None:
        raise UncountedError("valgrind is not on the PATH")
    command = ("valgrind", *_TOOL, sys.executable, "-m", __name__)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            timeout=_LIMIT_S,
            # the order of sets changes from process to process without it
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
    except subprocess.TimeoutExpired as exc:
        raise UncountedError(f"valgrind took more than {_LIMIT_S} s") from exc
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip()[-600:]
        raise UncountedError(f"the counted process failed: {tail}")
    return _per_message(done.stdout.decode(), done.stderr)


def _per_message(loads: str, summaries: bytes) -> dict[str, float]:
    """`loads` has a line per child: its pid and its load."""
    by_pid = {
        int(pid): int(count.replace(b",", b""))
        for pid, count in _COUNT.findall(summaries)
    }
    counts = {}
    for line in loads.splitlines():
        pid, _, load = line.partition(" ")
        counts[load] = by_pid[int(pid)]
    found = {}
    for subject in SUBJECTS:
        for senders in SENDERS:
            name = f"{subject}, {senders}"
            more = counts[f"{name}, {MANY}"] - counts[f"{name}, {FEW}"]
            found[name] = more / (MANY - FEW) / 1000
    return found


async def _kernel(subject: str, path: Path, senders: int, messages: int) -> None:
    # The count must not rest on the speed of the machine: neither may commits go to the
    # thread, nor may the worker look at its lock and inbox by the clock. `patch.object`
    # raises for a name that is not there any more.
    with (
        patch.object(writing, "SLOW_MS", float("inf")),
        patch.object(worker, "POLL_S", 3_600.0),
    ):
        store = ours.sqlite(path, "NORMAL")
        if subject == TURN:
            async with ours.turns(store) as lifecycle:
                await ours.exactly(lifecycle, senders, messages)
            return
        async with ours.gateway(store) as kernel:
            await ours.exactly(ours.lifecycle_of(kernel), senders, messages)


async def _floor(
    layout: type[floor.Floor], path: Path, senders: int, messages: int
) -> None:
    subject = layout(path, "NORMAL")
    await ours.exactly(subject.lifecycle, senders, messages)
    subject.close()


def _load(subject: str, path: Path, senders: int, messages: int) -> None:
    if subject in ("turnfold", TURN):
        asyncio.run(_kernel(subject, path, senders, messages))
        return
    (layout,) = (kind for kind in floor.LAYOUTS if kind.name == subject)
    asyncio.run(_floor(layout, path, senders, messages))


def _forks(folder: Path) -> Iterator[tuple[int, str]]:
    """One child after the other; its pid and its load."""
    number = 0
    for subject in SUBJECTS:
        for senders in SENDERS:
            for messages in (FEW, MANY):
                number += 1
                pid = os.fork()
                if not pid:
                    _child(subject, folder / f"{number}.db", senders, messages)
                yield pid, f"{subject}, {senders}, {messages}"


def _child(subject: str, path: Path, senders: int, messages: int) -> None:
    """Never returns: the parent's clean-up is not the child's."""
    code = 1
    try:
        _load(subject, path, senders, messages)
        code = 0
    except Exception:  # noqa: BLE001  printed here, and the parent sees the code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> int:
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        for pid, load in _forks(Path(name)):
            if os.waitpid(pid, 0)[1]:
                print(f"failed: {load}", file=sys.stderr)
                return 1
            print(pid, load, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
