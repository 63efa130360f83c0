"""`turnfold demo`: a real gateway, killed again and again, and what it lost: nothing.

A platform and a gateway run as processes of their own. Messages are posted to the
gateway over HTTP, it answers over HTTP, and all the while it is killed with SIGKILL and
started again, and connections are cut after the platform has accepted. At the end the
platform is asked what it has seen. Also as `python -m turnfold_cli.demo`.
"""

import asyncio
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from attrs import asdict
from rich.console import Console

from turnfold_cli.demo_plan import STORE, Class, make_plan
from turnfold_cli.demo_processes import DemoError

if TYPE_CHECKING:
    from turnfold_cli.demo_report import Report

Messages = Annotated[int, typer.Option(min=1, help="How many messages to post.")]
Kills = Annotated[int, typer.Option(min=0, help="How often to kill the gateway.")]
Seed = Annotated[int, typer.Option(help="Decides messages, kills and cuts.")]
Delivery = Annotated[
    Class, typer.Option("--class", help="What the platform offers against doubles.")
]
Keep = Annotated[
    Path | None,
    typer.Option(help="Keep store, witness list and logs in this folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, no table.")]

_SHOWN = 20


def demo(
    messages: Messages = 200,
    kills: Kills = 20,
    seed: Seed = 1,
    delivery: Delivery = Class.KEYED,
    keep: Keep = None,
    as_json: AsJson = False,
) -> None:
    """Kill a real gateway many times over and count what is lost and doubled.

    Exit code 1: something was lost, doubled or left in the air, or the log does not
    pass; 2: the demo could not be run.
    """
    if find_spec("httpx") is None:
        _refuse("needs httpx; pip install 'turnfold[cli,webhook]'")
    if keep is not None and (keep / STORE).exists():
        _refuse(f"{keep / STORE} exists; give a folder without a store")
    with tempfile.TemporaryDirectory(prefix="turnfold-demo-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = _run(messages, kills, seed, delivery, folder)
    _show(report, keep, as_json=as_json)
    if not report.good:
        raise typer.Exit(1)


def _run(messages: int, kills: int, seed: int, mode: Class, folder: Path) -> "Report":
    # Only here, so that the help is there without the extra `webhook`.
    from turnfold_cli.demo_report import judge  # noqa: PLC0415
    from turnfold_cli.demo_run import Progress, run  # noqa: PLC0415
    from turnfold_cli.demo_screen import watching  # noqa: PLC0415

    plan = make_plan(messages, kills, seed, mode)
    progress = Progress()
    try:
        with watching(progress, plan):
            evidence = asyncio.run(run(plan, mode, seed, folder, progress))
    except* DemoError as group:
        _refuse("; ".join(str(exc) for exc in group.exceptions))
    return asyncio.run(judge(plan, mode, seed, evidence))


def _show(report: "Report", keep: Path | None, *, as_json: bool) -> None:
    if as_json:
        shape = asdict(report)
        shape["class"] = shape.pop("delivery")
        typer.echo(json.dumps(shape))
        return
    console = Console()
    console.print(report.table())
    console.print(f"audit with the platform's list as witness: {report.audit}")
    console.print(f"{report.restarts} restarts, {report.seconds} s", highlight=False)
    for breach in report.breaches[:_SHOWN]:
        console.print(f"  {breach}", highlight=False)
    if len(report.breaches) > _SHOWN:
        console.print(f"  and {len(report.breaches) - _SHOWN} more (--json has all)")
    if keep is not None:
        console.print(f"kept in {keep}: store, witness list, logs")


def _refuse(why: str) -> NoReturn:
    typer.echo(f"turnfold demo: {why}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(demo)
