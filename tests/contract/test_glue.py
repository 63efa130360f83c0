"""How many lines a gateway needs: counted on the examples, which are run here. Counted are
lines of code; imports, docstrings, comments and empty lines are not."""

import ast
import asyncio
import io
import subprocess
import sys
import tokenize
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.bus import durable, gateway
from examples.own_channel import sms
from turnfold import Capabilities, DeliveryClass, Kernel, PartClass, Route, Settings
from turnfold_cli.platform import FaultKind, Platform
from turnfold_cli.platform_book import Fault as PlatformFault
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

EXAMPLES = Path(__file__).parents[2] / "examples"
_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
_SILENT |= {tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {
        number
        for one in tokens
        if one.type not in _SILENT
        for number in range(one.start[0], one.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            assert node.end_lineno is not None
            found -= set(range(node.lineno, node.end_lineno + 1))
    return found


def bridge_lines(source: str) -> int:
    """Of an application: the import of a bridge, and the lines that name it."""
    tree = ast.parse(source)
    imports = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("turnfold")
    ]
    names = {alias.name for node in imports for alias in node.names}
    used = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in names]
    return len({node.lineno for node in [*imports, *used]})


def test_an_application_of_python_telegram_bot_needs_3_lines() -> None:
    assert bridge_lines((EXAMPLES / "ptb" / "bot.py").read_text()) <= 3


def test_a_slack_bolt_app_needs_12_lines() -> None:
    script = EXAMPLES / "bolt" / "bot.py"
    if not script.exists():
        pytest.skip("the example of the bridge to Bolt is not here yet")
    assert bridge_lines(script.read_text()) <= 12


def test_a_gateway_of_bus_and_channel_manager_needs_20_lines() -> None:
    source = (EXAMPLES / "bus" / "durable.py").read_text()
    assert len(code_lines(source)) <= 20


def test_a_first_channel_of_ones_own_needs_15_lines() -> None:
    source = (EXAMPLES / "own_channel" / "sms.py").read_text()
    assert len(code_lines(source)) <= 15


# --- the gateway of bus and channel manager ---


class Chat:
    """A channel of that gateway, and what its platform shows."""

    def __init__(self, *, offline: int = 0) -> None:
        self.shown: list[tuple[str, str]] = []
        self.offline = offline

    async def send(self, message: Any) -> None:
        if self.offline:
            self.offline -= 1
            raise gateway.Offline
        self.shown.append((message.chat, message.text))


def message(number: int) -> Any:
    words = f"hello {number}"
    return gateway.Incoming("chat", f"c{number % 2}", str(number), "ann", words)


@asynccontextmanager
async def running(store: Path, chat: Chat, think: Any) -> AsyncIterator[Any]:
    bus = gateway.Bus()
    manager = gateway.ChannelManager(bus, {"chat": chat})
    settings = Settings(probe_ms=20, backoff_base_ms=5, drain_ms=500)  # an agent hangs
    kernel = Kernel(store, settings=settings)
    durable.durable(bus, manager, gateway.Agent(bus, think), kernel)
    async with kernel:
        yield bus


async def shout(text: str) -> str:
    return text.upper()


async def until_shown(chat: Chat, count: int) -> None:
    async with asyncio.timeout(20):
        while len(chat.shown) < count:
            await asyncio.sleep(0.01)


async def test_the_gateway_as_it_was_answers() -> None:
    bus, chat = gateway.Bus(), Chat()
    manager = gateway.ChannelManager(bus, {"chat": chat})
    agent = gateway.Agent(bus, shout)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in (manager, agent)]
        await bus.publish_inbound(message(1))
        await until_shown(chat, 1)
        for task in tasks:
            task.cancel()
    assert chat.shown == [("c1", "HELLO 1")]


async def test_the_durable_gateway_answers_once_whatever_stops_it(
    tmp_path: Path,
) -> None:
    chat = Chat(offline=1)

    async def hangs(_: str) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with running(tmp_path / "g.db", chat, hangs) as bus:
        for number in range(4):
            await bus.publish_inbound(message(number))
    assert chat.shown == []
    async with running(tmp_path / "g.db", chat, shout) as bus:
        await bus.publish_inbound(message(3))  # its platform tells it again
        await until_shown(chat, 4)
    assert sorted(chat.shown) == [
        ("c0", "HELLO 0"),
        ("c0", "HELLO 2"),
        ("c1", "HELLO 1"),
        ("c1", "HELLO 3"),
    ]


# --- the first channel of one's own ---


class Quick(sms.SmsChannel):
    """With waits for tests."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.KEYED,), settle_ms=50)}
    )


class Provider:
    faults = (Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.RATE_LIMITED, Fault.REJECTED)
    route = Route(channel="sms", conversation="42")

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def channel(self) -> sms.SmsChannel:
        http = httpx.AsyncClient(trust_env=False)
        return Quick(f"{self.platform.url}/messages", http)

    async def witness(self) -> list[Seen]:
        shown = self.platform.book.witness()
        return [Seen(id=m.id, key=m.key, text=m.text or "") for m in shown]

    async def calls(self) -> int:
        return len(self.platform.book.requests())

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        name = "status" if kind is Fault.REJECTED else kind.value
        passing = PlatformFault(kind=FaultKind.DELAY, times=skip)
        faults = [PlatformFault(kind=FaultKind(name), times=times)]
        self.platform.script(*([passing] if skip else []), *faults)

    async def heal(self) -> None:
        """Each fault was for so many requests."""


@asynccontextmanager
async def provider() -> AsyncIterator[Harness]:
    with Platform("keyed") as platform:
        yield Provider(platform)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_first_channel_keeps_the_contract_of_channels(check: Check) -> None:
    result = await run_check(check, provider)
    keyed = check.__name__.startswith("a_key_") or "is_there_once" in check.__name__
    assert not (keyed and result.left_out), result


def test_the_page_of_ones_own_channel_has_a_gateway_that_passes_its_tests() -> None:
    example = EXAMPLES / "own_channel" / "test_heron.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(example)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()
