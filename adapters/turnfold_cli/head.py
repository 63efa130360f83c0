"""`turnfold head`: where a log ends. Kept elsewhere, it shows later that nothing of the
log up to here was changed, lost or cut off (`turnfold audit --head FILE`)."""

import json

import typer

from turnfold.codec import decode
from turnfold.errors import CorruptLogError
from turnfold.events.ledger import StoreCreated
from turnfold.ports.store import Head, Store
from turnfold_cli import USAGE
from turnfold_cli.common import (
    STORE,
    AsJson,
    RefusedError,
    StorePath,
    answering,
    opened,
)
from turnfold_cli.output import say_json


def head(store: StorePath = STORE, as_json: AsJson = False) -> None:
    """Print the position and running hash of the last event.

    Keep it outside the store; `turnfold audit --head FILE` checks a log against it.
    """
    with answering(as_json=as_json), opened(store) as opened_store:
        end = opened_store.head
        if as_json:
            say_json(
                {
                    "store": store_id(opened_store),
                    "position": end.position,
                    "hash": end.hash.hex(),
                }
            )
        else:
            typer.echo(f"{end.position} {end.hash.hex()}")


def store_id(store: Store) -> str | None:
    """The random name that a store was born with."""
    for record in store.read("store")[:1]:
        try:
            event = decode(record)
        except CorruptLogError:
            return None
        if isinstance(event, StoreCreated):
            return event.store
    return None


def read_head(data: bytes) -> Head:
    """Back from either form that `turnfold head` prints."""
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            value = json.loads(text)
            position, digest = value["position"], bytes.fromhex(value["hash"])
        else:
            first, second = text.split()
            position, digest = int(first), bytes.fromhex(second)
    except (ValueError, KeyError, TypeError) as exc:
        raise RefusedError(
            f"not a head as `turnfold head` prints it: {exc}", USAGE
        ) from exc
    if type(position) is not int or position < 0 or len(digest) != 32:
        raise RefusedError("not a head as `turnfold head` prints it", USAGE)
    return Head(position, digest)
