"""What comes in is evidence: any body and any id as platforms have them, kept as it came."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from turnfold import Inbound, Route, SourceCursor
from turnfold.errors import InvalidInputError

ANY_TEXT = st.text()  # lone surrogates too
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)


def message(**more: Any) -> Inbound:
    return Inbound("t", **({"conversation": "42", "message_id": "1"} | more))


@pytest.mark.case("T02", "T10")
@given(st.binary() | ANY_TEXT | ANY_JSON)
def test_any_bytes_text_or_json_comes_back_as_it_was_given(body: Any) -> None:
    made = message(body=body)
    assert made.body == body
    assert type(made.body) is type(body)
    assert evolve(made, body=made.evidence).body == body


def test_a_body_is_written_once_and_does_not_follow_what_its_caller_changes() -> None:
    body = {"text": "before"}
    made = message(body=body)
    body["text"] = "after"
    made.body["text"] = "after"
    assert made.text == "before"


@pytest.mark.case("T10")
@pytest.mark.parametrize(
    "body", [datetime.now(UTC), {"at": datetime.now(UTC)}, {"raw": b"x"}, {1, 2}, 1j]
)
def test_a_body_that_json_cannot_hold_is_refused_with_a_way_to_pass_it(
    body: object,
) -> None:
    with pytest.raises(InvalidInputError, match="pass the bytes or the text that came"):
        message(body=body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("hi", "hi"),
        ({"text": "hi"}, "hi"),
        ({"text": "\ud83d"}, "?"),
        ({"text": 5}, ""),
        ([], ""),
        (b"hi", ""),
        (1.5, ""),
    ],
)
def test_the_text_of_a_message_can_be_sent_back(body: object, text: str) -> None:
    assert message(body=body).text == text


@pytest.mark.case("T10")
def test_integer_ids_become_text() -> None:
    made = message(conversation=-100, message_id=7, thread=3, sender=5, revision=2)
    assert (made.conversation, made.message_id, made.thread) == ("-100", "7", "3")
    assert (made.sender, made.revision) == ("5", "2")
    assert Route(channel="t", conversation=42) == Route(channel="t", conversation="42")
    assert SourceCursor(channel="t", account="a", value=7).value == "7"


@pytest.mark.case("T10")
@pytest.mark.parametrize("field", ["conversation", "message_id", "thread", "sender"])
@pytest.mark.parametrize("value", [uuid4(), 1.5, True, b"1"])
def test_a_refused_id_comes_with_a_way_to_pass_it(field: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        message(**{field: value})
    assert caught.value.field == field
    assert f"pass str({field})" in str(caught.value)


@pytest.mark.case("T06", "T10")
def test_the_time_of_sending_is_wall_time() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)
    assert message(sent_at=at).sent_at == 1_767_323_045_678
    east = at.astimezone(timezone(timedelta(hours=5)))
    assert message(sent_at=east).sent_at == 1_767_323_045_678
    assert message(sent_at=5).sent_at == 5
    assert message().sent_at is None


@pytest.mark.case("T10")
@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (datetime(2026, 1, 2), "replace(tzinfo=UTC)"),  # noqa: DTZ001  that is refused
        (1.5, "int(sent_at * 1000)"),
        ("2026-01-02", "an aware datetime"),
        (True, "an aware datetime"),
    ],
)
def test_a_refused_time_comes_with_a_way_to_pass_it(value: object, remedy: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        message(sent_at=value)
    assert remedy in str(caught.value)


@pytest.mark.case("T03", "T09")
def test_a_key_holds_the_revision_or_is_the_callers_own() -> None:
    keys = [
        message().dedupe_key,
        message(event="edit").dedupe_key,
        message(event="edit", revision=1).dedupe_key,
        message(event="edit", revision=2).dedupe_key,
        message(key="1").dedupe_key,
        message(key="2", message_id=None).dedupe_key,
    ]
    assert len(set(keys)) == len(keys)
    assert message(key="2").dedupe_key == message(key="2", message_id=None).dedupe_key
    assert message(message_id=None).dedupe_key is None
