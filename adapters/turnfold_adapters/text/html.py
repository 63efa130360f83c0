"""HTML as rich text. Unclosed tags are closed, and closing tags without an opening one
are dropped. Comments, scripts and styles are dropped."""

from html import escape
from html.parser import HTMLParser

from turnfold_adapters.text.rich import Atom, Rich, Span

_VOID = frozenset({"br", "hr", "wbr", "input", "col", "source", "track", "embed"})
_HIDDEN = frozenset({"script", "style"})
LINES = frozenset(
    {"p", "div", "li", "tr", "ul", "ol", "table", "blockquote", "pre", "dt", "dd"}
    | {"section", "article", "h1", "h2", "h3", "h4", "h5", "h6"}
)
# An open tag of these kinds ends where the next one of its kind begins.
_SIBLINGS = frozenset({"p", "li", "tr", "td", "th", "dt", "dd", "option"})


def rich_of_html(source: str, lines: frozenset[str] = LINES) -> Rich:
    """The visible characters of an HTML text, with its markup as spans. A new line
    follows the elements in `lines`.

    >>> rich_of_html("a <b>c</b>").spans
    (Span(start=2, end=3, open='<b>', close='</b>', keep=False, raw=False),)
    """
    reader = _Reader(lines)
    reader.feed(source)
    reader.close()
    return reader.rich()


class _Reader(HTMLParser):
    def __init__(self, lines: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.lines = lines
        self.words: list[str] = []
        self.at = 0
        self.open: list[tuple[str, int, str, int]] = []  # tag, start, source, order
        self.named: dict[str, int] = {}  # how often each tag is open
        self.spans: dict[int, Span] = {}  # by the order in which they opened
        self.order = 0
        self.atoms: list[Atom] = []

    def rich(self) -> Rich:
        while self.open:
            self._close()
        spans = tuple(self.spans[order] for order in sorted(self.spans))
        return Rich("".join(self.words), spans, tuple(self.atoms), text_escape)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = self.get_starttag_text() or f"<{tag}>"
        if tag == "img":
            self._atom(dict(attrs).get("alt") or "image", source)
        elif tag in _VOID:
            self._atom("\n", source)
        else:
            if tag in _SIBLINGS and self.open and self.open[-1][0] == tag:
                self._close()
            self.open.append((tag, self.at, source, self.order))
            self.order += 1
            self.named[tag] = self.named.get(tag, 0) + 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID or tag == "img":
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self.named.get(tag):
            while self._close() != tag:
                pass

    def handle_data(self, data: str) -> None:
        hidden = any(self.named.get(tag) for tag in _HIDDEN)
        if data and not hidden:
            self.words.append(data)
            self.at += len(data)

    def _atom(self, visible: str, source: str) -> None:
        start = self.at
        self.handle_data(visible)
        if self.at > start:
            self.atoms.append(Atom(start, self.at, source))

    def _close(self) -> str:
        tag, start, source, order = self.open.pop()
        self.named[tag] -= 1
        if self.at > start:
            keep = tag == "pre"
            self.spans[order] = Span(start, self.at, source, f"</{tag}>", keep)
        if tag in self.lines and self.at > start:
            self._atom("\n", "")  # the closing tag shows it
        elif tag in self.lines:
            self.handle_data("\n")  # an empty element is not written, its line end is
        return tag


def attributes(tag: str) -> dict[str, str | None]:
    """The attributes of an open tag.

    >>> attributes('<a href="x" download>')
    {'href': 'x', 'download': None}
    """
    reader = _Attributes()
    reader.feed(tag)
    return reader.found


class _Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str | None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  the base's
        self.found = dict(attrs)


def text_escape(text: str) -> str:
    return escape(text, quote=False)
