"""How the parts of an entry move: one is changed, one ends, another one is next."""

from dataclasses import replace
from typing import Any

from turnfold_model.reference.kinds import Record, need, whole
from turnfold_model.reference.shapes import Entry, Part


def numbered(entry: Entry, data: Record) -> tuple[int, Part]:
    """The part that an event names."""
    number = whole(data, "part")
    need(number < len(entry.parts), "INV-4", f"there is no part {number}")
    return number, entry.parts[number]


def kept(entry: Entry, number: int, **changes: Any) -> Entry:
    """The entry with one of its parts changed."""
    parts = list(entry.parts)
    parts[number] = replace(parts[number], **changes)
    return replace(entry, parts=tuple(parts))


def settled(entry: Entry, number: int, receipt: tuple[str, ...]) -> Entry:
    """A part is accepted for good, and nothing about it is in doubt any more."""
    return kept(entry, number, end="delivered", receipt=receipt, doubt=False)


def next_part(entry: Entry) -> Entry:
    """The part that is next: one in doubt comes before all others, since nobody may go
    on before its outcome is known."""
    doubts = [n for n, part in enumerate(entry.parts) if part.doubt]
    open_parts = [n for n, part in enumerate(entry.parts) if part.end is None]
    if any(part.end == "refused" for part in entry.parts):  # words before files
        open_parts.sort(key=lambda n: (entry.parts[n].kind != "text", n))
    at = next(iter([*doubts, *open_parts]), len(entry.parts))
    return replace(entry, at=at, grant=False, marked=False)


def freed(entry: Entry, phase: str) -> Entry:
    """The doubt about one part is over: the entry is in `phase`, unless another part is
    still in doubt."""
    after = "parked" if entry.doubt else phase
    return replace(next_part(entry), phase=after)


def current(entry: Entry, data: Record) -> None:
    """INV-5: the outcome is that of the last attempt."""
    part, attempt = whole(data, "part"), whole(data, "attempt")
    now = (entry.at, entry.attempts)
    need((part, attempt) == now, "INV-5", f"of {(part, attempt)}, current is {now}")
