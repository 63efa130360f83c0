"""The quick reader holds to the writer: what it reads is what would be written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold.events import CLASSES, Event
from turnfold.events import outbox as o
from turnfold.reading import reader
from turnfold.writing import writer_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SMALL = st.integers(-(10**15) + 1, 10**15 - 1)
PIECES = [
    b'"',
    b"\\",
    b",",
    b"}",
    b"]",
    b"[",
    b"0",
    b"-",
    b" ",
    b"\n",
    b"null",
    b"true",
]
PIECES += [b"false", b'"x"', b"\xff", b"\\u0041", b"\\/", b"1.5", b'"hold"', b"\x00"]


def write(event: object) -> str:
    return writer_of(type(event))(event)


@pytest.fixture(autouse=True, scope="module")
def _plain_types():
    st.register_type_strategy(str, TEXT)
    st.register_type_strategy(int, SMALL)


@pytest.mark.parametrize("name", sorted(CLASSES))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_all_that_is_written_is_read_quickly(name: str, data: st.DataObject) -> None:
    event: Event = data.draw(st.from_type(CLASSES[name]))
    assert reader(CLASSES[name])(write(event).encode()) == event


@pytest.mark.parametrize("name", sorted(CLASSES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_read_is_just_what_would_be_written(
    name: str, data: st.DataObject
) -> None:
    """Whatever is done to the bytes: another event, or nothing, never the same."""
    stored = bytearray(write(data.draw(st.from_type(CLASSES[name]))).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(stored)))
        gone = data.draw(st.integers(0, 4))
        stored[at : at + gone] = data.draw(
            st.sampled_from(PIECES) | st.binary(max_size=2)
        )
    event = reader(CLASSES[name])(bytes(stored))
    assert event is None or write(event).encode() == bytes(stored)


@pytest.mark.parametrize(
    "data",
    [
        b'{"attempt":1,"by":null,"part":0}',
        b'{"attempt":1,"deduplicated":false,"part":0}',
        b'{"attempt":1,"part":0,"receipt":[]}',
        b'{"attempt":1,"part":0,"receipt":["m",1]}',
        b'{"attempt":1,"part":0,"receipt":["m"],"thread":"\xed\xa0\x80"}',
        b'{"attempt":01,"part":0}',
        b'{"attempt":1,"part":0,}',
        b'{"attempt":1,"part":0,"thread":"\\u000a"}',  # it has a short form
        b'{"attempt":1,"part":0,"thread":"\\u001F"}',
        b'{"attempt":1,"part":0,"thread":"\\u0041"}',
        b'{"attempt":1,"part":0}\n',
        b'{"attempt":1000000000000000,"part":0}',  # left to the strict reader
    ],
)
def test_what_nobody_would_write_is_not_read(data: bytes) -> None:
    assert reader(o.Delivered)(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"budget":8,"parts":[{"body":"b","key":"k","kind":"t"},]}',
        b'{"budget":8,"parts":[{"body":"b","key":"k","kind":"t"}],"thread":"x"]}',
        b'{"budget":8,"parts":[{"body":"b","key":"k","kind":"t","settle_ms":120000}]}',
        b'{"budget":8,"parts":[{"body":"b","classes":["odd"],"key":"k","kind":"t"}]}',
        b'{"budget":8,"ids":true,"parts":[]}',
        b'{"budget":8,"parts":[],"thread":"t]"',
        b'{"budget":8,"parts":[[]]}',
    ],
)
def test_a_plan_is_read_part_by_part_to_its_end(data: bytes) -> None:
    assert reader(o.Planned)(data) is None
    assert reader(o.Planned)(b'{"budget":8,"parts":[]}') == o.Planned(
        parts=(), budget=8
    )


def test_what_is_said_again_and_again_is_read_once() -> None:
    data = b'{"attempt":1,"fence":1,"owner":"w","part":0}'
    first = reader(o.Attempted)(data)
    assert reader(o.Attempted)(bytes(bytearray(data))) is first
