"""The gateway of `turnfold demo`: a small but real one, in a process of its own.

Messages come in over HTTP through a WebhookInbox, a Kernel handles them, and answers go
out over HTTP through a WebhookChannel. Options name a point where it kills itself. It
ends when its standard input is closed, so it never outlives its parent process.

    python -m turnfold_cli.demo_gateway --store g.db --platform http://127.0.0.1:8080

Standard output: {"port": N} once it listens, {"working": true} once it is the worker,
{"stopped": point} just before it dies. Exit code 75: it has lost the store to another.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from turnfold.api.handle import TurnHandle
from turnfold.api.kernel import Kernel
from turnfold.enums import DeliveryClass, Kind, Status
from turnfold.messages import File, Payload, Text
from turnfold.ports.store import store_at
from turnfold.settings import Settings
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_adapters.channels.webhook_inbound import WebhookInbox
from turnfold_model.testing.failpoints import Failpoints, Stop

# The demo kills more often than any process dies by itself: limits that give up after
# the 3rd or 5th death are higher here, and waits are short.
SETTINGS = Settings(
    max_runs=1_000,
    max_deaths_alone=1_000,
    max_failures=1_000,
    max_lookups=1_000,
    max_resends=1_000,
    backoff_base_ms=20,
    backoff_cap_ms=200,
)
# Loopback to a stand-in that accepts a request as soon as it has read it: the last
# request of a dead gateway takes effect within this time, also on a busy machine.
SETTLE_MS = 1_000
LOST = 75  # exit code of a worker that has lost its store: start it again
_POLL_S = 0.05


async def answer(turn: TurnHandle) -> None:
    """Answer as the message asks: some blocks, a pause, a reply of many parts.

    It may be run again after a death (`resume`), and then goes on after the blocks that
    may have been sent.
    """
    order = turn.inbound.body
    said = [
        block
        for block in await turn.previous()
        if block.kind is Kind.BLOCK and block.status is not Status.ABORTED
    ]
    for number in range(len(said) + 1, order["blocks"] + 1):
        await turn.block(block_text(order["name"], number), key=str(number))
        await asyncio.sleep(order["think_ms"] / 1000)
    if not order["live"]:
        await asyncio.sleep(order["think_ms"] / 1000)
        await turn.reply(*_payloads(order))
        return
    async with turn.live() as live:
        for word in part_text(order["name"], 1).split(" "):
            live.append(f"{word} ")
            await asyncio.sleep(order["think_ms"] / 1000)
        await live.seal(*_payloads(order))


def block_text(name: str, number: int) -> str:
    return f"{name}: thinking, {number}"


def part_text(name: str, number: int) -> str:
    return f"{name}: answer, {number}"


def _payloads(order: Any) -> list[Payload]:
    name = order["name"]
    texts = [Text(part_text(name, n + 1)) for n in range(order["texts"])]
    if not order["file"]:
        return [*texts]
    data = (name * 200).encode()
    return [*texts, File(data=data, name=f"{name}.txt", mime="text/plain")]


async def serve(given: argparse.Namespace) -> int:
    """Work until standard input ends, or until another worker owns the store: then the
    parent has to start a new process."""
    stop = Stop(given.nth, given.stop) if given.nth else None
    points = Failpoints(stop, told=lambda name: _say(stopped=name))
    kernel = _kernel(given.store, points)
    channel = _channel(given.platform, given.mode)
    # In class editable only an empty placeholder may be there twice, never an answer.
    policy = "resend" if given.mode == DeliveryClass.EDITABLE else "hold"
    kernel.attach("webhook", channel, on_unknown=policy)
    kernel.on_turn(resume=True)(answer)
    async with kernel, WebhookInbox(kernel.accept) as inbox:
        _say(port=inbox.port)
        over = asyncio.ensure_future(_end_of_input())
        lost = asyncio.ensure_future(_until_lost(kernel))
        await asyncio.wait({over, lost}, return_when=asyncio.FIRST_COMPLETED)
        for task in (over, lost):
            task.cancel()
        return LOST if lost.done() and not lost.cancelled() else 0


def _kernel(address: str, points: Failpoints) -> Kernel:
    if re.search(r"\bshards=(?!1\b)", address):
        return Kernel(address, settings=SETTINGS)
    store = points.watch(store_at(address))
    return Kernel(store, settings=SETTINGS, probe=points.probe)


async def _until_lost(kernel: Kernel) -> None:
    """Report when this process becomes the worker; return when it has lost the
    store."""
    told = False
    while not kernel.health()["fences_lost"]:
        if kernel.working and not told:
            told = True
            _say(working=True)
        await asyncio.sleep(_POLL_S)


def _channel(platform: str, mode: str) -> WebhookChannel:
    wanted = DeliveryClass(mode)
    asks = wanted is DeliveryClass.LOOKUP
    edits = wanted is DeliveryClass.EDITABLE
    return WebhookChannel(
        f"{platform}/messages",
        classes=[] if wanted is DeliveryClass.BLIND else [wanted],
        lookup_url=f"{platform}/messages" if asks else None,
        message_url=f"{platform}/messages/{{id}}" if edits else None,
        settle_ms=SETTLE_MS,
        timeout_ms=10_000,
    )


async def _end_of_input() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin)
    try:
        await reader.read()
    finally:
        transport.close()


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201  read by the parent process


def main(argv: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m turnfold_cli.demo_gateway")
    parser.add_argument("--store", required=True)
    parser.add_argument("--platform", required=True, help="its base URL")
    classes = [c.value for c in DeliveryClass]
    parser.add_argument("--class", dest="mode", default="keyed", choices=classes)
    parser.add_argument("--stop", default="", help="failpoint to die at")
    parser.add_argument("--nth", type=int, default=0, help="at which coming by")
    given = parser.parse_args(None if argv is None else list(argv))
    return asyncio.run(serve(given))


if __name__ == "__main__":
    sys.exit(main())
