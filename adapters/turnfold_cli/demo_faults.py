"""Faults of the demo that hit all hosts, or the server of their store."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from turnfold_cli.demo_processes import DemoError
from turnfold_cli.demo_server import LEASE_MS

if TYPE_CHECKING:
    from turnfold_cli.demo_hosts import Hosts

_ENDS_WITHIN_S = 20.0
_DOWN_S = (0.2, 2.0)  # shorter and longer than the lease
_APART_LEASES = 1.3
_SLOW_S, _SLOW_FOR_S = 0.02, 1.5
_END_IDLE = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name LIKE 'turnfold%' AND state = 'idle'
"""


async def server_killed(hosts: "Hosts", rng: random.Random) -> None:
    """SIGKILL of the server's first process, and a start some time later."""
    with hosts.forgiving():
        await asyncio.to_thread(_kill, hosts.server)
        await asyncio.sleep(rng.uniform(*_DOWN_S))
        await asyncio.to_thread(hosts.server.ensure_postgres_running)
        await hosts.all_listen()


def _kill(server: Any) -> None:
    """Its other processes end by themselves. Only then its pid file is removed: in a
    container no process may reap the dead one that the file names."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  the server needs it

    first = psutil.Process(server.get_pid())
    others = first.children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    _, left = psutil.wait_procs(others, timeout=_ENDS_WITHIN_S)
    if left:
        raise DemoError("processes of the killed server go on")
    (server.pgdata / "postmaster.pid").unlink(missing_ok=True)


async def all_killed(hosts: "Hosts", _: random.Random) -> None:
    """Kill every host at once."""
    starts = [gateway.starts for gateway in hosts.gateways]
    for gateway in hosts.gateways:
        gateway.signal(signal.SIGKILL)
    hosts.evidence.kills += len(starts)
    await hosts.all_listen(starts)


async def rolling(hosts: "Hosts", _: random.Random) -> None:
    """Stop and start one host after the other, under load."""
    with hosts.forgiving():
        for gateway in hosts.gateways:
            starts = [other.starts - (other is not gateway) for other in hosts.gateways]
            gateway.close_input()
            await hosts.all_listen(starts)


async def slow(hosts: "Hosts", _: random.Random) -> None:
    """Delay every byte between hosts and server, both ways."""
    for wire in hosts.wires:
        wire.delay_s = _SLOW_S
    await asyncio.sleep(_SLOW_FOR_S)
    for wire in hosts.wires:
        wire.delay_s = 0.0


async def idle_ended(hosts: "Hosts", _: random.Random) -> None:
    """The server ends every idle connection."""
    connection = await asyncpg.connect(hosts.server.get_uri())
    try:
        await connection.execute(_END_IDLE)
    finally:
        await connection.close()


async def apart(hosts: "Hosts", _: random.Random) -> None:
    """A host has the platform and no server, for longer than its lease."""
    wire = hosts.wires[hosts.victim()]
    with hosts.forgiving():
        wire.blocked = True
        wire.cut()
        await asyncio.sleep(_APART_LEASES * LEASE_MS / 1000)
        wire.blocked = False
        await hosts.all_listen()


async def deaf(hosts: "Hosts", _: random.Random) -> None:
    """The server gets a host's statements, but the host gets no answers, for longer
    than its lease: its commits are stored, and it does not know."""
    wire = hosts.wires[hosts.victim()]
    with hosts.forgiving():
        wire.deaf = True
        await asyncio.sleep(_APART_LEASES * LEASE_MS / 1000)
        wire.deaf = False
        wire.cut()
        await hosts.all_listen()


FAULTS: Mapping[str, Callable[["Hosts", random.Random], Awaitable[None]]] = {
    "server": server_killed,
    "all": all_killed,
    "rolling": rolling,
    "slow": slow,
    "idle": idle_ended,
    "apart": apart,
    "deaf": deaf,
}
