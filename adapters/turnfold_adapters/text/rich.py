"""Text with markup as a string of visible characters with spans, and its cutting: the
markup that is open at a cut is closed before the cut and opened again after it.

In any notation only the visible characters are cut, and each slice is written out anew.
So no cut can fall into a tag, and each piece is well formed.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from attrs import evolve, field, frozen

from turnfold_adapters.text.clusters import Measure, floor, past_space

Escape = Callable[[str], str]
_GUESSES = 3  # after these, bisect
LEAST_TEXT = 32  # units of a piece that stay for text, with any amount of markup
# The size of a slice in units, from its written form, its visible characters and its
# spans.
Size = Callable[[str, str, Sequence["Span"]], int]


@frozen
class Span:
    """Markup around the characters from `start` to `end`. `keep`: white space inside is
    significant. `raw`: characters inside are written without escapes."""

    start: int
    end: int
    open: str
    close: str
    keep: bool = False
    raw: bool = False


@frozen
class Atom:
    """Characters that are written as `source` and never cut apart: a line break, an
    image with its alternative text."""

    start: int
    end: int
    source: str


def _verbatim(text: str) -> str:
    return text


@frozen
class Rich:
    """`spans` are nested and stand in the order in which they open; `atoms` follow each
    other and are never empty."""

    text: str
    spans: tuple[Span, ...] = ()
    atoms: tuple[Atom, ...] = ()
    escape: Escape = field(default=_verbatim, repr=False)

    def loosened(self, measure: Measure, limit: int) -> "Rich":
        """The rich text without markup that would leave too little of the limit for
        text: markup that is nested too deeply, or has a very long address."""
        room = limit - max(limit // 4, LEAST_TEXT)
        kept: list[Span] = []
        dropped: set[int] = set()  # where they ended
        above: list[Span] = []
        size = 0
        for span in self.spans:
            while above and above[-1].end <= span.start:
                size -= _overhead(above.pop(), measure)
            more = _overhead(span, measure)
            if size + more <= room:
                size += more
                above.append(span)
                kept.append(span)
            else:
                dropped.add(span.end)
        most = max(LEAST_TEXT, limit // 4)
        atoms = [a for a in self.atoms if measure(a.source) <= most]
        # A line end that no closing tag shows any more is written as a character.
        atoms = [a for a in atoms if a.source or a.start not in dropped]
        return evolve(self, spans=tuple(kept), atoms=tuple(atoms))


def _overhead(span: Span, measure: Measure) -> int:
    return measure(span.open) + measure(span.close)


def cut(rich: Rich, limit: int, size: Size) -> Iterator[str]:
    """The pieces, written out, each of at most `limit` units. A visible character has
    at least one unit. Only white space at a cut is lost; of significant white space
    only the line end."""
    cutter = _Cutter(rich, limit, size)
    while cutter.start < len(rich.text):
        yield from cutter.next()


class _Cutter:
    def __init__(self, rich: Rich, limit: int, size: Size) -> None:
        self.rich, self.limit, self.size = rich, limit, size
        self.start = 0
        self._begins = [span.start for span in rich.spans]
        self._atoms = [atom.start for atom in rich.atoms]
        self._carried: list[Span] = []  # open at `start`
        self._first = 0  # the first span that opens at `start` or later
        if not self._kept(0):
            self._go(past_space(rich.text, 0, len(rich.text)))

    def next(self) -> Iterator[str]:
        """The piece that begins at `start`, if it has visible text."""
        text, start = self.rich.text, self.start
        most = self._longest()
        end = len(text) if most == len(text) else self._cut(most)
        keep = self._kept(end)
        stop = end if keep else _trimmed(text, start, end)
        if stop > start and not text[start:stop].isspace():
            yield self._written(stop)
        line_end = 1 if text.startswith("\n", end) else 0
        self._go(past_space(text, end, line_end if keep else len(text)))

    def _go(self, start: int) -> None:
        later = bisect_left(self._begins, start)
        spans = (*self._carried, *self.rich.spans[self._first : later])
        self._carried = [span for span in spans if span.end > start]
        self.start, self._first = start, later

    def _longest(self) -> int:
        """The end of a slice from `start` that fits, and nearly fills the limit. It
        guesses from the size of the last slice, so that few slices are written in
        vain."""
        start, limit = self.start, self.limit
        low, high = start, min(len(self.rich.text), start + limit)
        guess, guesses = high, 0
        while low < high:
            end = self._whole(guess)
            size = self._size(end) if end > start else 0
            if size > limit:
                high = guess - 1
                guess = start + (guess - start) * limit // size
            else:
                low, high = guess, min(high, guess + limit - size)
                if limit - size <= limit // 64 and end > start:
                    break
                guess = high
            guesses += 1
            if guesses > _GUESSES or not low < guess <= high:
                guess = (low + high + 1) // 2
        return max(self._whole(low), start + 1)

    def _size(self, end: int) -> int:
        shown = self.rich.text[self.start : end]
        return self.size(self._written(end), shown, self._spans(end))

    def _whole(self, end: int) -> int:
        """`end`, or the beginning of the atom around it."""
        index = bisect_left(self._atoms, end) - 1
        if index >= 0 and self.rich.atoms[index].end > end:
            return self.rich.atoms[index].start
        return end

    def _cut(self, end: int) -> int:
        """Where to cut a slice that may go up to `end`: at an empty line, a line end or
        a space, rather in its second half; else between two clusters."""
        text, half = self.rich.text, (self.start + end) // 2
        for least in (half, self.start):
            for mark in ("\n\n", "\n", " "):
                found = text.rfind(mark, least + 1, end + 1)
                if found > 0 and self._readable(found):
                    return found - 1 if text[found - 1] == "\r" else found
        return max(self._whole(floor(text, self.start, end)), self.start + 1)

    def _readable(self, end: int) -> bool:
        """May a piece end here, and does it have visible text?"""
        return (
            self._whole(end) == end and not self.rich.text[self.start : end].isspace()
        )

    def _kept(self, end: int) -> bool:
        inside = (span for span in self._spans(end + 1) if span.keep)
        return any(span.start <= end < span.end for span in inside)

    def _spans(self, end: int) -> list[Span]:
        later = bisect_left(self._begins, end)
        return [*self._carried, *self.rich.spans[self._first : later]]

    def _written(self, end: int) -> str:
        return _Writer(self.rich, self._atoms, self.start).write(self._spans(end), end)


class _Writer:
    """Writes one slice: characters escaped, atoms in place, spans closed inside it."""

    def __init__(self, rich: Rich, atoms: list[int], start: int) -> None:
        self.rich, self.atoms, self.at = rich, atoms, start
        self.out: list[str] = []
        self.open: list[Span] = []

    def write(self, spans: Sequence[Span], end: int) -> str:
        for span in spans:
            self._close(max(span.start, self.at), end)
            self._characters(max(span.start, self.at))
            self.out.append(span.open)
            self.open.append(span)
        self._close(end, end)
        self._characters(end)
        return "".join(self.out)

    def _close(self, until: int, end: int) -> None:
        """Close the spans that end at `until`; at the end of the slice all of them."""
        while self.open and (self.open[-1].end <= until or until == end):
            self._characters(min(self.open[-1].end, end))
            self.out.append(self.open.pop().close)

    def _characters(self, end: int) -> None:
        first = bisect_left(self.atoms, self.at)
        for atom in self.rich.atoms[first : bisect_right(self.atoms, end - 1)]:
            self._plain(atom.start)
            self.out.append(atom.source)
            self.at = atom.end
        self._plain(end)

    def _plain(self, end: int) -> None:
        if end > self.at:
            run = self.rich.text[self.at : end]
            raw = any(span.raw for span in self.open)
            self.out.append(run if raw else self.rich.escape(run))
            self.at = end


def _trimmed(text: str, start: int, end: int) -> int:
    return start + len(text[start:end].rstrip())
