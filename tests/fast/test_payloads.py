"""Payloads and routes refuse at the call what could not be kept or sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnfold import (
    File,
    Native,
    Route,
    Text,
)
from turnfold._log import canonical
from turnfold._log.bodies import pack, unpack
from turnfold.enums import Format
from turnfold.errors import InvalidInputError
from turnfold.messages import Payload

WRONG = [None, 5, 1.5, True, b"x", ["x"], {"x": 1}, object()]
SOLID = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | SOLID,
    lambda inner: st.lists(inner) | st.dictionaries(SOLID, inner),
    max_leaves=10,
)


@pytest.mark.parametrize("value", [*WRONG, "\ud800", "a\udfffb"])
def test_text_is_text_that_can_be_encoded(value: object) -> None:
    with pytest.raises(InvalidInputError):
        Text(value)


@pytest.mark.parametrize("value", ["bold", None, 5])
def test_a_format_is_one_that_there_is(value: object) -> None:
    with pytest.raises(InvalidInputError):
        Text("x", format=value)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "x", "data": b"x"},
        {"data": "text"},
        {"data": bytearray(b"x")},
        {"path": 5},
        {"data": b"x", "name": None},
        {"data": b"x", "name": "\ud800"},
        {"data": b"x", "mime": 5},
    ],
)
def test_a_file_has_a_path_or_bytes_and_a_name_that_can_be_kept(arguments) -> None:
    with pytest.raises(InvalidInputError):
        File(**arguments)


@pytest.mark.parametrize(
    "body",
    [
        *WRONG[:6],
        {"x": 1.5},
        {"x": float("nan")},
        {"x": 2**53},
        {"x": -(2**53)},
        {1: "x"},
        {"x": {"y": b"z"}},
        {"x": ["\ud800"]},
        {"\ud800": 1},
        {"x": {1, 2}},
    ],
)
def test_native_bodies_are_what_canonical_json_can_carry(body: object) -> None:
    with pytest.raises(InvalidInputError):
        Native(body)


@given(st.dictionaries(SOLID, JSON))
def test_a_native_body_comes_back_as_it_went_in(body) -> None:
    packed = pack(Native(body))
    again = unpack(packed.encoded, lambda _: b"")
    assert isinstance(again, Native)
    assert dict(again.body) == body


@given(SOLID)
def test_text_with_any_character_comes_back(value: str) -> None:
    """NUL and control characters too: what a reader typed is not ours to change."""
    head = canonical.dumps(dict(pack(Text(value)).head))
    assert unpack(head, lambda _: b"") == Text(value)


@pytest.mark.parametrize("field", ["channel", "account", "conversation", "thread"])
@pytest.mark.parametrize(
    "value", ["", 5.5, True, b"x", "x" * 513, "a\0", "a\n", "\x7f", "\x85", "\ud800"]
)
def test_ids_are_short_visible_text(field: str, value: object) -> None:
    good = {"channel": "t", "account": "a", "conversation": "42"}
    with pytest.raises(InvalidInputError) as caught:
        Route(**{**good, field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("payload", [Text(""), File(data=b""), Native({})])
def test_empty_payloads_are_payloads(payload: Payload) -> None:
    assert pack(payload).kind in {"text", "file", "native"}


def test_large_payloads_are_payloads() -> None:
    assert len(pack(File(data=b"x" * 10_000_000)).contents[0]) == 10_000_000
    assert len(pack(Text("x" * 10_000_000)).head["text"]) == 10_000_000


@given(text=SOLID, form=st.sampled_from(Format))
def test_a_text_is_packed_as_canonical_json(text: str, form: Format) -> None:
    """Written straight, since most payloads are texts."""
    packed = pack(Text(text, format=form))
    assert packed.encoded == canonical.dumps(packed.head)
    assert unpack(packed.encoded, lambda _: b"") == Text(text, format=form)


@pytest.mark.case("V12")
@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", ".", "..", "a\0", "a\r\nb", "\x7f", "x" * 256, "\ud800"],
)
def test_a_name_of_a_file_is_no_path_and_has_no_control_characters(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        File(data=b"x", name=name)
    assert caught.value.field == "name"


@pytest.mark.case("V12")
@pytest.mark.parametrize(
    "mime",
    ["", "text", "text/", "/plain", "text/plain\r\nX: y", "a b/c", "x/" + "y" * 260],
)
def test_a_type_of_a_file_is_a_type_and_a_subtype(mime: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        File(data=b"x", mime=mime)
    assert caught.value.field == "mime"


@pytest.mark.case("V12")
def test_ordinary_names_and_types_are_taken() -> None:
    for name in ("", "a b.txt", "..x", "Größe.png", "x" * 255):
        assert File(data=b"x", name=name).name == name
    for mime in ("text/plain", "text/plain; charset=utf-8", "image/svg+xml"):
        assert File(data=b"x", mime=mime).mime == mime
