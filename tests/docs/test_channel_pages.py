"""The first gateway of each channel's page, as it stands there, on the fake or server that
the page names. Matrix has its own test, on a real server: `tests/real`."""

import asyncio
import importlib
import json
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook
from tests.fakes import fake_bot_api, fake_discord, fake_slack
from tests.fakes.killing_asgi import SECRET

from turnfold_adapters.channels.webhook_inbound import WebhookInbox
from turnfold_cli.platform import Mode, Platform

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages" / "channels"
SHIPPED = ROOT / "adapters" / "turnfold_adapters" / "channels"
HEADINGS = [
    *("Install", "The first gateway", "What is guaranteed"),
    *("What a crash can leave to be seen", "Limits", "Settings"),
    *("Errors and what to do", "What it was tested against"),
]


def first_gateway(page: Path, folder: Path) -> dict[str, Any]:
    """Run the code of a page up to its last line, which starts it for good."""
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    body, _, last = code.rstrip().rpartition("\n")
    assert last.startswith("asyncio.run(")
    given: dict[str, Any] = {}
    exec(body.replace('Kernel("', f'Kernel("{folder}/'), given)
    return given


def told(monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> None:
    """The page's channel, at the address of a fake."""
    module = importlib.import_module(f"turnfold_adapters.channels.{name}")
    kind = f"{name.title()}Channel"
    monkeypatch.setattr(module, kind, partial(getattr(module, kind), **options))


async def shown(texts: Callable[[], list[str]]) -> None:
    async with asyncio.timeout(30):
        while "You said: hello" not in texts():
            await asyncio.sleep(0.02)


async def answers(
    given: dict[str, Any],
    says: Callable[[], object],
    texts: Callable[[], list[str]],
    ready: Callable[[], object] = lambda: True,
) -> None:
    async with given["kernel"]:
        async with asyncio.timeout(30):
            while not ready():
                await asyncio.sleep(0.02)
        says()
        await shown(texts)


def test_every_channel_has_a_page_with_the_same_parts() -> None:
    names = {path.stem for path in SHIPPED.glob("*.py") if "_" not in path.stem}
    channels = names - {"payloads", "secrets"}
    assert {page.stem for page in PAGES.glob("*.md")} == channels
    nav = (ROOT / "docs" / "mkdocs.yml").read_text()
    for page in PAGES.glob("*.md"):
        found = re.findall(r"^## (.*)", page.read_text(), re.MULTILINE)
        assert found == HEADINGS, page.name
        assert f"channels/{page.name}" in nav


def test_a_page_names_every_setting() -> None:
    """An argument of a channel that its page does not know is missing there."""
    for page in sorted(PAGES.glob("*.md")):
        source = (SHIPPED / f"{page.stem}.py").read_text()
        (head,) = re.findall(r"def __init__\(\n(.*?)\) -> None", source, re.DOTALL)[:1]
        names = set(re.findall(r"^        (\w+):", head, re.MULTILINE))
        words = set(re.findall(r"\w+", page.read_text()))
        left_out = names - words - {"client", "gateway", "base_url", "url"}
        assert not left_out, (page.name, left_out)


async def test_the_gateway_of_the_page_on_handlers_prints_what_the_page_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = ROOT / "docs" / "pages" / "how-to" / "handler.md"
    given = first_gateway(page, tmp_path)
    await given["main"]()
    (shown,) = re.findall(r"```\n(p1 .*?)```", page.read_text(), re.DOTALL)
    ends = "replied\n" * 3 + "aborted\n"
    assert capsys.readouterr().out == ends + shown


async def test_telegram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOT_TOKEN", fake_bot_api.TOKEN)
    with fake_bot_api.FakeBotApi() as api:
        told(monkeypatch, "telegram", base_url=api.base_url)
        given = first_gateway(PAGES / "telegram.md", tmp_path)
        await answers(given, lambda: api.says(1, "hello"), api.texts)


async def test_slack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOT_TOKEN", fake_slack.TOKEN)
    monkeypatch.setenv("APP_TOKEN", fake_slack.APP_TOKEN)
    with fake_slack.FakeSlack() as api:
        told(monkeypatch, "slack", base_url=api.base_url)
        given = first_gateway(PAGES / "slack.md", tmp_path)
        await answers(given, lambda: api.says("C1", "hello"), api.texts)


async def test_discord(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOT_TOKEN", fake_discord.TOKEN)
    with fake_discord.FakeDiscord() as api:
        where = {"base_url": api.base_url, "gateway": api.gateway}
        told(monkeypatch, "discord", **where, ready_ms=50)
        given = first_gateway(PAGES / "discord.md", tmp_path)
        listens = lambda: api.sessions  # noqa: E731  what is said before is not heard
        await answers(given, lambda: api.says(1, "hello"), api.texts, listens)


async def test_webhooks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Platform(Mode.KEYED) as receiver:
        monkeypatch.setenv("SECRET", SECRET)
        monkeypatch.setenv("RECEIVER", f"{receiver.url}/messages")
        given = first_gateway(PAGES / "webhook.md", tmp_path)
        inboxes: list[WebhookInbox] = []

        class Inbox(WebhookInbox):  # on any port, since 8080 may be taken
            def __init__(self, accept: Any, **options: Any) -> None:
                super().__init__(accept, **{**options, "port": 0})

            async def start(self) -> None:
                await super().start()
                inboxes.append(self)

        given["WebhookInbox"] = Inbox
        main = asyncio.create_task(given["main"]())
        async with asyncio.timeout(30):
            while not inboxes:
                await asyncio.sleep(0.02)
        await posted(inboxes[0].port)
        await shown(lambda: [m.text or "" for m in receiver.book.witness()])
        signal.raise_signal(signal.SIGINT)  # Ctrl-C is an orderly end
        async with asyncio.timeout(30):
            await main


async def posted(port: int) -> None:
    """What the page says that a sender posts."""
    body = json.dumps({"conversation": "42", "message_id": "7", "text": "hello"})
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "7",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("7", now, body),
    }
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"http://127.0.0.1:{port}/"
        answer = await http.post(url, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
