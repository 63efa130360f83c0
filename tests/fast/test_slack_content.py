"""Texts as Slack takes them: mrkdwn, limits, places, names of files."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold import File, Native, Route, Text
from turnfold.ports.channel import Part
from turnfold_adapters.channels.slack_content import (
    KEY_FIELD,
    MARKER,
    TEXT_LIMIT,
    file_name,
    native_call,
    plan,
    where,
    words_of,
)
from turnfold_adapters.channels.slack_inbound import Names, inbound_of, is_news, is_ours
from turnfold_adapters.text.html import text_escape

case = pytest.mark.case
EDGE = "\u200b"
NAMES = Names(channel="slack", account="default")
OURS = Names(channel="slack", account="default", ids=frozenset({"U0BOT", "B0BOT"}))


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def shown(text: str, form: str = "markdown") -> str:
    (part,) = plan(Text(text, format=form))
    assert isinstance(part.payload, Text)
    return str(words_of(part.payload)["text"])


@pytest.mark.parametrize(
    ("source", "wire"),
    [
        ("see **this**", "see *this*"),
        ("*it*", "_it_"),
        ("~~no~~", "~no~"),
        ("# Head", "*Head*"),
        ("`a < b`", "`a &lt; b`"),
        ("`a`` b`", "a`` b"),
        ("[docs](https://a.example/?x=1&y=2)", "<https://a.example/?x=1&amp;y=2|docs>"),
        ("[p](https://a.example/a|b)", "<https://a.example/a%7Cb|p>"),
        ("> one\n> two", "> one\n> two"),
        ("- a\n- b", "\u2022 a\n\u2022 b"),
        ("a**b**c", f"a{EDGE}*b*{EDGE}c"),
        ("**one\ntwo**", "*one*\n*two*"),
        ("```python\nx < 1\n\ny\n```", "```\nx &lt; 1\n\ny\n```"),
        ("[**bold link**](https://a.example)", "<https://a.example|bold link>"),
    ],
)
def test_markdown_becomes_mrkdwn(source: str, wire: str) -> None:
    assert shown(source) == wire


@case("V02")
@pytest.mark.parametrize("form", ["plain", "markdown", "html"])
def test_no_text_of_a_handler_calls_a_channel_or_names_a_user(form: str) -> None:
    words = "hello <!channel> <@U123> <#C1>"
    source = words if form == "plain" else text_escape(words)
    assert re.findall("<[!@#]", shown(source, form)) == []


@case("V02")
@pytest.mark.parametrize("target", ["!channel", "@U123", "#C1", "!here|all", "/path"])
def test_a_link_needs_a_scheme(target: str) -> None:
    assert shown(f'<a href="{target}">all</a> <b>x</b>', "html") == "all *x*"


def test_a_text_without_a_format_is_not_read_as_mrkdwn() -> None:
    words = words_of(Text("2 * 3 & _x_"))
    assert words == {"text": "2 * 3 &amp; _x_", "mrkdwn": False}
    assert words_of(Text("<b>x</b>", format="html"))["mrkdwn"] is True


def test_the_mark_stands_first_and_has_room() -> None:
    (one,) = plan(Text("a" * TEXT_LIMIT))
    assert isinstance(one.payload, Text)
    marked = str(words_of(one.payload, marked=True)["text"])
    assert marked.startswith(MARKER)
    assert units(marked) == 4000


@case("C15")
def test_a_text_of_nothing_has_no_parts() -> None:
    assert plan(Text(" \n\u200b")) == []


WORDS = (
    *("word ", "**bold** ", "`code` ", "& < > ", "\n\n", "> quote\n", "- item\n"),
    *("\U0001f600 ", "[l](https://a.example/b) ", "```\nx\n```\n", "*i* "),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40))
def test_no_piece_is_longer_than_the_limit_on_the_wire(words: list[str]) -> None:
    for form in ("plain", "markdown"):
        for part in plan(Text("".join(words) * 40, format=form)):
            assert isinstance(part.payload, Text)
            wire = str(words_of(part.payload, marked=True)["text"])
            assert 0 < units(wire) <= 4000


# --- places ---


def part(payload: Text | File | Native, **route: str) -> Part:
    kind = {Text: "text", File: "file", Native: "native"}[type(payload)]
    return Part(
        entry_id="e",
        index=0,
        count=1,
        kind=kind,
        payload=payload,
        key="thekey",
        route=Route(channel="slack", conversation="C1", **route),
    )


@pytest.mark.parametrize(
    ("route", "in_thread", "place"),
    [
        ({}, False, {"channel": "C1"}),
        ({"thread": "1.5"}, False, {"channel": "C1", "thread_ts": "1.5"}),
        ({"reply_to": "2.5"}, False, {"channel": "C1"}),
        ({"reply_to": "2.5"}, True, {"channel": "C1", "thread_ts": "2.5"}),
        ({"reply_to": "no-ts"}, True, {"channel": "C1"}),
        ({"reply_to": "2.5", "thread": "1.5"}, True, {"thread_ts": "1.5"}),
    ],
)
def test_an_answer_goes_to_a_thread_if_asked(
    route: dict[str, str], in_thread: bool, place: dict[str, str]
) -> None:
    found = where(part(Text("x"), **route), reply_in_thread=in_thread)
    assert found == {"channel": "C1", **place}


def called(body: dict[str, object], **more: bool) -> tuple[str, dict[str, object]]:
    how = {"marked": False, "reply_in_thread": False, **more}
    return native_call(Native(body), part(Native(body), thread="1.5"), **how)


def test_a_native_message_carries_our_key_beside_its_own_metadata() -> None:
    theirs = {"event_type": "order", "event_payload": {"id": 7}}
    method, given = called({"text": "x", "metadata": theirs})
    assert method == "chat.postMessage"
    assert (given["channel"], given["thread_ts"]) == ("C1", "1.5")
    assert given["metadata"] == {
        "event_type": "order",
        "event_payload": {"id": 7, KEY_FIELD: "thekey"},
    }


def test_a_native_call_of_another_method_gets_no_metadata() -> None:
    method, given = called({"method": "reactions.add", "channel": "C2", "name": "eyes"})
    assert method == "reactions.add"
    assert given == {"channel": "C2", "name": "eyes"}


def test_the_mark_of_a_native_message_is_seen_above_its_blocks() -> None:
    section = {"type": "section", "text": {"type": "plain_text", "text": "x"}}
    _, given = called({"text": "x", "blocks": [section]}, marked=True)
    assert given["text"] == f"{MARKER}x"
    blocks = given["blocks"]
    assert isinstance(blocks, list)
    assert blocks[0]["elements"][0]["text"] == MARKER.strip()
    assert blocks[1] == section


@pytest.mark.parametrize(
    ("name", "uploaded"),
    [
        ("report.pdf", "report.thekey.pdf"),
        ("", "file.thekey"),
        (".env", ".env.thekey"),
        ("a.tar.gz", "a.tar.thekey.gz"),
    ],
)
def test_the_name_of_an_upload_ends_with_our_key(name: str, uploaded: str) -> None:
    assert file_name(File(data=b"x", name=name), "thekey") == uploaded


# --- inbound ---

EVENT = {
    "type": "message",
    "channel": "C1",
    "user": "U1",
    "text": "hi",
    "ts": "1700000000.000100",
    "event_ts": "1700000000.000100",
}


def body(**more: object) -> dict[str, object]:
    return {"type": "event_callback", "event_id": "Ev1", "event": {**EVENT, **more}}


@case("H17")
def test_a_message_is_named_by_its_channel_and_time_stamp() -> None:
    found = inbound_of(body(thread_ts="1600000000.000001"), NAMES)
    assert (found.conversation, found.message_id) == ("C1", "1700000000.000100")
    assert (found.thread, found.sender) == ("1600000000.000001", "U1")
    assert (found.text, found.sent_at) == ("hi", 1_700_000_000_000)
    assert "ts" not in found.body["event"]  # it is `message_id`


@case("H02")
def test_two_events_of_one_gesture_have_one_key_and_the_same_bytes() -> None:
    """Seen in the wild: one message of a user, two events with their own time stamps."""
    said = {"client_msg_id": "x-1", "text": "<@U0BOT> hi"}
    first = inbound_of(body(**said, channel_type="channel"), OURS)
    again = inbound_of(body(**said, ts="1700000000.000200"), OURS)
    mention = inbound_of({**body(**said, type="app_mention"), "event_id": "Ev2"}, OURS)
    other = inbound_of(body(**said, user="U2"), OURS)
    assert first.dedupe_key == again.dedupe_key == mention.dedupe_key
    assert first.evidence == again.evidence == mention.evidence
    assert first.body["mentioned"] is True
    assert other.dedupe_key != first.dedupe_key


@case("H02")
def test_two_events_without_a_client_id_have_the_same_bytes() -> None:
    file = {"id": "F1", "name": "a.txt", "thumb_64": "made later"}
    first = inbound_of(body(subtype="file_share", files=[file]), OURS)
    mention = inbound_of(
        body(type="app_mention", files=[{**file, "thumb_64": ""}]), OURS
    )
    assert (first.dedupe_key, first.evidence) == (mention.dedupe_key, mention.evidence)
    assert first.body["event"]["files"] == [{"id": "F1", "name": "a.txt"}]


@case("H02")
def test_an_edit_that_names_the_bot_is_one_edit_in_both_events() -> None:
    edited = {"user": "U1", "ts": "1700000009.000100"}
    inner = {**EVENT, "text": "<@U0BOT|bot> hi", "edited": edited}
    del inner["channel"]
    change = {"subtype": "message_changed", "message": inner, "hidden": True}
    first = inbound_of(body(**change, ts="1700000009.000200"), OURS)
    mention = inbound_of(body(**{**inner, "type": "app_mention"}), OURS)
    assert first.event == mention.event == "edit"
    assert (first.dedupe_key, first.evidence) == (mention.dedupe_key, mention.evidence)
    assert first.sent_at == mention.sent_at == 1_700_000_009_000


@pytest.mark.parametrize(
    ("more", "mentioned"),
    [
        ({"text": "<@U0BOT> hi"}, True),
        ({"text": "<@U0BOT|bot> hi"}, True),
        ({"text": "<@U0BOT2> hi"}, False),
        ({"text": "U0BOT"}, False),
        ({"blocks": [{"elements": [{"type": "user", "user_id": "U0BOT"}]}]}, True),
        ({"attachments": [{"text": "<@U0BOT>"}]}, True),
    ],
)
def test_a_message_says_whether_it_names_the_bot(
    more: dict[str, object], mentioned: bool
) -> None:
    for kind in ("message", "app_mention"):
        found = inbound_of(body(**more, type=kind), OURS)
        assert found.body["mentioned"] is mentioned
        assert found.body["direct"] is False
    assert inbound_of(body(channel="D1"), OURS).body["direct"] is True


def test_an_edit_names_the_message_and_its_revision() -> None:
    edited = {"user": "U1", "ts": "1700000009.000100"}
    inner = {**EVENT, "text": "hi!", "client_msg_id": "x-1", "edited": edited}
    found = inbound_of(
        body(subtype="message_changed", message=inner, ts="1700000009.000200"), NAMES
    )
    assert (found.event, found.message_id) == ("edit", "1700000000.000100")
    assert (found.revision, found.text) == ("1700000009.000100", "hi!")
    assert found.edits == inbound_of(body(client_msg_id="x-1"), NAMES).key == "U1:x-1"
    gone = body(subtype="message_deleted", previous_message=inner, deleted_ts="1.2")
    assert inbound_of(gone, NAMES).edits == "U1:x-1"


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        (None, {"user": "U1", "ts": "2.5"}, True),
        ({"user": "U1", "ts": "1.5"}, {"user": "U1", "ts": "2.5"}, True),
        (None, None, False),  # a link was unfurled
        ({"user": "U1", "ts": "1.5"}, {"user": "U1", "ts": "1.5"}, False),
    ],
)
def test_a_change_that_no_user_made_is_no_edit(
    before: object, after: object, news: bool
) -> None:
    change = {
        "subtype": "message_changed",
        "message": {**EVENT, "edited": after},
        "previous_message": {**EVENT, "edited": before},
    }
    assert is_news(body(**change)) is news
    assert is_news(body())


def test_the_text_is_as_it_was_typed() -> None:
    found = inbound_of(body(text="a &lt; b &amp;&amp; <@U1> &amp;lt;"), NAMES)
    assert found.text == "a < b && <@U1> &lt;"
    assert found.body["event"]["text"].startswith("a &lt;")


def test_a_notice_of_slack_goes_by_its_subtype() -> None:
    assert inbound_of(body(subtype="channel_join"), NAMES).event == "channel_join"


def test_a_deletion_is_an_event_of_the_message() -> None:
    gone = {"deleted_ts": EVENT["ts"], "previous_message": EVENT}
    found = inbound_of(body(subtype="message_deleted", **gone), NAMES)
    assert (found.event, found.message_id) == ("delete", EVENT["ts"])
    assert (found.sender, found.text) == ("U1", "")


def test_other_events_are_known_by_their_event_id() -> None:
    item = {"type": "message", "channel": "C7", "ts": "1.5"}
    found = inbound_of(body(type="reaction_added", ts=None, item=item), NAMES)
    assert (found.event, found.message_id, found.key) == ("reaction_added", None, "Ev1")
    assert (
        inbound_of(
            {"command": "/go", "trigger_id": "t", "channel_id": "C3", "text": "x"},
            NAMES,
        ).dedupe_key
        == "slack/default//t"
    )


@case("H08", "H18")
@pytest.mark.parametrize(
    ("more", "ours"),
    [
        ({"user": "U0BOT"}, True),
        ({"user": None, "bot_id": "B0BOT", "subtype": "bot_message"}, True),
        ({"subtype": "message_changed", "message": {"bot_id": "B0BOT"}}, True),
        ({"subtype": "message_deleted", "previous_message": {"user": "U0BOT"}}, True),
        ({"type": "member_joined_channel", "user": "U0BOT"}, False),
        ({"user": "U1"}, False),
        ({"user": None, "bot_id": "B9OTHER"}, False),
    ],
)
def test_the_bots_own_messages_are_known(more: dict[str, object], ours: bool) -> None:
    assert is_ours(body(**more), frozenset({"U0BOT", "B0BOT"})) is ours


JSON = st.recursive(
    st.sampled_from([None, True, 7, -1.5, "", "C1", "1700000000.000100", "a\nb"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*EVENT, "message", "subtype", "thread_ts", "item", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["event", "event_id", "type"]), JSON, max_size=3)
)
def test_whatever_comes_is_read(given: dict[str, object]) -> None:
    assert inbound_of(given, NAMES).channel == "slack"
