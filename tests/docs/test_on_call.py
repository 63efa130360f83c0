"""Every command of specs/on-call.md is run, in its order, on a store after an incident:
it prints what the page shows (numbers aside) and ends with the exit code that it says."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import FailureClass
from turnfold_adapters.stores.ownership import FileOwnership
from turnfold_cli import app
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

PAGE = (Path(__file__).parents[2] / "specs" / "on-call.md").read_text("utf-8")
SCREEN = re.compile(
    r"^\$ turnfold (.*?)(?:  # exit (\d))?\n(.*?)(?=^\$ |\Z)", re.MULTILINE | re.DOTALL
)


async def _incident(path: Path) -> None:
    """Twelve minutes ago: an answer in doubt, three chats that are gone, an account that
    cannot log in."""
    clock = FakeClock(wall=int(time.time() - 12 * 60) * 1000)
    gateway = Gateway(store=in_file(path), clock=clock)
    platform = gateway.platform
    for name, account in (
        ("telegram", "support"),
        ("telegram", "sales"),
        ("slack", "default"),
    ):
        gateway.channels[name, account] = PlatformChannel(platform)

    async def answer(turn: Any) -> None:
        await turn.reply("Dear customer, it is on its way.")

    gateway.handler = answer
    kernel = await gateway.start()
    where = {"channel": "telegram", "account": "support"}
    await kernel.accept(inbound("1001", "41", "hello", **where))
    platform.plays(unknown(cause="ReadTimeout"), conversation="42")
    await kernel.accept(inbound("1002", "42", "where is my order?", **where))
    gone = reject(FailureClass.TARGET_GONE, detail="channel_not_found")
    for chat in ("C01", "C02", "C03"):
        platform.plays(gone, conversation=chat)
        await kernel.enqueue(route(chat, channel="slack"), "Your invoice is ready.")
    login = reject(FailureClass.AUTH, detail="401 Unauthorized", retry_after_ms=10**10)
    platform.plays(login, conversation="77")
    sales = route("77", channel="telegram", account="sales")
    await kernel.enqueue(sales, "Your offer is ready.")
    await spin()
    await gateway.end()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("on-call") / "gateway.db"
    asyncio.run(_incident(path))
    return path


def _screens() -> list[tuple[str, int, str]]:
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [
        (words, int(code or 0), shown)
        for block in blocks
        for words, code, shown in SCREEN.findall(block)
    ]


def _plain(text: str) -> list[str]:
    """The same for every run: no numbers, no ids, no times, no widths. The line of a day
    goes: a play that crosses midnight has one more."""
    text = re.sub(r"\b(entry|turn):\S+", "ID", text)
    text = re.sub(r"^[A-Z][a-z]{2} \d{4}-\d\d-\d\d", "DAY", text, flags=re.MULTILINE)
    text = re.sub(r"times: .*", "times", text)
    text = re.sub(r"^store .*", "store", text, flags=re.MULTILINE)
    text = re.sub(r"pid \d+ on \S+,", "pid,", text)
    text = re.sub(r"worker [0-9a-f]{8}", "worker", text)
    text = re.sub(r"\d+(,\d+)*", "N", text)
    text = re.sub(r"N (ms|s|min|h)\b", "AGE", text)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return [line for line in lines if line != "DAY"]


def test_the_page_shows_what_the_commands_print(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)

    async def works(self: object) -> bool:  # the gateway of the page has not ended
        return True

    monkeypatch.setattr(FileOwnership, "taken", works)
    screens = _screens()
    assert len(screens) >= 12
    for words, code, shown in screens:
        arguments = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', words)]
        env = {"COLUMNS": "80", "USER": "ann", "LOGNAME": "ann", "TZ": "UTC"}
        done = CliRunner().invoke(app(arguments), arguments, env=env)
        assert done.exit_code == code, (words, done.output)
        assert _plain(done.output) == _plain(shown), (words, done.output)


def test_the_page_names_only_commands_and_options_that_exist() -> None:
    for name in re.findall(r"`turnfold (\w+)", PAGE):
        done = CliRunner().invoke(app([name]), [name, "--help"])
        assert done.exit_code == 0, name
