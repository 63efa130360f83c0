"""Answers of no platform: of proxies, of servers that are down, torn ones. Each channel
gives each of them a meaning: no error of a client library passes as a bug of the channel,
and nothing counts as sent without an id. Telegram has its own, in a kernel:
`test_telegram_odd_answers`."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from tests.fakes import fake_discord

from turnfold import Route, Text
from turnfold._runtime.channel import outcome_of
from turnfold.ports.channel import Accepted, Attempt, Part, Receipt, Rejected
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.matrix import MatrixChannel
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.webhook import WebhookChannel

JSON, PAGE = "application/json", "text/html"
HTML = b"<html><body>no</body></html>"
Odd = tuple[int, object, str, dict[str, str]]
ODD: list[Odd] = [
    (200, HTML, PAGE, {}),
    (200, b"", JSON, {}),
    (200, b'{"ok": tr', JSON, {}),
    (200, b"\xff\xfe\x00", JSON, {}),
    (200, [1], JSON, {}),
    (200, None, JSON, {}),
    (200, "x", JSON, {}),
    (200, {"ok": "no"}, JSON, {}),
    (200, {"ok": False, "error": 7}, JSON, {}),
    (200, {"ok": True, "ts": "", "id": "", "event_id": ""}, JSON, {}),
    (302, b"", PAGE, {"Location": "http://127.0.0.1:9/"}),
    (400, [], JSON, {}),
    (400, {"code": [], "message": {}, "errors": 5, "errcode": []}, JSON, {}),
    (401, {"code": 0, "errcode": 5}, JSON, {}),
    (403, {}, JSON, {}),
    (404, HTML, PAGE, {}),
    (413, HTML, PAGE, {}),
    (418, b"\xff\xfe", "application/json; charset=klingon", {}),
    (429, b"", "text/plain", {}),
    (429, HTML, PAGE, {}),
    (429, {"retry_after": "soon", "message": 5}, JSON, {"Retry-After": "soon"}),
    (429, {"retry_after": -4, "retry_after_ms": -4}, JSON, {"Retry-After": "-1"}),
    (429, {"retry_after": 1e99, "global": "x"}, JSON, {"Retry-After": "9" * 30}),
    (500, HTML, PAGE, {}),
    (502, b"", PAGE, {}),
    (503, {"code": "x", "message": 5}, JSON, {"Retry-After": "nan"}),
]


def _slack(url: str) -> Any:
    return SlackChannel("xoxb-1", base_url=f"{url}/api/")


def _discord(url: str) -> Any:
    gateway = "ws://127.0.0.1:9"
    return DiscordChannel(fake_discord.TOKEN, base_url=f"{url}/api", gateway=gateway)


def _matrix(url: str) -> Any:
    return MatrixChannel(url, user_id="@bot:x", device_id="D", token="t")


def _webhook(url: str) -> Any:
    one = f"{url}/messages/{{id}}"
    return WebhookChannel(f"{url}/messages", classes=["editable"], message_url=one)


CHANNELS: dict[str, tuple[Callable[[str], Any], str]] = {
    "slack": (_slack, "C1"),
    "discord": (_discord, "42"),
    "matrix": (_matrix, "!room:x"),
    "webhook": (_webhook, "42"),
}


@asynccontextmanager
async def _platform(now: list[Odd]) -> AsyncIterator[str]:
    """Answers to everything with the odd answer of now. Its address."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if "m.room.encryption" in request.path:
            return web.json_response({"errcode": "M_NOT_FOUND"}, status=404)
        if "whoami" in request.path:
            return web.json_response({"user_id": "@bot:x", "device_id": "D"})
        status, body, kind, more = now[0]
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(
            status=status, body=raw, headers={"content-type": kind, **more}
        )

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


def _part(name: str, place: str) -> Part:
    return Part(
        entry_id="e",
        index=0,
        count=1,
        kind="text",
        payload=Text("hi"),
        key="k" * 22,
        route=Route(channel=name, conversation=place),
    )


async def _call(channel: Any, part: Part, act: str) -> Any:
    kinds = channel.capabilities.prepares
    prepares = hasattr(channel, "prepare") and (kinds is None or "text" in kinds)
    prepared = await channel.prepare(part) if prepares else None
    attempt = Attempt(number=1, at_ms=0, prepared=prepared)
    if act == "edit":
        return await channel.edit(Receipt(ids=("7",)), part, part.key, attempt)
    return await channel.send(part, part.key, attempt)


async def _meaning(channel: Any, part: Part, act: str) -> Any:
    try:
        answer = await _call(channel, part, act)
    except Exception as exc:
        answer = channel.classify(exc)
        if answer is None:  # it would count as a bug of the channel
            raise
    return outcome_of(answer, gives_ids=True)


@pytest.mark.case("B06", "D11")
@pytest.mark.parametrize("name", CHANNELS)
async def test_every_answer_has_a_meaning(name: str) -> None:
    make, place = CHANNELS[name]
    now = [ODD[0]]
    async with _platform(now) as url:
        channel = make(url)
        for odd in ODD:
            now[0] = odd
            sent = await _meaning(channel, _part(name, place), "send")
            assert not isinstance(sent, Accepted), odd
            if odd[0] == 429:
                assert not isinstance(sent, Rejected) or sent.failure == "rate_limited"
            if hasattr(channel, "edit"):
                await _meaning(channel, _part(name, place), "edit")
        await channel.aclose()
