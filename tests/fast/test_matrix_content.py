"""Parts to events and events to messages. No server."""

from collections.abc import Mapping
from typing import Any

import pytest

from turnfold.enums import Format
from turnfold.inbound import Inbound
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.ports.channel import Part
from turnfold_adapters.channels.matrix_content import (
    CONTENT_MAX_BYTES,
    ITSELF,
    KEY_FIELD,
    MARKER,
    TEXT_MAX_BYTES,
    Event,
    event_for,
    inbound_of,
    size_of,
)
from turnfold_adapters.channels.matrix_source import _since_entrance

ME = "@bot:x"


def made(
    payload: Payload, *, marked: bool = False, markdown: Any = None, **route: Any
) -> Event:
    part = Part(
        entry_id="e",
        index=route.pop("index", 0),
        count=2,
        kind="text",
        payload=payload,
        key="k1",
        route=Route(channel="matrix", conversation="!r:x", **route),
    )
    return event_for(part, marked=marked, uris={ITSELF: "mxc://x/1"}, markdown=markdown)


def received(content: Any, **more: Any) -> Inbound | None:
    event = {"event_id": "$1", "sender": "@a:x", "type": "m.room.message", **more}
    return inbound_of(
        {**event, "content": content}, room_id="!r:x", channel="m", account="a"
    )


def test_plain_text_has_a_body_and_our_key() -> None:
    assert made(Text("hi")) == Event(
        type="m.room.message",
        content={"msgtype": "m.text", "body": "hi", KEY_FIELD: "k1"},
    )


def test_html_has_a_plain_body_beside_it() -> None:
    html = "<p>a &amp; <b>b</b><br>c</p><script>evil()</script>"
    content = made(Text(html, format=Format.HTML)).content
    assert content["body"] == "a & b\nc"
    assert content["formatted_body"] == html
    assert content["format"] == "org.matrix.custom.html"


def test_markdown_is_plain_without_a_renderer_and_html_with_one() -> None:
    text = Text("**a**", format=Format.MARKDOWN)
    assert "formatted_body" not in made(text).content
    content = made(text, markdown=lambda s: f"<b>{s.strip('*')}</b>").content
    assert (content["body"], content["formatted_body"]) == ("**a**", "<b>a</b>")


def test_formatting_is_given_up_before_the_text_is() -> None:
    text = Text("x" * TEXT_MAX_BYTES, format=Format.MARKDOWN)
    content = made(text, markdown=lambda s: s * 9).content
    assert content["body"] == text.text
    assert "formatted_body" not in content
    assert "format" not in content


@pytest.mark.case("D01")
@pytest.mark.parametrize(
    "unit", ['"', "\\", "\n", "\t", "\x01", "\x7f", "字", "😀", "<"]
)
@pytest.mark.parametrize("format_", list(Format))
def test_the_largest_part_fits_into_an_event_however_it_is_escaped(
    unit: str, format_: Format
) -> None:
    text = unit * (TEXT_MAX_BYTES // len(unit.encode()))
    event = made(
        Text(text, format=format_), marked=True, thread="$" + "t" * 254, reply_to="$r"
    )
    assert size_of(event.content) < CONTENT_MAX_BYTES + 1000
    if format_ is Format.HTML and unit != "\x01":
        assert "body" in event.content


def test_a_marked_attempt_shows_it() -> None:
    html = made(Text("<b>x</b>", format=Format.HTML), marked=True).content
    assert html["body"] == MARKER + "x"
    assert html["formatted_body"] == MARKER + "<b>x</b>"
    file = made(File(data=b"1", name="a.txt", mime="text/plain"), marked=True).content
    assert (file["body"], file["filename"]) == (MARKER + "a.txt", "a.txt")


@pytest.mark.case("V08")
@pytest.mark.parametrize("marked", [False, True])
def test_a_caption_is_the_body_beside_the_name_of_the_file(marked: bool) -> None:
    picture = File(data=b"1", name="a.png", mime="image/png", caption="the logo")
    content = made(picture, marked=marked).content
    words = f"{MARKER if marked else ''}the logo"
    assert (content["body"], content["filename"]) == (words, "a.png")


@pytest.mark.parametrize(
    ("mime", "msgtype"),
    [
        ("image/png", "m.image"),
        ("audio/ogg", "m.audio"),
        ("video/mp4", "m.video"),
        ("text/plain", "m.file"),
    ],
)
def test_a_file_is_shown_by_its_family(mime: str, msgtype: str) -> None:
    content = made(File(data=b"123", mime=mime)).content
    assert content["msgtype"] == msgtype
    assert (content["url"], content["body"]) == ("mxc://x/1", "file")
    assert content["info"] == {"mimetype": mime, "size": 3}


def test_native_relates_by_itself_or_by_its_route() -> None:
    by_route = made(Native({"msgtype": "m.text", "body": "b"}), thread="$t").content
    assert by_route["m.relates_to"]["event_id"] == "$t"
    own = {"type": "m.x", "content": {"m.relates_to": {"rel_type": "m.y"}}}
    event = made(Native(own), thread="$t")
    assert event.type == "m.x"
    assert event.content == {"m.relates_to": {"rel_type": "m.y"}, KEY_FIELD: "k1"}


def test_a_reply_outside_of_a_thread_is_only_a_reply() -> None:
    content = made(Text("x"), reply_to="$q").content
    assert content["m.relates_to"] == {"m.in_reply_to": {"event_id": "$q"}}
    assert "m.relates_to" not in made(Text("x"), reply_to="$q", index=1).content


def test_a_message_comes_in_with_what_an_answer_needs() -> None:
    message = received({"msgtype": "m.text", "body": "hi"}, origin_server_ts=5)
    assert message is not None
    assert message.text == "hi"
    assert (message.sent_at, message.sender) == (5, "@a:x")
    assert message.body["content"] == {"msgtype": "m.text", "body": "hi"}
    assert (message.route.conversation, message.route.reply_to) == ("!r:x", "$1")


def test_an_edit_is_another_kind_of_event() -> None:
    relates = {"rel_type": "m.replace", "event_id": "$0"}
    message = received({"body": "* hi", "m.relates_to": relates})
    assert message is not None
    assert (message.event, message.thread) == ("edit", None)
    assert (message.message_id, message.revision) == ("$0", "$1")


def test_an_event_that_is_read_again_has_the_same_bytes() -> None:
    """A process that dies in a round of the sync reads it again, maybe from the history.
    Other bytes under a known id would be kept for a person, as a dead turn."""
    by_sync = received({"body": "hi"}, unsigned={"age": 5, "membership": "join"})
    by_history = received(
        {"body": "hi"}, unsigned={"age": 812}, age=812, room_id="!r:x", user_id="@a:x"
    )
    assert by_sync is not None
    assert by_history is not None
    assert by_sync.evidence == by_history.evidence


@pytest.mark.case("H11", "Q01")
@pytest.mark.parametrize(
    "content",
    [
        {"body": 7},
        {"body": "\ud800 lone"},
        {"body": "x", "f": 1.5, "nan": float("nan"), "big": 2**70, "\ud800": None},
        {"body": "x", "deep": [[{"a": [1.5]}]]},
        {"body": "x", "m.relates_to": "nonsense"},
        {"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": 5}},
        {"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "a\nb"}},
        {"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "$" * 999}},
        {"body": "x", "m.relates_to": {"rel_type": ["m.thread"], "event_id": "$1"}},
    ],
    ids=repr,
)
def test_a_hostile_content_neither_stops_the_source_nor_is_lost(content: Any) -> None:
    message = received(content)
    assert message is not None
    assert message.thread is None


@pytest.mark.parametrize("content", [None, [], "x", {}, 5])
def test_what_has_no_content_is_no_message(content: Any) -> None:
    assert received(content) is None
    assert received({"body": "x"}, event_id=None) is None
    assert received({"body": "x"}, event_id="") is None


def member(membership: str, before: str | None = None, who: str = ME) -> dict[str, Any]:
    unsigned = {"prev_content": {"membership": before}} if before else {}
    content = {"membership": membership}
    kind = "m.room.member"
    return {"type": kind, "state_key": who, "content": content, "unsigned": unsigned}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.case("Q01")
def test_a_content_as_deep_as_json_can_be_read_is_kept() -> None:
    content = {"body": "x", "deep": nested(900)}
    message = received(content)
    assert message is not None
    assert message.text == "x"
    assert message.body["content"] == content


SAID = {"type": "m.room.message"}


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([SAID, SAID], 2),
        ([SAID, member("join"), SAID], 2),
        ([SAID, member("invite"), SAID, member("join", "invite"), SAID], 4),
        ([SAID, member("join", "join"), SAID], 3),  # a new display name
        ([SAID, member("leave", "join"), member("join", "leave"), SAID], 4),
        ([SAID, member("join", who="@other:x"), SAID], 3),
    ],
)
def test_a_room_begins_where_we_were_let_in(
    events: list[Mapping[str, Any]], kept: int
) -> None:
    assert len(_since_entrance(events, ME)) == kept
