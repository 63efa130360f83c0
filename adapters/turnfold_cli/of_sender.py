"""A person's messages, for `--sender` of the acts: their turns, what answers them, and the
messages that are not found this way."""

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import evolve

from turnfold.api.acts import Act
from turnfold.inspect import Filter, Inspect, Row
from turnfold.inspect.senders import OfSender
from turnfold.ports.store import Store

NOT_COVERED = (
    "plugin state, archives, backups, logs of this process",
    "what other people wrote about them, and messages sent to them without a turn",
    "what was posted and no worker has taken up yet (turnfold inbox)",
)


async def of_sender(store: Store, question: Filter, sender: str) -> OfSender:
    """The turns of a sender. Raises for an unknown place before the log is read."""
    inspect = Inspect(store)
    await inspect.list(evolve(question, limit=1))
    return await inspect.of_sender(sender)


def among(rows: Sequence[Row], of: OfSender) -> list[Row]:
    """The turns of a sender among these rows, and the entries of these turns."""
    turns = frozenset(of.turns)
    return [r for r in rows if (r.id if r.what == "turn" else r.turn) in turns]


def lines_of(of: OfSender, act: Act) -> Iterator[str]:
    """Lines about what is not found this way; before an erasure also about shared and
    erased turns."""
    erases = act is Act.REDACT
    if erases and of.erased:
        yield f"{of.erased:,} of all turns of the sender have no text any more"
    if erases and of.shared:
        yield f"{of.shared:,} of all turns hold messages of others, too"
    for text in _uncovered(of, act):
        yield f"not covered: {text}"


def facts_of(of: OfSender, act: Act) -> dict[str, Any]:
    """The same facts for a program."""
    return {
        "erased_before": of.erased,
        "shared": of.shared,
        "not_covered": list(_uncovered(of, act)),
    }


def _uncovered(of: OfSender, act: Act) -> tuple[str, ...]:
    more = []
    if of.nameless:
        more.append(f"{of.nameless:,} updates that nobody could read (turnfold turns)")
    if of.unreadable:
        more.append(f"{of.unreadable:,} damaged records (turnfold audit)")
    return (*(NOT_COVERED if act is Act.REDACT else ()), *more)
