"""Sizes in the units of platforms, and the boundaries of grapheme clusters. A reader
sees a cluster as one character: a letter with its accents, a flag, a family of
emoji."""

from collections.abc import Callable
from types import MappingProxyType

import regex  # type: ignore[import-untyped]  # ships no types

Measure = Callable[[str], int]

# Each of them is additive: the size of two texts together is the sum of their sizes.
MEASURES = MappingProxyType[str, Measure](
    {
        "chars": len,
        "utf16": lambda s: len(s.encode("utf-16-le")) // 2,
        "bytes": lambda s: len(s.encode()),
    }
)

_CLUSTER = regex.compile(r"\X")


def floor(text: str, start: int, end: int) -> int:
    """The last boundary of clusters in `text` after `start` and at most at `end`;
    `end` where one cluster is longer than that. `start` is a boundary.

    >>> floor("ab\u0301c", 0, 2)
    1
    """
    if end >= len(text):
        return len(text)
    found = anchor = _anchor(text, start, end)
    # A boundary depends on the text before it and on one character after it.
    for match in _CLUSTER.finditer(text, anchor, end + 1):
        if match.end() > end:
            break
        found = match.end()
    return found if found > start else end


def _anchor(text: str, start: int, end: int) -> int:
    """A boundary near `end`, found without reading the whole text: there is one between
    any two ASCII characters, unless they are a carriage return and a line feed."""
    for index in range(end, start, -1):
        pair = text[index - 1 : index + 1]
        if pair.isascii() and pair != "\r\n":
            return index
    return start


def past_space(text: str, start: int, most: int) -> int:
    """The first boundary from `start` that does not stand before white space. A space
    with an accent is no white space. Skips at most `most` clusters."""
    index = start
    while most and index < len(text) and text[index].isspace():
        match = _CLUSTER.match(text, index, min(len(text), index + 8))
        if not match.group().isspace():
            break
        index, most = match.end(), most - 1
    return index


# Characters that a reader can see. Every font shows the braille blank as a gap.
_SEEN = regex.compile(
    r"[^\p{White_Space}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]"
)


def is_blank(text: str) -> bool:
    r"""Does a text have no visible character?

    >>> is_blank("\u200b\u2060 \u2800"), is_blank(".")
    (True, False)
    """
    return _SEEN.search(text) is None
