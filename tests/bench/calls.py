"""Calls per message: `python -m tests.bench.calls [--senders N] [--functions N]`.

Counts the Python functions and the C functions that the interpreter calls for one
message, by file. The figure does not depend on the machine or on its load. The command
prints a table; the bench uses the sums where valgrind is missing.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, field
from tests.bench import floor, ours

_MESSAGES = 1000
_ROOT = Path(__file__).parents[2]


@define
class Calls:
    """`python`, `native`: calls by (file, name of the called function)."""

    messages: int = _MESSAGES
    python: Counter[tuple[str, str]] = field(factory=Counter)
    native: Counter[tuple[str, str]] = field(factory=Counter)

    @contextmanager
    def counted(self) -> Iterator[None]:
        sys.setprofile(self._seen)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _seen(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call":
            self.python[code.co_filename, code.co_qualname] += 1
        elif event == "c_call":
            self.native[code.co_filename, getattr(argument, "__qualname__", "?")] += 1

    def per_message(self, counter: Counter[tuple[str, str]]) -> float:
        return counter.total() / self.messages


def turnfold(folder: Path, senders: int) -> Calls:
    async def go() -> Calls:
        async with ours.gateway(ours.sqlite(folder / f"{senders}.db", "NORMAL")) as one:
            return await _counted(ours.lifecycle_of(one), senders)

    return asyncio.run(go())


def of_floor(layout: type[floor.Floor], folder: Path, senders: int) -> Calls:
    async def go() -> Calls:
        subject = layout(folder / f"{layout.__name__}-{senders}.db", "NORMAL")
        calls = await _counted(subject.lifecycle, senders)
        subject.close()
        return calls

    return asyncio.run(go())


async def _counted(lifecycle: ours.Lifecycle, senders: int) -> Calls:
    await ours.exactly(lifecycle, senders, max(200, 2 * senders))  # warm caches
    calls = Calls()
    with calls.counted():
        await ours.exactly(lifecycle, senders, calls.messages)
    return calls


def figures(folder: Path) -> dict[str, float]:
    found = {}
    for senders in (100, 1):
        subjects = {"turnfold": turnfold(folder, senders)}
        subjects |= {
            layout.name: of_floor(layout, folder, senders) for layout in floor.LAYOUTS
        }
        for name, calls in subjects.items():
            found[f"{name}, {senders}, Python"] = calls.per_message(calls.python)
            found[f"{name}, {senders}, C"] = calls.per_message(calls.native)
    return found


def _short(name: str) -> str:
    path = Path(name)
    if path.is_relative_to(_ROOT / ".venv") or not path.is_relative_to(_ROOT):
        return "/".join(path.parts[-2:])
    return str(path.relative_to(_ROOT))


def _table(calls: Calls, functions: int) -> str:
    n = calls.messages
    files: Counter[str] = Counter()
    native: Counter[str] = Counter()
    for (name, _), count in calls.python.items():
        files[name] += count
    for (name, _), count in calls.native.items():
        native[name] += count
    python, c = calls.per_message(calls.python), calls.per_message(calls.native)
    lines = [
        f"{python:.1f} Python calls and {c:.1f} C calls a message",
        "",
        "Python       C  file",
    ]
    order = sorted(files | native, key=lambda name: -(files[name] + native[name]))
    lines += [
        f"{files[name] / n:6.1f}  {native[name] / n:6.1f}  {_short(name)}"
        for name in order
        if files[name] + native[name] >= n / 20
    ]
    for title, counter in (("Python", calls.python), ("C", calls.native)):
        lines += ["", f"{title} functions"]
        lines += [
            f"{count / n:6.2f}  {_short(name)}  {function}"
            for (name, function), count in counter.most_common(functions)
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.calls")
    parser.add_argument("--senders", type=int, default=100)
    parser.add_argument("--functions", type=int, default=40, help="rows of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        print(_table(turnfold(Path(name), args.senders), args.functions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
