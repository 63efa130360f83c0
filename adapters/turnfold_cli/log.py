"""`turnfold log`: the log as lines that any program can read (specs/log-format.md)."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from turnfold._log.bodies import (
    PAYLOADS,
    content_in,
    digests_of,
    place_of,
)
from turnfold._log.codec import decode
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.inspect import export
from turnfold.ports.store import Body, BodyRef, Record, Store, Wanted, record_pages
from turnfold_cli.common import STORE, AsJson, StorePath, answering, opened

After = Annotated[int, typer.Option("--from", min=1, help="First position to print.")]
Bodies = Annotated[
    bool, typer.Option("--bodies", help="With the bodies that each record names.")
]


def log(
    store: StorePath = STORE,
    first: After = 1,
    bodies: Bodies = False,
    as_json: AsJson = False,
) -> None:
    """Print the log as NDJSON: the canonical envelope of each record, with its position
    and hash. The format is specs/log-format.md; it is JSON with or without --json."""
    with answering(as_json=as_json):
        asyncio.run(_print(store, first - 1, bodies=bodies))


async def _print(address: str, after: int, *, bodies: bool) -> None:
    async with opened(address) as store:
        async for line in lines(store, after, bodies=bodies):
            typer.echo(line)


async def lines(
    store: Store, after: int = 0, *, bodies: bool = False
) -> AsyncIterator[bytes]:
    async for page in record_pages(store, after):
        if bodies:
            for record, named in zip(page, await _bodies(store, page), strict=True):
                yield export.dump(record, named)
        else:
            for record in page:
                yield export.dump(record)


async def _bodies(
    store: Store, page: Sequence[Record]
) -> Sequence[Mapping[int, Body | None]]:
    """For each record the bodies that its events name, by number."""
    named = [_named(record) for record in page]
    found = await _fetch(store, (place for places in named for place in places))
    contents = [_contents(places, found) for places in named]
    found |= await _fetch(store, (place for places in contents for place in places))
    return [
        {place[1]: found[place] for place in (*places, *more)}
        for places, more in zip(named, contents, strict=True)
    ]


def _named(record: Record) -> dict[BodyRef, bool]:
    """The bodies that a record names; True for a payload."""
    try:
        return {
            place_of(record.stream, ref): isinstance(event, PAYLOADS)
            for event in decode(record)
            for ref in digests_of(event)
        }
    except (CorruptLogError, InvalidInputError):
        return {}


def _contents(
    named: Mapping[BodyRef, bool], found: Mapping[BodyRef, Body | None]
) -> list[BodyRef]:
    """The contents of files, which only the payloads of the files name."""
    contents = []
    for place, payload in named.items():
        body = found[place] if payload else None
        ref = None if body is None else content_in(body.data)
        if ref is not None:
            with suppress(InvalidInputError):
                contents.append(place_of(place[0], ref))
    return contents


async def _fetch(store: Store, places: Iterable[BodyRef]) -> dict[BodyRef, Body | None]:
    wanted = Wanted(bodies=frozenset(places))
    return dict((await store.fetch(wanted)).bodies) if wanted.bodies else {}
