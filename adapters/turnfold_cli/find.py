"""`turnfold find`: a message by place and time, with its answer."""

from collections.abc import Sequence
from shlex import quote
from typing import Annotated

import typer

from turnfold.inspect import Filter, Found, Inspect
from turnfold_cli import USAGE
from turnfold_cli.common import STORE, AsJson, RefusedError, StorePath, answering, ask
from turnfold_cli.list_ import Limit
from turnfold_cli.output import clean, cut, day, plain, say_json, when, zone_line
from turnfold_cli.screen import Screen, console
from turnfold_cli.times import Since, Until, Utc, length, moment, span

Where = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="channel, channel/conversation or channel/account/conversation",
    ),
]
Words = Annotated[
    list[str] | None, typer.Argument(metavar="[WORDS]...", show_default=False)
]
At = Annotated[str | None, typer.Option("--at", help="About then: 10:03, a date, 2h.")]
Within = Annotated[str, typer.Option(help="How far around --at: 10min, 2h.")]


def find(
    place: Where,
    words: Words = None,
    at: At = None,
    within: Within = "10min",
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    store: StorePath = STORE,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Find messages by place, time and words, newest first."""
    with answering(as_json=as_json):
        want = window(at, within, since, until, limit)
        text = " ".join(words or ())

        async def question(inspect: Inspect) -> tuple[Found, ...]:
            return await inspect.find(await inspect.place(place), want, text)

        found = ask(store, question)
        if as_json:
            say_json({"found": [plain(one) for one in found]})
        else:
            _print(console(), place, words or (), found)


def window(
    at: str | None, within: str, since: str | None, until: str | None, limit: int
) -> Filter:
    """The searched span of time."""
    middle = moment(at, "--at")
    if middle is None:
        low, high = span(since, until)
        return Filter(since=low, until=high, limit=limit)
    if since is not None or until is not None:
        raise RefusedError("--at: give it, or --since and --until", USAGE)
    around = length(within, "--within")
    return Filter(since=middle - around, until=middle + around, limit=limit)


def _print_none(screen: Screen, place: str, words: Sequence[str]) -> None:
    screen.print("no message that fits came in")
    channel, _, conversation = place.partition("/")
    more = ""
    if conversation:
        more = f" --conversation {quote(clean(conversation.rpartition('/')[2]))}"
    elif words:  # the conversation was given as a word of its own
        meant = quote(clean(f"{channel}/{words[0]}"))
        screen.print(f"if {clean(words[0])} is a conversation: turnfold find {meant}")
    screen.print(
        f"what went out: turnfold list --channel {quote(clean(channel))}{more}"
    )


def _print(
    screen: Screen, place: str, words: Sequence[str], found: tuple[Found, ...]
) -> None:
    if not found:
        _print_none(screen, place, words)
        return
    screen.print(zone_line(), style="dim")
    last = ""
    for one in found:
        if day(one.at) != last:
            last = day(one.at)
            screen.print(last, style="dim")
        said = cut(clean(f'"{one.text}"' if one.text is not None else ""), 60)
        screen.print(f"{when(one.at, '%H:%M:%S')}  {said}", soft_wrap=True)
        verdict = cut(clean(one.turn.verdict), screen.width - 10)
        screen.print(f"          {verdict}", soft_wrap=True)
        command = f"turnfold show {one.turn.short}"
        screen.print(command.rjust(min(screen.width, 79)), soft_wrap=True, style="bold")
