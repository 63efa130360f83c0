"""Look-ups and the source against a scripted homeserver: what a real one rarely does."""

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from turnfold.enums import FailureClass
from turnfold.messages import Route, Text
from turnfold.ports.channel import Absent, CannotTell, Found, Part
from turnfold_adapters.channels.matrix_client import MatrixClient, Request
from turnfold_adapters.channels.matrix_content import KEY_FIELD
from turnfold_adapters.channels.matrix_history import LOOKUP_PAGES_MAX, look_up
from turnfold_adapters.channels.matrix_outcomes import RefusedError, refused
from turnfold_adapters.channels.matrix_source import Listening, listen

ME = "@bot:x"
SINCE = 1_000_000
HOW = Listening(
    channel="m", account="a", event_types=("m.room.message",), auto_join=True
)
Answers = Callable[[str], Mapping[str, Any]]


class Scripted(MatrixClient):
    """Answers from a function of the path instead of from the network."""

    def __init__(self, answers: Answers) -> None:
        self.user_id = ME
        self.asked: list[str] = []
        self._answers = answers

    async def ask(
        self,
        request: Request,
        what: str,
        *,
        data: bytes | None = None,
        content_type: str = "application/json",
        timeout_ms: int | None = None,
    ) -> Mapping[str, Any]:
        self.asked.append(request[1])
        return self._answers(request[1])


def event(at_ms: int = SINCE, sender: str = ME, **content: Any) -> dict[str, Any]:
    full = {"body": "x", **content}
    name = f"${at_ms}{sender}"
    kind = "m.room.message"
    return {
        "type": kind,
        "event_id": name,
        "sender": sender,
        "origin_server_ts": at_ms,
        "content": full,
    }


PART = Part(
    entry_id="e",
    index=0,
    count=1,
    kind="text",
    payload=Text("x"),
    key="k1",
    route=Route(channel="m", conversation="!r:x"),
)
OURS: dict[str, Any] = {KEY_FIELD: "k1"}


def one_page(*events: Any, **more: Any) -> Scripted:
    return Scripted(lambda path: {"chunk": list(events), **more})


async def test_our_key_in_another_mouth_is_not_found_whatever_the_server_filters() -> (
    None
):
    client = one_page(event(sender="@a:x", **OURS), event(SINCE - 1))
    assert isinstance(await look_up(client, PART, SINCE), Absent)


async def test_a_history_that_ends_too_early_proves_nothing() -> None:
    client = one_page(event(SINCE + 5))
    assert isinstance(await look_up(client, PART, SINCE), CannotTell)
    assert isinstance(await look_up(one_page(), PART, SINCE), CannotTell)


async def test_our_own_entrance_is_an_end_that_proves() -> None:
    entrance = {
        "type": "m.room.member",
        "state_key": ME,
        "sender": ME,
        "origin_server_ts": SINCE + 1,
        "content": {"membership": "join"},
    }
    assert isinstance(await look_up(one_page(entrance), PART, SINCE), Absent)
    renamed = {**entrance, "unsigned": {"prev_content": {"membership": "join"}}}
    assert isinstance(await look_up(one_page(renamed), PART, SINCE), CannotTell)


async def test_one_old_time_among_new_ones_does_not_end_the_search() -> None:
    pages: dict[str, Mapping[str, Any]] = {
        "": {"chunk": [event(SINCE - 9), event(SINCE + 9)], "end": "p2"},
        "p2": {"chunk": [], "end": "p3"},
        "p3": {"chunk": [event(SINCE + 1, **OURS)]},
    }

    def answers(path: str) -> Mapping[str, Any]:
        return next(pages[p] for p in ("p3", "p2", "") if not p or f"from={p}" in path)

    verdict = await look_up(Scripted(answers), PART, SINCE)
    assert isinstance(verdict, Found)


@pytest.mark.parametrize(
    "broken",
    [{"chunk": "x"}, {"chunk": [1, None, {}]}, {}, {"chunk": [{"sender": ME}]}],
)
async def test_a_malformed_history_is_never_absent(broken: dict[str, Any]) -> None:
    verdict = await look_up(Scripted(lambda path: broken), PART, SINCE)
    assert isinstance(verdict, CannotTell)


async def test_a_search_without_end_is_given_up() -> None:
    count = iter(range(10**6))
    client = Scripted(
        lambda path: {"chunk": [event(SINCE + 1)], "end": f"t{next(count)}"}
    )
    assert isinstance(await look_up(client, PART, SINCE), CannotTell)
    assert len(client.asked) == LOOKUP_PAGES_MAX


async def test_a_server_that_pages_in_a_circle_ends() -> None:
    client = Scripted(lambda path: {"chunk": [event(SINCE + 1)], "end": "same"})
    assert isinstance(await look_up(client, PART, SINCE), CannotTell)
    assert len(client.asked) == 2


@pytest.mark.case("B04")
@pytest.mark.parametrize(
    "problem",
    [
        refused("history", FailureClass.PERMISSION, "HTTP 403"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_a_look_up_that_fails_cannot_tell(problem: Exception) -> None:
    def answers(path: str) -> Mapping[str, Any]:
        raise problem

    assert isinstance(await look_up(Scripted(answers), PART, SINCE), CannotTell)


def synced(next_batch: str = "s2", **timeline: Any) -> dict[str, Any]:
    rooms = {"join": {"!r:x": {"timeline": timeline}}}
    return {"next_batch": next_batch, "rooms": rooms}


async def first(client: Scripted, count: int = 1) -> list[tuple[str | None, str]]:
    found: list[tuple[str | None, str]] = []
    async with aclosing(listen(client, HOW, "s1")) as source:
        async for message, cursor in source:
            found.append((message.message_id if message else None, cursor))
            if len(found) == count:
                break
    return found


async def test_a_gap_that_no_one_may_read_is_said_loudly_and_passed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = event(5, "@a:x")

    def answers(path: str) -> Mapping[str, Any]:
        if "/messages" in path:
            raise refused("history", FailureClass.PERMISSION, "HTTP 403")
        return synced(events=[said], limited=True, prev_batch="p")

    with caplog.at_level(logging.ERROR, "turnfold.matrix"):
        assert await first(Scripted(answers)) == [(said["event_id"], "s2")]
    assert "!r:x" in caplog.text


@pytest.mark.case("H05")
async def test_a_gap_that_fails_for_now_holds_the_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    missed, said = event(4, "@a:x"), event(5, "@a:x")
    troubles: list[Exception] = [
        TimeoutError(),
        aiohttp.ServerDisconnectedError(),
        refused("history", FailureClass.TRANSIENT, "HTTP 502"),
    ]

    def answers(path: str) -> Mapping[str, Any]:
        if "/messages" not in path:
            return synced(events=[said], limited=True, prev_batch="p")
        if troubles:
            raise troubles.pop()
        return {"chunk": [missed]}

    expected = [(missed["event_id"], "s1"), (said["event_id"], "s2")]
    assert await first(Scripted(answers), 2) == expected
    assert waits == [1, 2, 4]


async def test_a_refused_token_ends_the_source_with_an_error() -> None:
    def answers(path: str) -> Mapping[str, Any]:
        raise refused("sync", FailureClass.AUTH, "HTTP 401")

    with pytest.raises(RefusedError):
        await first(Scripted(answers))


@pytest.mark.case("H11")
async def test_a_malformed_room_does_not_hide_the_others() -> None:
    body = synced(events=[event(5, "@a:x"), None, 7, "x"])
    body["rooms"]["join"]["!bad:x"] = {"timeline": {"events": {"no": "list"}}}
    body["rooms"]["join"]["!worse:x"] = None
    body["rooms"]["leave"] = []
    found = await first(Scripted(lambda path: body))
    assert found == [(event(5, "@a:x")["event_id"], "s2")]


async def test_an_invite_that_is_refused_is_passed_by() -> None:
    def answers(path: str) -> Mapping[str, Any]:
        if "/join/" in path:
            raise refused("join", FailureClass.PERMISSION, "HTTP 403")
        return {"next_batch": "s2", "rooms": {"invite": {"!i:x": {}}}}

    assert await first(Scripted(answers)) == [(None, "s2")]
