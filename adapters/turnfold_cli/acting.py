"""How an act is carried out: for one id, or for all that filters find - with a preview, a
count, a question before it, and progress while it is done."""

import asyncio
import getpass
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from attrs import evolve, frozen
from rich.console import Console

from turnfold import Kernel
from turnfold.api.acts import Act, Acted
from turnfold.inspect import Inspect, Row
from turnfold.inspect.senders import OfSender
from turnfold.ports.store import Store
from turnfold_cli import FOUND, USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    opened,
    place_text,
    shown_rows,
    told,
)
from turnfold_cli.filters import Wanted
from turnfold_cli.of_sender import facts_of, rows_of, tell_of
from turnfold_cli.output import age, clean, console, plain, say_json, screen_of, steps


def named() -> str:
    """The name of whoever types; a container may have no user of that number."""
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
_PAGE, _SHOWN, _STEP = 1_000, 5, 1_000


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
class Target:
    """One id, and the version that it had when it was looked at."""

    id: str
    version: int | None = None


def perform(act: Act, how: How, wanted: str | None, want: Wanted, **extra: Any) -> None:
    """Do it, for the id `wanted` or for all that fit the filters."""
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
    target = Target(id=stream, version=version)
    async with Kernel(how.store, work=False) as kernel:
        acting = kernel.act_on(act, [target], by=how.who, why=how.why, **extra)
        (acted,) = [one async for one in acting]
    if acted.error is not None:
        raise acted.error
    async with opened(how.store) as store:
        view: Any = await Inspect(store).show(stream)
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
_FITS: dict[Act, Callable[[Row], bool]] = {
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
    """`rows`: the oldest first. `others`: fit the filters, and the act does not fit
    them. `asked`: the same act for them lies in the inbox already."""

    rows: tuple[Row, ...]
    others: int
    asked: int
    of: OfSender | None = None


def _many(act: Act, how: How, want: Wanted, extra: dict[str, Any]) -> None:
    question = want.filter(how.store, limit=_PAGE)
    if how.as_json and not (how.yes or how.dry_run):
        raise RefusedError("--json asks nothing: say --yes or --dry-run", USAGE)
    preview = asyncio.run(_preview(act, how.store, question, want))
    if not how.as_json:
        _show(console(), act, preview, extra)
    if how.dry_run or not (preview.rows or preview.asked):
        if how.as_json:
            say_json(_counts(act, how, preview) | {"done": {}, "refused": []})
        return
    if not how.yes and not _sure(act, preview):
        typer.echo("nothing was done", err=True)
        return
    results = asyncio.run(_act_on(act, how, preview.rows, extra))
    _tell(act, how, preview, results)
    if any(one.error is not None for one in results):
        raise typer.Exit(FOUND)


async def _preview(act: Act, address: str, question: Any, want: Wanted) -> Preview:
    of = None
    async with opened(address) as store:
        if want.sender is None:
            found = await _all(store, question)
        else:
            found, of = await rows_of(store, question, want)
        waiting = {(c.kind, c.stream) for c in await Inspect(store).inbox()}
    kinds = {act.value, "acknowledge" if act is Act.ACK else act.value}
    fit = [row for row in found if _FITS[act](row)]
    rows = [r for r in fit if not any((kind, r.id) in waiting for kind in kinds)]
    return Preview(
        rows=tuple(reversed(rows)),
        others=len(found) - len(fit),
        asked=len(fit) - len(rows),
        of=of,
    )


async def _all(store: Store, question: Any) -> list[Row]:
    inspect, before = Inspect(store), None
    found: list[Row] = []
    while True:
        page = await inspect.list(evolve(question, before=before))
        found += page
        if len(page) < question.limit:
            return found
        before = page[-1].order


def _show(screen: Console, act: Act, preview: Preview, extra: dict[str, Any]) -> None:
    rows = preview.rows
    screen.print(clean(f"{act}: {_counted(rows)}{_places(rows)}"))
    if rows:
        ages = f"the oldest is {age(rows[0].created)} old, the newest"
        if len(rows) > 1:
            screen.print(f"  {ages} {age(rows[-1].created)}")
        screen_of(shown_rows(rows[:_SHOWN]), screen, give=("words", "to"))
    if len(rows) > _SHOWN:
        screen.print(f"... and {len(rows) - _SHOWN:,} more", style="dim")
    if preview.others:
        screen.print(f"  {preview.others:,} others fit the filters, but not {act}")
    if preview.asked:
        screen.print(f"  {preview.asked:,} were asked for before and are in the inbox")
    if preview.of is not None:
        tell_of(screen, preview.of)
    risky = sum(row.reason == "outcome_unknown" for row in rows)
    if act is Act.RETRY and risky and not extra.get("accept_duplicate"):
        text = f"  {risky:,} of them may have arrived: refused without"
        screen.print(f"{text} --accept-duplicate")


def _counted(rows: Sequence[Row]) -> str:
    turns = bool(rows) and rows[0].what == "turn"
    one, more = ("turn", "turns") if turns else ("entry", "entries")
    return f"{len(rows):,} {one if len(rows) == 1 else more}"


def _places(rows: Sequence[Row]) -> str:
    counts = Counter(place_text(r.channel, r.account, "") for r in rows)
    named = [f"{clean(name)} {count:,}" for name, count in counts.most_common(6)]
    more = ", ..." if len(counts) > len(named) else ""
    return f" ({', '.join(named)}{more})" if named else ""


def _sure(act: Act, preview: Preview) -> bool:
    """Ask; where nobody can answer, it is wrong use."""
    check_asking()
    count = len(preview.rows) + preview.asked
    return typer.confirm(f"{act} {count:,}?", err=True)


def check_asking() -> None:
    """Raises RefusedError where nobody sits that could be asked."""
    if not sys.stdin.isatty():
        raise RefusedError("nobody can be asked here: say --yes or --dry-run", USAGE)


async def _act_on(
    act: Act, how: How, rows: Sequence[Row], extra: dict[str, Any]
) -> list[Acted]:
    """Do it, and tell on stderr how far it is. Commands in the inbox go first."""
    results: list[Acted] = []
    async with Kernel(how.store, work=False) as kernel:
        await kernel.taken_up()
        acting = kernel.act_on(act, rows, by=how.who, why=how.why, **extra)
        async for acted in acting:
            results.append(acted)
            if len(results) % _STEP == 0 and len(rows) > _STEP:
                typer.echo(f"{len(results):,} of {len(rows):,}", err=True)
    return results


def _counts(act: Act, how: How, preview: Preview) -> dict[str, Any]:
    return {
        "act": str(act),
        "by": how.who,
        "count": len(preview.rows),
        "others": preview.others,
        "asked": preview.asked,
        "ids": [{"id": row.id, "version": row.version} for row in preview.rows],
        **({} if preview.of is None else facts_of(preview.of)),
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
    for one in refused[:_SHOWN]:
        screen.print(clean(f"  not {one.id}: {one.error}"))
    if len(refused) > _SHOWN:
        screen.print(f"  {len(refused) - _SHOWN:,} more were refused", style="dim")
    if refused:
        screen.print("look again and repeat the command: turnfold list")
