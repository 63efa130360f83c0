"""Checks of a store's life: open and close, handles side by side, reading only."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from turnfold._log.canonical import BLANK
from turnfold.errors import NotAStoreError, NotOpenError, ReadOnlyError
from turnfold.ports.store import Listing, Store, Wanted, Write
from turnfold_model.checks.store_kit import (
    Place,
    body,
    body_in,
    checks_in,
    command,
    head_of,
    holder,
    put,
    read,
    refused,
    same,
    true,
    whole_log,
    write,
)

_Calls = dict[str, Callable[[], Coroutine[Any, Any, object]]]


async def reopening_keeps_everything(place: Place) -> None:
    store = await place.store()
    records = await put(store, "turn:a", "entry:b", "entry:b")
    item = body("turn:a", 1, b"text")
    await write(store, bodies=[item], keys=[("k", "turn:a")])
    await store.post([command("1", answer=True)])
    head, rows = await head_of(store), list(await store.list(Listing(prefix="")))
    waiting = list(await store.inbox())
    for again in (place.reopened, place.reopened, _reopened):
        store = await again(store)
        same(await head_of(store), head, "head")
        same(await whole_log(store), records, "log")
        same(list(await store.list(Listing(prefix=""))), rows, "summaries")
        same(await holder(store, "k"), "turn:a", "key")
        same(await body_in(store, "turn:a", 1), item, "body")
        same(list(await store.inbox()), waiting, "inbox")


async def opening_writes_nothing(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    before = await head_of(store)
    store = await place.reopened(store)
    same(await head_of(store), before, "head")
    same(len(await whole_log(store)), 1, "length")


async def open_and_close_can_be_repeated(place: Place) -> None:
    store = place.handle()
    await store.close()
    for _ in range(2):
        await store.open()
        await store.open()
        await put(store, "entry:a")
        await store.close()
        await store.close()
    store = await place.store()
    same(len(await read(store, "entry:a")), 2, "records")


async def a_closed_store_says_so(place: Place) -> None:
    store = place.handle()
    await _all_refused(store, "before opening")
    await store.open()
    await store.close()
    await _all_refused(store, "after closing")


async def a_read_only_store_takes_no_write(place: Place) -> None:
    with refused(NotAStoreError, what="opening an empty place for reading"):
        await place.store(read_only=True)
    first = await place.store()
    records = await put(first, "entry:a")
    await first.post([command("1")])
    await first.close()
    store = await place.store(read_only=True)
    same(await whole_log(store), records, "log")
    same([s.order for s in (await store.load()).open], [1], "open streams")
    same([c.id for c in await store.inbox()], ["1"], "inbox")
    same(await body_in(store, "entry:a", 1), None, "a missing body")
    await _refuse_all(store, _writes(store), ReadOnlyError, "of a read-only store")
    if store.maintenance is not None:
        head = await head_of(store)
        same(await store.maintenance.watermark(), None, "the watermark")
        true(await store.maintenance.contains_head(head), "its own head")


async def two_handles_see_each_other(place: Place) -> None:
    if not place.several:
        return
    one, two = await place.store(), await place.store()
    records = await put(one, "entry:a")
    same(await whole_log(two), records, "a commit of the first, for the second")
    await two.post([command("1")])
    same([c.id for c in await one.inbox()], ["1"], "a command of the second")
    records += await put(one, "entry:b", "entry:a")
    same(await whole_log(two), records, "a second commit")
    same((await head_of(two)).position, 3, "head, for the second")


async def reading_goes_on_while_the_log_grows(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a", "entry:b")
    first = (await store.log(0, 1))[0]
    await put(store, "entry:c")
    store = await place.reopened(store)
    same([r.position for r in await store.log(first.position)], [2, 3], "the rest")


async def a_bell_without_listener_is_silent(place: Place) -> None:
    store = place.handle()
    store.doorbell().ring()
    await store.open()
    store.doorbell().ring()
    await store.close()


async def address_and_facts_are_plain(place: Place) -> None:
    store = place.handle()
    true(len(store.address) > 0, "an address")
    with refused(NotOpenError, what="a write to a store that is not open"):
        await put(store, "entry:a")
    store = await place.store()
    same(all(isinstance(name, str) for name in store.facts()), True, "names of facts")


async def _reopened(store: Store) -> Store:
    await store.reopen()
    return store


async def _all_refused(store: Store, when: str) -> None:
    calls: _Calls = {
        "load": store.load,
        "inbox": store.inbox,
        "log": store.log,
        "bodies": store.bodies,
        "keys": store.keys,
        "fetch": lambda: store.fetch(Wanted()),
        "list": lambda: store.list(Listing()),
    }
    maintenance = store.maintenance
    if maintenance is not None:
        calls |= {
            "watermark": maintenance.watermark,
            "integrity": maintenance.integrity,
            "contains_head": lambda: maintenance.contains_head(BLANK),
        }
    await _refuse_all(store, calls | _writes(store), NotOpenError, when)


def _writes(store: Store) -> _Calls:
    maintenance = store.maintenance
    calls: _Calls = {
        "commit": lambda: store.commit([Write(base=BLANK)]),
        "post": lambda: store.post([command("2")]),
        "take": lambda: store.ownership().take(),
    }
    if maintenance is not None:
        calls |= {
            "checkpoint": maintenance.checkpoint,
            "sweep": maintenance.sweep,
            "note_watermark": lambda: maintenance.note_watermark("id"),
            "rebuild": lambda: maintenance.rebuild([]),
        }
    return calls


async def _refuse_all(
    store: Store, calls: _Calls, kind: type[Exception], when: str
) -> None:
    for name, call in calls.items():
        with refused(kind, what=f"{name} {when} ({store.address})"):
            await call()


CHECKS = checks_in(globals())
