"""Figures of the tree: `python -m tests.bench.tree [--json FILE] [-v]`.

How many files and lines there are, how many files and calls one message passes, where
source text is executed, which imports point up or in a circle, and how docstrings and
comments read. `-v` also lists the files of a message in order, with their calls.
"""

import argparse
import ast
import asyncio
import io
import json
import re
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, field
from tests.bench import imports

import turnfold
from turnfold import Accepted, Inbound, Kernel, Receipt

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "kernel": ROOT / "kernel" / "turnfold",
    "adapters": ROOT / "adapters",
    "model": ROOT / "model",
}
_VAGUE = {
    "what/who/whose": {"what", "who", "whose", "whoever", "whatever"},
    "it/its/that": {"it", "its", "that"},
}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def sizes(folder: Path) -> dict[str, int]:
    lengths = [len(path.read_text().splitlines()) for path in sources(folder)]
    return {"files": len(lengths), "lines": sum(lengths), "longest": max(lengths)}


def executed_text(folder: Path) -> list[str]:
    """Each call of `exec`, `eval` or `compile`, as file:line."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"exec", "eval", "compile"}
    ]


def prose(folder: Path) -> dict[str, float]:
    """Words of docstrings and comments, and vague pronouns per 1,000 of them."""
    text = "\n".join(line for path in sources(folder) for line in _prose_of(path))
    words = [word.lower() for word in re.findall(r"[A-Za-z'`_]+", text)]
    found: dict[str, float] = {"words": len(words)}
    for name, group in _VAGUE.items():
        found[name] = round(1000 * sum(w in group for w in words) / len(words), 1)
    return found


def _prose_of(path: Path) -> Iterator[str]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not re.search("noqa|type:", token.string):
            yield token.string.lstrip("#: ")


@define
class Passage:
    """The way of one message: `calls` by file, in order of the first call. Files of the
    interpreter do not count, those of installed libraries do."""

    calls: Counter[str] = field(factory=Counter)
    changes: int = 0  # of file, from one call to the next
    _last: str = ""

    def see(self, frame: FrameType, event: str, _argument: Any) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(_OURS) or name.startswith(_TESTS):
            return
        self.calls[name] += 1
        if name != self._last:
            self.changes, self._last = self.changes + 1, name


_OURS = str(Path(turnfold.__file__).parents[2])
_TESTS = str(ROOT / "tests")


class _Console:
    async def send(self, part: object, key: str, attempt: object) -> Accepted:
        return Accepted(receipt=Receipt(ids=(key,)))


async def _messages(path: Path, count: int) -> list[Passage]:
    """Each message: accept, handler, reply, receipt."""
    kernel = Kernel(path)
    kernel.attach("console", _Console(), on_unknown="hold")

    @kernel.on_turn
    async def answer(turn: Any) -> None:
        await turn.reply("hi " + turn.inbound.text)

    found = []
    async with kernel:
        for number in range(count):
            found.append(Passage())
            inbound = Inbound(
                "console",
                conversation="42",
                message_id=str(number),
                body={"text": "x"},
            )
            sys.setprofile(found[-1].see)
            await (await kernel.accept(inbound)).settled()
            sys.setprofile(None)
    return found


def passage() -> Passage:
    """The shortest way of some messages: the first load modules, and any may meet the
    worker's own timers."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_messages(Path(folder) / "gateway.db", 60))
    return min(found, key=lambda way: (len(way.calls), way.calls.total()))


def figures(way: Passage) -> dict[str, Any]:
    graph = imports.read(FOLDERS["kernel"])
    return {
        "sizes": {name: sizes(folder) for name, folder in FOLDERS.items()},
        "one message": {
            "files": len(way.calls),
            "calls": way.calls.total(),
            "changes of file": way.changes,
        },
        "executed text": {name: executed_text(f) for name, f in FOLDERS.items()},
        "imports": {
            "groups": len(graph.groups()),
            "arrows": len(graph.arrows()),
            "up": graph.upward(),
            "circles of groups": graph.circles(),
            "circles of files": graph.circles_of_files(),
        },
        "prose": {name: prose(folder) for name, folder in FOLDERS.items()},
    }


def _print(found: dict[str, Any]) -> None:
    for title, rows in found.items():
        print(f"\n{title}")
        for name, value in rows.items():
            if isinstance(value, dict):
                shown = ", ".join(f"{key} {figure:,}" for key, figure in value.items())
            elif isinstance(value, list):
                shown = "\n".join([str(len(value)), *(f"    {item}" for item in value)])
            else:
                shown = f"{value:,}"
            print(f"  {name:<18} {shown}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tree")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("-v", action="store_true", help="list the files of a message")
    args = parser.parse_args()
    way = passage()
    found = figures(way)
    _print(found)
    if args.v:
        print("\nfiles of one message, in order")
        for name, count in way.calls.items():
            print(f"{count:6}  {Path(name).relative_to(_OURS)}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
