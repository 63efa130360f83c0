"""Events to bytes and back, and everything that must not come back."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields, replace

from turnfold._log import canonical, outbox_events
from turnfold._log.canonical import Record, envelope, hash_of
from turnfold._log.codec import decode, encode, record_of, upcast
from turnfold._log.events import (
    CLASSES,
    NAMES,
    SCHEMAS,
    Event,
)
from turnfold.errors import CorruptLogError, InvalidInputError

GOLDEN = Path(__file__).parents[1] / "golden" / "events-1.ndjson"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT = st.integers(-(2**53) + 1, 2**53 - 1)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(int, INT)
PIECES = [
    *(b'"', b"\\", b",", b"}", b"]", b"[", b"0", b"-", b" ", b"\n", b"null", b"true"),
    *(b"false", b'"x"', b"\xff", b"\\u0041", b"\\/", b"1.5", b'"hold"', b"\x00"),
]


def record(kind: str, data: bytes, schema: int = 1) -> Record:
    events = b'[["%b",%d,%b]]' % (kind.encode(), schema, data)
    return Record(7, "entry:e", 3, 1, 1000, events, b"")


def one(kind: str, data: bytes) -> Event:
    (event,) = decode(record(kind, data))
    return event


def refused(kind: str, data: bytes, schema: int = 1) -> str:
    with pytest.raises(CorruptLogError) as caught:
        decode(record(kind, data, schema))
    assert (caught.value.position, caught.value.stream) == (7, "entry:e")
    return caught.value.problem


EVERY = pytest.mark.parametrize("name", sorted(CLASSES))
PLAIN = {str: "x", int: 7, bool: True}


def anything(cls: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    return st.builds(cls, **{name: some(hint) for name, hint in hints.items()})


def some(hint: Any) -> st.SearchStrategy[Any]:
    if hint == tuple[outbox_events.PlannedPart, ...]:
        return st.lists(anything(outbox_events.PlannedPart), max_size=3).map(tuple)
    return st.from_type(hint)


def plain(name: str) -> Event:
    """An event with each field at a value that is not its default."""
    return made(CLASSES[name])


def made(cls: Any) -> Any:
    hints = get_type_hints(cls)
    return cls(**{a.name: value(hints[a.name], a) for a in fields(cls)})


def value(hint: Any, a: Any) -> Any:
    for some in get_args(hint) if get_origin(hint) is not tuple else ():
        if some is not type(None):
            return value(some, a)
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return (value(item, a),)
    if issubclass(hint, Struct):
        return made(hint)
    if issubclass(hint, StrEnum):
        return next(word for word in hint if word != a.default)
    return not a.default if hint is bool and a.default is not NODEFAULT else PLAIN[hint]


def written(event: Event) -> bytes:
    """The data of an event, as a record has it."""
    front = f'["{NAMES[type(event)]}",1,'
    return encode(event).removeprefix(front.encode()).removesuffix(b"]")


@EVERY
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    event: Event = data.draw(anything(CLASSES[name]))
    stored = record_of([encode(event)], "entry:e", 3, 1000, 7)
    (again,) = decode(stored)
    assert again == event
    assert type(again) is type(event)
    assert canonical.dumps(canonical.loads(stored.events)) == stored.events
    assert hash_of(stored) == stored.hash
    assert hash_of(replace(stored, at=1001)) != stored.hash


@EVERY
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_bytes_that_are_read_are_those_that_are_written(
    name: str, data: st.DataObject
) -> None:
    """Damaged bytes give another event or an error, never the same event."""
    stored = bytearray(written(data.draw(anything(CLASSES[name]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stored)))
        gone = data.draw(st.integers(0, 4))
        stored[at : at + gone] = data.draw(
            st.sampled_from(PIECES) | st.binary(max_size=2)
        )
    try:
        event = one(name, bytes(stored))
    except CorruptLogError:
        return
    assert written(event) == bytes(stored)


@EVERY
def test_the_keys_of_every_event_are_sorted(name: str) -> None:
    event = plain(name)
    stored = json.loads(written(event))
    assert list(stored) == sorted(a.name for a in fields(type(event)))


@EVERY
def test_every_field_at_its_default_is_left_out(name: str) -> None:
    for a in fields(CLASSES[name]):
        if a.default is not NODEFAULT:
            stored = json.loads(written(replace(plain(name), **{a.name: a.default})))
            assert a.name not in stored
            stored[a.name] = a.default
            assert "not in canonical form" in refused(name, canonical.dumps(stored))


@EVERY
def test_an_unknown_field_is_refused(name: str) -> None:
    stored = json.loads(written(plain(name)))
    for unknown in (1, "x", None, [], {}):
        refused(name, canonical.dumps({**stored, "zz": unknown}))


@EVERY
def test_a_duplicate_key_is_refused(name: str) -> None:
    stored = written(plain(name))
    key, first = next(iter(json.loads(stored).items()))
    twice = canonical.dumps({key: first})[:-1] + b"," + stored[1:]
    assert json.loads(twice) == json.loads(stored)
    refused(name, twice)


@EVERY
def test_white_space_is_refused(name: str) -> None:
    stored = written(plain(name))
    for wider in (
        b" " + stored,
        stored + b"\n",
        stored.replace(b":", b": ", 1),
        stored.replace(b"{", b"{\t", 1),
    ):
        refused(name, wider)


@EVERY
def test_a_missing_field_and_null_are_refused(name: str) -> None:
    whole = json.loads(written(plain(name)))
    for a in fields(CLASSES[name]):
        refused(name, canonical.dumps({**whole, a.name: None}))
        if a.default is NODEFAULT:
            rest = {key: value for key, value in whole.items() if key != a.name}
            assert a.name in refused(name, canonical.dumps(rest))


@EVERY
def test_a_value_of_the_wrong_type_is_refused_when_read_and_when_written(
    name: str,
) -> None:
    event = plain(name)
    stored = json.loads(written(event))
    for a in fields(CLASSES[name]):
        for wrong in (True, 3, 1.5, "odd word", [1.5], {"x": 1}, [], ["y", 1]):
            if fits(wrong, stored[a.name]):
                continue
            refused(name, canonical.dumps({**stored, a.name: wrong}))
            with pytest.raises(InvalidInputError):
                written(replace(event, **{a.name: wrong}))


def fits(other: Any, right: Any) -> bool:
    """Text may replace text that is no word of a closed set, and so on."""
    if isinstance(right, list):
        return other == []
    return type(other) is type(right) and right in (*PLAIN.values(), False)


def integers(cls: Any) -> list[str]:
    hints = get_type_hints(cls)
    return [
        a.name for a in fields(cls) if int in (hints[a.name], *get_args(hints[a.name]))
    ]


@EVERY
def test_integers_from_2_to_the_53_are_refused(name: str) -> None:
    event = plain(name)
    stored = json.loads(written(event))
    for field in integers(CLASSES[name]):
        for least in (2**53 - 1, -(2**53) + 1):
            assert (
                getattr(
                    one(name, written(replace(event, **{field: least}))),
                    field,
                )
                == least
            )
        for beyond in (2**53, -(2**53), 2**63, 2**64, 10**30):
            refused(name, canonical.dumps({**stored, field: beyond}))
            with pytest.raises(InvalidInputError):
                written(replace(event, **{field: beyond}))


@EVERY
def test_a_lone_surrogate_is_refused_when_written(name: str) -> None:
    event = plain(name)
    for a in fields(CLASSES[name]):
        if type(getattr(event, a.name)) is str:
            for wrong in ("\ud800", "a\udfffb"):
                with pytest.raises(InvalidInputError):
                    written(replace(event, **{a.name: wrong}))


def test_the_fields_of_a_part_are_held_to_the_same_rules() -> None:
    part = made(outbox_events.PlannedPart)
    plan = outbox_events.Planned(parts=(part, part), budget=8)
    stored = json.loads(written(plan))
    for a in fields(outbox_events.PlannedPart):
        if a.default is not NODEFAULT:
            bare = outbox_events.Planned(
                parts=(replace(part, **{a.name: a.default}),), budget=8
            )
            assert a.name not in json.loads(written(bare))["parts"][0]
        for wrong in (1.5, {"x": 1}):
            with pytest.raises(InvalidInputError):
                written(replace(plan, parts=(part, replace(part, **{a.name: wrong}))))
    for wrong in ({"zz": 1}, {"body": None}, {"settle_ms": 120_000}, {"classes": []}):
        parts = [stored["parts"][0], {**stored["parts"][1], **wrong}]
        refused("outbox.planned", canonical.dumps({**stored, "parts": parts}))


def test_an_event_that_is_said_again_and_again_is_read_once() -> None:
    data = b'{"attempt":1,"fence":1,"owner":"w","part":0}'
    first = one("outbox.attempted", data)
    assert one("outbox.attempted", bytes(bytearray(data))) is first
    other = one("outbox.dispatched", b'{"attempt":1,"part":0}')
    assert other == outbox_events.Dispatched(part=0, attempt=1)
    assert one("outbox.part_delivered", b'{"attempt":1,"part":0}') == (
        outbox_events.PartDelivered(part=0, attempt=1)
    )


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
        b'{"attempt":1,"part":0,"x":' + b"[" * 100_000,
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_not_canonical_or_not_exact_is_refused(data: bytes) -> None:
    assert refused("outbox.dispatched", data)


def test_the_same_bytes_done_right_are_read() -> None:
    event = one("outbox.dispatched", b'{"attempt":1,"part":0}')
    assert event == outbox_events.Dispatched(part=0, attempt=1)


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
    events = (
        outbox_events.Dispatched(part=0, attempt=1),
        outbox_events.Parked(reason="x"),
    )
    written = record_of([encode(event) for event in events], "entry:e", 5, 1000, 7)
    assert (written.count, written.before) == (2, 3)
    assert decode(written) == events


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_record_has_as_many_events_as_it_says(count: int) -> None:
    items = [encode(outbox_events.Parked(reason="x"))] * 2
    written = replace(record_of(items, "entry:e", 5, 1000, 7), count=count)
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
