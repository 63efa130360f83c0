"""Checks of the log of a store: what is appended, in what order, and what is refused."""

from __future__ import annotations

from turnfold.errors import BusyError, ConflictError, InvalidInputError, NotOpenError
from turnfold.ports.store import Append
from turnfold_model.store_kit import (
    MANY,
    Place,
    put,
    record,
    refused,
    running,
    same,
    summary,
    true,
)


def an_empty_store_has_nothing(place: Place) -> None:
    store = place.store()
    same(store.head, running([]), "head")
    same(list(store.read("entry:none")), [], "a stream that is not there")
    same(list(store.since(0)), [], "since 0")
    same(list(store.log()), [], "log")
    same(store.summary("entry:none"), None, "summary")
    same(store.lookup("none"), None, "lookup")
    same(list(store.open_streams()), [], "open streams")


def an_empty_append_changes_nothing(place: Place) -> None:
    store = place.store()
    records = put(store, "entry:a")
    with store.write() as tx:
        tx.append(Append())
    same(store.head, running(records), "head")
    same(list(store.log()), records, "log")


def what_was_appended_is_read_back(place: Place) -> None:
    store = place.store()
    value = {
        "text": "\0 \u00e9 \u4e16 \U0001f980",
        "n": [1, None, True, {"a": -(2**52)}],
    }
    wanted = record(1, "entry:a", 1, value, at=-5)
    with store.write() as tx:
        tx.append(Append(records=[wanted]))
    same(list(store.read("entry:a")), [wanted], "the stream")
    same(list(store.since(0)), [wanted], "the log")


def records_keep_their_order(place: Place) -> None:
    store = place.store()
    records = put(store, "entry:b", "entry:a", "turn:c", "entry:a")
    records += put(store, "turn:c", "entry:b")
    same([r.position for r in store.log()], [1, 2, 3, 4, 5, 6], "positions")
    same(list(store.log()), records, "log")
    for stream in ("entry:a", "entry:b", "turn:c"):
        own = [r for r in records if r.stream == stream]
        same(list(store.read(stream)), own, stream)
        same([r.version for r in own], [1, 2], f"versions of {stream}")


def a_position_that_does_not_follow_is_refused(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    for position in (1, 3, 0, -1):
        what = f"position {position} after 1"
        with refused(InvalidInputError, what=what), store.write() as tx:
            tx.append(Append(records=[record(position, "entry:a", 2)]))
    same(store.head.position, 1, "head")


def a_gap_in_versions_is_a_conflict(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    gap = [record(2, "entry:a", 2), record(3, "entry:a", 4)]
    with store.write() as tx:
        same(tx.head.position, 1, "head before")
        with refused(ConflictError, what="versions 2 and 4") as caught:
            tx.append(Append(records=gap))
    facts = caught[0].stream, caught[0].expected, caught[0].actual
    same(facts, ("entry:a", 3, 2), "stream, expected and actual version")
    same(store.head.position, 1, "head")


def a_conflict_names_stream_and_versions(place: Place) -> None:
    store = place.store()
    put(store, "entry:a", "entry:b", "entry:b")
    cases = {1: (0, 2), 2: (1, 2), 4: (3, 2)}
    for version, (expected, actual) in cases.items():
        with store.write() as tx:
            same(tx.head.position, 3, "head before")
            with refused(ConflictError, what=f"version {version} at 2") as caught:
                tx.append(Append(records=[record(4, "entry:b", version)]))
        facts = caught[0].stream, caught[0].expected, caught[0].actual
        same(facts, ("entry:b", expected, actual), "stream, expected, actual")


def of_two_writers_one_wins(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    first, second = (record(2, "entry:a", 2, {"by": by}) for by in ("x", "y"))
    with store.write() as tx:
        tx.append(Append(records=[first]))
    with refused(ConflictError, what="the second writer"), store.write() as tx:
        tx.append(Append(records=[second]))
    same(list(store.read("entry:a"))[1:], [first], "the stream")


def an_append_over_several_streams_is_all_or_nothing(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    half = Append(
        records=[record(2, "entry:b", 1), record(3, "entry:a", 1)],
        summaries=[summary("entry:b", 1, 2)],
        keys=[("key", "entry:b")],
    )
    with store.write() as tx:
        with refused(ConflictError, what="half of an append in conflict"):
            tx.append(half)
        same(tx.head.position, 1, "head in the transaction")
        same(list(tx.read("entry:b")), [], "the other stream in the transaction")
    same(list(store.read("entry:b")), [], "the other stream")
    same(store.summary("entry:b"), None, "its summary")
    same(store.lookup("key"), None, "its key")


def one_conflict_does_not_fail_the_others(place: Place) -> None:
    store = place.store()
    put(store, "entry:a")
    with store.write() as tx:
        tx.append(Append(records=[record(2, "entry:b", 1)]))
        with refused(ConflictError, what="the one in the middle"):
            tx.append(Append(records=[record(3, "entry:a", 1)]))
        with refused(InvalidInputError, what="text that is not Unicode"):
            tx.append(Append(records=[record(3, "entry:c", 1)], keys=[("\udc80", "x")]))
        tx.append(Append(records=[record(3, "entry:b", 2), record(4, "entry:c", 1)]))
    streams = [(r.stream, r.version) for r in store.log(1)]
    same(streams, [("entry:b", 1), ("entry:b", 2), ("entry:c", 1)], "the others")


def a_transaction_sees_its_own_appends(place: Place) -> None:
    store = place.store()
    before = put(store, "entry:a")
    own = [record(2, "entry:a", 2), record(3, "entry:b", 1)]
    with store.write() as tx:
        tx.append(Append(records=own, summaries=[summary("entry:b", 1, 3)]))
        same(list(tx.read("entry:a")), [*before, own[0]], "an older stream")
        same(list(tx.since(1)), own, "since")
        same(list(tx.since(3)), [], "since the head")
        same(tx.head, running([*before, *own]), "head")
        same(tx.summary("entry:b"), summary("entry:b", 1, 3), "summary")


def an_exception_rolls_everything_back(place: Place) -> None:
    store = place.store()
    records = put(store, "entry:a")
    new = Append(
        records=[record(2, "entry:b", 1)],
        summaries=[summary("entry:b", 1, 2)],
        keys=[("key", "entry:b")],
    )
    with refused(ZeroDivisionError, what="the exception itself"), store.write() as tx:
        tx.append(new)
        same(list(tx.read("entry:b")), list(new.records), "inside")
        raise ZeroDivisionError
    same(list(store.log()), records, "log")
    same((store.lookup("key"), store.summary("entry:b")), (None, None), "side tables")
    with store.write() as tx:
        tx.append(new)
    same(store.head.position, 2, "head after the same append again")


def a_finished_transaction_takes_nothing(place: Place) -> None:
    store = place.store()
    with store.write() as tx:
        pass
    with refused(NotOpenError, what="an append after the COMMIT"):
        tx.append(Append(records=[record(1, "entry:a", 1)]))
    same(store.head.position, 0, "head")


def a_transaction_inside_another_is_refused(place: Place) -> None:
    store = place.store()
    with store.write() as tx:
        with refused(BusyError, what="a second one on the same handle"), store.write():
            pass
        tx.append(Append(records=[record(1, "entry:a", 1)]))
    same(store.head.position, 1, "head: the first one is not touched")


def the_head_is_the_running_hash(place: Place) -> None:
    store = place.store()
    records = []
    for streams in (("entry:a", "turn:b"), ("entry:a",), ("gate:c", "store", "store")):
        records += put(store, *streams)
        same(store.head, running(records), "head")
    with store.write() as tx:
        same(tx.head, running(records), "head in a transaction")


def a_long_log_is_streamed_whole(place: Place) -> None:
    store = place.store()
    records = [record(i, f"entry:{i % 7}", (i - 1) // 7 + 1) for i in range(1, MANY)]
    # Streams start in the order 1..6, 0; versions run along with every seventh.
    with store.write() as tx:
        tx.append(Append(records=records))
    same(list(store.log()), records, "log")
    same(list(store.log(MANY - 5)), records[-4:], "the end of the log")
    same(list(store.since(MANY - 5)), records[-4:], "since")
    own = [r for r in records if r.stream == "entry:3"]
    same(list(store.read("entry:3")), own, "a long stream")
    true(len(list(store.log(MANY))) == 0, "after the end there is nothing")


CHECKS = (
    an_empty_store_has_nothing,
    an_empty_append_changes_nothing,
    what_was_appended_is_read_back,
    records_keep_their_order,
    a_position_that_does_not_follow_is_refused,
    a_gap_in_versions_is_a_conflict,
    a_conflict_names_stream_and_versions,
    of_two_writers_one_wins,
    an_append_over_several_streams_is_all_or_nothing,
    one_conflict_does_not_fail_the_others,
    a_transaction_sees_its_own_appends,
    an_exception_rolls_everything_back,
    a_finished_transaction_takes_nothing,
    a_transaction_inside_another_is_refused,
    the_head_is_the_running_hash,
    a_long_log_is_streamed_whole,
)
