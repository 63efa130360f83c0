"""Checks of what lies beside the log: summaries, dedupe keys, bodies, odd values."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from turnfold.errors import (
    ConflictError,
    InvalidInputError,
    MissingBodyError,
)
from turnfold.ports.store import Append, Listing, Store
from turnfold_model.store_kit import (
    Place,
    body,
    noise,
    put,
    record,
    refused,
    same,
    summary,
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


def a_summary_replaces_the_one_before(place: Place) -> None:
    store = place.store()
    put(store, "turn:t")
    put(store, "entry:a")
    full = summary(
        "entry:a",
        2,
        2,
        lane="lane",
        parent="turn:t",
        kind="final",
        due=2**53,
        expires=-1,
        reason="refused",
    )
    with store.write() as tx:
        tx.append(Append(records=[record(3, "entry:a", 2)], summaries=[full]))
    same(store.summary("entry:a"), full, "all fields")
    bare = summary("entry:a", 2, 2, open=False, phase="failed")
    with store.write() as tx:
        tx.append(Append(summaries=[bare]))
    same(store.summary("entry:a"), bare, "fields that are gone again")


def a_stream_may_have_no_summary(place: Place) -> None:
    store = place.store()
    with store.write() as tx:
        tx.append(Append(records=[record(1, "store", 1)]))
    same(store.summary("store"), None, "summary")
    same(list(store.list(Listing(prefix=""))), [], "list")


def a_summary_must_fit_its_stream(place: Place) -> None:
    store = place.store()
    put(store, "entry:a", "entry:b")
    wrong = {
        "no such stream": summary("entry:x", 1, 1),
        "another version": summary("entry:a", 2, 1),
        "another order": summary("entry:b", 1, 1),
        "no such parent": summary("entry:b", 1, 2, parent="turn:x"),
    }
    for what, item in wrong.items():
        with refused(InvalidInputError, what=what), store.write() as tx:
            tx.append(Append(summaries=[item]))


def lists_are_filtered(place: Place) -> None:
    store = _ten(place)
    wanted = {
        Listing(): [10, 9, 8, 7, 6, 5, 4, 3, 2],
        Listing(prefix=""): [10, 9, 8, 7, 6, 5, 4, 3, 2, 1],
        Listing(prefix="turn:"): [1],
        Listing(prefix="Entry:"): [],
        Listing(phases=("delivered",)): [8, 5, 2],
        Listing(phases=("delivered", "failed")): [9, 8, 6, 5, 3, 2],
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
        found = [s.order for s in store.list(listing)]
        same(found, orders, f"orders for {listing}")


def lists_are_paged_newest_first(place: Place) -> None:
    store = _ten(place)
    pages, before = [], None
    while page := store.list(Listing(limit=4, before=before)):
        pages.append([s.order for s in page])
        before = page[-1].order
    same(pages, [[10, 9, 8, 7], [6, 5, 4, 3], [2]], "pages")


def a_transaction_lists_its_own(place: Place) -> None:
    store = _ten(place)
    with store.write() as tx:
        new, old = record(11, "entry:new", 1), record(12, "entry:n4", 2)
        summaries = [summary("entry:new", 1, 11), summary("entry:n4", 2, 4, open=False)]
        tx.append(Append(records=[new, old], summaries=summaries))
        found = [s.order for s in tx.list(Listing(open=True))]
    same(found, [11, 10, 7], "open ones inside the transaction")


def open_streams_come_in_order(place: Place) -> None:
    store = _ten(place)
    same([s.order for s in store.open_streams()], [1, 4, 7, 10], "orders")
    whole = store.summary("entry:n10")
    same(list(store.open_streams())[-1], whole, "the whole summary")


def a_key_belongs_to_one_stream(place: Place) -> None:
    store = place.store()
    with store.write() as tx:
        keys = [("k1", "turn:a"), ("k2", "turn:a")]
        tx.append(Append(records=[record(1, "turn:a", 1)], keys=keys))
        same(tx.lookup("k1"), "turn:a", "inside the transaction")
    same([store.lookup(k) for k in ("k1", "k2", "k3")], ["turn:a", "turn:a", None], "")


def a_taken_key_is_a_conflict(place: Place) -> None:
    store = place.store()
    put(store, "turn:a", "turn:a")
    with store.write() as tx:
        tx.append(Append(keys=[("k", "turn:a")]))
    again = Append(records=[record(3, "turn:b", 1)], keys=[("k", "turn:b")])
    with store.write() as tx:
        with refused(ConflictError, what="a key taken before") as caught:
            tx.append(again)
        tx.append(Append(keys=[("new", "turn:a")]))
        with refused(ConflictError, what="a key taken in this transaction"):
            tx.append(Append(records=again.records, keys=[("new", "turn:b")]))
        twice = [("x", "turn:b"), ("x", "turn:b")]
        with refused(ConflictError, what="a key twice in one append"):
            tx.append(Append(records=again.records, keys=twice))
    same((caught[0].stream, caught[0].actual), ("turn:a", 2), "who has the key")
    same(list(store.read("turn:b")), [], "the stream of the refused append")
    with refused(InvalidInputError, what="no such stream"), store.write() as tx:
        tx.append(Append(keys=[("free", "turn:none")]))


def bodies_are_kept(place: Place) -> None:
    store = place.store()
    sizes = (0, 1, 500, 64 * 1024, 64 * 1024 + 1, 200_000)
    bodies = [body(noise(size)) for size in sizes]
    with store.write() as tx:
        tx.append(Append(bodies=bodies))
    store = place.reopened(store)
    for item in bodies:
        same(store.body(item.digest), item.data, f"a body of {len(item.data)} bytes")
        same(store.salt(item.digest), item.salt, "its salt")


def a_body_of_ten_megabytes_is_kept(place: Place) -> None:
    store = place.store()
    large = body(noise(10_000_000))
    with store.write() as tx:
        tx.append(Append(bodies=[large]))
    same(store.body(large.digest) == large.data, True, "the same bytes")


def a_body_may_come_twice(place: Place) -> None:
    store = place.store()
    for item in (body(b"text"), body(noise(100_000))):
        for _ in range(2):
            with store.write() as tx:
                tx.append(Append(bodies=[item, item]))
        same(store.body(item.digest), item.data, "the body")


def a_missing_body_is_named(place: Place) -> None:
    store = place.store()
    known, unknown = body(b"a"), body(noise(100_000))
    with refused(ZeroDivisionError, what="the exception itself"), store.write() as tx:
        tx.append(Append(bodies=[known, unknown]))
        raise ZeroDivisionError
    for item in (known, unknown):
        with refused(MissingBodyError, what="a body rolled back") as caught:
            store.body(item.digest)
        same(caught[0].digest, item.digest, "digest")
        with refused(MissingBodyError, what="its salt"):
            store.salt(item.digest)


def many_bodies_are_asked_for_at_once(place: Place) -> None:
    store = place.store()
    kept = [body(noise(size)) for size in (0, 100_000, *range(1, 250))]
    erased = body(b"erased")
    with store.write() as tx:
        tx.append(Append(bodies=[*kept, erased]))
    with store.write() as tx:
        tx.append(Append(erase=[erased.digest]))
    strange = [body(b"unknown").digest, erased.digest, "no digest", ""]
    found = {b.digest: b for b in store.bodies([*strange, *(b.digest for b in kept)])}
    same(found == {b.digest: b for b in kept}, True, "all that are there, and no other")
    same(list(store.bodies(strange)), [], "what is not there")
    same(list(store.bodies([])), [], "none")


def many_summaries_are_asked_for_at_once(place: Place) -> None:
    store = _ten(place)
    names = [f"entry:n{number}" for number in range(250)]
    found = sorted(store.summaries(["turn:t", *names]), key=lambda row: row.order)
    whole = store.list(Listing(prefix="", limit=100))
    same(found, list(reversed(whole)), "all that are there")
    with store.write() as tx:
        tx.append(Append(records=[record(store.head.position + 1, "entry:bare", 1)]))
    same(list(store.summaries(["entry:bare"])), [], "of a stream that has none")


def odd_unicode_is_kept(place: Place) -> None:
    store = place.store()
    for number, text in enumerate(ODD, 1):
        stream = f"turn:{number}{text}"
        item = summary(stream, 1, number, lane=text, reason=text, phase=text)
        new = record(number, stream, 1, {"text": text})
        with store.write() as tx:
            keys = [(f"{number}{text}", stream)]
            tx.append(Append(records=[new], summaries=[item], keys=keys))
        same(list(store.read(stream)), [new], "record")
        same(store.summary(stream), item, "summary")
        same(store.lookup(f"{number}{text}"), stream, "key")
        found = store.list(Listing(prefix=stream, lane=text))
        same(list(found), [item], "list")


def values_that_cannot_be_kept_are_refused(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    good, fine = record(2, "entry:b", 1), summary("entry:a", 1, 1)
    odd: list[dict[str, Any]] = [
        {"records": [_with(good, stream="\ud800")]},
        {"records": [_with(good, stream="a\0b")]},
        {"records": [_with(good, at=2**63)]},
        {"records": [_with(good, schema=-(2**63) - 1)]},
        {"records": [_with(good, schema=True)]},
        {"records": [_with(good, at=1.0)]},
        {"records": [_with(good, data="{}")]},
        {"records": [_with(good, hash=bytearray(32))]},
        {"summaries": [_with(fine, lane="\udfff")]},
        {"summaries": [_with(fine, open=1)]},
        {"summaries": [_with(fine, due=2**63)]},
        {"summaries": [_with(fine, expires=False)]},
        {"summaries": [_with(fine, reason=b"x")]},
        {"keys": [("\udc80", "entry:a")]},
        {"keys": [("nul\0", "entry:a")]},
        {"keys": [(7, "entry:a")]},
        {"bodies": [_with(body(b"a"), data="text")]},
        {"bodies": [_with(body(b"a"), salt=None)]},
    ]
    with store.write() as tx:
        tx.append(Append(records=[good]))
        for fields in odd:
            with refused(InvalidInputError, what=f"{fields}"):
                tx.append(Append(**fields))
    same(list(store.read("entry:b")), [good], "the append beside them")


def summaries_can_be_rebuilt(place: Place) -> None:
    store = _ten(place)
    fresh = [
        summary("turn:t", 1, 1, phase="running"),
        summary("entry:n5", 1, 5, parent="turn:t", phase="retryable"),
    ]
    store.rebuild(iter(fresh))
    same(list(store.list(Listing(prefix=""))), fresh[::-1], "all there are")
    same(list(store.open_streams()), fresh, "open streams")
    same(len(list(store.log())), 10, "records")
    with refused(InvalidInputError, what="no such stream"):
        store.rebuild([summary("turn:x", 1, 1)])
    same(list(store.open_streams()), fresh, "after a rebuild that failed")
    put(store, "entry:n4")
    same(store.head.position, 11, "head after an append to a rebuilt store")


def _with(value: Any, **fields: Any) -> Any:
    """A copy with fields that the types do not allow."""
    return evolve(value, **fields)


def _ten(place: Place) -> Store:
    """A turn and nine entries; the order of each is its number."""
    store = place.store()
    put(store, "turn:t", phase="running")
    phases = {0: ("failed", False), 1: ("queued", True), 2: ("delivered", False)}
    for number in range(2, 11):
        phase, is_open = phases[number % 3]
        fields: dict[str, Any] = {"phase": phase, "open": is_open}
        fields["lane"] = "odd" if number % 2 else "even"
        fields["parent"] = "turn:t" if number >= 8 else None
        put(store, f"entry:n{number}", **fields)
    return store


CHECKS = (
    a_summary_replaces_the_one_before,
    a_stream_may_have_no_summary,
    a_summary_must_fit_its_stream,
    lists_are_filtered,
    lists_are_paged_newest_first,
    a_transaction_lists_its_own,
    open_streams_come_in_order,
    a_key_belongs_to_one_stream,
    a_taken_key_is_a_conflict,
    bodies_are_kept,
    a_body_of_ten_megabytes_is_kept,
    a_body_may_come_twice,
    a_missing_body_is_named,
    many_bodies_are_asked_for_at_once,
    many_summaries_are_asked_for_at_once,
    odd_unicode_is_kept,
    values_that_cannot_be_kept_are_refused,
    summaries_can_be_rebuilt,
)
