"""A person's messages, for `turnfold redact --sender`: their turns, and the messages
that it cannot find."""

from collections.abc import Iterator
from typing import Any

from attrs import evolve, fields

from turnfold.inspect import Filter, Inspect, Row
from turnfold.inspect.senders import OfSender
from turnfold.ports.store import Store
from turnfold_cli import USAGE
from turnfold_cli.common import RefusedError
from turnfold_cli.filters import PLACES, TIMES, Wanted

NOT_COVERED = (
    "plugin state, archives, backups, logs of this process",
    "what other people wrote about them, and messages sent to them without a turn",
    "what was posted and no worker has taken up yet (turnfold inbox)",
)


async def rows_of(
    store: Store, question: Filter, want: Wanted
) -> tuple[list[Row], OfSender]:
    """The turns with a message of the sender, newest first, in the wanted place and
    time."""
    taken, none = {*PLACES, *TIMES, "sender", "turns"}, Wanted()
    names = [field.name for field in fields(Wanted) if field.name not in taken]
    if any(getattr(want, name) != getattr(none, name) for name in names):
        text = (
            "--sender goes with --channel, --account, --conversation, --since, --until"
        )
        raise RefusedError(text, USAGE)
    inspect = Inspect(store)
    await inspect.list(evolve(question, limit=1))  # raises for an unknown place
    of = await inspect.of_sender(str(want.sender))
    rows = [row for row in await inspect.rows(of.turns) if _fits(row, question)]
    return sorted(rows, key=lambda row: -row.order), of


def _fits(row: Row, question: Filter) -> bool:
    asked = [(getattr(question, name), getattr(row, name)) for name in PLACES]
    since, until = question.since, question.until
    return (
        all(wanted in (None, found) for wanted, found in asked)
        and (since is None or row.created >= since)
        and (until is None or row.created < until)
    )


def lines_of(of: OfSender) -> Iterator[str]:
    """Lines about shared and erased turns, and about messages that are not found this
    way."""
    if of.erased:
        yield f"{of.erased:,} of all turns of the sender have no text any more"
    if of.shared:
        yield f"{of.shared:,} of all turns hold messages of others, too"
    for text in _uncovered(of):
        yield f"not covered: {text}"


def facts_of(of: OfSender) -> dict[str, Any]:
    """The same facts for a program."""
    return {
        "erased_before": of.erased,
        "shared": of.shared,
        "not_covered": list(_uncovered(of)),
    }


def _uncovered(of: OfSender) -> tuple[str, ...]:
    more = []
    if of.nameless:
        more.append(f"{of.nameless:,} updates that nobody could read (turnfold turns)")
    if of.unreadable:
        more.append(f"{of.unreadable:,} damaged records (turnfold audit)")
    return (*NOT_COVERED, *more)
