"""Checks of a store's upkeep: erasing, idle work, and the mark beside the log."""

from __future__ import annotations

from typing import Any

from turnfold.canonical import EMPTY_HEAD
from turnfold.errors import InvalidInputError, MissingBodyError
from turnfold.ports.store import Append, Body, Head, Mark, Store
from turnfold_model.store_kit import (
    Place,
    body,
    noise,
    put,
    record,
    refused,
    same,
    true,
)

SIZES = (0, 1, 500, 30_000, 64 * 1024, 64 * 1024 + 1, 200_000)


def erased_bodies_are_gone_and_the_others_are_not(place: Place) -> None:
    store = place.store()
    bodies = _bodies(store)
    gone, kept = bodies[::2], bodies[1::2]
    with store.write() as tx:
        erase = [item.digest for item in gone]
        tx.append(Append(records=[record(1, "entry:a", 1)], erase=erase))
    for _ in range(2):
        _all_gone(store, gone)
        _all_there(store, kept)
        true(store.checkpoint(), "after a checkpoint nothing is left to do")
        store = place.reopened(store)


def erasing_is_part_of_its_transaction(place: Place) -> None:
    store = place.store()
    bodies = _bodies(store)
    erase = [item.digest for item in bodies]
    with refused(ZeroDivisionError, what="the exception itself"), store.write() as tx:
        tx.append(Append(erase=erase))
        raise ZeroDivisionError
    _all_there(store, bodies)
    with store.write() as tx:
        tx.append(Append(records=[record(1, "entry:a", 1)]))
        with refused(InvalidInputError, what="a refused append"):
            tx.append(Append(records=[record(7, "entry:a", 2)], erase=erase))
    _all_there(store, bodies)


def erasing_what_is_not_there_is_no_error(place: Place) -> None:
    store = place.store()
    bodies = _bodies(store)
    erase = [item.digest for item in bodies] + [body(b"never stored").digest]
    for _ in range(2):
        with store.write() as tx:
            tx.append(Append(erase=[*erase, *erase]))
        _all_gone(store, bodies)
    with refused(InvalidInputError, what="no text"), store.write() as tx:
        odd: Any = 7
        tx.append(Append(erase=[odd]))


def what_was_erased_can_be_stored_again(place: Place) -> None:
    store = place.store()
    bodies = _bodies(store)
    erase = [item.digest for item in bodies]
    with store.write() as tx:
        tx.append(Append(erase=erase))
    with store.write() as tx:
        tx.append(Append(bodies=bodies))
    _all_there(store, bodies)
    with store.write() as tx:
        tx.append(Append(erase=erase))
        tx.append(Append(bodies=bodies))
    _all_there(place.reopened(store), bodies)


def what_comes_with_its_own_erasing_is_gone(place: Place) -> None:
    store = place.store()
    bodies = [body(noise(size)) for size in SIZES]
    with store.write() as tx:
        tx.append(Append(bodies=bodies, erase=[item.digest for item in bodies]))
    _all_gone(store, bodies)


def idle_work_changes_nothing_that_can_be_read(place: Place) -> None:
    store = place.store()
    bodies = _bodies(store)
    records = put(store, "entry:a", "turn:b")
    for _ in range(2):
        true(store.checkpoint(), "checkpoint, with nobody else about")
        same(store.sweep(), 0, "nothing to sweep")
    same(list(store.log()), records, "log")
    same(store.changed(), False, "changed")
    _all_there(place.reopened(store), bodies)


def a_mark_remembers_the_head(place: Place) -> None:
    store = place.store()
    same(store.marked(), None, "the mark of a new store")
    put(store, "entry:a", "entry:b")
    same(store.marked(), None, "an append writes no mark")
    for _ in range(2):
        store.mark("id")
        same(store.marked(), Mark(store="id", head=store.head), "the mark")
    before = store.head
    put(store, "entry:a")
    same(store.marked(), Mark(store="id", head=before), "the mark lags behind")
    store = place.reopened(store)
    same(store.marked(), Mark(store="id", head=before), "after reopening")
    store.mark("other")
    same(store.marked(), Mark(store="other", head=store.head), "moved on")


def a_store_knows_the_heads_that_it_had(place: Place) -> None:
    store = place.store()
    heads = [store.head]
    for _ in range(3):
        put(store, "entry:a", "entry:b")
        heads.append(store.head)
    for head in heads:
        true(store.had(head), f"it ended at {head.position}")
        other = Head(head.position, bytes(31) + b"x")
        same(store.had(other), False, f"another hash at {head.position}")
    ahead = Head(heads[-1].position + 1, heads[-1].hash)
    same(store.had(ahead), False, "a position that never was")
    same(store.had(Head(0, EMPTY_HEAD)), True, "the beginning")


def _bodies(store: Store) -> list[Body]:
    bodies = [body(noise(size)) for size in SIZES]
    with store.write() as tx:
        tx.append(Append(bodies=bodies))
    return bodies


def _all_there(store: Store, bodies: list[Body]) -> None:
    for item in bodies:
        same(store.body(item.digest), item.data, f"a body of {len(item.data)} bytes")
        same(store.salt(item.digest), item.salt, "its salt")


def _all_gone(store: Store, bodies: list[Body]) -> None:
    for item in bodies:
        with refused(MissingBodyError, what=f"an erased body of {len(item.data)}"):
            store.body(item.digest)
        with refused(MissingBodyError, what="its salt"):
            store.salt(item.digest)


CHECKS = (
    erased_bodies_are_gone_and_the_others_are_not,
    erasing_is_part_of_its_transaction,
    erasing_what_is_not_there_is_no_error,
    what_was_erased_can_be_stored_again,
    what_comes_with_its_own_erasing_is_gone,
    idle_work_changes_nothing_that_can_be_read,
    a_mark_remembers_the_head,
    a_store_knows_the_heads_that_it_had,
)
