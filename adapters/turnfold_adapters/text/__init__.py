"""Splitting long texts of any format into pieces for a platform.

    split(Text("…", format="html"), limit=4096, unit="utf16")

Each piece is well formed, within the limit, and cut between grapheme clusters; together
the pieces show what the text shows. Markdown is read by markdown-it-py, HTML by
`html.parser`, characters by `regex`: the extra `turnfold[text]`, which the extras of
our channels include. Without it `split` raises MissingExtraError. A channel without a
`plan` of its own gets the kernel's, which ignores formats and clusters.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType

from attrs import evolve

from turnfold.enums import Format
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.messages import File, Payload, Text
from turnfold.ports.channel import PlannedPart

LEAST_LIMIT = 64  # less has no room for a fence or a link


def split(payload: Text, limit: int, unit: str = "chars") -> list[Text]:
    """The pieces of a text, each of at most `limit` "chars", "utf16" or "bytes". A text
    without visible characters has none. If a format does not fit into the limit, the
    piece becomes plain text. So does a text of more than 65,536 characters, since
    reading its markup would take too long. Raises InvalidInputError for an unknown unit
    or a limit below 64, MissingExtraError without the extra `turnfold[text]`.
    """
    cutting = _cutting()
    check(limit, unit)
    measure = cutting.MEASURES[unit]
    if cutting.is_blank(payload.text):
        return []
    if measure(payload.text) <= limit:
        return [payload] if cutting.shows_something(payload) else []
    pieces: list[Text] = [
        evolve(payload, text=piece.text, format=Format.PLAIN)
        if piece.plain
        else evolve(payload, text=piece.text)
        for piece in cutting.pieces(payload, limit, measure)
    ]
    return pieces


def check(limit: int | None, unit: str) -> None:
    """Check the arguments of `split`, for the constructor of a channel. Raises the
    errors of `split`; None as limit is allowed."""
    if unit not in _cutting().MEASURES:
        raise InvalidInputError(field="unit", problem=f"{unit!r:.80} is unknown")
    if limit is not None and limit < LEAST_LIMIT:
        raise InvalidInputError(field="limit", problem=f"at least {LEAST_LIMIT}")


def plain(payload: Text) -> Text:
    """The same text without a format, for a platform that refused the format."""
    shown = _cutting().visible(payload)
    return Text(shown)


def plan(payload: Payload, limit: int | None, unit: str) -> Sequence[PlannedPart]:
    """The parts of a payload for a channel's `plan`: a text is split, any other payload
    is one part."""
    if not isinstance(payload, Text):
        kind = "file" if isinstance(payload, File) else "native"
        return [PlannedPart(payload=payload, kind=kind)]
    pieces = split(payload, limit or len(payload.text) * 8 + LEAST_LIMIT, unit)
    return [PlannedPart(payload=piece, kind="text") for piece in pieces]


@cache
def _cutting() -> ModuleType:
    try:
        from turnfold_adapters.text import cutting  # noqa: PLC0415  an extra
    except ImportError as exc:
        raise MissingExtraError(extra="text", package=exc.name or "regex") from exc
    return cutting
