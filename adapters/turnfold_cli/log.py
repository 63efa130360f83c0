"""`turnfold log`: the log as lines that any program can read (specs/log-format.md)."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from turnfold import ndjson
from turnfold.bodies import digests_of
from turnfold.codec import Record, decode
from turnfold.errors import CorruptLogError, MissingBodyError
from turnfold.ports.store import Body, Store
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened

After = Annotated[int, typer.Option("--from", min=1, help="First position to print.")]
Bodies = Annotated[
    bool, typer.Option("--bodies", help="With the bodies that each event names.")
]


def log(
    store: StorePath = STORE,
    first: After = 1,
    bodies: Bodies = False,
    as_json: AsJson = False,
) -> None:
    """Print the log as NDJSON: the canonical envelope of each event, with its position
    and hash. The format is specs/log-format.md; it is JSON with or without --json."""
    with answering(as_json=as_json), opened(store) as opened_store:
        for line in lines(opened_store, first - 1, bodies=bodies):
            typer.echo(line)


def lines(store: Store, after: int = 0, *, bodies: bool = False) -> Iterator[bytes]:
    for record in store.log(after):
        yield ndjson.dump(record, _bodies(store, record) if bodies else None)


def _bodies(store: Store, record: Record) -> Mapping[str, Body | None]:
    try:
        event = decode(record)
    except CorruptLogError:
        return {}
    return {digest: _body(store, digest) for digest in digests_of(event)}


def _body(store: Store, digest: str) -> Body | None:
    try:
        data, salt = store.body(digest), store.salt(digest)
    except (MissingBodyError, CorruptLogError):
        return None
    return Body(digest=digest, salt=salt, data=data)
