"""Plugin state in the database of a store: the same promises as beside a file."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from turnfold import Kernel
from turnfold.api.plugins import Namespace
from turnfold.errors import BackPressureError
from turnfold_cli.audit import Wanted, audits_of
from turnfold_model.testing.clock import FakeClock

from .postgres import Postgres


class Hosts:
    """Kernels on one database; none of them need be open."""

    def __init__(self, address: str) -> None:
        self.address, self.clock = address, FakeClock()
        self.made: list[Kernel] = []

    def open(self, **more: object) -> Namespace:
        self.made.append(Kernel(self.address, clock=self.clock))
        return self.made[-1].state("p").open("n", **more)  # type: ignore[arg-type]

    def end(self) -> None:
        for kernel in self.made:
            kernel._close_plugins()


@pytest.fixture
def hosts(postgres: Postgres) -> Iterator[Hosts]:
    made = Hosts(postgres.address())
    yield made
    made.end()


def test_values_are_seen_by_every_host(hosts: Hosts) -> None:
    one, two = hosts.open(), hosts.open()
    assert one.lookup("a") is None
    first = one.register("a", {"x": [1, 2.5, None, "ü\0"]})
    assert first.durable
    assert two.lookup("a") == {"x": [1, 2.5, None, "ü\0"]}
    assert two.compare_and_set("a", 2, first.version + 1) is None
    second = two.compare_and_set("a", 2, first.version)
    assert second is not None
    assert second.version > first.version
    assert one.lookup("a") == 2
    assert not one.register_if_absent("a", 3).new
    one.register("b", 3, ttl_ms=100)
    assert [item.key for item in two.entries()] == ["a", "b"]
    hosts.clock.pass_ms(100)
    assert two.lookup("b") is None
    assert one.register_if_absent("b", 4).new
    assert (two.delete("a"), one.delete("a"), two.clear()) == (True, False, 1)


def test_limits_count_over_all_hosts(hosts: Hosts) -> None:
    one, two = (hosts.open(max_entries=2) for _ in range(2))
    for name in ("a", "b"):
        one.register(name, 1)
    two.register("c", 1)
    assert [item.key for item in one.entries()] == ["b", "c"]
    strict = hosts.open(max_entries=2, overflow="reject")
    with pytest.raises(BackPressureError):
        strict.register("d", 1)
    strict.register("c", 2)


def test_of_several_hosts_one_takes_each_value(hosts: Hosts) -> None:
    first = hosts.open()
    for number in range(8):
        first.register(f"{number}", number)
    taken: list[object] = []

    def take() -> None:
        state = hosts.open()
        for number in range(8):
            found = state.consume(f"{number}")
            if found is not None:
                taken.append(found.value)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(8))  # type: ignore[type-var]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside a thread
def test_a_child_after_a_fork_has_a_connection_of_its_own(hosts: Hosts) -> None:
    state = hosts.open()
    state.register("a", 1)
    pid = os.fork()
    if pid == 0:
        kept = state.register("b", 2).durable and state.lookup("a") == 1
        os._exit(0 if kept else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert state.lookup("b") == 2


async def test_it_works_before_the_tables_and_beside_an_open_kernel(
    hosts: Hosts, postgres: Postgres
) -> None:
    state = hosts.open()
    assert state.lookup("a") is None, "nothing is made before the first write"
    schema = hosts.address.rpartition("=")[2]
    sql = "SELECT FROM pg_namespace WHERE nspname = $1"
    assert not await postgres.execute(sql, schema)
    state.register("a", 1)
    async with hosts.made[0] as kernel:
        assert kernel.state("p").open("n").lookup("a") == 1
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    await postgres.execute(f"{sql} WHERE application_name = 'turnfold plugins'")
    await asyncio.sleep(0.05)
    assert state.lookup("a") == 1, "a look is asked again"
    assert state.register("b", 1).durable
    await postgres.execute(f"UPDATE {schema}.plugin_change SET layout = 9")
    assert not state.register("c", 1).durable, "a newer layout is left alone"


async def test_the_audit_of_a_store_asks_for_the_faults_of_plugin_state(
    hosts: Hosts, postgres: Postgres
) -> None:
    schema = hosts.address.rpartition("=")[2]
    state = hosts.open()

    async def found() -> list[str]:
        (report,) = await asyncio.to_thread(audits_of, hosts.address, Wanted())
        return [finding.text for finding in report.findings]

    async with hosts.made[0]:
        assert await found() == [], "nobody has written yet"
        for key in ("a", "b"):
            state.register(key, 1)
        assert await found() == []
    await postgres.execute(f"UPDATE {schema}.plugin_item SET version = 7")
    assert await found() == [
        "a value has a version that was never given out",
        "two values have the same version",
    ]


def test_a_schema_may_have_the_word_for_a_shard_in_its_name(postgres: Postgres) -> None:
    hosts = Hosts(postgres.address("SHARDS"))
    assert hosts.open().register("a", 1).durable
    assert hosts.open().lookup("a") == 1
    hosts.end()
