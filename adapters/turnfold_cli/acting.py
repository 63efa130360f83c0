"""Carrying out an act: for one id, or for all rows of some filters - with a preview, a
count and a question before it, and progress during it."""

import asyncio
import getpass
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from attrs import evolve, frozen

from turnfold.api.acts import Act, Acted, Target
from turnfold.errors import UsageError
from turnfold.inspect import Filter, Inspect, Row
from turnfold.inspect.senders import OfSender
from turnfold.ports.store import Store
from turnfold_cli import FOUND, USAGE
from turnfold_cli.client import client_of
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    inspect_of,
    opened,
    place_text,
    shown_rows,
    told,
)
from turnfold_cli.filters import Wanted
from turnfold_cli.of_sender import among, facts_of, lines_of, of_sender
from turnfold_cli.output import age, clean, plain, say_json, screen_of, steps
from turnfold_cli.screen import Screen, console


def named() -> str:
    """The name of the user; in a container the user id may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


By = Annotated[
    str | None,
    typer.Option("--by", help="Who decides; the log keeps it. Default: you."),
]
Why = Annotated[str, typer.Option("--why", help="The reason, for the log.")]
Seen = Annotated[
    int | None,
    typer.Option(
        "--seen",
        min=1,
        help="Only if it still has this `version` (of --json): nothing has moved it.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
PAGE, SHOWN, _STEP = 1_000, 5, 1_000


@frozen
class How:
    """The options that all acts share."""

    by: By = None
    why: Why = ""
    seen: Seen = None
    dry_run: DryRun = False
    yes: Yes = False
    store: StorePath = STORE
    as_json: AsJson = False

    @property
    def who(self) -> str:
        return self.by or named()


@frozen(kw_only=True)
class Chosen:
    """One id, with its version in the preview."""

    id: str
    version: int | None = None


def perform(act: Act, how: How, wanted: str | None, want: Wanted, **extra: Any) -> None:
    """Carry out an act, for the id `wanted` or for all that fit the filters."""
    with answering(as_json=how.as_json):
        if wanted is None:
            _check_filters(act, how, want)
            _many(act, how, want, extra)
        elif want.any:
            raise RefusedError("give an id or filters, not both", USAGE)
        else:
            _one(act, how, wanted, extra)


def _check_filters(act: Act, how: How, want: Wanted) -> None:
    if how.seen is not None:
        raise RefusedError("--seen goes with one id", USAGE)
    if not want.any:
        text = f"which? give an id, or filters: turnfold {act} --help"
        raise RefusedError(text, USAGE)


# --- one id ---------------------------------------------------------------------------


def _one(act: Act, how: How, wanted: str, extra: dict[str, Any]) -> None:
    if how.dry_run:
        raise RefusedError("--dry-run goes with filters", USAGE)
    acted, following = asyncio.run(_done(act, how, wanted, extra))
    done = _said(act, acted, extra)
    if how.as_json:
        facts = {"id": acted.id, "act": done, "by": how.who, "next": plain(following)}
        say_json(facts)
    else:
        screen = console()
        screen.print(clean(f"{acted.id} {done}, by {how.who}"))
        if following is not None:
            screen.print(clean(f"next: {following.text}"))
            steps(screen, following.commands)
        screen.print(clean(f"see: turnfold show {acted.id}"))
    if act is Act.ABORT and acted.done != "aborted":
        raise typer.Exit(FOUND)


async def _done(
    act: Act, how: How, wanted: str, extra: dict[str, Any]
) -> tuple[Acted, Any]:
    async with opened(how.store) as store:  # nothing is made where no store is
        stream = await told(Inspect(store), lambda i: i.resolve(wanted))
        rows = await Inspect(store).rows((stream,))
    version = how.seen
    if version is None and rows and act is not Act.ABORT:
        version = rows[0].version
    target = Chosen(id=stream, version=version)
    async with client_of(how.store) as kernel:
        acting = kernel.act_on(act, [target], by=how.who, why=how.why, **extra)
        (acted,) = [one async for one in acting]
    if isinstance(acted.error, UsageError):
        text = f"{acted.error}; see: turnfold show {wanted}"
        raise RefusedError(text, USAGE, acted.error.code)
    if acted.error is not None:
        raise acted.error
    async with opened(how.store) as store:
        view: Any = await (await inspect_of(store)).show(stream)
    return acted, view.next


_SAYS = {
    Act.ACK: "counts as seen",
    Act.UNHOLD: "runs",
    Act.REDACT: "is erased",
    Act.RESUBMIT: "is run again",
}


def _said(act: Act, acted: Acted, extra: dict[str, Any]) -> str:
    if act is Act.RESOLVE:
        return f"resolved as {extra['verdict']}"
    if act is Act.ABORT and acted.done != "aborted":
        return f"not aborted: {(acted.done or '').removeprefix('asked: ')}"
    return _SAYS.get(act) or acted.done or "done"


# --- many -----------------------------------------------------------------------------

_WAITING = ("queued", "failed_retryable")
FITS: dict[Act, Callable[[Row], bool]] = {
    Act.RETRY: lambda r: r.status in ("failed_terminal", *_WAITING, "failed"),
    Act.RESOLVE: lambda r: r.status in ("parked", "attempted"),
    Act.DISCARD: lambda r: r.open or r.person,
    Act.ACK: lambda r: r.person and not r.open,
    Act.ABORT: lambda r: r.open,
    Act.UNHOLD: lambda r: r.person,
    Act.REDACT: lambda r: not r.open,
    Act.RESUBMIT: lambda r: r.status == "failed",
}


@frozen(kw_only=True)
class Preview:
    """`rows`: the oldest first. `others`: rows that fit the filters, but not the act.
    `asked`: rows with the same act in the inbox already."""

    rows: tuple[Row, ...]
    others: int
    asked: int
    of: OfSender | None = None


def _many(act: Act, how: How, want: Wanted, extra: dict[str, Any]) -> None:
    question = want.filter(how.store, limit=PAGE)
    if how.as_json and not (how.yes or how.dry_run):
        raise RefusedError("--json asks nothing: say --yes or --dry-run", USAGE)
    preview = asyncio.run(previewed(act, how.store, question, want))
    if not how.as_json:
        _show(console(), act, preview, extra)
    if how.dry_run or not (preview.rows or preview.asked):
        if how.as_json:
            say_json(_counts(act, how, preview) | {"done": {}, "refused": []})
        return
    if not how.yes and not _sure(act, preview):
        typer.echo("nothing was done", err=True)
        return
    results = _all_of(act, how, preview.rows, extra)
    _tell(act, how, preview, results)
    if any(one.error is not None for one in results):
        raise typer.Exit(FOUND)


async def previewed(act: Act, address: str, question: Filter, want: Wanted) -> Preview:
    """The rows that the act would change, among those that the question finds. `want`:
    the filters of the question."""
    of = None
    async with opened(address) as store:
        if want.sender is not None:
            of = await of_sender(store, question, want.sender)
        found = await _all(store, question, of)
        waiting = await asked_for(act, store)
    fit = [row for row in found if FITS[act](row)]
    rows = [row for row in fit if row.id not in waiting]
    return Preview(
        rows=tuple(reversed(rows)),
        others=len(found) - len(fit),
        asked=len(fit) - len(rows),
        of=of,
    )


async def asked_for(act: Act, store: Store) -> set[str]:
    """The streams with the same act in the inbox."""
    kinds = {act.value, "acknowledge" if act is Act.ACK else act.value}
    return {c.stream for c in await Inspect(store).inbox() if c.kind in kinds}


async def _all(store: Store, question: Filter, of: OfSender | None) -> list[Row]:
    inspect, before = Inspect(store), None
    found: list[Row] = []
    while True:
        page = await inspect.list(evolve(question, before=before))
        found += page if of is None else among(page, of)
        if len(page) < question.limit:
            return found
        before = page[-1].order


def _show(screen: Screen, act: Act, preview: Preview, extra: dict[str, Any]) -> None:
    head, *more = told_of(act, preview, **extra)
    screen.print(clean(head))
    if preview.rows:
        rows = shown_rows(preview.rows[:SHOWN])
        screen_of(rows, screen, give=("words", "to"))
    for line in more:
        screen.print(f"  {clean(line)}")


def told_of(act: Act, preview: Preview, **extra: Any) -> Iterator[str]:
    """The preview of an act, in a few lines."""
    rows = preview.rows
    ages = dict.fromkeys(age(row.created) for row in (*rows[:1], *rows[-1:]))
    old = f"; {' to '.join(ages)} old" if rows else ""
    yield f"{act}: {counted(rows)}{_places(rows)}{old}"
    if len(rows) > SHOWN:
        yield f"... and {len(rows) - SHOWN:,} more"
    if preview.others:
        yield f"{preview.others:,} others fit the filters, but not {act}"
    if preview.asked:
        yield f"{preview.asked:,} were asked for before and are in the inbox"
    if preview.of is not None:
        yield from lines_of(preview.of, act)
    risky = sum(row.reason == "outcome_unknown" for row in rows)
    if act is Act.RETRY and risky and not extra.get("accept_duplicate"):
        yield f"{risky:,} of them may have arrived: refused without --accept-duplicate"


def counted(rows: Sequence[Row]) -> str:
    """The number of entries or turns, in words."""
    turns = bool(rows) and rows[0].what == "turn"
    one, more = ("turn", "turns") if turns else ("entry", "entries")
    return f"{len(rows):,} {one if len(rows) == 1 else more}"


def _places(rows: Sequence[Row]) -> str:
    counts = Counter(place_text(r.channel, r.account, "") for r in rows)
    named = [f"{clean(name)} {count:,}" for name, count in counts.most_common(6)]
    more = ", ..." if len(counts) > len(named) else ""
    return f" ({', '.join(named)}{more})" if named else ""


def _sure(act: Act, preview: Preview) -> bool:
    """Ask for a confirmation. Without a terminal this is wrong usage."""
    check_asking()
    count = len(preview.rows) + preview.asked
    return typer.confirm(f"{act} {count:,}?", err=True)


def check_asking() -> None:
    """Raises RefusedError without a terminal for a question."""
    if not sys.stdin.isatty():
        raise RefusedError("there is no terminal to ask: say --yes or --dry-run", USAGE)


async def act_on(
    act: Act,
    address: str,
    rows: Sequence[Target],
    tell: Callable[[Acted], bool],
    **said: Any,
) -> None:
    """Carry out an act on rows, as a client of the store. `tell` is called for each as
    soon as it is durable; if it returns False, the rest is left. Commands in the inbox
    go first."""
    await _still_there(address)
    async with client_of(address) as kernel:
        await kernel.taken_up()
        async for acted in kernel.act_on(act, rows, **said):
            if not tell(acted):
                return


async def _still_there(address: str) -> None:
    """Raises RefusedError if there is no store any more, so that none is created."""
    async with opened(address):
        pass


def _all_of(act: Act, how: How, rows: Sequence[Row], extra: Any) -> list[Acted]:
    """Carry out an act on all rows, with progress on stderr."""
    results: list[Acted] = []

    def tell(acted: Acted) -> bool:
        results.append(acted)
        if len(results) % _STEP == 0 and len(rows) > _STEP:
            typer.echo(f"{len(results):,} of {len(rows):,}", err=True)
        return True

    asyncio.run(act_on(act, how.store, rows, tell, by=how.who, why=how.why, **extra))
    return results


def _counts(act: Act, how: How, preview: Preview) -> dict[str, Any]:
    return {
        "act": str(act),
        "by": how.who,
        "count": len(preview.rows),
        "others": preview.others,
        "asked": preview.asked,
        "ids": [{"id": row.id, "version": row.version} for row in preview.rows],
        **({} if preview.of is None else facts_of(preview.of, act)),
    }


def _tell(act: Act, how: How, preview: Preview, results: Sequence[Acted]) -> None:
    done = Counter(one.done for one in results if one.error is None)
    refused = [one for one in results if one.error is not None]
    if how.as_json:
        whys = [{"id": one.id, "error": str(one.error)} for one in refused]
        facts = {"done": {str(k): n for k, n in done.items()}, "refused": whys}
        say_json(_counts(act, how, preview) | facts)
        return
    screen = console()
    kinds = [(name, count) for name, count in done.most_common() if name != "done"]
    words = ", ".join(f"{clean(name)} {count:,}" for name, count in kinds)
    total = sum(done.values()) + preview.asked
    screen.print(f"{total:,} done{f': {words}' if words else ''}, by {clean(how.who)}")
    for one in refused[:SHOWN]:
        screen.print(clean(f"  not {one.id}: {one.error}"))
    if len(refused) > SHOWN:
        screen.print(f"  {len(refused) - SHOWN:,} more were refused", style="dim")
    if refused:
        screen.print("look again and repeat the command: turnfold list")
