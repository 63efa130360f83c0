"""Inbound is evidence: what came stands in the store and reaches the handler as it came."""

import asyncio
import json
from typing import Any

import pytest

from turnfold import Inbound, Kernel, Never, Unreadable
from turnfold._log.ids import cursor_of
from turnfold._state.fold import Cursor
from turnfold.enums import TurnOutcome
from turnfold.errors import RuleBrokenError
from turnfold.inspect import TurnView
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    entry,
    inbound,
    peek,
    turn,
    until,
)

BODIES: list[Any] = [
    b'{ "lat" : 52.5 }\xff',
    "plain \ud83d",
    {"text": "m2", "location": {"latitude": 52.5}, "id": 2**70},
    [1.5, None, {"deep": ["\ud800"]}],
    2**64,
]


@pytest.fixture
def heard(gateway: Gateway) -> list[Inbound]:
    """What the handler was given."""
    found: list[Inbound] = []

    async def answer(handle: Any) -> None:
        found.append(handle.inbound)
        await handle.silent("not_addressed")

    gateway.handler = answer
    return found


@pytest.mark.case("T02", "T09", "T10")
@pytest.mark.parametrize("posted", [False, True])
@pytest.mark.parametrize("body", BODIES, ids=[type(b).__name__ for b in BODIES])
async def test_what_came_reaches_the_handler_as_it_came(
    gateway: Gateway, heard: list[Inbound], body: Any, *, posted: bool
) -> None:
    kernel = await gateway.start()
    front = await gateway.start(work=False) if posted else kernel
    message = Inbound(
        "t",
        conversation=42,
        message_id=1,
        sender="ann",
        sent_at=1_000,
        revision=3,
        thread=7,
        body=body,
    )
    accepted = await front.accept(message)
    assert await accepted.settled(2_000) is TurnOutcome.SILENT
    assert heard == [message]
    assert type(heard[0].body) is type(body)


@pytest.mark.case("T02", "T06", "T09")
async def test_who_wrote_when_and_what_is_shown(
    gateway: Gateway, heard: list[Inbound]
) -> None:
    kernel = await gateway.start()
    for number, body in enumerate(BODIES):
        message = Inbound(
            "t",
            conversation="42",
            message_id=number,
            sender="ann",
            sent_at=5,
            body=body,
        )
        accepted = await kernel.accept(message)
        view = await kernel.inspect.show(accepted.turn_id)
        assert isinstance(view, TurnView)
        (shown,) = view.inbound
        assert (shown.sender, shown.sent_at) == ("ann", 5)
        assert json.dumps(shown.text).isascii()
        assert (shown.text or "").encode()


@pytest.mark.case("T03")
async def test_an_edit_is_linked_to_the_turn_that_it_changes(lone: Gateway) -> None:
    changed = []

    async def answer(handle: Any) -> None:
        changed.append((handle.inbound.text, handle.changes))
        await handle.silent("not_addressed")

    lone.handler = answer
    kernel = await lone.start()
    first = await kernel.accept(inbound("7", text="v1"))
    second = await kernel.accept(inbound("7", text="v2", event="edit", revision="2"))
    third = await kernel.accept(inbound("7", text="v3", event="edit", revision="3"))
    again = await kernel.accept(inbound("7", text="v3", event="edit", revision="3"))
    assert [t.new for t in (first, second, third, again)] == [True, True, True, False]
    await third.settled(2_000)
    assert changed == [("v1", None), ("v2", first.turn_id), ("v3", first.turn_id)]
    view = await kernel.inspect.show(third.turn_id)
    assert isinstance(view, TurnView)
    assert view.inbound[0].changes == first.turn_id


@pytest.mark.case("T03")
async def test_an_edit_finds_a_message_that_was_accepted_with_a_key(
    gateway: Gateway,
) -> None:
    changed = []

    async def answer(handle: Any) -> None:
        changed.append(handle.changes)
        await handle.silent("not_addressed")

    gateway.handler = answer
    kernel = await gateway.start()
    front = await gateway.start(work=False)
    first = await kernel.accept(inbound("7", key="ann:x"))
    await first.settled(2_000)
    for process, event in ((kernel, "edit"), (front, "delete")):
        more = inbound("7", event=event, revision="2", edits="ann:x")
        await (await process.accept(more)).settled(2_000)
    stranger = inbound("7", event="edit", revision="3", edits="bob:x")
    await (await kernel.accept(stranger)).settled(2_000)
    assert changed == [None, first.turn_id, first.turn_id, None]


@pytest.mark.case("T09")
async def test_a_message_without_an_id_is_answered_as_every_other(
    gateway: Gateway,
) -> None:
    async def answer(handle: Any) -> str:
        return f"re: {handle.inbound.text}"

    gateway.handler = answer
    kernel = await gateway.start()
    front = await gateway.start(work=False)
    for number, kernel_ in enumerate((kernel, front, kernel)):
        message = Inbound(
            "t", conversation="42", message_id=None, body=f"tick {number}"
        )
        accepted = await kernel_.accept(message)
        assert accepted.new is not False
        assert await accepted.settled(2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["re: tick 0", "re: tick 1", "re: tick 2"]


@pytest.mark.case("T09")
async def test_a_dedupe_key_of_the_callers_own(gateway: Gateway) -> None:
    kernel = await gateway.start()
    front = await gateway.start(work=False)

    def due(conversation: str) -> Inbound:
        return Inbound(
            "t", conversation=conversation, message_id=None, key="daily/2026-11-27"
        )

    first = await kernel.accept(due("42"))
    assert first.new
    assert (await kernel.accept(due("42"))).turn_id == first.turn_id
    assert (await front.accept(due("42"))).new is False
    assert commits(kernel)["turn.accepted"] == 1


@pytest.mark.case("T09", "A06")
@pytest.mark.parametrize("fault", ["lost", "landed"])
async def test_a_message_without_an_id_is_taken_once_by_a_commit_of_unknown_fate(
    lone: Gateway, fault: str
) -> None:
    kernel = await lone.start(wrap=FaultyStore)
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    message = Inbound("t", conversation="42", message_id=None)
    accepted = await kernel.accept(message)
    assert accepted.new
    assert commits(kernel)["turn.accepted"] == 1
    assert turn(kernel, accepted.turn_id).message_id == ""


@pytest.mark.case("T09")
async def test_a_notice_to_who_wrote_without_an_id_replies_to_nothing(
    lone: Gateway,
) -> None:
    async def answer(_: Any) -> None:
        msg = "a bug"
        raise ValueError(msg)

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(Inbound("t", conversation="42", message_id=None))
    for _ in range(3):
        await lone.advance(60_000)
    assert await accepted.settled(2_000) is TurnOutcome.FAILED
    await until(lambda: len(lone.platform.contents) == 1)
    notice = entry(kernel, turn(kernel, accepted.turn_id).notice or "")
    assert (notice.conversation, notice.reply_to) == ("42", None)


# --- other bytes under a known key ----------------------------------------------------


@pytest.mark.case("T03", "T04", "T02")
@pytest.mark.parametrize("posted", [False, True])
async def test_other_bytes_under_a_known_key_are_flagged_and_kept(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, *, posted: bool
) -> None:
    told: list[str] = []

    async def answer(handle: Any) -> str:
        return f"re: {handle.inbound.text}"

    gateway.handler = answer
    kernel = await gateway.start()
    kernel.hooks.on_dead(lambda dead: told.append(dead.stream))
    front = await gateway.start(work=False) if posted else kernel
    first = await front.accept(inbound("1", text="book a table"))
    assert await first.settled(2_000) is TurnOutcome.REPLIED
    same = await front.accept(inbound("1", text="book a table"))
    assert (same.new, same.differs, same.kept) == (False, False, None)
    for text in ("cancel everything", "cancel everything", "and more"):
        other = await front.accept(inbound("1", text=text))
        assert (other.turn_id, other.new, other.differs) == (first.turn_id, False, True)
        await until(lambda: commits(kernel)["turn.dead"])
    await until(lambda: commits(kernel)["turn.dead"] == 2)
    await until(lambda: len(told) == 2)
    assert kernel.health()["dead_turns"] == 2
    assert f"has the key of {first.turn_id} and other bytes" in caplog.text
    view = await kernel.inspect.show(told[0])
    assert isinstance(view, TurnView)
    assert view.inbound[0].text == "cancel everything"
    assert first.turn_id in (view.inbound[0].problem or "")
    assert view.next.person
    assert gateway.platform.contents == ["re: book a table"]
    assert await kernel.retry(told[0], by="me") == "resubmitted"
    await until(lambda: len(gateway.platform.contents) == 2)
    assert gateway.platform.contents[1] == "re: cancel everything"


@pytest.mark.case("T04", "A06")
@pytest.mark.parametrize("fault", ["lost", "landed"])
async def test_what_differs_is_kept_once_by_a_commit_of_unknown_fate(
    lone: Gateway, fault: str
) -> None:
    kernel = await lone.start(wrap=FaultyStore)
    await kernel.accept(inbound("1", text="a"))
    kernel.store.fails(fault)  # type: ignore[attr-defined]
    other = await kernel.accept(inbound("1", text="b"))
    assert other.differs
    assert commits(kernel)["turn.dead"] == 1


@pytest.mark.case("T04")
async def test_an_erased_message_that_comes_again_is_no_news(lone: Gateway) -> None:
    async def answer(handle: Any) -> None:
        await handle.silent("not_addressed")

    lone.handler = answer
    kernel = await lone.start()
    first = await kernel.accept(inbound("1", text="a"))
    await first.settled(2_000)
    await kernel.redact(first.turn_id, by="me")
    again = await kernel.accept(inbound("1", text="a"))
    assert (again.new, again.differs) == (False, False)
    assert not commits(kernel)["turn.dead"]


# --- updates that nobody can read -----------------------------------------------------


def read(update: Any) -> Inbound | None:
    """Of a platform whose updates are (number, body)."""
    number, body = update
    if body is None:
        return None
    return Inbound("t", conversation="42", message_id=number, body={"text": body["t"]})


UPDATES: list[Any] = [
    [1, {"t": "before"}],
    [2, {}],
    "3 words",
    [4, {"t": object}],
    [5, None],
    [6, {"t": "after"}],
]


def polling(updates: list[Any]) -> Any:
    async def source(cursor: str | None) -> Any:
        for number, update in enumerate(updates, 1):
            if number > int(cursor or 0):
                yield update, number
        await asyncio.Event().wait()

    return source


@pytest.mark.case("T01", "T02")
async def test_an_update_that_cannot_be_read_does_not_stop_its_source(
    lone: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    async def answer(handle: Any) -> str:
        return f"re: {handle.inbound.text}"

    lone.handler = answer
    kernel = await lone.start()
    kernel.hooks.on_dead(told.append)
    kernel.source("t", polling(UPDATES), read=read)
    await until(lambda: lone.platform.contents[-1:] == ["re: after"])
    assert lone.platform.contents == ["re: before", "re: after"]
    assert cursor_at(kernel) == "6"
    assert kernel.health()["dead_turns"] == 3
    assert kernel.health()["sources"]["t/default"]["restarts"] == 0
    await until(lambda: len(told) == 3)
    assert [dead.lane for dead in told] == ["t/default//"] * 3
    view = await kernel.inspect.show(told[0].stream)
    assert isinstance(view, TurnView)
    assert view.inbound[0].text == "[2, {}]"
    assert "KeyError: 't'" in (view.inbound[0].problem or "")
    assert "KeyError: 't'" in caplog.text


def cursor_at(kernel: Kernel) -> str | None:
    found = peek(kernel).state(cursor_of("t", "default"))
    return found.value if isinstance(found, Cursor) else None


@pytest.mark.case("T01", "T02")
async def test_a_dead_turn_is_read_again_after_a_repair(lone: Gateway) -> None:
    heard: list[Inbound] = []

    async def answer(handle: Any) -> str:
        heard.append(handle.inbound)
        return f"re: {handle.inbound.text}"

    lone.handler = answer
    kernel = await lone.start()
    kernel.source("t", polling([[1, {"T": "loud"}]]), read=read)
    await until(lambda: kernel.health()["dead_turns"] == 1)
    (stream,) = [row.id for row in await kernel.inspect.list()]
    for _ in range(2):  # not repaired yet
        await kernel.retry(stream, by="me")
        await until(lambda: turn(kernel, stream).phase.closed)
        assert turn(kernel, stream).reason == "unread"
    kernel = await lone.restart(kernel)
    kernel.source(
        "t",
        polling([]),
        read=lambda u: Inbound("t", conversation="7", message_id=u[0], body=u[1]["T"]),
    )
    await kernel.retry(stream, by="me", why="repaired")
    await until(lambda: lone.platform.contents == ["re: loud"])
    assert heard[0].route.conversation == "7"
    await until(lambda: turn(kernel, stream).phase.closed)
    with pytest.raises(RuleBrokenError):
        await kernel.resubmit(stream, by="me")


@pytest.mark.case("T01")
@pytest.mark.parametrize(
    "item", ["text", 7, object(), (1, 2, 3), ({}, "5"), (b"x", "5")]
)
async def test_an_item_of_a_wrong_type_is_kept_and_the_source_goes_on(
    lone: Gateway, item: Any
) -> None:
    async def source(_: str | None) -> Any:
        yield item
        yield inbound("1"), "6"
        await asyncio.Event().wait()

    kernel = await lone.start()
    kernel.source("t", source)
    await until(lambda: cursor_at(kernel) == "6")
    assert commits(kernel)["turn.dead"] == 1
    assert commits(kernel)["turn.accepted"] == 1


@pytest.mark.case("T01")
async def test_a_source_may_say_itself_what_it_could_not_read(lone: Gateway) -> None:
    async def source(_: str | None) -> Any:
        error = ValueError("no such field")
        yield (
            Unreadable("t", raw=b"\xff", error=error, conversation=42, message_id=1),
            "5",
        )  # type: ignore[arg-type]  # ids of a platform
        await asyncio.Event().wait()

    async def answer(handle: Any) -> str:
        return f"{len(handle.inbound.body)} byte"

    lone.handler = answer
    kernel = await lone.start()
    kernel.source("t", source)
    await until(lambda: commits(kernel)["turn.dead"] == 1)
    again = await kernel.accept(
        Unreadable("t", raw=b"\xff", error="", conversation="42", message_id="1")
    )
    assert (again.new, again.differs) == (False, False)
    await kernel.retry(again.turn_id, by="me")
    await until(lambda: lone.platform.contents == ["1 byte"])


@pytest.mark.case("T01")
async def test_a_run_of_a_dead_turn_that_fails_tells_nobody_of_unknown_place(
    lone: Gateway,
) -> None:
    async def answer(_: Any) -> None:
        raise Never

    lone.handler = answer
    kernel = await lone.start()
    kernel.source("t", polling([]), read=lambda u: inbound("1", text=u))
    dead = await kernel.accept(Unreadable("t", raw="u", error="odd"))
    assert dead.new
    await kernel.retry(dead.turn_id, by="me")
    await until(lambda: turn(kernel, dead.turn_id).phase.closed)
    assert turn(kernel, dead.turn_id).reason == "never"
    assert not lone.platform.contents


@pytest.mark.case("T01", "T02")
async def test_what_cannot_be_read_is_posted_too(gateway: Gateway) -> None:
    kernel = await gateway.start()
    front = await gateway.start(work=False)
    dead = await front.accept(Unreadable("t", raw={"x": 1.5}, error="odd"))
    await until(lambda: commits(kernel)["turn.dead"] == 1)
    assert turn(kernel, dead.turn_id).dead


@pytest.mark.case("T01", "T08")
@pytest.mark.parametrize(
    "odd",
    ["c" * 100_000, "\ud800", 10**5_000],
    ids=["too long", "half a character", "too many digits"],
)
async def test_a_cursor_that_no_log_can_keep_stops_no_source(
    lone: Gateway, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(_: str | None) -> Any:
        yield inbound("1", text="before"), "1"
        yield inbound("2", text="odd"), odd
        yield inbound("3", text="after"), "3"
        await asyncio.Event().wait()

    async def answer(turn: Any) -> str:
        return str(turn.inbound.text)

    lone.handler = answer
    kernel = await lone.start()
    kernel.source("t", stream)
    await until(lambda: len(lone.platform.contents) == 3)
    assert lone.platform.contents == ["before", "odd", "after"]
    facts = kernel.health()["sources"]["t/default"]
    assert (facts["restarts"], facts["items"]) == (0, 3)
    assert "a cursor is not kept" in caplog.text


# --- a source without a cursor ---


def _again(*updates: Any) -> Any:
    async def source(_: str | None) -> Any:
        for update in updates:
            yield update
        yield inbound("1")
        await asyncio.Event().wait()

    return source


def _unnamed() -> Unreadable:
    return Unreadable("t", raw=b"{", error="cut")


@pytest.mark.case("T01", "T02")
@pytest.mark.parametrize(
    "update", ["text", (1, 2, 3), _unnamed(), (_unnamed(), "x" * 100_000)]
)
async def test_without_a_cursor_what_cannot_be_read_is_one_dead_turn_for_all_starts(
    gateway: Gateway, update: Any
) -> None:
    for _ in range(3):
        kernel = await gateway.start()
        kernel.source("t", _again(update, "another"))
        await until(lambda k=kernel: k.health()["sources"]["t/default"]["items"] == 3)  # type: ignore[misc]
        assert kernel.health()["dead_turns"] == 2
        await gateway.end()


async def test_with_a_cursor_the_same_bytes_are_two_updates(lone: Gateway) -> None:
    async def source(_: str | None) -> Any:
        yield _unnamed(), "1"
        yield _unnamed(), "2"
        await asyncio.Event().wait()

    kernel = await lone.start()
    kernel.source("t", source)
    await until(lambda: cursor_at(kernel) == "2")
    assert kernel.health()["dead_turns"] == 2


async def test_an_update_that_says_its_key_keeps_it(lone: Gateway) -> None:
    first = Unreadable("t", raw=b"{", error="cut", key="u1")
    other = Unreadable("t", raw=b"{", error="cut", key="u2")
    kernel = await lone.start()
    kernel.source("t", _again(first, other, first))
    await until(lambda: kernel.health()["sources"]["t/default"]["items"] == 4)
    assert kernel.health()["dead_turns"] == 2
