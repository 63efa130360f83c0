"""`turnfold head`: the end of a log. Kept elsewhere, it proves later that no record up
to here was changed or lost (`turnfold audit --head FILE`)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import typer

from turnfold.inspect.shards import shards_of
from turnfold.ports.store import Head, Loaded
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

_NO_HEAD = "not a head as `turnfold head` prints it"


def head(store: StorePath = STORE, as_json: AsJson = False) -> None:
    """Print the position and running hash of the last record, of each shard.

    Keep it outside the store; `turnfold audit --head FILE` checks a log against it.
    """
    with answering(as_json=as_json):
        asyncio.run(_head(store, as_json=as_json))


async def _head(address: str, *, as_json: bool) -> None:
    async with opened(address) as store:
        loaded = [await chain.load() for chain in shards_of(store)]
    heads = [_facts(one) for one in loaded]
    if as_json:
        say_json(heads[0] if len(heads) == 1 else {"shards": heads})
    else:
        for head in heads:
            typer.echo(f"{head['position']} {head['hash']}")


def _facts(loaded: Loaded) -> dict[str, object]:
    # The random id of a store is the kind of its own stream.
    name = None if loaded.store is None else loaded.store.kind
    end = loaded.head
    return {"store": name, "position": end.position, "hash": end.hash.hex()}


def read_heads(data: bytes) -> tuple[Head, ...]:
    """The heads from either output form of `turnfold head`, one for each shard."""
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            value = json.loads(text)
            found = [_of_facts(one) for one in value.get("shards", [value])]
        else:
            found = [_of_line(line) for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError) as exc:
        raise RefusedError(f"{_NO_HEAD}: {exc}", USAGE) from exc
    if not found:
        raise RefusedError(_NO_HEAD, USAGE)
    return tuple(found)


def _of_facts(value: Mapping[str, Any]) -> Head:
    return _checked(value["position"], bytes.fromhex(value["hash"]))


def _of_line(line: str) -> Head:
    first, second = line.split()
    return _checked(int(first), bytes.fromhex(second))


def _checked(position: object, digest: bytes) -> Head:
    if type(position) is not int or position < 0 or len(digest) != 32:
        problem = "a position and 64 hexadecimal digits belong there"
        raise ValueError(problem)
    return Head(position, digest)
