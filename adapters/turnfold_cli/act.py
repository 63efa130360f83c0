"""Decisions of a person: `retry`, `resolve`, `discard`, `ack`, `abort`, `open`,
`close`,
`unhold`, `redact`, `resubmit`; for one id, or for all that filters find.

Each act is a command to the owner of the store, through its inbox. It works with a
living worker and without one; the log keeps the person and the reason.
"""

from enum import StrEnum
from typing import Annotated

import typer
from attrs import evolve

from turnfold.api.acts import Act
from turnfold_cli import USAGE
from turnfold_cli.acting import How, perform
from turnfold_cli.common import RefusedError, answering
from turnfold_cli.filters import ENTRIES, TIMES, TURNS, Name, Wanted, options
from turnfold_cli.holding import move
from turnfold_cli.times import length

Id = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="Id of a turn or an entry (its beginning will do), or a message id; "
        "without it the filters say which.",
        show_default=False,
    ),
]
Held = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID|PLACE]",
        help="Id of a turn, an entry or a gate; or a place, like telegram/default or "
        "telegram/default/42.",
        show_default=False,
    ),
]
Place = Annotated[
    str | None,
    typer.Argument(
        metavar="[PLACE]",
        help="An account or a conversation: telegram/default, telegram/default/42.",
        show_default=False,
    ),
]
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[ID] VERDICT",
        help="delivered, not_sent, resend or give_up. Without an id the filters say "
        "which.",
    ),
]
Duplicate = Annotated[
    bool,
    typer.Option(
        "--accept-duplicate",
        help="Send again even if it may have arrived: it may be seen twice.",
    ),
]
For = Annotated[
    str | None, typer.Option("--for", help="Not for ever: 30min, 2h.", metavar="LENGTH")
]
_HOW = ("by", "why", "seen", "dry_run", "yes", "store", "as_json")
_HOW_OF_PLACES = tuple(name for name in _HOW if name != "seen")
_WHEN = ("sender", *TIMES)
BOTH = (Wanted, (*ENTRIES, "turns", "open_", *_WHEN))
ONLY_ENTRIES = (Wanted, (*ENTRIES, *_WHEN))
ONLY_TURNS = (Wanted, (*TURNS, *_WHEN))
HOW, HOW_OF_PLACES = (How, _HOW), (How, _HOW_OF_PLACES)


class Verdict(StrEnum):
    """A person's verdict on a message in doubt."""

    DELIVERED = "delivered"
    NOT_SENT = "not_sent"
    RESEND = "resend"
    GIVE_UP = "give_up"


@options(want=BOTH, how=HOW)
def retry(
    want: Wanted, how: How, wanted: Id = None, accept_duplicate: Duplicate = False
) -> None:
    """Send a dead letter again, run a failed turn again, or hurry what waits."""
    perform(Act.RETRY, how, wanted, want, accept_duplicate=accept_duplicate)


@options(want=ONLY_ENTRIES, how=HOW)
def resolve(want: Wanted, how: How, words: Words) -> None:
    """Say what became of an entry that is in doubt or parked."""
    with answering(as_json=how.as_json):
        wanted, verdict = _id_and_verdict(words)
    perform(Act.RESOLVE, how, wanted, want, verdict=verdict)


def _id_and_verdict(words: list[str]) -> tuple[str | None, str]:
    *ids, verdict = words
    if verdict not in [*Verdict] or len(ids) > 1:
        there = ", ".join(Verdict)
        text = f"{verdict!r:.80} is no verdict; say one of: {there}, after the id"
        raise RefusedError(text, USAGE)
    return (ids[0] if ids else None), verdict


@options(want=BOTH, how=HOW)
def discard(want: Wanted, how: How, wanted: Id = None) -> None:
    """Do nothing more about it: dead letters count as seen, the rest is aborted."""
    perform(Act.DISCARD, how, wanted, want)


@options(want=ONLY_ENTRIES, how=HOW)
def ack(want: Wanted, how: How, wanted: Id = None) -> None:
    """Say that a dead letter was seen: `status` does not count it any more."""
    perform(Act.ACK, how, wanted, want)


@options(want=BOTH, how=HOW)
def abort(want: Wanted, how: How, wanted: Id = None) -> None:
    """Stop a turn or an entry. Exit 1 if it is too late, or still on the wire."""
    perform(Act.ABORT, how, wanted, want)


@options(want=ONLY_TURNS, how=HOW)
def unhold(want: Wanted, how: How, wanted: Id = None) -> None:
    """Let a turn run that is held for a person."""
    perform(Act.UNHOLD, how, wanted, evolve(want, turns=True))


@options(want=ONLY_TURNS, how=HOW)
def resubmit(want: Wanted, how: How, wanted: Id = None) -> None:
    """Run a failed turn again, once."""
    perform(Act.RESUBMIT, how, wanted, evolve(want, turns=True))


@options(want=BOTH, how=HOW)
def redact(want: Wanted, how: How, wanted: Id = None) -> None:
    """Erase for good the texts, files and errors of what is over; its events stay. A
    turn takes its entries with it. With --sender all that a person wrote goes, with the
    answers; other filters narrow it, and speak of turns."""
    if want.sender is not None:
        want = evolve(want, turns=True)
    perform(Act.REDACT, how, wanted, want)


@options(how=HOW_OF_PLACES)
def open_(
    how: How, wanted: Held = None, channel: Name = None, account: Name = None
) -> None:
    """Open the gates that hold a place or an entry back; let a held turn run."""
    move(Act.OPEN, how, wanted, channel, account)


@options(how=HOW_OF_PLACES)
def close(
    how: How,
    wanted: Place = None,
    channel: Name = None,
    account: Name = None,
    for_: For = None,
) -> None:
    """Hold a place back: nothing of it is sent until a person opens it."""
    with answering(as_json=how.as_json):
        for_ms = None if for_ is None else length(for_, "--for")
    move("close", how, wanted, channel, account, for_ms=for_ms)
