"""A part without the decorations that its platform refused."""

from collections.abc import Collection
from html.parser import HTMLParser

from attrs import evolve

from turnfold.enums import Decoration, Format
from turnfold.messages import Payload, Route, Text

_ENDS_A_LINE = frozenset(
    {"p", "div", "li", "tr", "pre", "blockquote", "h1", "h2", "h3"}
)


def undecorated(
    payload: Payload, route: Route, dropped: Collection[Decoration]
) -> tuple[Payload, Route]:
    """The payload and the route without the dropped decorations."""
    if Decoration.THREAD in dropped:
        route = evolve(route, thread=None)
    if Decoration.REPLY_TO in dropped:
        route = evolve(route, reply_to=None)
    if Decoration.FORMAT in dropped and isinstance(payload, Text):
        payload = plain(payload)
    return payload, route


def plain(text: Text) -> Text:
    """The text without format. Markdown stays as it was typed, which people can
    read."""
    if text.format is not Format.HTML:
        return evolve(text, format=Format.PLAIN)
    words = _Words()
    words.feed(text.text)
    words.close()
    return Text("".join(words.found).strip("\n"))


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  the base's
        if tag == "br":
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _ENDS_A_LINE:
            self.found.append("\n")
