"""Long texts in pieces: what they show together, how large they are, and that each of
them is well formed."""

import gc
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from turnfold.errors import InvalidInputError
from turnfold.messages import Text
from turnfold_adapters.text import plain, split
from turnfold_adapters.text.clusters import MEASURES, floor, is_blank
from turnfold_adapters.text.html import rich_of_html
from turnfold_adapters.text.markdown import visible_markdown

case = pytest.mark.case
UNITS = st.sampled_from(sorted(MEASURES))
LIMITS = st.integers(min_value=64, max_value=300)
FAMILY = "👨\u200d👩\u200d👧"
FLAGS = "🇫🇷🇩🇪🇯🇵"
ODD = [
    FAMILY,
    FLAGS,
    "e\u0301",
    "क्षि",
    "가",
    "각",
    "\r\n",
    "字",
    "👍🏽",
    " \u0301",
    "x",
    " ",
    "\n",
]
odd_text = st.lists(st.sampled_from(ODD), max_size=300).map("".join)
any_text = odd_text | st.text(max_size=400)


def clusters(text: str) -> list[str]:
    """What a reader takes for characters, white space aside."""
    return [c for c in regex.findall(r"\X", text) if not c.isspace()]


def shown(text: str) -> str:
    return "".join(text.split())


def html_shows(source: str) -> str:
    """Read as XML: it refuses what is not well formed."""
    return "".join(_words(ET.fromstring(f"<r>{source}</r>")))


def _words(element: ET.Element) -> Iterator[str]:
    nameless = "image" if element.tag == "img" else ""  # what readers see in its place
    yield element.text or element.get("alt") or nameless
    for child in element:
        yield from _words(child)
        yield child.tail or ""


def markdown_shows(source: str) -> str:
    """By way of its HTML; our own reading takes no part in it."""
    return html_shows(_MARKDOWN.render(source))


def _item(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    number = tokens[index].info
    return f"<li>{number}. " if number else "<li>- "


_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_MARKDOWN.add_render_rule("list_item_open", _item)


def check(text: Text, limit: int, unit: str, shows: Callable[[str], str]) -> list[Text]:
    pieces = split(text, limit, unit)
    for piece in pieces:
        assert MEASURES[unit](piece.text) <= limit, piece
    together = "".join(
        piece.text if piece.format != text.format else shows(piece.text)
        for piece in pieces
    )
    assert shown(together) == shown(shows(text.text))
    return pieces


# --- plain ---


@settings(deadline=None)
@given(any_text, LIMITS, UNITS)
def test_plain_pieces_hold_every_character_within_the_limit(
    text: str, limit: int, unit: str
) -> None:
    if is_blank(text):
        assert split(Text(text), limit, unit) == []
        return
    check(Text(text), limit, unit, lambda piece: piece)


@settings(deadline=None)
@given(odd_text, LIMITS, UNITS)
def test_no_cut_falls_into_a_character_of_the_reader(
    text: str, limit: int, unit: str
) -> None:
    pieces = [piece.text for piece in split(Text(text), limit, unit)]
    assert [c for piece in pieces for c in clusters(piece)] == clusters(text)


@settings(deadline=None)
@given(odd_text.filter(bool), st.data())
def test_a_boundary_is_where_the_library_finds_one(
    text: str, data: st.DataObject
) -> None:
    ends = [match.end() for match in regex.finditer(r"\X", text)]
    start = data.draw(st.sampled_from([0, *ends[:-1]]))
    end = data.draw(st.integers(min_value=start + 1, max_value=len(text)))
    found = [e for e in ends if start < e <= end]
    assert floor(text, start, end) == (found[-1] if found else end)


def test_a_cut_prefers_a_line_end_then_a_space() -> None:
    text = (
        "one two\n" + "three four five six seven eight nine ten eleven twelve thirteen"
    )
    first, *_ = split(Text(text), 64)
    assert first.text == text.removesuffix(" thirteen")
    lines = "a line of some words\n" * 4
    assert split(Text(lines), 64)[0].text == "\n".join(["a line of some words"] * 3)


def test_one_character_longer_than_the_limit_is_cut() -> None:
    pieces = split(Text("a" + "\u0301" * 100), 64)
    assert "".join(piece.text for piece in pieces) == "a" + "\u0301" * 100


@pytest.mark.parametrize("text", ["", " \n", "\u200b\u2060", "\u2800", "\ufe0f"])
@case("V06")
def test_a_text_that_shows_nothing_has_no_pieces(text: str) -> None:
    assert split(Text(text), 100) == []
    assert split(Text(f"<b>{text}</b>", format="html"), 100) == []


@pytest.mark.parametrize(("limit", "unit"), [(63, "chars"), (100, "words")])
def test_a_limit_that_cannot_be_kept_is_refused(limit: int, unit: str) -> None:
    with pytest.raises(InvalidInputError):
        split(Text("x"), limit, unit)


# --- HTML ---

words = st.text(st.sampled_from("ab &<>\"'字e\u0301 \n👍🏽"), max_size=60)
TAGS = ["b", "i", "u", "code", "blockquote", "pre", "p"]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _element(children: list[str], tag: str) -> str:
    return f"<{tag}>{''.join(children)}</{tag}>"


def _link(children: list[str]) -> str:
    return f'<a href="http://example.org/?a=1&amp;b=2">{"".join(children)}</a>'


html = st.recursive(
    words.map(_escaped) | st.just("<br/>") | st.just("&#x1F468;&#x200D;&#x1F469;"),
    lambda inner: (
        st.builds(_element, st.lists(inner, max_size=4), st.sampled_from(TAGS))
        | st.builds(_link, st.lists(inner, max_size=3))
    ),
    max_leaves=25,
)


@settings(deadline=None)
@given(html, LIMITS, UNITS)
@case("V02")
def test_html_pieces_are_well_formed_and_show_the_same(
    source: str, limit: int, unit: str
) -> None:
    pieces = check(Text(source, format="html"), limit, unit, html_shows)
    assert {piece.format.value for piece in pieces} <= {"html"}
    found = [c for piece in pieces for c in clusters(rich_of_html(piece.text).text)]
    rich = rich_of_html(source)
    edges = {0, *accumulate(map(len, clusters(rich.text)))}
    # A cluster with tags inside of it may be too long for a piece; then it is cut.
    if all({span.start, span.end} <= edges for span in rich.spans):
        assert found == clusters(rich.text)


@settings(deadline=None)
@given(st.text(st.sampled_from('<>/&b#;"= a!-x'), max_size=300), LIMITS)
def test_any_text_read_as_html_makes_well_formed_pieces(
    source: str, limit: int
) -> None:
    if not (rich := rich_of_html(source)).text.strip():
        return
    pieces = split(Text(source, format="html"), limit)
    if len(pieces) > 1:
        together = "".join(rich_of_html(piece.text).text for piece in pieces)
        assert shown(together) == shown(rich.text)


@case("V02")
def test_tags_are_closed_at_a_cut_and_opened_again_with_their_attributes() -> None:
    link = '<a href="https://example.org/x">'
    source = f"<b>Some bold words, {link}and a link that is cut in two</a>, end.</b>"
    first, second, *rest = [
        piece.text for piece in split(Text(source, format="html"), 80)
    ]
    assert first == f"<b>Some bold words, {link}and a link that is</a></b>"
    assert second == f"<b>{link}cut in two</a>, end.</b>"
    assert rest == []


def test_white_space_of_preformatted_text_stays() -> None:
    code = "".join(f"    if x == {number}:\n\n        go()\n" for number in range(20))
    pieces = split(Text(f"<pre>{code}</pre>", format="html"), 100)
    inside = [p.text.removeprefix("<pre>").removesuffix("</pre>") for p in pieces]
    assert "\n".join(inside).rstrip("\n") == code.rstrip("\n")


def test_tags_that_leave_no_room_are_dropped_and_their_words_stay() -> None:
    deep = "<b>" * 200 + "word " * 30 + "</b>" * 200
    pieces = split(Text(deep, format="html"), 70)
    together = "".join(rich_of_html(piece.text).text for piece in pieces)
    assert shown(together) == "word" * 30


@pytest.mark.parametrize(
    "between", ["<blockquote></blockquote>", f"<p class='{'x' * 99}'>.</p>"]
)
def test_an_element_that_is_not_written_still_ends_its_line(between: str) -> None:
    """Else the characters around it become one: a man and a colour of skin."""
    source = f"<b>👨{between}🏽</b>" + " x" * 64
    pieces = split(Text(source, format="html"), 64)
    found = [c for piece in pieces for c in clusters(rich_of_html(piece.text).text)]
    rich = rich_of_html(source)
    edges = {0, *accumulate(map(len, clusters(rich.text)))}
    # A cluster with tags inside of it may be too long for a piece; then it is cut.
    if all({span.start, span.end} <= edges for span in rich.spans):
        assert found == clusters(rich.text)


def test_a_format_can_be_taken_away() -> None:
    assert plain(Text("<p>a &lt; <b>b</b></p>", format="html")).text == "a < b"
    assert plain(Text("# A *b*\n\n- `c`", format="markdown")).text == "A b\n\n- c"


# --- Markdown ---

plain_words = st.lists(
    st.sampled_from(["e\u0301", FAMILY, *"abc xyz 字_-.!()[]#>+=|~&1"]), max_size=60
).map("".join)
inline = st.one_of(
    plain_words,
    plain_words.map(lambda t: f"**{t.strip() or 'x'}**"),
    plain_words.map(lambda t: f"*{t.strip() or 'x'}*"),
    plain_words.map(lambda t: f"~~{t.strip() or 'x'}~~"),
    plain_words.map(lambda t: f"`{t.strip() or 'x'}`"),
    plain_words.map(lambda t: f"[{t.strip() or 'x'}](http://example.org/a_b)"),
    st.sampled_from(
        [r"\*", r"\_", "&amp;", "<b>", "  \n", "\n", "[ref]", "![i](u)", "**"]
    ),
)
paragraph = st.lists(inline, min_size=1, max_size=8).map(" ".join)
fence = st.builds(
    lambda lines, lang: f"```{lang}\n" + "\n".join(lines) + "\n```",
    st.lists(st.text(st.sampled_from("ab {}()=:`~ 字"), max_size=50), max_size=12),
    st.sampled_from(["", "python", "c++"]),
)
table = st.lists(st.tuples(plain_words, plain_words), max_size=6).map(
    lambda rows: "\n".join(
        ["| a | b |", "|---|:-:|", *(f"| {x} | {y} |" for x, y in rows)]
    )
)


def _list_of(blocks: list[str], mark: str) -> str:
    pad = "\n" + " " * len(mark)
    return "\n".join(mark + block.replace("\n", pad) for block in blocks)


def _quoted(blocks: list[str]) -> str:
    return "> " + "\n\n".join(blocks).replace("\n", "\n> ")


block = st.recursive(
    st.one_of(
        paragraph,
        paragraph.map(lambda t: "## " + t.replace("\n", " ")),
        fence,
        table,
        st.just("---"),
        st.just("    indented\n      code"),
    ),
    lambda inner: st.one_of(
        st.builds(
            _list_of,
            st.lists(inner, min_size=1, max_size=5),
            st.sampled_from(["- ", "1. ", "12) "]),
        ),
        st.lists(inner, min_size=1, max_size=3).map(_quoted),
    ),
    max_leaves=12,
)
markdown = st.lists(block, min_size=1, max_size=6).map("\n\n".join)
with_reference = markdown.map(lambda t: f"{t}\n\n[ref]: http://example.org 'T'\n")


@settings(deadline=None, max_examples=60)
@given(markdown | with_reference, LIMITS, UNITS)
@example("- - ééééééé [éééé![](http://example.org/a_b)", 64, "bytes")
@case("V02")
def test_markdown_pieces_show_the_same(source: str, limit: int, unit: str) -> None:
    if is_blank(source):
        return
    pieces = check(Text(source, format="markdown"), limit, unit, markdown_shows)
    found = [c for piece in pieces for c in clusters(plain(piece).text)]
    if all(piece.format == "markdown" for piece in pieces) and len(pieces) > 1:
        assert "".join(found) == "".join(clusters(visible_markdown(source)))


@settings(deadline=None)
@given(st.text(st.sampled_from("ab *_`~[]()<>#-+1.|>\n \\!&:="), max_size=300), LIMITS)
def test_any_text_read_as_markdown_shows_the_same(source: str, limit: int) -> None:
    if not is_blank(source):
        check(Text(source, format="markdown"), limit, "chars", markdown_shows)


def test_a_fence_is_closed_and_opened_again_with_its_language() -> None:
    code = "".join(f"    line {number}\n" for number in range(40))
    source = f"Look:\n\n```python\n{code}```\n\nDone."
    pieces = [p.text for p in split(Text(source, format="markdown"), 120)]
    assert (pieces[0], pieces[-1]) == ("Look:", "Done.")
    for piece in pieces[1:-1]:
        assert piece.startswith("```python\n    line")
        assert piece.endswith("\n```")
    inside = (p.removeprefix("```python\n").removesuffix("```") for p in pieces[1:-1])
    assert "".join(inside) == code


def test_a_list_is_cut_between_items_and_a_table_between_rows() -> None:
    items = "\n".join(f"{n}. item number {n}" for n in range(1, 9))
    pieces = [p.text for p in split(Text(items, format="markdown"), 70)]
    assert pieces[0].splitlines() == [f"{n}. item number {n}" for n in (1, 2, 3, 4)]
    assert pieces[1].startswith("5. item number 5")
    rows = "\n".join(f"| {n} | value {n} |" for n in range(20))
    table = f"| n | v |\n|---|---|\n{rows}"
    pieces = [p.text for p in split(Text(table, format="markdown"), 100)]
    assert all(piece.splitlines()[1] == "|---|---|" for piece in pieces)
    assert pieces[1].startswith("|  |  |\n|---|---|\n| ")


def test_a_definition_of_a_link_goes_where_it_is_used() -> None:
    words = "And no link in these words, which are many, so that there is no room."
    source = f"See [a] here.\n\n{words}\n\nAgain [a].\n\n[a]: http://x.y\n"
    pieces = [p.text for p in split(Text(source, format="markdown"), 70)]
    assert [("[A]: <http://x.y>" in piece) for piece in pieces] == [True, False, True]


# --- size ---

LARGE = {
    "plain": "word ",
    "plain without spaces": "x",
    "plain emoji": FAMILY,
    "plain, one character": "\u0301",
    "html": "<p>some <b>bold</b> words &amp; more</p>",
    "html, nothing closed": "<b>x",
    "html, no tags": "< a & b ",
    "markdown": "# Head\n\nSome *words* and `code`.\n\n- item\n- item\n\n",
    "markdown list": "- item with some words\n",
    "markdown paragraph": "some *words* and `code` ",
    "markdown quote": "> some words in a line\n",
}


@pytest.mark.parametrize("name", LARGE)
def test_time_grows_no_faster_than_the_text(name: str) -> None:
    """Eight times the text takes about eight times the time, not 64 times.

    The best of three is taken without the garbage collector: a collection walks the
    whole heap of the test process, and that has nothing to do with the text.
    """
    kind = name.replace(",", "").split()[0]

    def seconds(size: int) -> float:
        text = Text((LARGE[name] * size)[:size], format=kind)
        began = time.process_time()
        assert split(text, 512, "utf16")
        return time.process_time() - began

    gc.disable()
    try:
        small, large = (
            min(seconds(size) for _ in range(3)) for size in (8_000, 64_000)
        )
    finally:
        gc.enable()
    assert large < 24 * small + 0.1, (small, large)


@pytest.mark.parametrize("kind", ["html", "markdown"])
def test_a_text_that_is_too_long_to_be_formatted_goes_as_plain_text(kind: str) -> None:
    pieces = split(Text("<b>some</b> words " * 10_000, format=kind), 4096)
    assert {piece.format.value for piece in pieces} == {"plain"}
    assert "<b>" not in pieces[0].text or kind == "markdown"
