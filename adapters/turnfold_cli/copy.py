"""`turnfold copy`: a store moves between a file and a database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

import typer

from turnfold.audit import audit_store
from turnfold.errors import NotAStoreError, ShardedStoreError
from turnfold.inspect.shards import shards_of
from turnfold.ports.shards import one_shard
from turnfold.ports.store import Head, Store, body_pages, key_pages, store_at
from turnfold_adapters.stores.cipher import address_of, parsed
from turnfold_adapters.stores.moving import check_copyable, copy_all
from turnfold_adapters.stores.sqlite.copying import clear, into_place, sides, take_back
from turnfold_cli import FOUND, USAGE
from turnfold_cli.common import (
    AsJson,
    RefusedError,
    answering,
    for_people,
    is_archive,
    not_for_archives,
    opened,
)
from turnfold_cli.keep import file_of, progress
from turnfold_cli.output import clean, console, say_json

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A store, by path or address.")
]
To = Annotated[
    str, typer.Argument(metavar="TARGET", help="A path or an address without a store.")
]
Dry = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")
]


def copy(
    source: Source, target: To, dry_run: Dry = False, as_json: AsJson = False
) -> None:
    """Copy the whole history of a store into a new one, from a file to PostgreSQL or back.

    End the gateway first: the copy is refused while a worker lives. It grows under
    another name, is audited, and then gets its name. A kill at any time leaves no target,
    or a whole one; the same command again ends well. Do not start workers on both.
    """
    with answering(as_json=as_json):
        for address in (source, target):
            if is_archive(address):
                raise RefusedError(not_for_archives(address), USAGE)
        began = time.monotonic()
        facts = asyncio.run(_copied(source, _staging(target), dry=dry_run))
        facts |= {"seconds": round(time.monotonic() - began, 3), "dry_run": dry_run}
        if as_json:
            say_json(facts)
            return
        text = "{target}: {records:,} records, {bodies:,} bodies, {keys:,} keys and"
        text += " {commands:,} commands that wait; head {head}"
        screen = console()
        screen.print(clean(text.format(**facts)), soft_wrap=True)
        if dry_run:
            screen.print("nothing was changed")
        else:
            screen.print(f"copied and audited in {facts['seconds']:.1f} s")
            here, there = for_people(source), for_people(target)
            screen.print(clean(f"next: start the gateways on {there}, none on {here}"))


class _Staging(Protocol):
    """The temporary place of a copy. `target`: its final place, `address`: the same for
    people; `url`: of the unfinished store."""

    target: str
    address: str
    url: str

    async def exists(self) -> bool: ...

    async def is_begun(self) -> bool: ...

    async def clear(self) -> None: ...

    async def into_place(self) -> None: ...


class _File:
    def __init__(self, address: str) -> None:
        self._target = file_of(address)
        self._new = self._target.with_name(f"{self._target.name}.copying")
        _, key_file = parsed(address)
        self.address = str(self._target)
        self.target = address_of(self.address, key_file)
        self.url = address_of(str(self._new), key_file)

    async def exists(self) -> bool:
        take_back(self._new, self._target)
        return any(path.exists() for path in sides(self._target))

    async def is_begun(self) -> bool:
        return self._new.exists()

    async def clear(self) -> None:
        clear(self._new)

    async def into_place(self) -> None:
        for name in ("mark", "worker"):
            self._new.with_name(f"{self._new.name}.{name}").unlink(missing_ok=True)
        into_place(self._new, self._target)


def _staging(target: str) -> _Staging:
    if not target.startswith("postgresql:"):
        return _File(target)
    from turnfold_adapters.stores.postgres.staging import (  # noqa: PLC0415  extra
        StagedSchema,
    )

    return StagedSchema(target)


def _check_one(store: Store) -> None:
    shards = len(shards_of(store))
    if shards > 1:
        raise ShardedStoreError(path=store.address, shards=shards, **_ONE)


_ONE = {
    "what": "turnfold copy",
    "instead": "copy its schema with the server's own tools, such as pg_dump",
}


async def _copied(source: str, to: _Staging, *, dry: bool) -> dict[str, Any]:
    if dry:
        async with opened(source) as store:
            _check_one(store)
            await check_copyable(store)
            there = await _already(store, to)
            return await _counted(store, to, there=there)
    async with opened(source) as store:  # opening for writing would create it
        _check_one(store)
    async with _owned(source, "the source") as store:
        await check_copyable(store)
        if await _already(store, to):
            return await _counted(store, to, there=True)
        await _clear(to)
        async with _owned(to.url, "an unfinished copy") as new:
            with progress("records") as tell:
                done = await copy_all(store, new, tell)
            report = await audit_store(new)
        if report.first is not None or report.head != done.head:
            text = f"the copy breaks a rule: {report.first or 'it ends elsewhere'}"
            raise RefusedError(text, FOUND, "audit")
        await to.into_place()
    return {
        "target": to.address,
        "records": done.records,
        "bodies": done.bodies,
        "keys": done.keys,
        "commands": done.commands,
        "head": _said(done.head),
        "copied": True,
    }


async def _already(source: Store, to: _Staging) -> bool:
    """True if a complete copy with this head is there already. Raises RefusedError for
    any other store or file."""
    if not await to.exists():
        return False
    try:
        async with opened(to.target) as there:
            ours, theirs = (await source.load()).head, (await there.load()).head
            if ours == theirs and ours.position:
                return True
            why = await _difference(source, there, ours, theirs)
    except NotAStoreError as exc:
        raise RefusedError(f"{to.address} is taken: {exc.problem}", USAGE) from exc
    raise RefusedError(f"{to.address} is not empty: {why}", USAGE)


async def _difference(source: Store, there: Store, ours: Head, theirs: Head) -> str:
    if await _contains(source, theirs):
        return f"it ends at position {theirs.position}, the source at {ours.position}"
    if await _contains(there, ours):
        return f"it went on beyond the source, to position {theirs.position}"
    return "it has another history"


async def _contains(store: Store, head: Head) -> bool:
    does = store.maintenance
    return does is not None and await does.contains_head(head)


async def _clear(to: _Staging) -> None:
    """Remove the rest of a killed copy, unless another process is still copying
    there."""
    if await to.is_begun():
        try:
            async with _owned(to.url, "an unfinished copy"):
                pass
        except NotAStoreError:
            pass  # killed during its creation
    await to.clear()


@asynccontextmanager
async def _owned(address: str, what: str) -> AsyncIterator[Store]:
    """A store with this process as its worker. Raises RefusedError if it has another
    one."""
    store = store_at(address)
    await store.open()
    try:
        one_shard(store, **_ONE)
        if await store.ownership().take() is None:
            text = f"{what} at {store.address} has a worker that lives, or may live"
            raise RefusedError(text, USAGE, "store.owned")
        try:
            yield store
        finally:
            store.ownership().release()
    finally:
        await store.close()


async def _counted(store: Store, to: _Staging, *, there: bool) -> dict[str, Any]:
    loaded, waiting = await store.load(), await store.inbox(1_000_000)
    bodies = keys = 0
    async for found in body_pages(store):
        bodies += len(found)
    async for pairs in key_pages(store):
        keys += len(pairs)
    return {
        "target": to.address,
        "records": loaded.head.position,
        "bodies": bodies,
        "keys": keys,
        "commands": len(waiting),
        "head": _said(loaded.head),
        "copied": there,
    }


def _said(head: Head) -> str:
    return f"{head.position} {head.hash.hex()}"
