"""The demo with several hosts on one PostgreSQL: hosts are killed, paused and cut off
from the server, and started again, as by a supervisor."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from attrs import define, field, frozen

from turnfold_cli.demo_faults import FAULTS
from turnfold_cli.demo_gateway import LOST
from turnfold_cli.demo_plan import SOCKETS, Again, Class, Message, Plan
from turnfold_cli.demo_processes import DemoError, Gateway, platform, within
from turnfold_cli.demo_run import LOG, Evidence, Poster, Progress, ask, settle
from turnfold_cli.demo_server import LEASE_MS, Wire, address, server

_PAUSE_LEASES = (0.1, 1.5)  # shorter and longer than the lease
_WITHIN_S = 90.0
_STARTS = 2  # may fail in a row: a store whose connection is cut cannot be opened
_NOBODY = "no gateway listened again"
_POLL_S = 0.02


@frozen(kw_only=True)
class Trouble:
    """The faults of hosts while messages come in."""

    hosts: int
    kills: int
    pauses: int
    cuts: int
    faults: Sequence[str] = ()  # of all hosts, or of the server: names of FAULTS
    shards: int = 1

    def moments(self, rng: random.Random) -> list[str]:
        """The order of the faults."""
        each = {"kill": self.kills, "pause": self.pauses, "cut": self.cuts}
        moments = [name for name, count in each.items() for _ in range(count)]
        moments += self.faults
        rng.shuffle(moments)
        return moments


@define
class Hosts:
    """All gateways, each with its wire to the server."""

    gateways: Sequence[Gateway]
    wires: Sequence[Wire]
    evidence: Evidence
    rng: random.Random
    server: Any
    _forgives: bool = False
    _keepers: list[asyncio.Task[None]] = field(factory=list)
    _ending: bool = False

    async def start(self) -> None:
        for gateway in self.gateways:
            await gateway.start()
            self._keepers.append(asyncio.create_task(self._keep(gateway)))

    async def _keep(self, gateway: Gateway) -> None:
        """Start a gateway again when it ends, as a supervisor does."""
        failed = 0  # starts in a row that were none
        while True:
            status = await gateway.ended()
            if self._ending:
                return
            failed = 0 if gateway.served else failed + 1
            if self._forgives:
                await asyncio.sleep(0.2)
            elif status not in (-signal.SIGKILL, LOST) and not 0 < failed <= _STARTS:
                raise DemoError(f"a gateway ended with {status}; see its log")
            await gateway.start()

    async def listening(self) -> str:
        """A random one of the listening gateways."""
        async with within(_WITHIN_S, _NOBODY):
            while not (open_ := [g for g in self.gateways if g.listens]):
                self._check()
                await asyncio.sleep(_POLL_S)
        return self.rng.choice(open_).url

    @contextmanager
    def forgiving(self) -> Iterator[None]:
        """In this block a gateway may end by itself: its server is down, or it was told
        to."""
        self._forgives = True
        try:
            yield
        finally:
            self._forgives = False

    async def all_listen(self, starts: Sequence[int] = ()) -> None:
        """Wait until all listen, each in a life after the given one."""
        async with within(_WITHIN_S, _NOBODY):
            for number, gateway in enumerate(self.gateways):
                before = starts[number] if starts else 0
                while gateway.starts <= before or not gateway.listens:
                    self._check()
                    await asyncio.sleep(_POLL_S)

    def _check(self) -> None:
        for keeper in self._keepers:
            if keeper.done():
                keeper.result()

    async def suffer(self, what: str) -> None:
        """One fault of one host, mostly of the worker; or a fault of all hosts."""
        self._check()
        if what in FAULTS:
            self.evidence.faults.append(what)
            await FAULTS[what](self, self.rng)
            return
        number = self.victim()
        gateway = self.gateways[number]
        await asyncio.sleep(self.rng.uniform(0, 0.1))
        if what == "cut":
            self.wires[number].cut()
            self.evidence.cuts += 1
        elif what == "kill":
            gateway.signal(signal.SIGKILL)
            self.evidence.kills += 1
            await self._until_back(gateway)
        else:
            gateway.signal(signal.SIGSTOP)
            self.evidence.pauses += 1
            await asyncio.sleep(self.rng.uniform(*_PAUSE_LEASES) * LEASE_MS / 1000)
            gateway.signal(signal.SIGCONT)

    def victim(self) -> int:
        """Mostly one that works."""
        workers = [n for n, g in enumerate(self.gateways) if g.working]
        if workers and self.rng.random() < 0.7:
            return self.rng.choice(workers)
        return self.rng.randrange(len(self.gateways))

    async def _until_back(self, gateway: Gateway) -> None:
        starts = gateway.starts
        async with within(_WITHIN_S, _NOBODY):
            while gateway.starts == starts or not gateway.listens:
                self._check()
                await asyncio.sleep(_POLL_S)

    async def end(self) -> None:
        self._check()
        self._ending = True
        for gateway in self.gateways:
            await gateway.end(LOST)  # it may lose its lease meanwhile
        await asyncio.gather(*self._keepers)

    async def abandon(self) -> None:
        self._ending = True
        for keeper in self._keepers:
            keeper.cancel()
        for gateway in self.gateways:
            await gateway.abandon()


@asynccontextmanager
async def played(
    plan: Plan,
    trouble: Trouble,
    mode: Class,
    seed: int,
    folder: Path,
    progress: Progress,
) -> AsyncIterator[Evidence]:
    """Run the whole plan; the evidence can be judged while the server still runs."""
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    began = time.monotonic()
    among = max(plan.parts * 2 // 3, plan.cuts)
    lease, shards = LEASE_MS, trouble.shards
    async with AsyncExitStack() as stack:
        sockets = folder / SOCKETS
        running = await stack.enter_async_context(server(sockets))
        where = address(sockets, lease, shards)
        evidence = Evidence(folder, where, hosts=trouble.hosts, shards=shards)
        url = await stack.enter_async_context(
            platform(mode, seed, plan.cuts, among, folder)
        )
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=10.0))
        async with _hosts(url, mode, evidence, running, rng, lease) as hosts:
            poster = Poster(client, hosts, evidence, progress, rng)
            await _play(plan, trouble, hosts, poster)
            evidence.settled = await settle(evidence.address, progress)
            await hosts.end()
            evidence.starts = sum(g.starts for g in hosts.gateways)
            evidence.takeovers = sum(g.works for g in hosts.gateways) - 1
        await ask(client, url, evidence)
        evidence.seconds = time.monotonic() - began
        yield evidence


@asynccontextmanager
async def _hosts(
    platform_url: str,
    mode: Class,
    evidence: Evidence,
    running: Any,
    rng: random.Random,
    lease: int,
) -> AsyncIterator[Hosts]:
    sockets = evidence.folder / SOCKETS
    async with AsyncExitStack() as stack:
        log = stack.enter_context((evidence.folder / LOG).open("ab"))
        wires = [
            await stack.enter_async_context(Wire(evidence.folder / f"h{n}", sockets))
            for n in range(evidence.hosts)
        ]
        shards = evidence.shards
        stores = [address(wire.folder, lease, shards) for wire in wires]
        gateways = [Gateway(store, platform_url, mode, log) for store in stores]
        hosts = Hosts(gateways, wires, evidence, rng, running)
        stack.push_async_callback(hosts.abandon)
        await hosts.start()
        yield hosts


async def _play(plan: Plan, trouble: Trouble, hosts: Hosts, poster: Poster) -> None:
    """Post the messages, with one fault after each share of them."""
    moments = trouble.moments(poster.rng)
    shares = len(moments) + 1
    total = len(plan.messages)
    late: list[Message] = []
    async with asyncio.TaskGroup() as posts:
        for number in range(shares):
            first, end = (total * n // shares for n in (number, number + 1))
            batch = plan.messages[first:end]
            for message in late:
                posts.create_task(poster.repeat(message))
            for message in batch:
                posts.create_task(poster.post(message))
            late = [m for m in batch if m.again is Again.LATER]
            if number < len(moments):
                poster.progress.stage = moments[number]
                await hosts.suffer(moments[number])
                poster.progress.kills = poster.evidence.kills
        for message in late:
            posts.create_task(poster.repeat(message))
