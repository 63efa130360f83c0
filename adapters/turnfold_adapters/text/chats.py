"""Formatted texts for chats with a markup of their own: first as rich text, then in
parts.

A channel cuts the rich text by its own measure, and writes each part in its own markup.
A part is HTML, or plain text without any format.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from turnfold.enums import Format
from turnfold.messages import Payload, Text
from turnfold.ports.channel import PlannedPart
from turnfold_adapters import text as texts
from turnfold_adapters.text.clusters import is_blank
from turnfold_adapters.text.cutting import FORMATTED_MOST
from turnfold_adapters.text.html import LINES, rich_of_html
from turnfold_adapters.text.markdown_telegram import telegram_html
from turnfold_adapters.text.rich import Rich

_LINES = LINES - {"pre", "blockquote"}  # they have lines of their own already


def rich_of(payload: Text) -> Rich:
    """The visible characters of a text with its formats. A Markdown text that is too
    long to be parsed has no formats."""
    source = payload.text
    if payload.format is Format.PLAIN:
        return Rich(source)
    if payload.format is Format.MARKDOWN and len(source) > FORMATTED_MOST:
        return Rich(source)
    html = telegram_html(source) if payload.format is Format.MARKDOWN else source
    return rich_of_html(html, _LINES)


def plan(
    payload: Payload, fits: Callable[[str], bool], cut: Callable[[Rich], Iterable[str]]
) -> Sequence[PlannedPart]:
    """The parts of a payload. `fits`: can a plain text stay whole? `cut`: the pieces of
    a rich text."""
    if not isinstance(payload, Text):
        return texts.plan(payload, None, "utf16")
    if is_blank(payload.text):
        return []
    if payload.format is Format.PLAIN and fits(payload.text):
        return [PlannedPart(payload=payload, kind="text")]
    pieces = (Text(piece, format=form) for piece, form in _pieces(payload, cut))
    return [PlannedPart(payload=piece, kind="text") for piece in pieces]


def _pieces(
    payload: Text, cut: Callable[[Rich], Iterable[str]]
) -> Iterator[tuple[str, Format]]:
    rich = rich_of(payload)
    if len(payload.text) > FORMATTED_MOST or not rich.spans:
        rich = Rich(rich.text)
    form = Format.HTML if rich.spans else Format.PLAIN
    if not is_blank(rich.text):
        for piece in cut(rich):
            yield piece, form
