"""Checks of a store's life: open and close, handles side by side, the worker's seat."""

from __future__ import annotations

from collections.abc import Callable

from turnfold.canonical import EMPTY_HEAD
from turnfold.errors import (
    InvalidInputError,
    MissingBodyError,
    NotAStoreError,
    NotOpenError,
    ReadOnlyError,
)
from turnfold.ports.store import Append, Head, Listing, Store
from turnfold_model.store_kit import (
    Place,
    body,
    put,
    record,
    refused,
    same,
    true,
)


def reopening_keeps_everything(place: Place) -> None:
    store = place.store()
    records = put(store, "turn:a", "entry:b", "entry:b")
    item = body(b"text")
    with store.write() as tx:
        tx.append(Append(bodies=[item], keys=[("k", "turn:a")]))
    head, rows = store.head, list(store.list(Listing(prefix="")))
    for _ in range(3):
        store = place.reopened(store)
        same(store.head, head, "head")
        same(list(store.log()), records, "log")
        same(list(store.list(Listing(prefix=""))), rows, "summaries")
        same((store.lookup("k"), store.body(item.digest)), ("turn:a", b"text"), "rest")


def opening_writes_nothing(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    before = store.head
    store = place.reopened(store)
    same((store.head, len(list(store.log()))), (before, 1), "head and length")
    same(store.changed(), False, "changed, just after opening")


def open_and_close_can_be_repeated(place: Place) -> None:
    store = place.handle()
    store.close()
    for _ in range(2):
        store.open()
        store.open()
        put(store, "entry:a")
        store.close()
        store.close()
    store = place.store()
    same(len(list(store.read("entry:a"))), 2, "records")


def a_closed_store_says_so(place: Place) -> None:
    store = place.handle()
    _all_refused(store, "before opening")
    store.open()
    store.close()
    _all_refused(store, "after closing")


def a_read_only_store_takes_no_write(place: Place) -> None:
    with refused(NotAStoreError, what="opening what is not there for reading"):
        place.store(read_only=True)
    first = place.store()
    records = put(first, "entry:a")
    first.close()
    store = place.store(read_only=True)
    same(list(store.log()), records, "log")
    same([s.order for s in store.open_streams()], [1], "open streams")
    with refused(MissingBodyError, what="a missing body"):
        store.body(body(b"").digest)
    with refused(ReadOnlyError, what="a write"), store.write():
        pass
    writes: dict[str, Callable[[], object]] = {
        "a rebuild": lambda: store.rebuild([]),
        "a checkpoint": store.checkpoint,
        "a sweep": store.sweep,
        "a mark": lambda: store.mark("id"),
        "becoming the worker": lambda: store.ownership().take(),
    }
    for what, call in writes.items():
        with refused(ReadOnlyError, what=what):
            call()
    same((store.marked(), store.had(store.head)), (None, True), "the mark")


def two_handles_see_each_other(place: Place) -> None:
    if not place.several:
        return
    one, two = place.store(), place.store()
    same((one.changed(), two.changed()), (False, False), "changed, at first")
    records = put(one, "entry:a")
    same(list(two.log()), records, "what the other sees")
    same((two.changed(), two.changed()), (True, False), "changed, for the other")
    same(one.changed(), False, "changed, by its own append")
    records += put(two, "entry:b")
    with one.write() as tx:
        same(list(tx.since(1)), records[1:], "since, inside a transaction")
        tx.append(Append(records=[record(3, "entry:b", 2)]))
        same(list(two.log()), records, "nothing of a transaction before its COMMIT")
    same(two.head.position, 3, "head, for the other")


def reading_goes_on_while_the_log_grows(place: Place) -> None:
    store = place.store()
    put(store, "entry:a", "entry:b")
    reading = store.log()
    first = next(reading)
    put(store, "entry:c")
    store.close()
    true(first.position == 1, "the first record")
    store.open()
    same(len(list(store.log())), 3, "records")


def only_one_handle_is_the_worker(place: Place) -> None:
    store = place.store()
    ownership = store.ownership()
    same(ownership.current(), None, "owner of a new store")
    owner = ownership.take()
    true(owner is not None, "the first one gets it")
    same(ownership.held, True, "held, by the owner")
    same(ownership.current(), owner, "the record")
    same(ownership.take(), None, "a second take")
    if place.several:
        other = place.store()
        same(other.ownership().take(), None, "a take of another handle")
        same(other.ownership().current(), owner, "the record, for another handle")
        same(other.ownership().held, False, "held, by another handle")
        same(store.head.position, 0, "head: being the worker is no event")
        ownership.release()
        true(other.ownership().take() is not None, "a take after the release")
        other.close()
    ownership.release()
    ownership.release()
    same(ownership.held, False, "held, after the release")
    again = place.reopened(store).ownership().take()
    true(again is not None, "a take after reopening")
    true(owner is None or again is None or owner.id != again.id, "ids are never reused")


def a_bell_without_listener_is_silent(place: Place) -> None:
    store = place.handle()
    store.doorbell().ring()
    store.open()
    store.doorbell().ring()


def _all_refused(store: Store, when: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "head": lambda: store.head,
        "read": lambda: store.read("entry:a"),
        "since": lambda: store.since(0),
        "lookup": lambda: store.lookup("k"),
        "summary": lambda: store.summary("entry:a"),
        "list": lambda: store.list(Listing()),
        "log": lambda: list(store.log()),
        "open_streams": lambda: list(store.open_streams()),
        "body": lambda: store.body(body(b"").digest),
        "salt": lambda: store.salt(body(b"").digest),
        "bodies": lambda: list(store.bodies([body(b"").digest])),
        "summaries": lambda: list(store.summaries(["entry:a"])),
        "changed": store.changed,
        "checkpoint": store.checkpoint,
        "sweep": store.sweep,
        "mark": lambda: store.mark("id"),
        "marked": store.marked,
        "had": lambda: store.had(Head(0, EMPTY_HEAD)),
        "rebuild": lambda: store.rebuild([]),
        "write": lambda: store.write().__enter__(),
        "take": lambda: store.ownership().take(),
    }
    for name, call in calls.items():
        with refused(NotOpenError, what=f"{name} {when}"):
            call()


def the_address_is_text(place: Place) -> None:
    store = place.handle()
    true(len(store.address) > 0, "an address")
    with refused(InvalidInputError, NotOpenError, what="an append that is not open"):
        put(store, "entry:a")


CHECKS = (
    reopening_keeps_everything,
    opening_writes_nothing,
    open_and_close_can_be_repeated,
    a_closed_store_says_so,
    a_read_only_store_takes_no_write,
    two_handles_see_each_other,
    reading_goes_on_while_the_log_grows,
    only_one_handle_is_the_worker,
    a_bell_without_listener_is_silent,
    the_address_is_text,
)
