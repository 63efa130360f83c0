"""A gateway on Matrix in a process of its own, to be killed; and the nursery it is
forked from.

`python matrix_gateway.py` imports everything once and then forks a gateway for each
order, a JSON line on its standard input. What the gateways and the nursery say are
JSON lines on its standard output: "born" with a pid, "listening" when the cursor of the
source is durable, "stopped" with the point where a gateway is about to kill itself,
"done" with all points that it passed, and "ended" with the status of the process.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

from turnfold._state.fold import family
from turnfold.api.handle import TurnHandle
from turnfold.api.kernel import Kernel
from turnfold.inbound import Inbound
from turnfold.messages import File, Payload, Route, Text
from turnfold.ports.channel import Attempt, Outcome, Part
from turnfold.ports.store import now, store_at
from turnfold.settings import Settings
from turnfold_adapters.channels import matrix_client  # noqa: F401  warm before a fork
from turnfold_adapters.channels.matrix import MatrixChannel
from turnfold_model.testing.failpoints import Failpoints, Stop
from turnfold_model.testing.peek import Peek

# Deaths and outages are the point here: none of the limits may end a turn, and waits
# are short.
SETTINGS = Settings(
    max_runs=1_000,
    max_deaths_alone=1_000,
    max_failures=1_000,
    max_lookups=1_000,
    backoff_base_ms=10,
    backoff_cap_ms=100,
    probe_ms=100,
)
LIFE_S = 60  # a gateway that nobody ends is ended by the alarm clock


def say(what: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"what": what, **facts}) + "\n")
    sys.stdout.flush()


def parts_of(name: str) -> list[Payload]:
    """The answer to the message of that name."""
    file = File(data=name.encode() * 100, name=f"{name}.txt", mime="text/plain")
    return [Text(f"{name}: one"), Text(f"{name}: two"), file]


class ForgetfulChannel(MatrixChannel):
    """Claims what it does not do: every attempt has a key of its own."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        return await super().send(part, f"{key}{attempt.number}", attempt)


async def answer(turn: TurnHandle) -> None:
    await turn.reply(*parts_of(turn.inbound.text))


async def live(order: dict[str, Any]) -> None:
    """Serve until the expected turns are there and nothing is open any more."""
    stop = Stop(order["nth"], order["point"]) if order["point"] else None
    points = Failpoints(stop, told=lambda point: say("stopped", point=point))
    address = f"sqlite:{order['store']}"
    if order["notice"]:
        await announce(address, order["room"], order["notice"])
    kind = ForgetfulChannel if order["forgetful"] else MatrixChannel
    channel = kind(
        order["base_url"],
        user_id=order["user_id"],
        device_id=order["device_id"],
        token=order["token"],
        key_window_ms=order["window_ms"],
        settle_ms=order["settle_ms"],
    )

    async def source(cursor: str | None) -> AsyncIterator[tuple[Inbound | None, str]]:
        if cursor is not None:
            say("listening")
        async with aclosing(channel.source(cursor)) as pairs:
            async for message, passed in pairs:
                ours = message is not None and message.conversation == order["room"]
                yield message if ours else None, passed
                say("listening")  # asked for more: the cursor is durable

    store = points.watch(store_at(address))
    kernel = Kernel(store, settings=SETTINGS, probe=points.probe)
    kernel.attach("matrix", channel)
    kernel.source("matrix", source)
    kernel.on_turn(answer)
    async with kernel:
        while not over(kernel, order["turns"]):
            await asyncio.sleep(0.01)
    say("done", points=points.reached)


async def announce(address: str, room_id: str, name: str) -> None:
    """A client enqueues a notice and knows no channel, so the worker has to plan it."""
    async with Kernel(address, work=False) as client:
        route = Route(channel="matrix", conversation=room_id)
        await client.enqueue(route, *parts_of(name), key=name)


def over(kernel: Kernel, turns: int) -> bool:
    if not kernel.working:
        return False
    accepted = Peek(kernel.store).names().count("turn.accepted")
    families = {family(row.stream) for row in now(kernel.store.load()).open}
    waiting = now(kernel.store.inbox())
    return accepted >= turns and not waiting and not families & {"turn", "entry"}


def child(order: dict[str, Any]) -> NoReturn:
    """The whole life of a gateway. Nothing of the nursery's may run at its end."""
    status = 1
    try:
        signal.alarm(LIFE_S)
        say("born", pid=os.getpid())
        asyncio.run(live(order))
        status = 0
    except BaseException:  # noqa: BLE001  there is nobody above us to hear of it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        say("ended", status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
