"""Events to bytes and back, and everything that must not come back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold import canonical
from turnfold.codec import decode, encode, record_of
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import CLASSES, NAMES, SCHEMAS, Event, outbox
from turnfold.records import Record, envelope, hash_of
from turnfold.upcasters import upcast

GOLDEN = Path(__file__).parents[1] / "golden" / "events-1.ndjson"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT = st.integers(-(2**53) + 1, 2**53 - 1)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(int, INT)


def record(kind: str, data: bytes, schema: int = 1) -> Record:
    events = b'[["%b",%d,%b]]' % (kind.encode(), schema, data)
    return Record(7, "entry:e", 3, 1, 1000, events, b"")


def refused(kind: str, data: bytes, schema: int = 1) -> str:
    with pytest.raises(CorruptLogError) as caught:
        decode(record(kind, data, schema))
    assert (caught.value.position, caught.value.stream) == (7, "entry:e")
    return caught.value.problem


@pytest.mark.parametrize("name", sorted(CLASSES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    event: Event = data.draw(st.from_type(CLASSES[name]))
    written = record_of([encode(event)], "entry:e", 3, 1000, 7)
    assert decode(written) == (event,)
    assert canonical.dumps(canonical.loads(written.events)) == written.events
    assert hash_of(written) == written.hash
    assert hash_of(evolve(written, at=1001)) != written.hash


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_field_of_the_wrong_type_is_refused(name: str) -> None:
    for field in fields(CLASSES[name]):
        for wrong in (1.5, {"x": 1}, [1.5]):
            with pytest.raises((CorruptLogError, InvalidInputError)):
                decode(record(name, canonical.dumps({field.name: wrong})))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"part":0,"attempt":1}',  # keys not sorted
        b'{"attempt":1, "part":0}',  # white space
        b'{"attempt":1,"attempt":1,"part":0}',  # twice
        b'\xef\xbb\xbf{"attempt":1,"part":0}',  # BOM
        b'{"attempt":1.0,"part":0}',
        b'{"attempt":1e3,"part":0}',
        b'{"attempt":-0,"part":0}',
        b'{"attempt":NaN,"part":0}',
        b'{"attempt":true,"part":0}',
        b'{"attempt":"1","part":0}',
        b'{"attempt":null,"part":0}',
        b'{"attempt":9007199254740992,"part":0}',
        b'{"attempt":1,"more":2,"part":0}',
        b'{"attempt":1}',
        b'{"attempt":1,"part":0}\n',
        b'{"attempt":1,"part":"\\ud800"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_not_canonical_or_not_exact_is_refused(data: bytes) -> None:
    assert refused("outbox.dispatched", data)


def test_the_same_bytes_done_right_are_read() -> None:
    events = decode(record("outbox.dispatched", b'{"attempt":1,"part":0}'))
    assert events == (outbox.Dispatched(part=0, attempt=1),)


@pytest.mark.parametrize(
    ("kind", "schema"),
    [("outbox.nothing", 1), ("outbox.dispatched", 2), ("outbox.dispatched", 0)],
)
def test_unknown_kinds_and_schemas_are_refused_by_name(kind: str, schema: int) -> None:
    problem = refused(kind, b'{"attempt":1,"part":0}', schema)
    assert "outbox" in problem


def test_upcasters_are_applied_one_version_at_a_time() -> None:
    steps: list[int] = []

    def step(version: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def up(value: dict[str, Any]) -> dict[str, Any]:
            steps.append(version)
            return {**value, f"v{version + 1}": True}

        return up

    chain = {("x.y", n): step(n) for n in (1, 2, 3)}
    value = upcast("x.y", 2, {"a": 1}, chain, {"x.y": 4})
    assert (steps, value) == ([2, 3], {"a": 1, "v3": True, "v4": True})
    assert upcast("x.y", 4, {"a": 1}, chain, {"x.y": 4}) == {"a": 1}
    with pytest.raises(InvalidInputError):
        upcast("x.y", 5, {}, chain, {"x.y": 4})


def test_the_events_of_a_record_come_back_in_their_order() -> None:
    events = (outbox.Dispatched(part=0, attempt=1), outbox.Parked(reason="x"))
    written = record_of([encode(event) for event in events], "entry:e", 5, 1000, 7)
    assert (written.count, written.before) == (2, 3)
    assert decode(written) == events


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_record_has_as_many_events_as_it_says(count: int) -> None:
    items = [encode(outbox.Parked(reason="x"))] * 2
    written = evolve(record_of(items, "entry:e", 5, 1000, 7), count=count)
    with pytest.raises(CorruptLogError, match="2 events"):
        decode(written)


@pytest.mark.parametrize(
    "events",
    [
        b"null",
        b"{}",
        b'["outbox.parked",1,{"reason":"x"}]',
        b'[["outbox.parked",1]]',
        b'[["outbox.parked",1,{"reason":"x"},0]]',
        b'[["outbox.parked","1",{"reason":"x"}]]',
        b'[["outbox.parked",true,{"reason":"x"}]]',
        b'[[1,1,{"reason":"x"}]]',
        b'[["outbox.parked",1,["x"]]]',
        b'[["outbox.parked",1,{"reason":"x"}],]',
        b'[["outbox.parked",1,{"reason":"x"}]] ',
    ],
)
def test_events_in_another_shape_are_refused(events: bytes) -> None:
    with pytest.raises(CorruptLogError) as caught:
        decode(Record(7, "entry:e", 3, 1, 1000, events, b""))
    assert (caught.value.position, caught.value.stream) == (7, "entry:e")


def test_names_are_unique_and_every_event_has_a_schema() -> None:
    assert len(set(NAMES.values())) == len(NAMES) == len(CLASSES)
    assert set(SCHEMAS) == set(CLASSES)


def test_the_golden_lines_are_still_read_and_written_the_same() -> None:
    """Written by the first version; a line is added for a new event, never changed."""
    lines = GOLDEN.read_bytes().splitlines()
    seen = set()
    for line in lines:
        value = canonical.loads(line)
        stream, version, at = value["stream"], value["version"], value["at"]
        events = canonical.dumps(value["events"])
        told = decode(Record(7, stream, version, len(value["events"]), at, events, b""))
        seen |= {NAMES[type(event)] for event in told}
        again = record_of([encode(event) for event in told], stream, version, at, 7)
        assert again.events == events
        assert envelope(stream, version, at, events) == line
    assert seen == set(CLASSES)
