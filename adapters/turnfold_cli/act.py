"""What a person decides about one id: `retry`, `resolve`, `discard`, `abort`, `open`.

Each act is a command to the owner of the store, through its inbox. It works beside a
living worker and without one; the log keeps who decided, and why.
"""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from turnfold import Kernel
from turnfold.inspect import Inspect, Next
from turnfold_cli import FOUND
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened, told
from turnfold_cli.output import clean, console, plain, say_json, steps


def named() -> str:
    """The name of whoever types; a container may have no user of that number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of a turn or an entry (its beginning will do), or a message id.",
    ),
]
Place = Annotated[
    str,
    typer.Argument(
        metavar="ID|CHANNEL/ACCOUNT",
        help="Id of a turn, an entry or a gate; or an account, like telegram/default.",
    ),
]
By = Annotated[
    str | None,
    typer.Option("--by", help="Who decides; the log keeps it. Default: you."),
]
Why = Annotated[str, typer.Option("--why", help="The reason, for the log.")]
Duplicate = Annotated[
    bool,
    typer.Option(
        "--accept-duplicate",
        help="Send again even if it may have arrived: it may be seen twice.",
    ),
]


class Verdict(StrEnum):
    """What became of a message that is in doubt."""

    DELIVERED = "delivered"
    NOT_SENT = "not_sent"
    RESEND = "resend"
    GIVE_UP = "give_up"


_Act = Callable[[Kernel, str, str], Awaitable[str]]


def retry(
    wanted: Id,
    by: By = None,
    why: Why = "",
    accept_duplicate: Duplicate = False,
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Send a dead letter again, run a failed turn again, or hurry what waits."""

    async def act(kernel: Kernel, stream: str, who: str) -> str:
        return await kernel.retry(
            stream, by=who, why=why, accept_duplicate=accept_duplicate
        )

    _perform(act, wanted, by, store, as_json=as_json)


def resolve(
    wanted: Id,
    verdict: Annotated[Verdict, typer.Argument(help="What became of it.")],
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Say what became of an entry that is in doubt or parked."""

    async def act(kernel: Kernel, stream: str, who: str) -> str:
        await kernel.resolve(stream, verdict.value, by=who, why=why)
        return f"resolved as {verdict.value}"

    _perform(act, wanted, by, store, as_json=as_json)


def discard(
    wanted: Id,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Do nothing more about it: dead letters count as seen, the rest is aborted."""

    async def act(kernel: Kernel, stream: str, who: str) -> str:
        return await kernel.discard(stream, by=who, why=why)

    _perform(act, wanted, by, store, as_json=as_json)


def abort(
    wanted: Id,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Stop a turn or an entry. Exit 1 if it is too late, or still on the wire."""
    late = False

    async def act(kernel: Kernel, stream: str, who: str) -> str:
        nonlocal late
        done = await kernel.abort(stream, by=who, why=why)
        late = not done.aborted
        return "aborted" if done.aborted else f"not aborted: it is {done.status}"

    _perform(act, wanted, by, store, as_json=as_json)
    if late:
        raise typer.Exit(FOUND)


def open_(
    wanted: Place,
    by: By = None,
    why: Why = "",
    store: StorePath = STORE,
    as_json: AsJson = False,
) -> None:
    """Open the gates that hold an account or an entry; let a held turn run."""

    async def act(kernel: Kernel, stream: str, who: str) -> str:
        names = await kernel.let_go(stream, by=who, why=why)
        return f"let go: {', '.join(names)}"

    _perform(act, wanted, by, store, as_json=as_json)


def _perform(
    act: _Act, wanted: str, by: str | None, address: str, *, as_json: bool
) -> None:
    with answering(as_json=as_json):
        who = by or named()
        stream, done, following = asyncio.run(_done(act, wanted, who, address))
        if as_json:
            facts = {"id": stream, "act": done, "by": who, "next": plain(following)}
            say_json(facts)
            return
        screen = console()
        screen.print(clean(f"{stream} {done}, by {who}"))
        if following is not None:
            screen.print(clean(f"next: {following.text}"))
            steps(screen, following.commands)
        if not _is_place(stream):
            screen.print(clean(f"see: turnfold show {stream}"))


async def _done(
    act: _Act, wanted: str, who: str, address: str
) -> tuple[str, str, Next | None]:
    async with opened(address) as store:  # nothing is made where no store is
        stream = wanted
        if not _is_place(wanted):
            stream = await told(Inspect(store), lambda i: i.resolve(wanted))
    async with Kernel(address, work=False) as kernel:
        done = await act(kernel, stream, who)
    if _is_place(stream):
        return stream, done, None
    async with opened(address) as store:
        view: Any = await Inspect(store).show(stream)
    return stream, done, view.next


def _is_place(wanted: str) -> bool:
    """An account is written `channel/account`; no id of a turn or an entry has a `/`."""
    return "/" in wanted and ":" not in wanted
