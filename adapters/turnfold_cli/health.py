"""`turnfold health`: does the gateway make progress? For probes of a supervisor.

`status` shows if a person is needed: a parked message needs one, and a restart does not
help. `health` shows if a restart may help: is there a worker, and does it work?
"""

from collections.abc import Iterator

import typer

from turnfold.inspect import Overview
from turnfold_cli import FOUND
from turnfold_cli.common import STORE, AsJson, StoreHere, StorePath, answering, ask
from turnfold_cli.output import clean, now_ms, plain, say_json, span
from turnfold_cli.screen import console

_INBOX_MS = 30_000  # a worker reads it several times a second
_WIRE_MS = 600_000  # a call has a deadline, and a large file more than a minute


def health(
    at: StoreHere = None, store: StorePath = STORE, as_json: AsJson = False
) -> None:
    """Say if the gateway makes progress: a worker lives, reads its inbox, and no send
    hangs. Exit code 1 if not: for probes. Whether a person is needed says `status`."""
    with answering(as_json=as_json):
        view = ask(at or store, lambda inspect: inspect.overview())
        reasons = list(_reasons(view, now_ms()))
        if as_json:
            facts = {"well": not reasons, "reasons": reasons}
            facts |= {"position": view.position, "as_of": view.as_of}
            say_json(facts | {"worker": plain(view.worker)})
        else:
            for line in reasons or ["well"]:
                console().print(clean(line))
    if reasons:
        raise typer.Exit(FOUND)


def _reasons(view: Overview, now: int) -> Iterator[str]:
    worker = view.worker
    if worker.id is None:
        yield "no worker has ever run here"
    elif worker.alive is False:
        yield f"no worker is alive; the last one was pid {worker.pid} on {worker.host}"
    elif worker.stopped:
        yield f"the worker's process is stopped: kill -CONT {worker.pid}"
    waited = 0 if view.inbox_since is None else now - view.inbox_since
    if waited > _INBOX_MS:
        yield f"the inbox has not been read for {span(waited)}: {view.inbox} wait in it"
    sent = 0 if worker.sending_since is None else now - worker.sending_since
    if worker.sending and sent > _WIRE_MS:
        yield f"a send has been on the wire for {span(sent)}"
