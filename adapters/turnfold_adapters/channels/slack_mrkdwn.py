"""Rich text as mrkdwn, the markup of Slack's messages. Pure.

mrkdwn has no escapes for its marks. So a mark is written only where Slack reads it:
within one line, at the edge of words, not around white space. Elsewhere the words are
written without it. `&`, `<` and `>` are escaped (docs.slack.dev/messaging/
formatting-message-text), so that no text of a handler names a user or calls a channel.
"""

import re
from collections.abc import Iterator, Sequence

from turnfold_adapters.text.html import attributes
from turnfold_adapters.text.rich import Atom, Rich, Span, cut

_WHOLE = 1 << 40
_EDGE = "\u200b"  # Slack reads a mark only at the edge of a word
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\s]+", re.ASCII)
_TAG = re.compile(r"<\s*([a-zA-Z][a-zA-Z0-9-]*)")
_MARKS = {
    **dict.fromkeys(("b", "strong", "h1", "h2", "h3", "h4", "h5", "h6"), "*"),
    **dict.fromkeys(("i", "em", "u", "ins"), "_"),
    **dict.fromkeys(("s", "strike", "del"), "~"),
    "code": "`",
}
# The room for a mark, its twin and the two edges.
MARK_MOST = 4
LINK_MORE = 3
FENCE_MORE = 8
QUOTE_MORE = len("&gt; ")


def escaped(text: str) -> str:
    """
    >>> escaped("<!channel> & co")
    '&lt;!channel&gt; &amp; co'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mrkdwn(rich: Rich) -> str:
    """Rich text with HTML spans, written as mrkdwn."""
    drawn = tuple(_drawn(rich))
    spans = sorted((s for s in drawn if isinstance(s, Span)), key=_outer_first)
    atoms = sorted((a for a in drawn if isinstance(a, Atom)), key=lambda a: a.start)
    ours = Rich(rich.text, tuple(spans), tuple(atoms), escaped)
    return next(cut(ours, _WHOLE, lambda written, *_: len(written)), "")


def _outer_first(span: Span) -> tuple[int, int]:
    return span.start, -span.end


def address(span: Span) -> str | None:
    """The address of a link, if it is safe in mrkdwn. Without a scheme it could be
    `!channel` or a user."""
    found = opened(span.open)[1].get("href") or ""
    if not _SCHEME.fullmatch(found):
        return None
    return escaped(found).replace("|", "%7C")


def _drawn(rich: Rich) -> Iterator[Span | Atom]:
    whole_until = quote_until = 0  # no marks in code or a link, no quote in a quote
    for span in rich.spans:
        tag = opened(span.open)[0]
        if span.start < (quote_until if tag == "blockquote" else whole_until):
            continue
        shown = rich.text[span.start : span.end]
        if tag == "blockquote":
            quote_until = span.end
            yield from _quoted(rich, span)
        elif tag == "pre":
            whole_until = span.end
            if "```" not in shown:
                yield Span(span.start, span.end, "```\n", "\n```", keep=True)
        elif tag == "a" and address(span):
            whole_until = span.end
            yield from _lines(rich, span, f"<{address(span)}|", ">", words=False)
        elif tag in _MARKS and not (tag == "code" and "`" in shown):
            whole_until = span.end if tag == "code" else whole_until
            yield from _lines(rich, span, _MARKS[tag], _MARKS[tag])


def _lines(
    rich: Rich, span: Span, before: str, after: str, *, words: bool = True
) -> Iterator[Span]:
    """The marks of each line of a span, inside of its white space."""
    for line in re.finditer(r"[^\n]+", rich.text[span.start : span.end]):
        text = line.group()
        start = span.start + line.start() + len(text) - len(text.lstrip())
        end = start + len(text.strip())
        if end > start:
            left = _EDGE if words and _letter(rich.text, start - 1) else ""
            right = _EDGE if words and _letter(rich.text, end) else ""
            yield Span(start, end, left + before, after + right)


def _letter(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isalnum()


def _quoted(rich: Rich, span: Span) -> Iterator[Span | Atom]:
    text = rich.text[span.start : span.end].rstrip("\n")
    yield Span(span.start, span.start + len(text), "> ", "")
    for line in re.finditer(r"\n", text):
        at = span.start + line.start()
        yield Atom(at, at + 1, "\n> ")


def overhead(spans: Sequence[Span], shown: str) -> int:
    """The most characters that the marks of these spans take around `shown`."""
    lines = shown.count("\n") + 1
    total = 0
    for span in spans:
        tag = opened(span.open)[0]
        if tag == "blockquote":
            total += QUOTE_MORE * lines
        elif tag == "pre":
            total += FENCE_MORE
        elif tag == "a":
            total += (len(address(span) or "") + LINK_MORE) * lines
        elif tag in _MARKS:
            total += MARK_MOST * min(lines, span.end - span.start)
    return total


def opened(source: str) -> tuple[str, dict[str, str | None]]:
    """The name and the attributes of an open tag."""
    match = _TAG.match(source)
    tag = match.group(1).lower() if match else ""
    if tag != "a":
        return tag, {}
    return tag, attributes(source)
