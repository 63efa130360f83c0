"""Checks of ownership, and of calls that are cut: several owners one after the other, a
caller that is cancelled, a commit of unknown fate."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from turnfold.errors import FateUnknownError
from turnfold.ports.store import Refused, Store, Stored, Write
from turnfold_model.checks.store_kit import (
    Place,
    body,
    body_in,
    checks_in,
    command,
    conflict,
    head_of,
    noise,
    put,
    record,
    refused,
    running,
    same,
    summary,
    true,
    whole_log,
    write,
)

# --- ownership -------------------------------------------------------------------


async def only_one_handle_is_the_owner(place: Place) -> None:
    store = await place.store()
    ownership = store.ownership()
    same(await ownership.current(), None, "owner of a new store")
    owner = await ownership.take()
    true(owner is not None, "the first one gets it")
    same(ownership.held, True, "held, by the owner")
    same(await ownership.current(), owner, "the record")
    same(await ownership.take(), None, "a second take")
    if place.several:
        other = await place.store()
        same(await other.ownership().take(), None, "a take of another handle")
        same(await other.ownership().current(), owner, "the record, for another handle")
        same(other.ownership().held, False, "held, by another handle")
        same((await head_of(store)).position, 0, "head: being the owner is no event")
        ownership.release()
        true(await other.ownership().take() is not None, "a take after the release")
        await other.close()
    ownership.release()
    ownership.release()
    same(ownership.held, False, "held, after the release")
    again = await (await place.reopened(store)).ownership().take()
    true(again is not None, "a take after reopening")
    true(owner is None or again is None or owner.id != again.id, "ids are never reused")


async def the_owner_stays_the_owner_after_reopen(place: Place) -> None:
    store = await place.store()
    owner = await store.ownership().take()
    await store.reopen()
    same((store.ownership().held, await store.ownership().take()), (True, None), "held")
    same(await store.ownership().current(), owner, "the record")


async def owners_follow_each_other(place: Place) -> None:
    seen = set()
    records = []
    for number in range(1, 5):
        store = await place.store()
        owner = await store.ownership().take()
        true(owner is not None, f"owner {number}, after the death of the one before")
        seen.add(owner and owner.id)
        records += await put(store, "entry:a", f"entry:{number}")
        await place.killed(store)
    store = await place.store()
    same((await whole_log(store), len(seen)), (records, 4), "the log, and the ids")


async def of_two_owners_one_wins(place: Place) -> None:
    if not place.several:
        return
    old, new = await place.store(), await place.store()
    base = await head_of(old)
    same(await head_of(new), base, "both start at the same head")
    first = record(1, "entry:a", 1, {"by": "new"})
    await write(new, base=base, records=[first], keys=[("k", "entry:a")])
    second = record(1, "entry:a", 1, {"by": "old"})
    why = await conflict(old, base=base, records=[second], bodies=[_late()])
    same((why.expected, why.actual), (0, 1), "the position expected, and the one found")
    same(await whole_log(old), [first], "the log, for the owner that lost")
    same(await body_in(old, "entry:a", 1), None, "a body of the owner that lost")


async def an_owner_goes_on_after_another_was_there(place: Place) -> None:
    if not place.several:
        return
    one, two = await place.store(), await place.store()
    records = []
    for number in range(6):
        store = (one, two)[number % 2]
        new = await put(store, "entry:a", f"entry:{number}", parent=None)
        records += new
        late = body("entry:a", number, b"%d" % number)
        own = body(f"entry:{number}", 0, noise(70_000))
        await write(store, bodies=[late, own])
    for store in (one, two):
        same(await whole_log(store), records, "the log")
        same(await head_of(store), running(records), "its head")
        for number in range(6):
            found = await body_in(store, "entry:a", number)
            same(found, body("entry:a", number, b"%d" % number), "a late body")


# --- calls that are cut ----------------------------------------------------------


async def a_cancelled_caller_leaves_a_whole_log(place: Place) -> None:
    store = await place.store()
    for turns in range(6):
        base = await head_of(store)
        name = f"entry:{turns}"
        new = record(base.position + 1, name, 1)
        row = summary(name, 1, new.position)
        write_ = Write(base=base, records=[new], summaries=[row], keys=[(name, name)])
        await _cancelled(store, write_, turns)
        await _settled(store)
        head, log = await head_of(store), await whole_log(store)
        same(head, running(log), "the head of the log")
        true(head in (base, running([new], base)), "all of the write, or nothing")
        answer = (await store.commit([write_]))[0]
        wanted = Refused if head != base else Stored
        true(isinstance(answer, wanted), "the same write again")


async def a_commit_of_unknown_fate_is_read_and_decided_again(place: Place) -> None:
    if place.cut is None:
        return
    for stored in (True, False):
        store = await place.store()
        await store.ownership().take()
        base = await head_of(store)
        log = await whole_log(store)
        name = f"entry:{stored}"
        new = record(base.position + 1, name, 1)
        write_ = Write(base=base, records=[new], bodies=[body(name, 1, noise(70_000))])
        place.cut(store, stored)
        with refused(FateUnknownError, what="a commit that is cut"):
            await store.commit([write_])
        await store.reopen()
        true(store.ownership().held, "the owner stays the owner")
        log += [new] if stored else []
        same(await whole_log(store), log, "the log, read again")
        same(await head_of(store), running(log), "its head")
        if not stored:
            await write(store, base=base, records=[new], bodies=write_.bodies)
        same(await body_in(store, name, 1) == write_.bodies[0], True, "its body")
        await store.close()


async def a_post_of_unknown_fate_is_safe_to_repeat(place: Place) -> None:
    if place.cut is None:
        return
    store = await place.store()
    for stored in (True, False):
        item = command(f"{stored}", "turn:a", key=f"k{stored}")
        place.cut(store, stored)
        with refused(FateUnknownError, what="a post that is cut"):
            await store.post([item])
        await store.reopen()
        (posted,) = await store.post([item])
        same((posted.stream, posted.new), ("turn:a", not stored), "posted again")
    same([c.id for c in await store.inbox()], ["True", "False"], "each is there once")


def _late() -> object:
    return body("entry:a", 1, b"late")


async def _cancelled(store: Store, write_: Write, turns: int) -> None:
    """Begin a commit and cancel its caller after some turns of the loop."""
    task = asyncio.ensure_future(store.commit([write_]))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _settled(store: Store) -> None:
    """Wait for a commit that is under way: the next one comes after it."""
    await store.commit([Write(base=await head_of(store))])


CHECKS = checks_in(globals())
