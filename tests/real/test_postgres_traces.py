"""What handles of a real PostgreSQL do with one shard is a behaviour of `specs/Lease.tla`.

Hosts do what the dice say: take, commit, lose answers, hand over, fall silent, are called
dead; the server goes back. After each act the tables are read, and TLC is asked whether
the module has these steps."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from turnfold.errors import DiskError, FateUnknownError, LostStoreError
from turnfold_adapters.stores.postgres import PostgresStore, watchdog
from turnfold_adapters.stores.postgres.certificates import Certifier
from turnfold_adapters.stores.processes import start_time
from turnfold_model.checks.store_kit import put
from turnfold_model.tla import tlc, tlc_traces, trace_lease
from turnfold_model.tla.trace import Step, Trace, without_a_required_step

from .postgres import Postgres, cut, kill
from .went_back import Standby

if tlc.missing():
    pytest.skip(f"NO TLC HERE: {tlc.missing()}", allow_module_level=True)
HOSTS, ACTS, SEEDS = 3, 40, (1, 2, 4, 18)
_SHARD = "SELECT owner, token, freed IS NOT DISTINCT FROM token AS freed, position FROM {}.shard"
pytestmark = pytest.mark.timeout(240)


@contextmanager
def stand_in() -> Iterator[int]:
    """A process that does nothing."""
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            yield child.pid
        finally:
            child.kill()


class Host:
    """A process with its handle of the shard. `seat`: it believes that it has one."""

    def __init__(self, address: str) -> None:
        self.store = PostgresStore(address)
        self.name, self.up, self.seat, self.doubt = "", True, False, False

    async def enter(self) -> None:
        await self.store.open()
        await self.store.seats().enter()
        owner = self.store._shared.life.owner
        assert owner is not None
        self.name, self.part = owner.id, self.store.shard(0)
        await self.part.open()

    def leaves(self) -> None:
        """It has lost its seat, and goes as a whole."""
        self.up = self.seat = False

    async def end(self) -> None:
        await kill(self.store)
        await self.part.close()
        await self.store.close()


class Play:
    """`steps`: what was done, and the tables after it."""

    def __init__(self, postgres: Postgres, seed: int) -> None:
        self.postgres, self.schema = postgres, f"lease_{seed}"
        self.dice = random.Random(seed)
        address = postgres.address(self.schema) + "&shards=1&lease_ms=60000"
        self.hosts = [Host(address) for _ in range(HOSTS)]
        self.standby = Standby(postgres, self.schema)
        self.steps: list[Step] = []
        self.back = 0  # 1: a standby has fallen behind; 2: it was promoted

    async def done(self, event: str) -> None:
        rows = await self.postgres.execute(
            f"SELECT id, state FROM {self.schema}.worker"
        )
        states = dict(map(tuple, rows))
        [shard] = await self.postgres.execute(_SHARD.format(self.schema))
        names = [host.name for host in self.hosts]
        owner = names.index(shard["owner"]) + 1 if shard["owner"] else 0
        log = trace_lease.Log(
            row=tuple(states.get(name, "none") for name in names),
            owner=owner,
            token=shard["token"],
            freed=bool(shard["freed"]),
            records=shard["position"],
        )
        self.steps.append(Step(event, log))

    async def run(self) -> Trace:
        for host in self.hosts:
            await host.enter()
            await self.done("enter")
        for _ in range(ACTS):
            await self.act()
        for host in self.hosts:
            await host.end()
        constants = ("Lives", HOSTS), ("Records", ACTS), ("Failovers", 1)
        return Trace("Lease", constants, tuple(self.steps))

    async def act(self) -> None:
        living = [host for host in self.hosts if host.up]
        if not living:
            return
        host = self.dice.choice(living)
        if len(living) > 1 and self.dice.random() < 0.12:
            await self.dies(host, next(h for h in living if h is not host))
        elif self.dice.random() < 0.1:
            await self.goes_back()
        elif not host.seat:
            await self.takes(host)
        elif host.doubt and self.dice.random() < 0.3:
            await self.asks_in_vain(host)
        elif host.doubt:
            await self.reopens(host)
        elif self.dice.random() < 0.2:
            await self.hands_over(host)
        else:
            await self.commits(host)

    async def takes(self, host: Host) -> None:
        if await host.part.ownership().take() is not None:
            host.seat = True
            await self.done("take")

    async def commits(self, host: Host) -> None:
        way = self.dice.choice(["commit", "commit", "stored_unanswered", "never_sent"])
        if way != "commit":
            cut(host.store, way == "stored_unanswered")
        try:
            await put(host.part, "entry:a")
        except LostStoreError:
            host.leaves()
        except FateUnknownError:
            host.doubt = True
            await self.done(way)
        else:
            await self.done(way)

    async def reopens(self, host: Host) -> None:
        try:
            await host.part.reopen()
        except LostStoreError:
            host.leaves()
        else:
            host.doubt = False
            await self.done("reopen")

    async def asks_in_vain(self, host: Host) -> None:
        """It takes a new token, and the answer is lost."""
        _, before = await self.of_shard()
        life = host.part._ownership._life
        asked = life.asked

        async def unanswered(ask: Any, shard: int = 0) -> Any:
            await asked(ask, shard)
            raise DiskError(path="the server", problem="cut by the test")

        life.asked = unanswered  # type: ignore[method-assign]
        with suppress(DiskError):
            await host.part.reopen()
        life.asked = asked  # type: ignore[method-assign]
        if (await self.of_shard())[1] != before:
            await self.done("token_unanswered")

    async def hands_over(self, host: Host) -> None:
        _, before = await self.of_shard()
        host.part.ownership().release()
        await host.part.ownership().left()
        host.seat = False
        owner, token = await self.of_shard()
        if token != before:
            assert owner == host.name
            await self.done("hand_over")

    async def of_shard(self) -> tuple[str, int]:
        [row] = await self.postgres.execute(_SHARD.format(self.schema))
        return row["owner"], row["token"]

    async def dies(self, host: Host, other: Host) -> None:
        """A person or an orchestrator says so, or its silence, or the watchdog of its
        machine."""
        if (await self.of_shard())[0] != host.name:
            return
        host.up = False
        if self.dice.random() < 0.5:
            by_name = len(self.steps) % 2
            if by_name:
                said = await self.is_certified_by_name(host)
            else:
                said = await other.store.certify(host.name, "a test")
            if said:
                await self.done("certify")
            return
        if self.dice.random() < 0.5:
            if await self.is_silent(host):
                await other.store.seats().look()
                await self.done("silence")
            return
        # The hosts share this process, so another one stands in for this host's.
        with stand_in() as pid:
            child_is = f"pid = {pid}, started = {start_time(pid)}"
            if await self.is_silent(host, child_is):
                dog = watchdog.Watchdog(self.postgres.address(self.schema))
                await dog.open()
                acts = await dog.look()
                await dog.close()
                assert [act.workers for act in acts if act.did == "ended"] == [
                    (host.name,)
                ]
                await self.done("watchdog")

    async def is_certified_by_name(self, host: Host) -> bool:
        """By an orchestrator, of whose machine nothing is seen here."""
        if not await self.is_silent(host, "boot = 'another', instance = id"):
            return False
        certifier = Certifier(self.postgres.address(self.schema))
        await certifier.open()
        verdict = await certifier.certify(host.name, "a test")
        await certifier.close()
        return verdict.did == "certified"

    async def is_silent(self, host: Host, more: str = "") -> bool:
        """From now on, unless it counts as dead already."""
        sets = ", ".join(
            ["lease_until = now() - '1 h'::interval", *filter(None, [more])]
        )
        sql = f"UPDATE {self.schema}.worker SET {sets} WHERE id = $1 AND state = 'alive' RETURNING 1"
        return bool(await self.postgres.execute(sql, host.name))

    async def goes_back(self) -> None:
        self.back += 1
        if self.back == 1:
            await self.standby.falls_behind()
            await self.done("falls_behind")
        elif self.back == 2:
            await self.standby.promote()
            await self.done("failover")


async def test_what_hosts_do_is_a_behaviour_of_the_module(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_S", 0.0)
    traces = [await Play(postgres, seed).run() for seed in SEEDS]
    wrong = [one for few in map(without_a_required_step, traces) for one in few[::3]]
    done, still = tlc_traces.check(traces), tlc_traces.check(wrong)
    assert [tlc_traces.shown(trace) for trace in done.refused] == []
    assert len(wrong) > 2 * len(traces)
    assert still.accepted == 0
    seen = {step.event for trace in traces for step in trace.steps}
    assert seen == set(trace_lease.ACTIONS)
