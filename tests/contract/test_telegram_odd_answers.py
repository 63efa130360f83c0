"""Answers that no page of the Bot API describes: of proxies, of servers that are down, of
servers of others. Each comes in the place of the answer to a placeholder, to an edit, to a
file and to getUpdates. An answer to a user is shown once, whatever was done."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fake_bot_api import TOKEN, Answer, FakeBotApi

from turnfold import File, Kernel, Route, Settings
from turnfold_adapters.channels.telegram import TelegramChannel

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")
QUICK = Settings(backoff_base_ms=5, backoff_cap_ms=20, probe_ms=20, rate_limit_ms=50)
PAGE = b"<html><body><h1>503 Service Unavailable</h1></body></html>"


def _said(**body: Any) -> bytes:
    return json.dumps({"ok": False, **body}).encode()


# Refusals: nothing was done, and the call is made again.
REFUSED = {
    "429 without a wait": (429, _said(description="Too Many Requests")),
    "429 with words for a wait": (
        429,
        _said(description="Too Many Requests", parameters={"retry_after": "soon"}),
    ),
    "429 with a wait below zero": (
        429,
        _said(description="Too Many Requests", parameters={"retry_after": -5}),
    ),
    "409": (409, _said(description="Conflict")),
}
# These say nothing.
UNCLEAR = {
    "a page with 503": (503, PAGE),
    "nothing with 502": (502, b""),
    "a page with 200": (200, PAGE),
    "no with 200": (200, _said(description="Bad Request: chat not found")),
    "a list": (200, b"[1, 2]"),
    "null": (200, b"null"),
    "no id": (200, b'{"ok": true, "result": {}}'),
    "true": (200, b'{"ok": true, "result": true}'),
    "a list with 400": (400, b"[]"),
    "not UTF-8": (500, "Fehler: \xfc".encode("latin-1")),
}


def _served(api: FakeBotApi, path: Path) -> Kernel:
    kernel = Kernel(path, settings=QUICK)
    channel = TelegramChannel(TOKEN, base_url=api.base_url, poll_ms=1_000, settle_ms=50)
    kernel.attach("telegram", channel, on_unknown="resend_marked")
    kernel.source("telegram", channel.source)
    kernel.on_turn(lambda turn: turn.inbound.text.upper())
    return kernel


@pytest.mark.case("D11", "K13", "K14")
@pytest.mark.parametrize("name", REFUSED | UNCLEAR)
async def test_an_answer_is_shown_once_whatever_the_platform_says(
    name: str, tmp_path: Path
) -> None:
    status, raw = (REFUSED | UNCLEAR)[name]
    odd = [
        Answer(status, raw, done=done)
        for done in ((False, True) if name in UNCLEAR else (False,))
    ]
    with FakeBotApi() as api:
        async with _served(api, tmp_path / "g.db") as kernel:
            for number, (answer, place) in enumerate(
                (answer, place) for answer in odd for place in ("placeholder", "edit")
            ):
                api.script(*([None] if place == "edit" else []), answer)
                api.says(42, f"hello {number}")
                await _shown(kernel, api, f"HELLO {number}")
            assert kernel.health()["foreign_bugs"].get("telegram/default", 0) == 0
            assert not kernel.health()["gates"]
        texts = [text for text in api.texts() if text != "\u2026"]
        assert texts == [f"HELLO {number}" for number in range(2 * len(odd))]


async def _shown(kernel: Kernel, api: FakeBotApi, words: str) -> None:
    await _until(lambda: words in api.texts())
    await kernel.at_rest(10_000)


async def _until(what: Any) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", REFUSED | UNCLEAR)
async def test_a_file_comes_again_with_a_mark_only_after_an_unclear_answer(
    name: str, tmp_path: Path
) -> None:
    status, raw = (REFUSED | UNCLEAR)[name]
    with FakeBotApi() as api:
        async with _served(api, tmp_path / "g.db") as kernel:
            api.script(Answer(status, raw))
            to = Route(channel="telegram", conversation="42")
            sent = await kernel.enqueue(to, File(data=b"x", name="a.txt"))
            await sent.receipt(10_000)
        (shown,) = api.texts()
        assert shown.removeprefix("a.txt").strip() == (
            "(may be a duplicate)" if name in UNCLEAR else ""
        )


@pytest.mark.parametrize("name", REFUSED | UNCLEAR)
async def test_getupdates_is_asked_again_after_any_answer(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status, raw = (REFUSED | UNCLEAR)[name]
    with FakeBotApi() as api:
        api.script(Answer(status, raw, method="getupdates"))
        api.says(42, "hello")
        async with _served(api, tmp_path / "g.db"):
            await _until(lambda: api.texts() == ["HELLO"])
    assert not [r for r in caplog.records if r.exc_info], "each is one line"
