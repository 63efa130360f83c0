"""`turnfold audit`: every rule that a log, a store and a witness can show."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from attrs import frozen
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from turnfold.audit import (
    RULES,
    Acceptance,
    Finding,
    Report,
    Witness,
    audit_archive,
    audit_log,
    audit_store,
    read_witness,
)
from turnfold.clock import Clock
from turnfold.errors import CorruptLogError
from turnfold.inspect import export
from turnfold.inspect.archive import is_archive
from turnfold.inspect.shards import shards_of
from turnfold.inspect.times import clock_of
from turnfold.ports.plugins import PluginStore, plugin_store_at
from turnfold.ports.store import Head, Store
from turnfold_adapters.stores.archive import ArchiveStore
from turnfold_adapters.stores.cipher import is_database
from turnfold_cli import FOUND, USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    for_people,
    opened,
    read_file,
)
from turnfold_cli.head import read_heads
from turnfold_cli.output import clean, plain, say_json
from turnfold_cli.screen import console

Source = Annotated[
    str | None,
    typer.Argument(
        help="A store, an archive, an export of `turnfold log`, or - for stdin."
    ),
]
WitnessFile = Annotated[
    Path | None,
    typer.Option(help="What the platform accepted: JSON with `key`, maybe `id`."),
]
Channels = Annotated[
    list[str] | None,
    typer.Option("--channel", help="The channels that the witness list speaks of."),
]
Heads = Annotated[
    list[Path] | None,
    typer.Option("--head", help="A head that the log must contain (`turnfold head`)."),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Findings to show.")]
NoBodies = Annotated[bool, typer.Option("--no-bodies", help="Leave bodies unread.")]
NoIntegrity = Annotated[
    bool, typer.Option("--no-integrity", help="Leave out the database's own check.")
]
Settled = Annotated[
    bool,
    typer.Option(
        "--settled",
        help="Also find what should have moved by now: for a stopped gateway.",
    ),
]
Of = Annotated[
    str | None,
    typer.Option("--of", help="For an archive: the store that it was taken from."),
]


@frozen(kw_only=True)
class Wanted:
    """The checks besides those of the log itself."""

    marks: tuple[Sequence[Head], ...] = ()  # of each file: one for each shard
    witness: list[Acceptance] | None = None
    channels: frozenset[str] | None = None
    bodies: bool = True
    integrity: bool = True
    settled: bool = False
    limit: int = 20
    of: str | None = None


def audit(
    source: Source = None,
    store: StorePath = STORE,
    witness: WitnessFile = None,
    channel: Channels = None,
    head: Heads = None,
    no_bodies: NoBodies = False,
    no_integrity: NoIntegrity = False,
    settled: Settled = False,
    of: Of = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Check a log, or an archive: its chain, its projections, and every rule it must keep.

    Exit code 1 with the id of the first broken rule. With --witness also what the
    platform says it accepted is held against the log. Take the witness list first and
    the log after it, or stop the gateway: what is sent in between is not on both.
    """
    with answering(as_json=as_json):
        wanted = Wanted(
            marks=tuple(read_heads(read_file(path)) for path in head or ()),
            witness=None if witness is None else read_witness(read_file(witness)),
            channels=frozenset(channel) if channel else None,
            bodies=not no_bodies,
            integrity=not no_integrity,
            settled=settled,
            limit=limit,
            of=of,
        )
        began = time.monotonic()
        reports = _audited(source if source is not None else store, wanted)
        seconds = round(time.monotonic() - began, 3)
        if as_json:
            say_json(shape(for_people(source or store), reports, seconds))
        else:
            _print_all(reports)
    if not all(report.passed for report in reports):
        raise typer.Exit(FOUND)


def _audited(source: str, wanted: Wanted) -> Sequence[Report]:
    """The reports, one for each chain."""
    if source == "-":
        return [_of_lines(sys.stdin.buffer, wanted)]
    path = Path(source)
    if path.is_file() and not is_archive(source) and not _is_store(path):
        with path.open("rb") as lines:
            return [_of_lines(lines, wanted)]
    with _progress(asyncio.run(_end(source))) as tell:
        return audits_of(source, wanted, tell)


def _is_store(path: Path) -> bool:
    """Not a log in lines. A file that is neither is left to the store, which names it."""
    with path.open("rb") as file:
        start = file.read(1)
    return start != b"{" or is_database(str(path))


def _of_lines(lines: Iterable[bytes], wanted: Wanted) -> Report:
    records = export.read(lines)
    with _progress(None) as tell:
        return audit_log(
            records,
            marks=_of_each(wanted.marks, 1)[0],
            witness=wanted.witness,
            channels=wanted.channels,
            settled_at=Clock().now() if wanted.settled else None,
            limit=wanted.limit,
            progress=tell,
        )


async def _of_archive(
    address: str, wanted: Wanted, tell: Callable[[int], None] | None
) -> Report:
    archive = ArchiveStore(address)
    await archive.open(read_only=True)
    text = archive.manifest.text and wanted.bodies
    if wanted.of is None:
        return await audit_archive(
            archive, text=text, limit=wanted.limit, progress=tell
        )
    async with opened(wanted.of) as store:
        return await audit_archive(
            archive, text=text, of=store, limit=wanted.limit, progress=tell
        )


def audits_of(
    address: str, wanted: Wanted, tell: Callable[[int], None] | None = None
) -> Sequence[Report]:
    """The audit of each chain of a store, or of an archive; `tell` gets the
    progress."""
    if is_archive(address):
        return [asyncio.run(_of_archive(address, wanted, tell))]

    async def audited() -> Sequence[Report]:
        async with opened(address) as store:
            chains = shards_of(store)
            marks = _of_each(wanted.marks, len(chains))
            witness = _joint(wanted, len(chains))
            with _plugins(address) as own:
                plugins = [own, *[None] * (len(chains) - 1)]
                return [
                    await _of_chain(chain, mark, witness, wanted, state, tell)
                    for chain, mark, state in zip(chains, marks, plugins, strict=True)
                ]

    return asyncio.run(audited())


@contextmanager
def _plugins(address: str) -> Iterator[PluginStore | None]:
    found = plugin_store_at(address)
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def _of_each(marks: Sequence[Sequence[Head]], chains: int) -> Sequence[list[Head]]:
    """The heads that each chain must contain. Raises RefusedError."""
    for mark in marks:
        if len(mark) != chains:
            text = f"a head of {len(mark)} shard(s) is held against {chains}"
            raise RefusedError(text, USAGE)
    return [[mark[chain] for mark in marks] for chain in range(chains)]


def _joint(wanted: Wanted, chains: int) -> Witness | None:
    """One list of a platform for all chains."""
    if wanted.witness is None:
        return None
    return Witness(wanted.witness, wanted.channels, logs=chains)


async def _of_chain(
    store: Store,
    marks: Sequence[Head],
    witness: Witness | None,
    wanted: Wanted,
    plugins: PluginStore | None,
    tell: Callable[[int], None] | None,
) -> Report:
    now = (await clock_of(store)).now() if wanted.settled else None
    return await audit_store(
        store,
        marks=marks,
        witness=witness,
        bodies=wanted.bodies,
        integrity=wanted.integrity,
        settled_at=now,
        plugins=plugins,
        limit=wanted.limit,
        progress=tell,
    )


async def _end(address: str) -> int | None:
    async with opened(address) as store:
        try:
            return (await store.load()).head.position
        except CorruptLogError:
            return None  # the audit reports the fault


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr, if it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("records", total=total)
        yield lambda position: bar.update(task, completed=position)


def _print_all(reports: Sequence[Report]) -> None:
    """Each shard has a chain and a head of its own."""
    for shard, report in enumerate(reports):
        if len(reports) > 1:
            typer.echo(f"shard {shard}")
        _print(report)


def _print(report: Report) -> None:
    screen = console()
    screen.print(verdict(report), style="green" if report.passed else "bold red")
    if not report.passed:
        Console(markup=False, emoji=False, width=screen.width).print(_table(report))
        if report.found > len(report.findings):
            screen.print(f"and {report.found - len(report.findings)} more", style="dim")
        screen.print(seen(report))
    screen.print(f"head {head_text(report)}", soft_wrap=True)
    if report.redacted:
        screen.print(redacted(report))
    for text in report.unchecked:
        screen.print(f"not checked: {text}", style="dim")


def shape(source: str, reports: Sequence[Report], seconds: float) -> dict[str, Any]:
    """The reports as JSON; of several chains each in `shards`."""
    shapes = [_shape(source, report, seconds) for report in reports]
    if len(shapes) == 1:
        return shapes[0]
    broken = [report.first.rule for report in reports if report.first is not None]
    word = broken[0] if broken else "passed"
    facts = {"audit": word, "source": source, "seconds": seconds}
    return {**facts, "passed": not broken, "shards": shapes}


def _shape(source: str, report: Report, seconds: float) -> dict[str, Any]:
    word = "passed" if report.first is None else report.first.rule
    facts = {"audit": word, "source": source, "seconds": seconds}
    return {**facts, "passed": report.passed, **plain(report)}


def verdict(report: Report) -> str:
    """Passed, or the first broken rule."""
    if report.first is None:
        return f"passed: {seen(report)}"
    return f"broken: {report.first.rule}: {RULES[report.first.rule]}"


def seen(report: Report) -> str:
    """The numbers of checked events, streams and accepted parts."""
    text = f"{report.events} events, {report.streams} streams"
    if report.witnessed is not None:
        text += f", {report.witnessed} parts that the platform accepted"
    return text


def redacted(report: Report) -> str:
    return f"redacted: {report.redacted:,} turns and entries have no text"


def head_text(report: Report) -> str:
    return f"{report.head.position} {report.head.hash.hex()}"


def finding_cells(finding: Finding) -> Mapping[str, str]:
    """A broken rule as cells of a table."""
    where = "" if finding.stream is None else f"{clean(finding.stream)}: "
    position = "" if finding.position is None else str(finding.position)
    return {
        "rule": str(finding.rule),
        "position": position,
        "what is wrong": where + clean(finding.text),
    }


def _table(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("rule", "position", "what is wrong"):
        table.add_column(name, overflow="fold")
    for finding in report.findings:
        table.add_row(*finding_cells(finding).values())
    return table
