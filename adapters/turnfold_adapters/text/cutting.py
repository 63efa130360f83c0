"""The cut of a text by its format. Needs the extra `turnfold[text]`."""

from collections.abc import Iterator

from turnfold.enums import Format
from turnfold.messages import Text
from turnfold_adapters.text.clusters import MEASURES, Measure, is_blank
from turnfold_adapters.text.html import rich_of_html
from turnfold_adapters.text.markdown import Piece, split_markdown, visible_markdown
from turnfold_adapters.text.rich import Rich, cut

__all__ = ["MEASURES", "is_blank", "pieces", "shows_something", "visible"]


# Reading markup takes 1 to 6 seconds for a megabyte, and `plan` holds the loop. Longer
# texts, of 16 messages and more, are sent without formats.
FORMATTED_MOST = 65_536


def pieces(payload: Text, limit: int, measure: Measure) -> Iterator[Piece]:
    if len(payload.text) > FORMATTED_MOST:
        return _plain(payload, limit, measure)
    if payload.format is Format.MARKDOWN:
        return iter(split_markdown(payload.text, limit, measure))
    html = payload.format is Format.HTML
    rich = rich_of_html(payload.text) if html else Rich(payload.text)
    loose = rich.loosened(measure, limit)
    return map(Piece, cut(loose, limit, lambda text, *_: measure(text)))


def _plain(payload: Text, limit: int, measure: Measure) -> Iterator[Piece]:
    """A text without its format: tags are removed; Markdown stays as it is written."""
    html = payload.format is Format.HTML
    text = rich_of_html(payload.text).text if html else payload.text
    for piece in cut(Rich(text), limit, lambda text, *_: measure(text)):
        yield Piece(piece, plain=True)


def visible(payload: Text) -> str:
    """The visible characters of a text."""
    if payload.format is Format.MARKDOWN:
        return visible_markdown(payload.text)
    if payload.format is Format.HTML:
        return rich_of_html(payload.text).text.strip("\n")
    return payload.text


def shows_something(payload: Text) -> bool:
    """Does a text have visible characters? HTML can be tags without text."""
    html = payload.format is Format.HTML
    return not (html and is_blank(rich_of_html(payload.text).text))
