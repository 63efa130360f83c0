"""Names of streams, keys and gates: unique, stable, safe for any id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnfold import Inbound, Kind, Route
from turnfold._log.ids import (
    account_scope,
    cursor_of,
    gates_of,
    inbound_key,
    part_key,
    reply_entry,
    time_id,
)

IDS = st.text(st.sampled_from("ab/%: é"), min_size=1, max_size=6)
FIVE = st.tuples(IDS, IDS, IDS, IDS, IDS)


def key(five: tuple[str, ...]) -> str:
    channel, account, conversation, message_id, event = five
    return inbound_key(
        Inbound(
            channel,
            account=account,
            conversation=conversation,
            message_id=message_id,
            event=event,
        )
    )


@pytest.mark.case("H17")
@given(FIVE, FIVE)
def test_dedupe_keys_are_equal_only_for_the_same_five(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    assert (key(one) == key(other)) == (one == other)


@given(IDS, IDS, IDS, IDS)
def test_an_account_is_the_beginning_of_its_lanes(
    a: str, b: str, c: str, d: str
) -> None:
    route = Route(channel=a, account=b, conversation=c, thread=d)
    assert route.lane.startswith(f"{account_scope(a, b)}/")
    gates = list(gates_of(route.lane))
    assert gates[0] == f"gate:{account_scope(a, b)}"
    assert len(set(gates)) == 3


@given(st.tuples(IDS, IDS, IDS), st.tuples(IDS, IDS, IDS))
def test_cursors_are_apart(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (cursor_of(*one) == cursor_of(*other)) == (one == other)


def test_no_thread_is_another_lane_than_any_thread() -> None:
    lanes = {Route(channel="t", conversation="4", thread=x).lane for x in (None, "a")}
    assert len(lanes) == 2


@given(
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**48 - 1),
    st.binary(min_size=16, max_size=16),
)
def test_ids_sort_by_time(one: int, other: int, noise: bytes) -> None:
    if one < other:
        assert time_id(one, b"\xff" * 16) < time_id(other, noise)
    assert len(time_id(one, noise)) == 26


@pytest.mark.case("C14")
def test_finals_are_once_per_turn_and_blocks_once_per_run() -> None:
    assert reply_entry("turn:t", Kind.FINAL, 1, "a") == reply_entry(
        "turn:t", Kind.FINAL, 2, "b"
    )
    names = {
        reply_entry("turn:t", kind, run, text)
        for kind in (Kind.BLOCK, Kind.TOOL)
        for run in (1, 2)
        for text in ("1", "2", "a.b", "~x", "x" * 100, "é")
    }
    assert len(names) == 24


@given(st.integers(2, 64), st.integers(8, 64))
def test_part_keys_stay_in_their_alphabet(size: int, length: int) -> None:
    alphabet = "".join(chr(48 + n) for n in range(size))
    made = part_key("entry:e", 0, alphabet, length)
    assert set(made) <= set(alphabet)
    assert 0 < len(made) <= length
    assert made == part_key("entry:e", 0, alphabet, length)
