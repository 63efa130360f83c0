"""Lines on a screen: coloured on a terminal, broken between words at its width.

rich's tables and bars are for `audit` and `demo`. Its console is not used here: to load
it costs a sixth of a short command.
"""

import os
import sys
from collections.abc import Iterator
from typing import TextIO

from attrs import define, frozen
from rich.cells import cell_len, chop_cells

_PIPED_WIDTH = 200  # columns without a terminal
_WIDTH = 80  # columns of a terminal that does not tell
_NARROWEST = 20  # columns for further lines, whatever their indent takes
_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
}


@frozen
class Line:
    """Pieces of text, each with its style: names of `_CODES`, or nothing."""

    pieces: tuple[tuple[str, str], ...] = ()

    def and_(self, text: str, style: str = "") -> "Line":
        return Line((*self.pieces, (text, style)))

    @property
    def plain(self) -> str:
        return "".join(text for text, _ in self.pieces)

    def part(self, start: int, end: int) -> "Line":
        """The characters from `start` to `end` with their styles."""
        found, at = [], 0
        for text, style in self.pieces:
            inside = text[max(0, start - at) : max(0, end - at)]
            if inside:
                found.append((inside, style))
            at += len(text)
        return Line(tuple(found))


@define
class Screen:
    """A stream for people."""

    stream: TextIO
    width: int
    colours: bool

    def print(
        self,
        line: Line | str = "",
        *,
        style: str = "",
        soft_wrap: bool = False,
        indent: int = 0,
        end: str = "\n",
    ) -> None:
        """Print a line. One that is too wide is broken between words if possible, and
        further lines are indented; with `soft_wrap` the terminal breaks it."""
        whole = Line(((line, style),)) if isinstance(line, str) else line
        plain = whole.plain
        breaks = [(0, len(plain))] if soft_wrap else _broken(plain, self.width, indent)
        for number, (start, stop) in enumerate(breaks):
            gap = " " * indent if number else ""
            self._write(gap + self._painted(whole.part(start, stop)) + end)
        if end != "\n":
            self.stream.flush()

    def _painted(self, line: Line) -> str:
        return "".join(self._paint(text, style) for text, style in line.pieces)

    def _paint(self, text: str, style: str) -> str:
        if not (self.colours and style):
            return text
        codes = ";".join(_CODES[word] for word in style.split())
        return f"\x1b[{codes}m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        """A stream with few characters gets the others escaped."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def screen_at(stream: TextIO) -> Screen:
    """NO_COLOR, TERM=dumb and COLUMNS have their usual meaning."""
    terminal = stream.isatty()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    return Screen(stream, _width(stream, terminal), terminal and not plain)


def console(*, stderr: bool = False) -> Screen:
    return screen_at(sys.stderr if stderr else sys.stdout)


def _width(stream: TextIO, terminal: bool) -> int:
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and len(said) < 6 and int(said):
        return int(said)
    if not terminal:
        return _PIPED_WIDTH
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except OSError:
        return _WIDTH


def _broken(text: str, width: int, indent: int) -> Iterator[tuple[int, int]]:
    """Where each line starts and ends, without the blanks between two lines."""
    start, room = 0, width
    while cell_len(text[start:]) > room:
        fits = max(1, len(chop_cells(text[start:], max(2, room))[0]))
        blank = text.rfind(" ", start, start + fits + 1)
        between = blank > start and not text[start:blank].isspace()
        stop = blank if between else start + fits
        yield start, start + len(text[start:stop].rstrip())
        start = stop + len(text[stop:]) - len(text[stop:].lstrip())
        room = max(_NARROWEST, width - indent)
    yield start, len(text)
