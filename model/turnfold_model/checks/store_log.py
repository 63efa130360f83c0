"""Checks of the log of a store: the order of its records, and the refusal of a write."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from turnfold.errors import InvalidInputError
from turnfold.ports.store import Head, Wanted, Write
from turnfold_model.checks.store_kit import (
    MANY,
    Place,
    attempt,
    body,
    body_in,
    checks_in,
    command,
    conflict,
    head_of,
    holder,
    put,
    read,
    record,
    refused,
    running,
    same,
    summary,
    summary_in,
    true,
    whole_log,
    write,
)


async def an_empty_store_has_nothing(place: Place) -> None:
    store = await place.store()
    loaded = await store.load()
    same(loaded.head, running([]), "head")
    same((loaded.last_at, list(loaded.open), loaded.store), (0, [], None), "the rest")
    same(list(await read(store, "entry:none")), [], "a stream that is not there")
    same(list(await store.log()), [], "log")
    same(await summary_in(store, "entry:none"), None, "summary")
    same(await holder(store, "none"), None, "holder of a key")
    same(await body_in(store, "entry:none", 1), None, "body")
    same(
        (list(await store.bodies()), list(await store.keys())), ([], []), "all of each"
    )
    same(list(await store.inbox()), [], "inbox")


async def an_empty_write_changes_nothing(place: Place) -> None:
    store = await place.store()
    records = await put(store, "entry:a")
    same(list(await store.commit([])), [], "answers to no write")
    same(await write(store), running(records), "head")
    same(await whole_log(store), records, "log")


async def a_record_is_read_back_as_it_was(place: Place) -> None:
    store = await place.store()
    value = {
        "text": "\0 \u00e9 \u4e16 \U0001f980",
        "n": [1, None, True, {"a": -(2**52)}],
    }
    wanted = [
        record(1, "entry:a", 3, value, count=3, at=-5),
        record(2, "entry:b", 1, at=2**53, wall=2**53 + 7_000),
        record(3, "entry:a", 5, count=2, wall=-1),
    ]
    head = await write(store, records=wanted)
    same(head, running(wanted), "head")
    same(await whole_log(store), wanted, "the log")
    same(list(await read(store, "entry:a")), [wanted[0], wanted[2]], "a stream")
    same((await store.load()).last_at, 1000, "time of the last record")


async def records_keep_their_order(place: Place) -> None:
    store = await place.store()
    records = await put(store, "entry:b", "entry:a", "turn:c", "entry:a")
    records += await put(store, "turn:c", "entry:b")
    log = await whole_log(store)
    same([r.position for r in log], [1, 2, 3, 4, 5, 6], "positions")
    same(log, records, "log")
    names = frozenset({"entry:a", "entry:b", "turn:c", "entry:none"})
    found = await store.fetch(Wanted(streams=names))
    same(found.streams.keys(), names, "every name is answered")
    for stream in names:
        own = [r for r in records if r.stream == stream]
        same(list(found.streams[stream]), own, stream)
        same([r.version for r in own], list(range(1, len(own) + 1)), "versions")


async def a_position_that_does_not_follow_is_refused(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    for position in (1, 3, 0, -1):
        with refused(InvalidInputError, what=f"position {position} after 1"):
            await attempt(store, records=[record(position, "entry:a", 2)])
    with refused(InvalidInputError, what="a record without events"):
        empty = replace(record(2, "entry:a", 1), count=0)
        await attempt(store, records=[empty])
    same((await head_of(store)).position, 1, "head")


async def a_write_on_an_older_head_is_refused(place: Place) -> None:
    store = await place.store()
    old = await head_of(store)
    records = await put(store, "entry:a", "entry:b")
    why = await conflict(store, base=old, records=[record(1, "entry:c", 1)])
    same((why.expected, why.actual), (0, 2), "the position expected, and the one found")
    other = Head(2, bytes(31) + b"x")
    await conflict(store, base=other, records=[record(3, "entry:c", 1)])
    ahead = Head(3, running(records).hash)
    await conflict(store, base=ahead, records=[record(4, "entry:c", 1)])
    await conflict(store, base=old, done=["1"])
    same(await whole_log(store), records, "log")


async def a_gap_in_versions_is_a_conflict(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    gap = [record(2, "entry:a", 2), record(3, "entry:a", 4)]
    why = await conflict(store, records=gap)
    facts = why.stream, why.expected, why.actual
    same(facts, ("entry:a", 3, 2), "stream, expected and actual version")
    same((await head_of(store)).position, 1, "head")


async def a_conflict_names_stream_and_versions(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a", "entry:b", "entry:b")
    for before, count in ((0, 1), (1, 1), (3, 1), (0, 2), (1, 2)):
        item = record(4, "entry:b", before + count, count=count)
        why = await conflict(store, records=[item])
        facts = why.stream, why.expected, why.actual
        same(facts, ("entry:b", before, 2), "stream, expected and actual version")
    why = await conflict(store, records=[record(4, "entry:new", 2)])
    same((why.stream, why.expected, why.actual), ("entry:new", 1, 0), "a new stream")
    store = await place.reopened(store)
    same((await head_of(store)).position, 3, "head after reopening")
    why = await conflict(store, records=[record(4, "entry:b", 1)])
    same((why.stream, why.expected, why.actual), ("entry:b", 0, 2), "after reopening")


async def a_write_is_stored_whole_or_not_at_all(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    await store.post([command("1")])
    base = await head_of(store)
    half: dict[str, Any] = {
        "records": [record(2, "entry:b", 1), record(3, "entry:a", 1)],
        "summaries": [summary("entry:b", 1, 2)],
        "bodies": [body("entry:b", 1, b"text")],
        "keys": [("key", "entry:b")],
        "done": ["1"],
    }
    await conflict(store, base=base, **half)
    same(list(await read(store, "entry:b")), [], "the other stream")
    same(await summary_in(store, "entry:b"), None, "its summary")
    same(await body_in(store, "entry:b", 1), None, "its body")
    same(await holder(store, "key"), None, "its key")
    same([c.id for c in await store.inbox()], ["1"], "the command")
    half["records"][1] = record(3, "entry:a", 2)
    await write(store, base=base, **half)
    same(await holder(store, "key"), "entry:b", "its key, decided again")
    same(list(await store.inbox()), [], "the command, decided again")


async def a_value_that_cannot_be_kept_leaves_nothing_behind(place: Place) -> None:
    store = await place.store()
    await put(store, "entry:a")
    good = record(2, "entry:b", 1)
    beside: dict[str, Any] = {"keys": [("k", "entry:b")]}
    fine = summary("entry:a", 1, 1)
    odd: list[dict[str, Any]] = [
        {"records": [good, replace(record(3, "entry:c", 1), stream="\ud800")]},
        {"records": [good, replace(record(3, "entry:c", 1), at=2**63)]},
        {"records": [good, replace(record(3, "entry:c", 1), wall=-(2**63) - 1)]},
        {"records": [good, _with(record(3, "entry:c", 1), events="[]")]},
        {"records": [good, _with(record(3, "entry:c", 1), hash=None)]},
        {"records": [good], "summaries": [replace(fine, lane="\udfff")]},
        {"records": [good], "summaries": [replace(fine, due=2**63)]},
        {"records": [good], "summaries": [_with(fine, reason=b"x")]},
        {"records": [good], "summaries": [_with(fine, phase=None)]},
        {"records": [good], "keys": [("k", "entry:b"), ("\udc80", "entry:a")]},
        {"records": [good], "keys": [_with_key(None)]},
        {"records": [good], "bodies": [_with(body("entry:b", 1, b""), data="text")]},
        {"records": [good], "bodies": [_with(body("entry:b", 1, b""), salt=None)]},
        {"records": [good], "bodies": [body("entry:b", -1, b"")]},
        {"records": [good], "bodies": [body("entry:b", 2**20, b"")]},
        {"records": [good], "bodies": [body("entry:none", 1, b"")]},
        {"records": [good], "keys": [("k", "entry:none")]},
        {"records": [good], "summaries": [summary("entry:none", 1, 1)]},
    ]
    for fields in odd:
        with refused(InvalidInputError, what=f"{fields}"):
            await attempt(store, **(beside | fields))
        same(await head_of(store), running(await whole_log(store)), "head")
        same((await head_of(store)).position, 1, "position")
        same(list(await read(store, "entry:b")), [], "the record beside it")
        same(await holder(store, "k"), None, "the key beside it")
    await write(store, records=[good], **beside)
    same(list(await read(store, "entry:b")), [good], "the record alone")


async def one_write_a_shard(place: Place) -> None:
    store = await place.store()
    base = await head_of(store)
    twice = [Write(base=base), Write(base=base)]
    with refused(InvalidInputError, what="two writes to one shard"):
        await store.commit(twice)
    with refused(InvalidInputError, what="a shard that is not there"):
        await store.commit([Write(base=base, shard=-1)])
    with refused(InvalidInputError, what="a record of another shard"):
        await attempt(store, records=[record(1, "entry:a", 1, shard=7)])
    same((await head_of(store)).position, 0, "head")


async def the_head_is_the_running_hash(place: Place) -> None:
    store = await place.store()
    records = []
    for streams in (("entry:a", "turn:b"), ("entry:a",), ("gate:c", "store", "store")):
        records += await put(store, *streams)
        same(await head_of(store), running(records), "head")
        store = await place.reopened(store)
        same(await head_of(store), running(records), "head after reopening")


async def a_long_log_is_read_in_pages(place: Place) -> None:
    store = await place.store()
    records = [record(i, f"entry:{i % 7}", (i - 1) // 7 + 1) for i in range(1, MANY)]
    # Streams start in the order 1..6, 0; versions run along with every seventh.
    await write(store, records=records)
    same(await whole_log(store), records, "log")
    same(list(await store.log(3, 5)), records[3:8], "a page of five")
    same(list(await store.log(MANY - 5, 100)), records[-4:], "the last page")
    same(list(await store.log(MANY)), [], "after the end there is nothing")
    own = [r for r in records if r.stream == "entry:3"]
    same(list(await read(store, "entry:3")), own, "a long stream")
    true(len(await store.log(0, 1)) == 1, "a page of one")


def _with(value: Any, **fields: Any) -> Any:
    """A copy with fields that the types do not allow."""
    return replace(value, **fields)


def _with_key(key: Any) -> Any:
    return key, "entry:b"


CHECKS = checks_in(globals())
