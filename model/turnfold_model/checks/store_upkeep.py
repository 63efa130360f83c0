"""Checks of a store's upkeep: erasing, idle work, and the watermark beside the log."""

from __future__ import annotations

from turnfold._log.canonical import BLANK
from turnfold.errors import ConflictError, InvalidInputError
from turnfold.ports.store import (
    Body,
    BodyRef,
    Count,
    Head,
    Keeping,
    Listing,
    Prune,
    Store,
    Wanted,
    Watermark,
    tombstone,
)
from turnfold_model.checks.store_kit import (
    Place,
    attempt,
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
    same,
    summary,
    true,
    upkeep,
    whole_log,
    write,
)

SIZES = (0, 1, 500, 30_000, 64 * 1024, 64 * 1024 + 1, 200_000)


async def erased_bodies_are_gone_and_the_others_are_not(place: Place) -> None:
    store = await place.store()
    bodies = await _bodies(store)
    gone, kept = bodies[::2], bodies[1::2]
    await write(store, records=[record(2, "entry:a", 2)], erase=_refs(gone))
    for _ in range(2):
        await _all_gone(store, gone)
        await _all_there(store, kept)
        if store.maintenance is not None:
            what = "after a checkpoint nothing is left to do"
            true(await store.maintenance.checkpoint(), what)
        store = await place.reopened(store)


async def erasing_is_part_of_its_commit(place: Place) -> None:
    store = await place.store()
    bodies = await _bodies(store)
    erase = _refs(bodies)
    why = await conflict(store, records=[record(2, "entry:a", 1)], erase=erase)
    true(isinstance(why, ConflictError), "a refused write")
    with refused(InvalidInputError, what="a write that cannot be kept"):
        await attempt(store, records=[record(7, "entry:a", 2)], erase=erase)
    await _all_there(store, bodies)


async def erasing_a_body_that_is_not_there_is_no_error(place: Place) -> None:
    store = await place.store()
    bodies = await _bodies(store)
    erase = [*_refs(bodies), ("entry:a", 500), ("entry:none", 1)]
    for _ in range(2):
        await write(store, erase=[*erase, *erase])
        await _all_gone(store, bodies)


async def a_place_stays_empty_after_erasing(place: Place) -> None:
    store = await place.store()
    bodies = await _bodies(store)
    await write(store, erase=_refs(bodies))
    for item in bodies:
        with refused(InvalidInputError, what="a body at a place that was erased"):
            await attempt(store, bodies=[item])
    await _all_gone(await place.reopened(store), bodies)


async def a_body_that_comes_with_its_own_erasing_is_gone(place: Place) -> None:
    store = await place.store()
    bodies = [body("entry:a", number, noise(size)) for number, size in enumerate(SIZES)]
    records = [record(1, "entry:a", 1)]
    await write(store, records=records, bodies=bodies, erase=_refs(bodies))
    await _all_gone(store, bodies)


async def erasing_leaves_the_inbox_as_it_is(place: Place) -> None:
    store = await place.store()
    bodies = await _bodies(store)
    commands = [command(str(n), key=f"k{n}", bodies=(noise(n),)) for n in range(20)]
    await store.post(commands)
    await write(store, erase=_refs(bodies), done=["3"])
    left = [item for item in commands if item.id != "3"]
    same(list(await store.inbox()) == left, True, "the commands that wait")


async def idle_work_changes_nothing_that_can_be_read(place: Place) -> None:
    store = await place.store()
    if store.maintenance is None:
        return
    bodies = await _bodies(store)
    records = await whole_log(store)
    for _ in range(2):
        true(await upkeep(store).checkpoint(), "checkpoint, with nobody else about")
        same(await upkeep(store).sweep(), 0, "nothing to sweep")
        same(list(await upkeep(store).integrity()), [], "nothing wrong")
    same(await whole_log(store), records, "log")
    await _all_there(await place.reopened(store), bodies)


async def summaries_can_be_rebuilt(place: Place) -> None:
    store = await place.store()
    if store.maintenance is None:
        return
    await put(store, "turn:t", "entry:a", "entry:b", lane="old", reason="old")
    await put(store, "entry:b")
    fresh = [
        summary("turn:t", 1, 1, phase="running"),
        summary("entry:b", 2, 3, parent="turn:t", phase="R"),
    ]
    await upkeep(store).rebuild(iter(fresh))
    same(list(await store.list(Listing(prefix=""))), fresh[::-1], "all there are")
    same(list((await store.load()).open), fresh, "open streams")
    same(len(await whole_log(store)), 4, "records")
    with refused(InvalidInputError, what="no such stream"):
        await upkeep(store).rebuild([summary("turn:x", 1, 1)])
    same(list((await store.load()).open), fresh, "after a rebuild that failed")
    await put(store, "entry:a", parent="turn:t")
    same((await head_of(store)).position, 5, "head after a write to a rebuilt store")


async def a_watermark_remembers_the_head(place: Place) -> None:
    store = await place.store()
    if store.maintenance is None:
        return
    same(await upkeep(store).watermark(), None, "the watermark of a new store")
    await put(store, "entry:a", "entry:b")
    same(await upkeep(store).watermark(), None, "a commit notes no watermark")
    noted = Watermark(store="id", head=await head_of(store))
    for _ in range(2):
        await upkeep(store).note_watermark("id")
        same(await upkeep(store).watermark(), noted, "the watermark")
    await put(store, "entry:a")
    same(await upkeep(store).watermark(), noted, "it lags behind")
    store = await place.reopened(store)
    same(await upkeep(store).watermark(), noted, "after reopening")
    await upkeep(store).note_watermark("other")
    moved = Watermark(store="other", head=await head_of(store))
    same(await upkeep(store).watermark(), moved, "moved on")


async def a_store_knows_the_heads_that_it_had(place: Place) -> None:
    store = await place.store()
    if store.maintenance is None:
        return
    heads = [await head_of(store)]
    for _ in range(3):
        await put(store, "entry:a", "entry:b")
        heads.append(await head_of(store))
    for head in heads:
        true(await upkeep(store).contains_head(head), f"it ended at {head.position}")
        other = Head(head.position, bytes(31) + b"x")
        found = await upkeep(store).contains_head(other)
        same(found, False, f"another hash at {head.position}")
    ahead = Head(heads[-1].position + 1, heads[-1].hash)
    same(await upkeep(store).contains_head(ahead), False, "a position that never was")
    same(await upkeep(store).contains_head(BLANK), True, "the beginning")


async def what_is_pruned_leaves_its_hashes(place: Place) -> None:
    """Whole streams go, with summaries, bodies and keys; the heads stay known."""
    store = await place.store()
    does = store.maintenance
    if not isinstance(does, Keeping):
        return
    await put(store, "turn:t", "entry:a")
    bodies = [body("entry:a", 0, noise(500)), body("turn:t", 0, noise(200_000))]
    await write(store, bodies=bodies, keys=[("k", "turn:t"), ("l", "entry:a")])
    await put(store, "entry:a", "entry:b")
    log, head = await whole_log(store), await head_of(store)
    count = Count((1, "entry", "t/a", "final", "delivered", "", ""), 2)
    prune = Prune(by=5, streams=["entry:a", "turn:t"], keys=["k", "l"], counts=[count])
    said = record(5, "store", 1)
    wrong = Prune(by=5, streams=["entry:none"])
    with refused(InvalidInputError, what="a prune of a stream that is not there"):
        await attempt(store, records=[said], prune=wrong)
    same(await whole_log(store), log, "the log after a prune that was refused")
    again = record(6, "entry:b", 2)
    await write(store, records=[said, again], prune=prune, keys=[("k", "entry:b")])
    for _ in range(2):
        gone = [tombstone(r.position, r.hash, 5) for r in log[:3]]
        same(await whole_log(store), [*gone, log[3], said, again], "the log")
        true(await _contains(store, head), "the head before the prune")
        await _all_gone(store, bodies)
        wanted = Wanted(
            streams=frozenset(("entry:a",)),
            summaries=frozenset(("turn:t",)),
            keys=frozenset(("k", "l")),
        )
        found = await store.fetch(wanted)
        same(list(found.streams["entry:a"]), [], "a pruned stream")
        same(found.summaries["turn:t"], None, "its summary")
        same(dict(found.keys), {"k": "entry:b", "l": None}, "the keys")
        same(list(await _keeping(store).pruned()), [count], "the counts")
        entries = Listing(prefix="entry:", phases=("delivered",))
        counts = await store.count(entries, ("place",))
        same(list(counts), [Count(("t/a",), 2)], "a count")
        while not await _keeping(store).reclaim():
            pass
        store = await place.reopened(store)


def _keeping(store: Store) -> Keeping:
    does = store.maintenance
    assert isinstance(does, Keeping)  # noqa: S101  asked before
    return does


async def _contains(store: Store, head: Head) -> bool:
    return await upkeep(store).contains_head(head)


async def _bodies(store: Store) -> list[Body]:
    bodies = [body("entry:a", number, noise(size)) for number, size in enumerate(SIZES)]
    await write(store, records=[record(1, "entry:a", 1)], bodies=bodies)
    return bodies


def _refs(bodies: list[Body]) -> list[BodyRef]:
    return [(item.stream, item.number) for item in bodies]


async def _all_there(store: Store, bodies: list[Body]) -> None:
    for item in bodies:
        found = await body_in(store, item.stream, item.number)
        same(found == item, True, f"a body of {len(item.data)} bytes")


async def _all_gone(store: Store, bodies: list[Body]) -> None:
    for item in bodies:
        found = await body_in(store, item.stream, item.number)
        same(found, None, f"an erased body of {len(item.data)} bytes")


CHECKS = checks_in(globals())
