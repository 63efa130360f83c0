"""`turnfold copy`: a store moves between a file and a database."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Annotated, Any, Protocol

import typer

from turnfold.audit import audit_store
from turnfold.errors import NotAStoreError
from turnfold.inspect.shards import shards_of
from turnfold.ports.plugins import Everything, plugin_store_at
from turnfold.ports.shards import chains_of
from turnfold.ports.store import BLANK, Head, Store, body_pages, key_pages, store_at
from turnfold_adapters.stores.cipher import address_of, parsed
from turnfold_adapters.stores.moving import Copied, copy_all
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
from turnfold_cli.keep import ONE_STORE, check_apart, file_of, progress
from turnfold_cli.output import clean, say_json
from turnfold_cli.screen import console

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
    """Copy the whole history of a store and the state of plugins into a new one, between
    files and PostgreSQL.

    End the gateway first: the copy is refused while a worker lives. It has as many shards
    as its source. It grows under another name, is audited, and then gets its name. A kill
    at any time leaves no target, or a whole one; the same command again ends well. Do not
    start workers on both.
    """
    with answering(as_json=as_json):
        for address in (source, target):
            if is_archive(address):
                raise RefusedError(not_for_archives(address), USAGE)
        check_apart(source, target)
        began = time.monotonic()
        facts = asyncio.run(_copied(source, _staging(target), dry=dry_run))
        facts |= {"seconds": round(time.monotonic() - began, 3), "dry_run": dry_run}
        if as_json:
            say_json(facts)
            return
        text = "{target}: {records:,} records, {bodies:,} bodies, {keys:,} keys,"
        text += " {commands:,} commands that wait and {values:,} values of plugins;"
        text += " head {head}"
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
    people; `url`: of the unfinished store; `shards`: as many as the target must have,
    None if as many as its source."""

    target: str
    address: str
    url: str
    shards: int | None

    def new(self, shards: int) -> str: ...

    async def exists(self) -> bool: ...

    async def is_one_with(self, source: str) -> bool: ...

    async def is_begun(self) -> bool: ...

    async def clear(self) -> None: ...

    async def into_place(self) -> None: ...


class _File:
    shards: int | None = 1

    def __init__(self, address: str) -> None:
        self._target = file_of(address)
        if not self._target.name:
            raise RefusedError(f"{self._target} is a folder", USAGE)
        self._new = self._target.with_name(f"{self._target.name}.copying")
        _, key_file = parsed(address)
        self.address = str(self._target)
        self.target = address_of(self.address, key_file)
        self.url = address_of(str(self._new), key_file)

    def new(self, _shards: int) -> str:
        return self.url

    async def exists(self) -> bool:
        take_back(self._new, self._target)
        return any(path.exists() for path in sides(self._target))

    async def is_one_with(self, _source: str) -> bool:
        return False  # `check_apart` has compared the files

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


def _check_shards(source: Store, to: _Staging) -> None:
    """Raises RefusedError if the target cannot have the shards of the source."""
    shards = len(shards_of(source))
    if to.shards is None or to.shards == shards:
        return
    text = f"{source.address} has {shards} shards, {to.address} would have {to.shards}"
    raise RefusedError(f"{text}; {_KEEPS}", USAGE, "store.reshard")


_KEEPS = (
    "a copy keeps their number: copy it to a PostgreSQL address without `shards`, or let"
    " everything in it end and begin a new store with the number that you want"
)


async def _copied(source: str, to: _Staging, *, dry: bool) -> dict[str, Any]:
    async with opened(source) as store:  # opening for writing would create it
        if await to.is_one_with(source):
            raise RefusedError(ONE_STORE, USAGE)
        _check_shards(store, to)
        state = await asyncio.to_thread(_state, source)
        if dry:
            there = await _already(shards_of(store), to)
            done = [await _count(chain) for chain in shards_of(store)]
            return _facts(to, done, state, copied=there)
    async with _owned(source, "the source") as chains:
        if await _already(chains, to):
            done = [await _count(chain) for chain in chains]
            return _facts(to, done, state, copied=True)
        await _clear(to)
        async with _owned(to.new(len(chains)), "an unfinished copy") as new:
            done = [
                await _one(*pair, shard)
                for shard, pair in enumerate(zip(chains, new, strict=True))
            ]
            state = await asyncio.to_thread(_state, source)  # no worker writes now
            await asyncio.to_thread(_bring, to.url, state)
        await to.into_place()
    return _facts(to, done, state, copied=True)


def _state(source: str) -> Everything:
    """The state of plugins beside a store. Raises StoreError if it is damaged."""
    plugins = plugin_store_at(source)
    if plugins is None:
        return Everything()
    with closing(plugins):
        return plugins.every()


def _bring(url: str, state: Everything) -> None:
    plugins = plugin_store_at(url)
    if plugins is not None and state != Everything():
        with closing(plugins):
            plugins.bring(state)


async def _one(chain: Store, new: Store, shard: int) -> Copied:
    """Copy one shard, and audit the copy."""
    with progress("records") as tell:
        done = await copy_all(chain, new, tell)
    report = await audit_store(new)
    if report.first is not None or report.head != done.head:
        why = report.first or "it ends elsewhere"
        text = f"the copy of shard {shard} breaks a rule: {why}"
        raise RefusedError(text, FOUND, "audit")
    return done


async def _already(chains: Sequence[Store], to: _Staging) -> bool:
    """True if a complete copy with these heads is there already. Raises RefusedError for
    any other store or file."""
    if not await to.exists():
        return False
    try:
        async with opened(to.target) as there:
            why = await _difference(chains, shards_of(there))
    except NotAStoreError as exc:
        raise RefusedError(f"{to.address} is taken: {exc.problem}", USAGE) from exc
    if why:
        raise RefusedError(f"{to.address} is not empty: {why}", USAGE)
    return True


async def _difference(chains: Sequence[Store], there: Sequence[Store]) -> str:
    """Why a store is not the copy of these shards; empty if it is."""
    if len(chains) != len(there):
        return f"it has {len(there)} shards, the source has {len(chains)}"
    ends = [await _ends(*pair) for pair in zip(chains, there, strict=True)]
    if not any(ours.position for ours, _, _ in ends):
        return "it is a blank store, and so is the source"
    for shard, (ours, theirs, why) in enumerate(ends):
        if ours != theirs:
            return why if len(chains) == 1 else f"in shard {shard}, {why}"
    return ""


async def _ends(source: Store, there: Store) -> tuple[Head, Head, str]:
    """The heads of two logs, and the words for their difference."""
    ours, theirs = (await source.load()).head, (await there.load()).head
    why = "it has another history"
    if await _contains(source, theirs):
        why = f"it ends at position {theirs.position}, the source at {ours.position}"
    elif await _contains(there, ours):
        why = f"it went on beyond the source, to position {theirs.position}"
    return ours, theirs, why


async def _contains(store: Store, head: Head) -> bool:
    if head == BLANK:
        return True
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
async def _owned(address: str, what: str) -> AsyncIterator[Sequence[Store]]:
    """The shards of a store, with this process as the worker of each. Raises RefusedError
    if one of them has another worker."""
    store = store_at(address)
    async with AsyncExitStack() as ends:
        await store.open()
        ends.push_async_callback(store.close)
        chains = chains_of(store)
        for chain in chains:
            await chain.open()
            ends.push_async_callback(chain.close)
            if await chain.ownership().take() is None:
                text = f"{what} at {store.address} has a worker that lives, or may live"
                raise RefusedError(text, USAGE, "store.owned")
        yield chains


async def _count(store: Store) -> Copied:
    loaded, waiting = await store.load(), await store.inbox(1_000_000)
    bodies = keys = 0
    async for found in body_pages(store):
        bodies += len(found)
    async for pairs in key_pages(store):
        keys += len(pairs)
    end = loaded.head
    return Copied(
        head=end, records=end.position, bodies=bodies, keys=keys, commands=len(waiting)
    )


def _facts(
    to: _Staging, done: Sequence[Copied], state: Everything, *, copied: bool
) -> dict[str, Any]:
    """The answer of the command. `head`: of each shard, in order."""
    counts = ("records", "bodies", "keys", "commands")
    heads = [f"{one.head.position} {one.head.hash.hex()}" for one in done]
    return {
        "target": to.address,
        **{name: sum(getattr(one, name) for one in done) for name in counts},
        "values": len(state.rows),
        "head": ", ".join(heads),
        "shards": len(done),
        "copied": copied,
    }
