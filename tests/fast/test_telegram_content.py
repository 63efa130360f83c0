"""Texts as Telegram takes them: characters, entities, limits, places."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold import File, Native, Route, Text
from turnfold.ports.channel import Part
from turnfold_adapters.channels.telegram_content import (
    ENTITIES_MOST,
    MARKER,
    TEXT_LIMIT,
    native_call,
    plan,
    where,
    words_of,
)
from turnfold_adapters.text import plain

case = pytest.mark.case


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def marked_up(payload: Text) -> list[tuple[str, str]]:
    """The kind of each entity, and the characters that it covers."""
    words = words_of(payload)
    raw = words.text.encode("utf-16-le")
    found = []
    for entity in words.entities:
        start = entity["offset"] * 2
        covered = raw[start : start + entity["length"] * 2].decode("utf-16-le")
        found.append((entity["type"], covered))
    return found


def part(payload: Any = None, index: int = 0, **route: Any) -> Part:
    return Part(
        entry_id="e",
        index=index,
        count=2,
        kind="text",
        payload=payload or Text("x"),
        key="k",
        route=Route(channel="telegram", conversation="42", **route),
    )


def test_html_becomes_entities_in_utf16_units() -> None:
    source = '😀 <b>bold <i>both</i></b> <a href="https://x.y?a=1&amp;b">link</a> &lt;'
    assert words_of(Text(source, format="html")).text == "😀 bold both link <"
    assert marked_up(Text(source, format="html")) == [
        ("bold", "bold both"),
        ("italic", "both"),
        ("text_link", "link"),
    ]
    assert (
        words_of(Text(source, format="html")).entities[2]["url"] == "https://x.y?a=1&b"
    )


def test_code_keeps_its_language_and_holds_nothing_else() -> None:
    source = '<pre><code class="language-python">a <b>b</b></code></pre>'
    assert words_of(Text(source, format="html")).entities == (
        {"offset": 0, "length": 3, "type": "pre", "language": "python"},
    )


def test_markdown_becomes_what_telegram_can_show() -> None:
    source = "# Title\n\nSome **bold** `code`.\n\n- one\n- two\n\n```py\nx = 1\n```\n"
    pieces = [p.payload for p in plan(Text(source, format="markdown"))]
    assert len(pieces) == 1
    assert isinstance(pieces[0], Text)
    shown = words_of(pieces[0]).text
    assert shown == "Title\n\nSome bold code.\n\n• one\n• two\n\nx = 1"
    kinds = ["bold", "bold", "code", "pre"]
    assert [kind for kind, _ in marked_up(pieces[0])] == kinds


words = st.sampled_from(
    [
        *("word ", "<b>bold</b> ", "😀", "<i>it <u>under</u></i> ", "&amp;", "<br>"),
        *('<pre><code class="language-c">int x;\n</code></pre>', "<p>para</p>", "字 "),
    ]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(words, min_size=1, max_size=60), st.integers(1, 60))
@case("V02")
def test_pieces_keep_the_limit_of_visible_units_and_of_entities(
    some: list[str], times: int
) -> None:
    payload = Text("".join(some) * times, format="html")
    pieces = [p.payload for p in plan(payload)]
    made = [words_of(piece) for piece in pieces if isinstance(piece, Text)]
    for one in made:
        assert units(one.text) <= TEXT_LIMIT
        assert len(one.entities) <= ENTITIES_MOST
    together = "".join("".join(one.text for one in made).split())
    assert together == "".join(plain(payload).text.split())


def test_there_is_room_for_the_mark_in_the_longest_text() -> None:
    pieces = plan(Text("x" * 9000))
    longest = words_of(pieces[0].payload, marked=True)  # type: ignore[arg-type]
    assert longest.text.startswith(MARKER)
    assert units(longest.text) == 4096
    bold = words_of(Text("<b>b</b>", format="html"), marked=True)
    assert bold.entities[0]["offset"] == len(MARKER)


def test_what_shows_nothing_is_not_sent() -> None:
    assert plan(Text("\u200b")) == []
    assert plan(Text("<b> </b>", format="html")) == []


def test_a_thread_and_a_reply_that_need_not_be_there() -> None:
    first = where(part(thread="7", reply_to="5"))
    assert first == {
        "chat_id": "42",
        "message_thread_id": "7",
        "reply_parameters": {"message_id": 5, "allow_sending_without_reply": True},
    }
    assert where(part(index=1, reply_to="5")) == {"chat_id": "42"}
    assert where(part(reply_to="update:9")) == {"chat_id": "42"}
    assert where(part(thread="7"), frozenset({"thread"})) == {"chat_id": "42"}


def test_a_native_call_names_its_method_and_may_name_its_chat() -> None:
    poll = Native({"method": "sendPoll", "question": "?", "options": ["a", "b"]})
    method, given = native_call(poll, part(poll))
    assert (method, given["chat_id"], given["options"]) == (
        "sendPoll",
        "42",
        ["a", "b"],
    )
    other = Native({"text": "hi", "chat_id": 1})
    assert native_call(other, part(other)) == (
        "sendMessage",
        {"text": "hi", "chat_id": 1},
    )


def test_a_file_is_one_part() -> None:
    assert [p.kind for p in plan(File(data=b"x", name="n"))] == ["file"]


def test_a_native_call_shows_its_mark_in_the_language_that_it_is_written_in() -> None:
    entity = {"offset": 0, "length": 1, "type": "bold"}
    given = native_call(
        Native({"text": "x", "entities": [entity]}), part(), marked=True
    )[1]
    assert (given["text"], given["entities"][0]["offset"]) == (
        f"{MARKER}x",
        len(MARKER),
    )
    other = Native({"text": "x", "parse_mode": "MarkdownV2"})
    assert native_call(other, part(), marked=True)[1]["text"].startswith(r"\(may")
