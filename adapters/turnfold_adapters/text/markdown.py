"""Markdown (CommonMark with tables and strikethrough) in pieces.

Blocks that fit stay unchanged. A block that does not fit is cut by its kind: a code
fence is closed and opened again with its language, a list between its items, a table
between its rows (the rows that follow get an empty head, since a table needs one), a
quote and an item inside, a paragraph between its words. A block that would read
differently after the cut is sent as plain text. Raw HTML counts as text.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from attrs import evolve, frozen
from markdown_it import MarkdownIt
from markdown_it.common.utils import normalizeReference
from markdown_it.token import Token

from turnfold_adapters.text.clusters import Measure, is_blank
from turnfold_adapters.text.markdown_inline import (
    destination,
    longest_run,
    rich_of_inline,
    visible_inline,
)
from turnfold_adapters.text.rich import Rich, Span, cut

_DEEPEST = 5  # nested quotes and lists; deeper ones become plain text
_LABEL = re.compile(r"\[((?:[^\[\]\\]|\\.)+)\]")
_QUOTE = re.compile(r"^ {0,3}> ?", re.MULTILINE)
_ITEM = re.compile(r"( {0,3}(?:[-+*]|\d{1,9}[.)]))( {1,4}(?=\S)|[ \t]|$)")


@frozen
class Piece:
    """`plain`: the Markdown did not fit into the limit."""

    text: str
    plain: bool = False


@frozen
class Room:
    """The room of a piece: `limit` units, `indent` in front of each line."""

    limit: int
    measure: Measure
    indent: str = ""
    depth: int = 0

    def size(self, text: str) -> int:
        lines = text.count("\n") + 1
        return self.measure(text) + (self.measure(self.indent) * lines)

    def inside(self, indent: str) -> "Room":
        return evolve(self, indent=self.indent + indent, depth=self.depth + 1)


@frozen
class _Block:
    """A block of the source: its lines from `first` to `end`, and its tokens."""

    first: int
    end: int
    tokens: Sequence[Token]

    @property
    def kind(self) -> str:
        return self.tokens[0].type


@frozen
class _Page:
    """A parsed source: its lines, its blocks, and the definitions of links."""

    lines: Sequence[str]
    blocks: Sequence[_Block]
    definitions: Mapping[str, str]
    env: Mapping[str, Any]

    def source(self, first: int, end: int) -> str:
        return "".join(self.lines[first:end]).rstrip("\n")


def split_markdown(source: str, limit: int, measure: Measure) -> list[Piece]:
    """The pieces of a Markdown text, each of at most `limit` units."""
    return list(_pack(_read(source, {}), Room(limit, measure)))


def visible_markdown(source: str) -> str:
    """The visible characters of a Markdown text.

    >>> visible_markdown("# A *b*")
    'A b'
    """
    return _visible(parser().parse(source, {}))


@cache
def parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


# --- reading ---


def _read(source: str, env: Mapping[str, Any]) -> _Page:
    """Parse the blocks of a source. The text inside a block is parsed only when the
    block must be cut."""
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    shared = {"references": dict(env.get("references", {}))}
    tokens: list[Token] = []
    md = parser()
    md.block.parse(text.replace("\0", "\ufffd"), md, shared, tokens)
    starts = [i for i, token in enumerate(tokens) if token.level == 0 and token.map]
    starts = [i for i in starts if tokens[i].nesting >= 0]
    blocks = [
        _Block(*_lines_of(tokens[i]), tokens[i:j])
        for i, j in pairwise([*starts, len(tokens)])
    ]
    lines = [f"{line}\n" for line in text.split("\n")]
    return _Page(lines, blocks, _definitions(shared), shared)


def _lines_of(token: Token) -> tuple[int, int]:
    first, end = token.map or (0, 0)
    return first, end


def _definitions(env: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for label, facts in env["references"].items():
        attributes = {"href": facts["href"], "title": facts["title"]}
        token = Token("link_open", "a", 1, attrs=attributes)
        found[label] = f"[{label}]: {destination(token, 'href')}"
    return found


def _visible(tokens: Iterable[Token]) -> str:
    words: list[str] = []
    for token in tokens:
        if token.type == "list_item_open":
            words.append(f"{token.info}. " if token.info else "- ")
        elif token.type in ("fence", "code_block"):
            words.append(f"{token.content}\n")
        elif token.type == "inline":
            words.append(visible_inline(token.children or ()))
        elif token.type in ("td_close", "th_close"):
            words.append(" ")
        elif token.type in ("paragraph_close", "heading_close") and not token.hidden:
            words.append("\n\n")
        elif token.type in ("paragraph_close", "tr_close", "hr", "list_item_close"):
            words.append("\n")
    return re.sub(r"\n{3,}", "\n\n", "".join(words)).strip("\n")


# --- packing blocks into pieces ---


def _pack(page: _Page, room: Room) -> Iterator[Piece]:
    spans = [(block.first, block.end) for block in page.blocks]
    yield from _packed(
        page, room, spans, lambda index: _cut_block(page, page.blocks[index], room)
    )


def _packed(
    page: _Page,
    room: Room,
    spans: Sequence[tuple[int, int]],
    divide: Callable[[int], Iterator[Piece]],
) -> Iterator[Piece]:
    """Pack as many neighbours into one piece as fit; `divide` cuts one that does not
    fit."""
    start: int | None = None  # the first line of the piece
    size, labels = 0, set[str]()
    for index, (first, end) in enumerate(spans):
        begin = first if start is None else spans[index - 1][1]
        more = sum(room.size(line.rstrip("\n")) + 1 for line in page.lines[begin:end])
        wanted = labels | _labels(page, first, end)
        if (
            start is not None
            and size + more + _room_for(page, room, wanted) > room.limit
        ):
            yield _piece(page, start, spans[index - 1][1], labels)
            start, size, labels = None, 0, set()
            more = sum(
                room.size(line.rstrip("\n")) + 1 for line in page.lines[first:end]
            )
            wanted = _labels(page, first, end)
        if start is None and more - 1 + _room_for(page, room, wanted) > room.limit:
            yield from divide(index)
            continue
        start, size, labels = first if start is None else start, size + more, wanted
    if start is not None:
        yield _piece(page, start, spans[-1][1], labels)


def _labels(page: _Page, first: int, end: int) -> set[str]:
    """The definitions that these lines may refer to."""
    if not page.definitions:
        return set()
    found = _LABEL.findall(page.source(first, end))
    return {normalizeReference(label) for label in found} & page.definitions.keys()


def _room_for(page: _Page, room: Room, labels: set[str]) -> int:
    lines = (page.definitions[label] for label in labels)
    return sum(room.size(line) + 2 for line in lines) + bool(labels)


def _piece(page: _Page, first: int, end: int, labels: set[str]) -> Piece:
    lines = [page.definitions[label] for label in sorted(labels)]
    return Piece("\n".join([page.source(first, end), *([""] if lines else []), *lines]))


# --- cutting a block that is too large ---


def _cut_block(page: _Page, block: _Block, room: Room) -> Iterator[Piece]:
    kind = block.kind
    source = page.source(block.first, block.end)
    if kind in ("bullet_list_open", "ordered_list_open"):
        yield from _items(page, block, room)  # between lines: nothing to check
    elif kind == "table_open":
        yield from _rows(page, block, room)
    elif kind in ("fence", "code_block"):
        yield from _checked(page, source, _code(block.tokens[0], room), room)
    elif kind in ("paragraph_open", "heading_open"):
        yield from _checked(page, source, _words(page, block, room), room)
    elif kind == "blockquote_open":
        yield from _checked(page, source, _quote(page, source, room), room)
    else:
        yield from _checked(page, source, (), room)


def _checked(
    page: _Page, source: str, pieces: Iterable[Piece], room: Room
) -> Iterator[Piece]:
    """The pieces, if together they show the same text as the source; else plain
    text."""
    tokens = parser().parse(source, {"references": dict(page.env["references"])})
    shown = _visible(tokens)
    made = [] if room.depth > _DEEPEST else list(pieces)
    told = "".join(p.text if p.plain else visible_markdown(p.text) for p in made)
    within = all(room.size(piece.text) <= room.limit for piece in made)
    if within and "".join(told.split()) == "".join(shown.split()):
        yield from made
    else:
        yield from _plain(shown, room)


def _plain(text: str, room: Room) -> Iterator[Piece]:
    bare = evolve(room, indent="")
    for piece in _cut(Rich(text), bare):
        yield Piece(piece, plain=True)


def _cut(rich: Rich, room: Room) -> Iterator[str]:
    loose = rich.loosened(room.size, room.limit)
    return cut(loose, room.limit, lambda text, *_: room.size(text))


def _code(token: Token, room: Room) -> Iterator[Piece]:
    mark = (token.markup or "```")[0]
    longest = longest_run(token.content, mark)
    # A cut inside a line could move a run of marks to the beginning of a line.
    fence = mark * max(3, len(token.markup), min(longest + 1, room.limit // 8))
    for info in (token.info.strip(), ""):
        span = Span(0, len(token.content), f"{fence}{info}\n", f"\n{fence}", keep=True)
        if room.size(span.open + span.close) <= room.limit // 2 + room.limit // 8:
            text = token.content.removesuffix("\n")
            whole = Rich(text, (evolve(span, end=len(text)),) if text else ())
            yield from map(Piece, _cut(whole, room))
            return


def _words(page: _Page, block: _Block, room: Room) -> Iterator[Piece]:
    heading = block.kind == "heading_open"
    inline = block.tokens[1].content
    env = {"references": dict(page.env["references"])}
    children = parser().parseInline(inline, env)[0].children or ()
    rich = rich_of_inline(children, one_line=heading)
    if heading:
        level = int(block.tokens[0].tag[1:])
        title = Span(0, len(rich.text), "#" * level + " ", "")
        rich = evolve(rich, spans=(title, *rich.spans))
    yield from map(Piece, _cut(rich, room))


def _quote(page: _Page, source: str, room: Room) -> Iterator[Piece]:
    inner = _QUOTE.sub("", source)
    for piece in _pack(_read(inner, page.env), room.inside("> ")):
        yield piece if piece.plain else Piece(_indented(piece.text, "> ", "> "))


def _items(page: _Page, block: _Block, room: Room) -> Iterator[Piece]:
    items = [t for t in block.tokens if t.type == "list_item_open" and t.level == 1]
    spans = [(t.map[0], t.map[1]) for t in items if t.map]

    def divide(index: int) -> Iterator[Piece]:
        source = page.source(*spans[index])
        return _checked(page, source, _item(page, source, room), room)

    yield from _packed(page, room, spans, divide)


def _item(page: _Page, source: str, room: Room) -> Iterator[Piece]:
    """The first piece keeps the mark of the item; the others stand outside of a list."""
    match = _ITEM.match(source)
    if match is None:
        return
    mark = match.group(1) + " "
    inner = _without_indent(source[match.end() :], match.end())
    pieces = _pack(_read(inner, page.env), room.inside(" " * len(mark)))
    for index, piece in enumerate(pieces):
        first = index == 0 and not piece.plain
        yield Piece(_indented(piece.text, mark, " " * len(mark))) if first else piece


def _without_indent(text: str, width: int) -> str:
    first, *rest = text.expandtabs(4).split("\n")
    return "\n".join([first, *(_dedented(line, width) for line in rest)])


def _dedented(line: str, width: int) -> str:
    """The line without up to `width` leading spaces."""
    return line[min(width, len(line) - len(line.lstrip(" "))) :]


def _indented(text: str, first: str, rest: str) -> str:
    lines = text.split("\n")
    shown = (rest + line if line else rest.rstrip() for line in lines[1:])
    return "\n".join([first + lines[0], *shown])


def _rows(page: _Page, block: _Block, room: Room) -> Iterator[Piece]:
    rows = [t.map[0] for t in block.tokens if t.type == "tr_open" and t.map]
    columns = sum(t.type == "th_open" for t in block.tokens)
    delimiter = page.lines[block.first + 1].strip()
    empty_head = f"|{'  |' * columns}\n{delimiter}"
    begin = page.source(block.first, block.first + 2)
    lines: list[str] = [begin]
    size = room.size(begin) + 1
    for row in rows[1:]:
        line = page.lines[row].strip()
        more = room.size(line) + 1
        if size + more > room.limit + 1:
            yield Piece("\n".join(lines))
            lines, size = [empty_head], room.size(empty_head) + 1
        if size + more > room.limit + 1:
            yield from _plain(_visible(_row(line, columns, delimiter)), room)
            continue
        lines.append(line)
        size += more
    if lines != [empty_head] and not is_blank("".join(lines)):
        yield Piece("\n".join(lines))


def _row(line: str, columns: int, delimiter: str) -> list[Token]:
    return parser().parse(f"|{'  |' * columns}\n{delimiter}\n{line}")
