"""The inline part of Markdown (emphasis, code, links) as rich text, and the characters
that need a backslash when it is written out again."""

import re
from collections.abc import Sequence

from markdown_it.token import Token

from turnfold_adapters.text.rich import Atom, Rich, Span

_SPECIAL = re.compile(r"[\\`*\[\]]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|~(?=~)|(?<=~)~|_")
# Characters that begin a heading, a list, a quote or a table at the start of a line.
_AT_LINE_START = re.compile(r"^([ \t]*)(?:([#>+=|:-])|(\d{1,9})([.)]))", re.MULTILINE)


def rich_of_inline(tokens: Sequence[Token], *, one_line: bool = False) -> Rich:
    """`one_line`: line ends become spaces, as in a heading."""
    reader = _Reader("\n" if not one_line else " ")
    for token in tokens:
        reader.read(token)
    return reader.rich()


class _Reader:
    def __init__(self, line_end: str) -> None:
        self.line_end = line_end
        self.words: list[str] = []
        self.at = 0
        self.open: list[tuple[Token, int, int]] = []  # token, start, order
        self.spans: dict[int, Span] = {}  # by the order in which they opened
        self.order = 0
        self.atoms: list[Atom] = []

    def rich(self) -> Rich:
        spans = tuple(self.spans[order] for order in sorted(self.spans))
        return Rich("".join(self.words), spans, tuple(self.atoms), escape)

    def read(self, token: Token) -> None:
        if token.nesting == 1:
            self.open.append((token, self.at, self.order))
            self.order += 1
        elif token.nesting == -1:
            self._close(token)
        elif token.type == "code_inline":
            self._code(token.content)
        elif token.type == "image":
            self._image(token)
        elif token.type in ("softbreak", "hardbreak"):
            self._break(hard=token.type == "hardbreak")
        else:
            self._add(token.content)

    def _add(self, text: str) -> None:
        self.words.append(text)
        self.at += len(text)

    def _close(self, token: Token) -> None:
        opened, start, order = self.open.pop()
        if self.at == start:
            return
        before, after = opened.markup, token.markup
        if opened.type == "link_open":
            before, after = "[", f"]({destination(opened, 'href')})"
        self.spans[order] = Span(start, self.at, before, after)

    def _code(self, text: str) -> None:
        ticks = "`" * (longest_run(text, "`") + 1)
        pad = " " if "`" in text else ""
        start = self.at
        self._add(text)
        if text:
            span = Span(start, self.at, ticks + pad, pad + ticks, raw=True)
            self.spans[self.order] = span
            self.order += 1

    def _image(self, token: Token) -> None:
        start = self.at
        alternative = visible_inline(token.children or ())
        self._add(alternative or "image")
        source = f"![{escape(alternative)}]({destination(token, 'src')})"
        self.atoms.append(Atom(start, self.at, source))

    def _break(self, *, hard: bool) -> None:
        self._add(self.line_end)
        if hard and self.line_end == "\n":
            self.atoms.append(Atom(self.at - 1, self.at, "\\\n"))


def visible_inline(tokens: Sequence[Token]) -> str:
    words = []
    for token in tokens:
        if token.type == "image":
            words.append(visible_inline(token.children or ()) or "image")
        elif token.type in ("softbreak", "hardbreak"):
            words.append("\n")
        else:
            words.append(token.content)
    return "".join(words)


def destination(token: Token, attribute: str) -> str:
    """Address and title in the form of a link."""
    address = str(token.attrGet(attribute) or "")
    title = str(token.attrGet("title") or "")
    quoted = title.replace("\\", "\\\\").replace('"', '\\"')
    return f"<{address}>" + (f' "{quoted}"' if title else "")


def longest_run(text: str, mark: str) -> int:
    """The longest run of `mark` in a text.

    >>> longest_run("a``b`", "`")
    2
    """
    return max((len(run) for run in re.findall(f"{re.escape(mark)}+", text)), default=0)


def escape(text: str) -> str:
    r"""A text with escapes, so that Markdown reads it as plain text.

    >>> escape("1. 2*3 snake_case")
    '1\\. 2\\*3 snake_case'
    """
    return _AT_LINE_START.sub(_line_start, _SPECIAL.sub(_backslash, text))


def _backslash(match: re.Match[str]) -> str:
    text, at = match.string, match.start()
    around = text[at - 1 : at] + text[at + 1 : at + 2]
    if match.group() == "_" and len(around) == 2 and around.isalnum():
        return "_"  # inside a word it means nothing
    return "\\" + match.group()


def _line_start(match: re.Match[str]) -> str:
    space, mark, number, dot = match.groups()
    return f"{space}\\{mark}" if mark else f"{space}{number}\\{dot}"
