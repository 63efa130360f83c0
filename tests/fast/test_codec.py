"""Events to bytes and back, and everything that must not come back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold import canonical
from turnfold.codec import Record, decode, encode, envelope, verify
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.events import CLASSES, NAMES, SCHEMAS, Event, outbox
from turnfold.upcasters import upcast

GOLDEN = Path(__file__).parents[1] / "golden" / "events-1.ndjson"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT = st.integers(-(2**53) + 1, 2**53 - 1)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(int, INT)


def record(kind: str, data: bytes, schema: int = 1) -> Record:
    return Record(7, "entry:e", 3, kind, schema, 1000, data, b"")


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
    written = encode(event, "entry:e", 3, 1000, 7)
    assert decode(written) == event
    assert canonical.dumps(canonical.loads(written.data)) == written.data
    assert verify(written)
    assert not verify(evolve(written, at=1001))


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
    event = decode(record("outbox.dispatched", b'{"attempt":1,"part":0}'))
    assert event == outbox.Dispatched(part=0, attempt=1)


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


def test_names_are_unique_and_every_event_has_a_schema() -> None:
    assert len(set(NAMES.values())) == len(NAMES) == len(CLASSES)
    assert set(SCHEMAS) == set(CLASSES)


def test_the_golden_lines_are_still_read_and_written_the_same() -> None:
    """Written by the first version; a line is added for a new event, never changed."""
    lines = GOLDEN.read_bytes().splitlines()
    seen = set()
    for line in lines:
        value = canonical.loads(line)
        data = canonical.dumps(value["data"])
        kind, schema = value["kind"], value["schema"]
        seen.add(kind)
        event = decode(record(kind, data, schema))
        again = encode(event, value["stream"], value["version"], value["at"], 7)
        assert again.data == data
        assert (
            envelope(value["stream"], value["version"], kind, schema, value["at"], data)
            == line
        )
    assert seen == set(CLASSES)
