"""`turnfold serve`: the dashboard, for a browser."""

import asyncio
import os
import secrets
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnfold_cli import USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StoreHere,
    StorePath,
    answering,
    opened,
    read_file,
)
from turnfold_cli.output import clean, say_json
from turnfold_cli.times import Utc

if TYPE_CHECKING:
    from turnfold_cli.dashboard.site import Site

_NEEDS = ("starlette", "uvicorn", "jinja2")
_TOKEN = "TURNFOLD_SERVE_TOKEN"  # noqa: S105  the name of a variable
Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
Acts = Annotated[
    bool, typer.Option("--acts", help="Pages may decide, too: for who has the token.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help=f"Everybody must know the word in this file; also {_TOKEN}."),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="The address that people type, behind a proxy: https://ops.example.org/t"
    ),
]


def serve(
    at: StoreHere = None,
    store: StorePath = STORE,
    host: Host = "127.0.0.1",
    port: Port = 8911,
    acts: Acts = False,
    token_file: TokenFile = None,
    url: Url = None,
    utc: Utc = False,  # noqa: ARG001  its callback has chosen the zone
    as_json: AsJson = False,
) -> None:
    """Show a store in a browser, and with --acts let people decide there.

    It only reads, listens on this machine alone, and anybody on it may look. With a
    token everybody must log in; to listen elsewhere, and to act, a token is needed (with
    --acts one is made if you give none). The log keeps who decided, and why.
    """
    with answering(as_json=as_json):
        missing = [name for name in _NEEDS if find_spec(name) is None]
        if missing:
            text = (
                f"serve needs {', '.join(missing)}: pip install 'turnfold[dashboard]'"
            )
            raise RefusedError(text, USAGE)
        site = _site(at or store, host, _token(token_file), url, acts=acts)
        _serve(site, port, as_json=as_json)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN) or None
    found = read_file(file).decode("utf-8", "replace").strip()
    if not found:
        raise RefusedError(f"{file} holds no token", USAGE)
    return found


def _site(
    address: str, host: str, token: str | None, url: str | None, *, acts: bool
) -> "Site":
    """The site. Raises RefusedError for a site that anybody could enter."""
    from turnfold_cli.dashboard.site import Site, check  # noqa: PLC0415  an extra

    site = Site(address=address, token=token, acts=acts, url=url, host=host)
    check(site)
    if acts and token is None:
        site.token = secrets.token_urlsafe(24)
        site.made = True
    return site


def _serve(site: "Site", port: int, *, as_json: bool) -> None:
    site.shown = asyncio.run(_look(site.address))
    with _listening(site.host, port) as listener:
        site.port = listener.getsockname()[1]
        _tell(site, as_json=as_json)
        _run(site, listener)


async def _look(address: str) -> str:
    """The store's address for people. Raises RefusedError if it cannot be opened
    now."""
    async with opened(address) as store:
        return store.address


def _listening(host: str, port: int) -> socket.socket:
    """Raises RefusedError if the port cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)  # early clients wait until the pages are ready
    except OSError as exc:
        listener.close()
        text = f"cannot listen on {host} port {port}: {exc.strerror}; try --port 0"
        raise RefusedError(text, USAGE) from exc
    return listener


def _tell(site: "Site", *, as_json: bool) -> None:
    where = f"[{site.host}]" if ":" in site.host else site.host
    url = f"http://{where}:{site.port}/"
    if as_json:
        token = site.token if site.made else None
        facts = {"store": site.shown, "acts": site.acts, "listens": url}
        say_json(facts | {"url": site.url or url, "token": token})
        return
    does = "people may act" if site.acts else "read-only"
    typer.echo(f"{clean(site.shown)}, {does}: {url}")
    if site.url is not None:
        typer.echo(f"people type {clean(site.url)}")
    if site.made:
        typer.echo(f"token: {site.token}")
    elif site.token is not None and not (site.secure or site.local):
        typer.echo("without https the token can be read on its way", err=True)
    typer.echo("Ctrl-C ends it; the gateway goes on")


def _run(site: "Site", listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415  an extra

    from turnfold_cli.dashboard.app import Dashboard  # noqa: PLC0415  an extra

    config = uvicorn.Config(
        Dashboard(site).app(),
        log_config=None,
        access_log=False,  # addresses hold ids and names of people
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])
