"""`open` and `close`: the gates of a place, of an id, or of many accounts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import typer

from turnfold.errors import UsageError
from turnfold.inspect import Filter, Inspect
from turnfold.messages import escape
from turnfold.ports.store import Store
from turnfold_cli import FOUND, USAGE
from turnfold_cli.acting import How, check_asking
from turnfold_cli.client import client_of
from turnfold_cli.common import RefusedError, answering, opened, told
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

GATE = "gate:"  # the prefix of a gate's name
_SHOWN = 12


def move(
    act: str,
    how: How,
    wanted: str | None,
    channel: str | None,
    account: str | None,
    **extra: Any,
) -> None:
    """Open or close one place, or all accounts that `channel` and `account` name."""
    with answering(as_json=how.as_json):
        named = channel is not None or account is not None
        if named == (wanted is not None):
            text = f"which? give a place, or --channel: turnfold {act} --help"
            raise RefusedError(text, USAGE)
        places = asyncio.run(places_of(act, how.store, wanted, channel, account))
        if how.dry_run or not _sure(act, how, places, many=wanted is None):
            _say(act, how, [(place, "would be done") for place in places])
            return
        done = asyncio.run(
            moved(
                act,
                how.store,
                places,
                extra,
                by=how.who,
                why=how.why,
                one=wanted is not None,
            )
        )
        _say(act, how, done)
    if any(said.startswith("not done") for _, said in done):
        raise typer.Exit(FOUND)


async def places_of(
    act: str, address: str, wanted: str | None, channel: str | None, account: str | None
) -> list[str]:
    """The places for an id, a place, a channel or an account. Raises RefusedError or
    InvalidInputError for an unknown one."""
    async with opened(address) as store:  # raises if there is no store
        inspect = Inspect(store)
        if wanted is None:
            return await _matching(act, inspect, channel, account)
        if wanted.startswith(GATE):
            return [wanted]
        if "/" in wanted:
            await _check(store, wanted)
            return [wanted]
        if act == "close":
            text = f"{wanted!r:.80} is no place; give one like telegram/default"
            raise RefusedError(text, USAGE)
        return [await told(inspect, lambda i: i.resolve(wanted))]


async def _check(store: Store, wanted: str) -> None:
    """Raises InvalidInputError for an account without any message."""
    channel, account, *_ = wanted.split("/", 2)
    await Inspect(store).list(Filter(channel=channel, account=account, limit=1))


async def _matching(
    act: str, inspect: Inspect, channel: str | None, account: str | None
) -> list[str]:
    want = Filter(channel=channel, account=account, limit=1)
    await inspect.list(want)  # raises for unknown names
    found = [
        f"{GATE}{escape(c.channel)}/{escape(c.account)}"
        for c in await inspect.channels(Filter(channel=channel, account=account))
        if channel in (None, c.channel) and account in (None, c.account)
    ]
    if act == "close":
        return found
    beginnings = tuple(f"{name}/" for name in found)
    closed = [gate.id for gate in await inspect.gates()]
    return [n for n in closed if n in found or n.startswith(beginnings)]


def _sure(act: str, how: How, places: Sequence[str], *, many: bool) -> bool:
    """Ask for a confirmation of more than one place. Without a terminal this is wrong
    usage."""
    if not many or how.yes or not places:
        return True
    check_asking()
    for place in places[:_SHOWN]:
        typer.echo(f"  {clean(place.removeprefix(GATE))}", err=True)
    return typer.confirm(f"{act} {len(places)}?", err=True)


async def moved(
    act: str,
    address: str,
    places: Sequence[str],
    extra: Mapping[str, Any],
    *,
    by: str,
    why: str,
    one: bool = False,
) -> list[tuple[str, str]]:
    """Open or close each place, and return the results. `one`: raise a refusal."""
    done = []
    async with client_of(address) as kernel:
        doing: Callable[..., Awaitable[Any]] = (
            kernel.hold_back if act == "close" else kernel.let_go
        )
        for place in places:
            try:
                names = await doing(place, by=by, why=why, **extra)
            except UsageError as exc:
                if one:
                    raise
                done.append((place, f"not done: {exc}"))
            else:
                whole = [names] if isinstance(names, str) else names
                done.append((place, f"{_WORD[act]}: {', '.join(whole)}"))
    return done


_WORD = {"open": "let go", "close": "held back"}


def _say(act: str, how: How, done: Sequence[tuple[str, str]]) -> None:
    if how.as_json:
        rows = [{"place": place, "done": said} for place, said in done]
        say_json({"act": act, "by": how.who, "places": rows})
        return
    screen = console()
    if not done:
        screen.print("nothing that fits")
    for place, said in done:
        screen.print(clean(f"{place.removeprefix(GATE)} {said}, by {how.who}"))
    screen.print("see: turnfold gates")
