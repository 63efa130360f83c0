"""Checks of the tables beside the log: summaries, dedupe keys, bodies, odd texts."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from turnfold.errors import InvalidInputError, KeyTakenError
from turnfold.ports.store import Body, Listing, Store, Summary, Wanted
from turnfold_model.checks.store_kit import (
    Place,
    attempt,
    body,
    body_in,
    checks_in,
    conflict,
    head_of,
    holder,
    noise,
    put,
    read,
    record,
    refused,
    same,
    summary,
    summary_in,
    true,
    write,
)

ODD = (
    "\u05e9\u05dc\u05d5\u05dd \u202e",  # right to left, with an override
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1ea\U0001f1fa",
    "e\u0301 is not \u00e9",
    "\U0010ffff \ufeff \u2028 \x7f \x01",
    "'; DROP TABLE log; -- % _ * ? [",
    "",
    "k" * 4000,
)
SIZES = (0, 1, 500, 30_000, 64 * 1024, 64 * 1024 + 1, 200_000)

# --- summaries -------------------------------------------------------------------


async def a_summary_replaces_the_one_before(place: Place) -> None:
    store = await place.store()
    await put(store, "turn:t", "turn:u")
    await put(store, "entry:a")
    changes: list[dict[str, Any]] = [
        {"lane": "lane", "parent": "turn:t", "kind": "final", "due": 2**53},
        {"lane": "lane", "parent": "turn:t", "kind": "final", "expires": -1},
        {"lane": "lane", "parent": "turn:t", "kind": "final", "open": False},
        {"lane": "lane", "parent": "turn:t", "kind": "final", "open": True},
        {"lane": "lane", "parent": "turn:u", "kind": "final", "reason": "refused"},
        {"lane": "other", "created": 5, "updated": 6, "phase": "F"},
        {},
        {"open": False, "phase": "OK", "kind": "block"},
        {"open": False, "phase": "F", "kind": "block", "reason": "expired"},
    ]
    for version, fields in enumerate(changes, 2):
        new = summary("entry:a", version, 3, **fields)
        position = (await head_of(store)).position + 1
        records = [record(position, "entry:a", version)]
        await write(store, records=records, summaries=[new])
        same(await summary_in(store, "entry:a"), new, "all fields, with a record")
        others = [s for s in (await store.load()).open if s.stream == "entry:a"]
        same(others, [new] if new.open else [], "among the open streams")
        alone = replace(new, due=7, open=not new.open)
        await write(store, summaries=[alone])
        same(await summary_in(store, "entry:a"), alone, "all fields, without a record")
        store = await place.reopened(store)
        await write(store, summaries=[new])
        same(await summary_in(store, "entry:a"), new, "all fields, after reopening")


async def a_stream_may_have_no_summary(place: Place) -> None:
    store = await place.store()
    await write(store, records=[record(1, "entry:a", 1)])
    same(await summary_in(store, "entry:a"), None, "summary")
    same(list(await store.list(Listing(prefix=""))), [], "list")
    await put(store, "entry:b")
    kept = await summary_in(store, "entry:b")
    await write(store, records=[record(3, "entry:b", 2)])
    found = await summary_in(store, "entry:b")
    true(found is not None and kept is not None, "a record alone keeps the summary")


async def a_summary_must_fit_its_stream(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a", "entry:b")
    wrong = {
        "no such stream": summary("entry:x", 1, 1),
        "another version": summary("entry:a", 2, 1),
        "another order": summary("entry:b", 1, 1),
        "no such parent": summary("entry:b", 1, 2, parent="turn:x"),
    }
    for what, item in wrong.items():
        with refused(InvalidInputError, what=what):
            await attempt(store, summaries=[item])


async def the_owner_starts_from_what_is_open(place: Place) -> None:
    store = await _ten(place)
    loaded = await store.load()
    same([s.order for s in loaded.open], [1, 4, 7, 10], "orders of the open streams")
    same(loaded.open[-1], await summary_in(store, "entry:n10"), "a whole summary")
    same(loaded.store, None, "the summary of the stream `store`")
    await put(store, "store", open=False)
    loaded = await store.load()
    same(loaded.store, await summary_in(store, "store"), "the stream `store`")
    same([s.order for s in loaded.open], [1, 4, 7, 10], "the open streams again")


async def many_summaries_are_fetched_at_once(place: Place) -> None:
    store = await _ten(place)
    names = {f"entry:n{number}" for number in range(250)} | {"turn:t"}
    found = (await store.fetch(Wanted(summaries=frozenset(names)))).summaries
    same(found.keys(), names, "every name is answered")
    rows: list[Summary] = [s for s in found.values() if s is not None]
    rows.sort(key=lambda s: -s.order)
    same(rows, list(await store.list(Listing(prefix="", limit=100))), "the rows")


async def the_children_of_a_turn_come_in_order(place: Place) -> None:
    store = await _ten(place)
    turns = frozenset({"turn:t", "turn:none", "entry:n9"})
    found = (await store.fetch(Wanted(children=turns))).children
    same(found.keys(), turns, "every turn is answered")
    same(list(found["turn:t"]), ["entry:n8", "entry:n9", "entry:n10"], "its entries")
    same(list(found["turn:none"]) + list(found["entry:n9"]), [], "no entries")


async def lists_are_filtered(place: Place) -> None:
    store = await _ten(place)
    wanted = {
        Listing(): [10, 9, 8, 7, 6, 5, 4, 3, 2],
        Listing(prefix=""): [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
        Listing(prefix="turn:"): [1],
        Listing(prefix="Entry:"): [],
        Listing(phases=("OK",)): [8, 5, 2],
        Listing(phases=("OK", "F")): [9, 8, 6, 5, 3, 2],
        Listing(open=True): [10, 7, 4],
        Listing(open=False): [9, 8, 6, 5, 3, 2],
        Listing(lane="odd"): [9, 7, 5, 3],
        Listing(parent="turn:t"): [10, 9, 8],
        Listing(parent="turn:none"): [],
        Listing(since=1008): [10, 9, 8],
        Listing(until=1004): [3, 2],
        Listing(since=1004, until=1006): [5, 4],
        Listing(open=True, lane="even"): [10, 4],
        Listing(limit=0): [],
    }
    for listing, orders in wanted.items():
        found = [s.order for s in await store.list(listing)]
        same(found, orders, f"orders for {listing}")


async def _described(store: Store) -> None:
    """Four of the ten with a place, a reason or a failure."""
    for row in await store.list(Listing()):
        fields = _DESCRIBED.get(row.order)
        if fields is not None:
            await write(store, summaries=[replace(row, **fields)])


_DESCRIBED: dict[int, dict[str, Any]] = {
    2: {"lane": "t/a/2/", "kind": "final", "reason": "gone"},
    4: {"lane": "t/a/4/", "kind": "final", "failure": "why", "person": True},
    6: {"lane": "t/a/2/x", "kind": "block"},
    8: {"lane": "t/b/2/", "kind": "block", "reason": "why", "failure": "gone"},
}


async def lists_are_filtered_by_place_and_reason(place: Place) -> None:
    store = await _ten(place)
    await _described(store)
    wanted = {
        Listing(lanes=("t/a/",)): [6, 4, 2],
        Listing(lanes=("t/a/2/", "t/b/")): [8, 6, 2],
        Listing(lanes=("t/a/2/",)): [6, 2],
        Listing(lanes=("t/b/",), reasons=("gone",)): [8],
        Listing(kinds=("final",)): [4, 2],
        Listing(reasons=("gone", "why")): [8, 4, 2],
        Listing(person=True): [4],
        Listing(ending="n10"): [10],
        Listing(open=True, oldest=True, limit=2): [4, 7],
    }
    for listing, orders in wanted.items():
        found = [s.order for s in await store.list(listing)]
        same(found, orders, f"orders for {listing}")


async def summaries_are_counted(place: Place) -> None:
    store = await _ten(place)
    await _described(store)
    turn = await summary_in(store, "turn:t")
    true(turn is not None and turn.lane is None, "the turn has no lane")
    wanted: dict[tuple[Listing, tuple[str, ...]], dict[tuple[int | str, ...], int]] = {
        (Listing(prefix=""), ()): {(): 9},
        (Listing(open=True), ()): {(): 3},
        (Listing(lanes=("none/",)), ()): {},
        (Listing(lanes=("t/a/", "t/b/")), ("place", "phase")): {
            ("t/a", "F"): 1,
            ("t/a", "OK"): 1,
            ("t/a", "Q"): 1,
            ("t/b", "OK"): 1,
        },
        (Listing(lanes=("t/a/2/",)), ("family", "kind")): {
            ("entry", "final"): 1,
            ("entry", "block"): 1,
        },
        (Listing(reasons=("gone",)), ("reason", "failure", "hour")): {
            ("gone", "", 0): 1,
            ("why", "gone", 0): 1,
        },
        (Listing(since=1004, until=1007), ("phase",)): {
            ("Q",): 1,
            ("OK",): 1,
            ("F",): 1,
        },
    }
    for (listing, by), counts in wanted.items():
        found = {c.values: c.count for c in await store.count(listing, by)}
        same(found, counts, f"counts of {listing} by {by}")
    places = ["even/", "odd/", "t/a", "t/b"]
    same(list(await store.places()), places, "all places")


async def the_last_record_is_known(place: Place) -> None:
    store = await place.store()
    same(await store.last(), None, "the last record of nothing")
    await put(store, "entry:a", "entry:b")
    same(await store.last(), (await store.log())[-1], "the last record")


async def lists_are_paged_newest_first(place: Place) -> None:
    store = await _ten(place)
    pages, before = [], None
    while page := await store.list(Listing(limit=4, before=before)):
        pages.append([s.order for s in page])
        before = page[-1].order
    same(pages, [[10, 9, 8, 7], [6, 5, 4, 3], [2]], "pages")


# --- keys ------------------------------------------------------------------------


async def a_key_belongs_to_one_stream(place: Place) -> None:
    store = await place.store()
    keys = [("k1", "turn:a"), ("k2", "turn:a")]
    await write(store, records=[record(1, "turn:a", 1)], keys=keys)
    wanted = Wanted(keys=frozenset({"k1", "k2", "k3"}))
    found = (await store.fetch(wanted)).keys
    same(dict(found), {"k1": "turn:a", "k2": "turn:a", "k3": None}, "holders")


async def a_taken_key_is_a_conflict_that_names_it(place: Place) -> None:
    store = await place.store()
    await put(store, "turn:a", "turn:a")
    await write(store, keys=[("k", "turn:a"), ("l", "turn:a")])
    new = [record(3, "turn:b", 1)]
    cases = {
        "a key taken before": [("new", "turn:b"), ("k", "turn:b")],
        "a key of its own stream": [("l", "turn:a")],
        "a key twice in one write": [("x", "turn:a"), ("x", "turn:a")],
    }
    for what, keys in cases.items():
        why = await conflict(store, records=new, keys=keys)
        true(isinstance(why, KeyTakenError), f"{what}: the key is named")
        facts = getattr(why, "key", None), why.stream, why.actual
        same(facts[:2], (keys[-1][0], "turn:a"), f"{what}: the key and its stream")
    same(list(await read(store, "turn:b")), [], "the stream of the refused write")
    same((await holder(store, "new"), await holder(store, "x")), (None, None), "keys")


async def keys_are_read_in_pages(place: Place) -> None:
    store = await place.store()
    names = [f"k{number:03}" for number in range(25)]
    keys = [(name, "turn:a") for name in reversed(names)]
    await write(store, records=[record(1, "turn:a", 1)], keys=keys)
    found: list[tuple[str, str]] = []
    after = ""
    while page := await store.keys(after, 10):
        true(len(page) <= 10, "no page is longer than its limit")
        found += page
        after = page[-1][0]
    same(found, sorted(keys), "all keys, by key")
    await _keys_of_a_message(store)


async def _keys_of_a_message(store: Store) -> None:
    names = ("in:a/b//7", "in:a/b/7/m", "in:a/b/c/7/m", "in:a/b/c/7/o", "in:a/b/c/77/m")
    more = ("in:a/b0/c/7/m", "in:a/d/c/7/m", "in:b/7/c/m/7", "out:a/b/c/7")
    odd = [(name, "turn:a") for name in (*names, *more)]
    await write(store, records=[record(2, "turn:a", 2)], keys=odd)
    wanted = [odd[n] for n in (0, 2, 3, 5, 6)]
    same(list(await store.keys(part="7")), wanted, "keys of the message 7")
    same(list(await store.keys(part="7", limit=2)), wanted[:2], "the same, a page")
    found = await store.keys("in:a/b/c/7/m", part="7")
    same(list(found), wanted[2:], "the same, a page on")
    same(list(await store.keys(part="m")), [odd[1], odd[7]], "keys of the message m")


# --- bodies ----------------------------------------------------------------------


async def bodies_are_kept_by_place(place: Place) -> None:
    store = await place.store()
    sizes = enumerate(SIZES)
    first = [body("entry:a", number, noise(size)) for number, size in sizes]
    await write(store, records=[record(1, "entry:a", 1)], bodies=first[::2])
    second = [body("entry:b", 0, b"text"), body("entry:b", 2**20 - 1, noise(70_000))]
    await write(store, records=[record(2, "entry:b", 1)], bodies=second)
    late = first[1::2]  # an older stream gets more bodies
    await write(store, bodies=late)
    store = await place.reopened(store)
    for item in (*first, *second):
        found = await body_in(store, item.stream, item.number)
        same(found == item, True, f"a body of {len(item.data)} bytes")
    same(await body_in(store, "entry:a", 99), None, "a number that is not there")
    same(await body_in(store, "entry:c", 0), None, "a stream that is not there")


async def a_body_of_ten_megabytes_is_kept(place: Place) -> None:
    store = await place.store()
    large = body("entry:a", 1, noise(10_000_000))
    await write(store, records=[record(1, "entry:a", 1)], bodies=[large])
    same(await body_in(store, "entry:a", 1) == large, True, "the same bytes")


async def a_place_takes_one_body(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a", "entry:b")
    kept = [body("entry:a", 1, b"text"), body("entry:a", 2, noise(100_000))]
    kept += [body("entry:b", 1, b"newer")]
    await write(store, bodies=kept)
    for item in kept:
        for data in (item.data, b"other", noise(80_000)):
            again = replace(item, data=data)
            with refused(InvalidInputError, what="a place that is taken"):
                await attempt(store, bodies=[again])
        found = await body_in(store, item.stream, item.number)
        same(found == item, True, "the body before it")
    fresh = body("entry:b", 7, b"a")
    with refused(InvalidInputError, what="the same place twice in one write"):
        await attempt(store, bodies=[fresh, fresh])
    same(await body_in(store, "entry:b", 7), None, "the body that came twice")


async def a_write_that_is_refused_keeps_no_body(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    bodies = [body("entry:b", 1, b"a"), body("entry:b", 2, noise(100_000))]
    new = [record(2, "entry:b", 1)]
    await conflict(store, records=[*new, record(3, "entry:a", 1)], bodies=bodies)
    with refused(InvalidInputError, what="a key without a stream"):
        await attempt(store, records=new, bodies=bodies, keys=[("k", "entry:none")])
    for item in bodies:
        same(await body_in(store, "entry:b", item.number), None, "a refused body")
    await write(store, records=new, bodies=bodies)
    same(await _every_body(store), bodies, "all bodies, decided again")


async def many_bodies_are_fetched_at_once(place: Place) -> None:
    store = await place.store()
    sizes = (0, 100_000, *range(1, 250))
    kept = [body("entry:a", number, noise(size)) for number, size in enumerate(sizes)]
    await write(store, records=[record(1, "entry:a", 1)], bodies=kept)
    refs = {(item.stream, item.number): item for item in kept}
    strange = {("entry:a", 999): None, ("entry:b", 0): None}
    wanted = frozenset({*refs, *strange})
    found = (await store.fetch(Wanted(bodies=wanted))).bodies
    same(found == {**refs, **strange}, True, "all that are there, and None for others")


async def all_bodies_are_read_in_pages(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a", "entry:b", "entry:c")
    numbers = range(1, 8)
    bodies = [body("entry:c", number, b"c%d" % number) for number in numbers]
    await write(store, bodies=bodies)
    bodies += [body("entry:a", number, noise(66_000 + number)) for number in numbers]
    await write(store, bodies=bodies[7:])
    found = await _every_body(store, limit=3)
    same(len(found), len(bodies), "as many as there are")
    same(sorted(found, key=_ref) == sorted(bodies, key=_ref), True, "each of them")
    await write(store, erase=[("entry:c", 2), ("entry:a", 3)])
    left = [b for b in bodies if _ref(b) not in (("entry:c", 2), ("entry:a", 3))]
    found = await _every_body(store, limit=1)
    same(sorted(found, key=_ref) == sorted(left, key=_ref), True, "those that are left")


# --- everything in one round trip ------------------------------------------------


async def everything_is_fetched_in_one_call(place: Place) -> None:
    store = await _ten(place)
    item = body("turn:t", 1, b"text")
    await write(store, bodies=[item], keys=[("k", "turn:t")])
    found = await store.fetch(
        Wanted(
            streams=frozenset({"turn:t"}),
            summaries=frozenset({"turn:t"}),
            keys=frozenset({"k"}),
            bodies=frozenset({("turn:t", 1)}),
            children=frozenset({"turn:t"}),
            answers=frozenset({"none"}),
        )
    )
    same(list(found.streams["turn:t"]), list(await read(store, "turn:t")), "records")
    same(found.summaries["turn:t"], await summary_in(store, "turn:t"), "summary")
    same((found.keys["k"], found.bodies["turn:t", 1]), ("turn:t", item), "key, body")
    same(len(found.children["turn:t"]), 3, "children")
    same((dict(found.answers), found.waiting), ({"none": None}, frozenset()), "answers")
    nothing = await store.fetch(Wanted())
    same((dict(nothing.streams), dict(nothing.bodies)), ({}, {}), "nothing wanted")


async def odd_unicode_is_kept(place: Place) -> None:
    store = await place.store()
    for number, text in enumerate(ODD, 1):
        stream = f"turn:{number}{text}"
        item = summary(stream, 1, number, lane=text, reason=text, phase=text)
        new = record(number, stream, 1, {"text": text})
        keys = [(f"{number}{text}", stream)]
        await write(store, records=[new], summaries=[item], keys=keys)
        same(list(await read(store, stream)), [new], "record")
        same(await summary_in(store, stream), item, "summary")
        same(await holder(store, f"{number}{text}"), stream, "key")
        found = await store.list(Listing(prefix=stream, lane=text))
        same(list(found), [item], "list")


def _ref(item: Body) -> tuple[str, int]:
    return item.stream, item.number


async def _every_body(store: Store, limit: int = 100) -> list[Body]:
    found: list[Body] = []
    after = None
    while page := await store.bodies(after, limit):
        true(len(page) <= limit, "no page is longer than its limit")
        found += page
        after = _ref(page[-1])
    return found


async def _ten(place: Place) -> Store:
    """A turn and nine entries; the order of each is its number."""
    store = await place.store()
    await put(store, "turn:t", phase="running")
    phases = {0: ("F", False), 1: ("Q", True), 2: ("OK", False)}
    for number in range(2, 11):
        phase, is_open = phases[number % 3]
        fields: dict[str, Any] = {"phase": phase, "open": is_open}
        fields["lane"] = "odd" if number % 2 else "even"
        fields["parent"] = "turn:t" if number >= 8 else None
        await put(store, f"entry:n{number}", **fields)
    return store


CHECKS = checks_in(globals())
