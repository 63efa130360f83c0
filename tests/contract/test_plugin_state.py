"""State of plugins: memory first, quotas by namespace, one taker, and a store that fails."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import apsw
import pytest

from turnfold import Kernel
from turnfold.api.plugins import Item, Namespace, Unreadable
from turnfold.errors import BackPressureError, InvalidInputError
from turnfold_adapters.plugins import sqlite
from turnfold_model.testing.clock import FakeClock

ROOT = Path(__file__).parents[2]
HOUR = 3_600_000


class Home:
    """Kernels on one file; none of them need be open."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, FakeClock()

    def kernel(self) -> Kernel:
        return Kernel(self.path, clock=self.clock)

    def open(self, name: str = "n", plugin: str = "p", **more) -> Namespace:
        return self.kernel().state(plugin).open(name, **more)

    @property
    def file(self) -> Path:
        return Path(f"{self.path}.plugins")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "g.db")


@pytest.fixture(params=["file", "memory"])
def space(request: pytest.FixtureRequest, home: Home):
    """Opens a namespace, with a store beside it and without one."""
    if request.param == "memory":
        kernel = Kernel("memory:x", clock=home.clock)
        return lambda **more: kernel.state("p").open("n", **more)
    return home.open


# --- values ---


def test_a_value_is_there_until_it_is_deleted(space) -> None:
    state = space()
    assert state.lookup("a") is None
    first = state.register("a", {"x": [1, 2.5, None, "ü"]})
    assert state.lookup("a") == {"x": [1, 2.5, None, "ü"]}
    assert first.new
    second = state.register("a", 2)
    assert second.version > first.version
    state.register("b", 3)
    assert [item.key for item in state.entries()] == ["a", "b"]
    assert (state.delete("a"), state.delete("a"), state.clear()) == (True, False, 1)
    assert state.entries() == []


def test_what_a_caller_does_with_a_value_changes_nothing(space) -> None:
    state = space()
    state.register("a", mine := [1])
    mine.append(2)
    state.lookup("a").append(3)
    assert state.lookup("a") == [1]


def test_the_first_registration_stands(space) -> None:
    state = space()
    assert state.register_if_absent("a", 1).new
    second = state.register_if_absent("a", 2)
    assert (second.value, second.new) == (1, False)


def test_a_value_is_set_only_over_the_version_that_was_seen(space) -> None:
    state = space()
    assert state.compare_and_set("a", 1, 7) is None
    first = state.compare_and_set("a", 1, 0)
    assert state.compare_and_set("a", 2, 0) is None
    second = state.compare_and_set("a", 2, first.version)
    assert state.compare_and_set("a", 3, first.version) is None
    state.delete("a")
    assert state.compare_and_set("a", 3, second.version) is None
    again = state.register("a", 2)
    assert again.version > second.version  # no version comes twice
    assert state.lookup("a") == 2


def test_many_are_looked_up_in_their_order(space) -> None:
    state = space(max_entries=2)
    for number in range(2):
        state.register(str(number), number)
    found = state.lookup_many(["1", "x", "0", "1"])
    assert [item and item.value for item in found] == [1, None, 0, 1]


@pytest.mark.case("O03")
def test_a_value_is_consumed_once_and_not_after_its_time(space, home: Home) -> None:
    state = space(ttl_ms=1_000)
    state.register("a", 1)
    state.register("b", 2, ttl_ms=5_000)
    item = state.consume("a")
    assert (item.value, item.new) == (1, False)
    assert state.consume("a") is None
    state.register("a", 1)
    home.clock.pass_ms(1_000)
    assert state.consume("a") is None
    assert (state.lookup("a"), state.lookup("b")) == (None, 2)
    home.clock.pass_ms(4_000)
    assert state.entries() == []


@pytest.mark.case("O04")
def test_an_expired_value_is_replaced_though_no_sweep_has_met_it(
    space, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = sqlite._SWEEP_SOME.replace("LIMIT 100", "LIMIT 0")
    monkeypatch.setattr(sqlite, "_SWEEP_SOME", some)
    state = space(max_entries=1, overflow="reject")
    state.register("a", 1, ttl_ms=1_000)
    home.clock.pass_ms(1_000)
    item = state.register_if_absent("a", 2)
    assert (item.value, item.new) == (2, True)


@pytest.mark.case("O05")
def test_a_write_sweeps_a_hundred_expired_values_at_most(home: Home) -> None:
    state = home.open()
    for number in range(250):
        state.register(str(number), 0, ttl_ms=1_000)
    home.clock.pass_ms(2_000)
    left = []
    for number in range(3):
        state.register("new", number)
        ((rows,),) = apsw.Connection(str(home.file)).execute(
            "SELECT count(*) FROM items"
        )
        left.append(rows)
    assert left == [151, 51, 1]


@pytest.mark.parametrize(
    ("key", "value", "more"),
    [
        ("", 1, {}),
        ("a\0", 1, {}),
        (7, 1, {}),
        ("a", object(), {}),
        ("a", float("nan"), {}),
        ("a", "x" * 70_000, {}),
        ("a", "\ud800", {}),
        ("a", 1, {"ttl_ms": 0}),
        ("a", 1, {"ttl_ms": "1"}),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    space, key, value, more
) -> None:
    state = space()
    with pytest.raises(InvalidInputError):
        state.register(key, value, **more)
    assert state.entries() == []


@pytest.mark.parametrize(
    "more",
    [{"max_entries": 0}, {"ttl_ms": -1}, {"overflow": "burst"}, {"schema": 0}],
)
def test_limits_are_checked(space, more) -> None:
    with pytest.raises(InvalidInputError):
        space(**more)


def test_a_namespace_has_one_set_of_limits(home: Home) -> None:
    state = home.kernel().state("p")
    assert state.open("n", max_entries=5) is state.open("n", max_entries=5)
    with pytest.raises(InvalidInputError):
        state.open("n", max_entries=6)


# --- limits ---


def test_the_oldest_of_its_own_namespace_go(home: Home) -> None:
    kernel = home.kernel()
    small = kernel.state("p").open("small", max_entries=2)
    other = kernel.state("p").open("other", max_entries=2)
    stranger = kernel.state("q").open("small", max_entries=2)
    for state in (other, stranger):
        state.register("old", 0)
    for number in range(4):
        small.register(str(number), number)
    assert [item.key for item in small.entries()] == ["2", "3"]
    assert (small.lookup("0"), small.lookup("3")) == (None, 3)
    assert (other.lookup("old"), stranger.lookup("old")) == (0, 0)


@pytest.mark.case("O02")
def test_a_namespace_that_rejects_warns_before_it_is_full(
    space, caplog: pytest.LogCaptureFixture
) -> None:
    state = space(max_entries=10, overflow="reject")
    for number in range(8):
        state.register(str(number), number)
    assert caplog.text == ""
    state.register("8", 8)
    assert "9 of 10 entries" in caplog.text
    assert state.nearly_full
    state.register("9", 9)
    with pytest.raises(BackPressureError):
        state.register("10", 10)
    with pytest.raises(BackPressureError):
        state.register_if_absent("10", 10)
    state.register("9", "new")  # over what is there
    assert (len(state.entries()), state.lookup("9")) == (10, "new")
    assert caplog.text.count("entries") == 1


# --- other processes, and the next one ---


@pytest.mark.case("O07")
def test_after_a_restart_a_miss_in_memory_is_one_read_of_the_store(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.open().register("a", 1)
    state = home.open()
    asked = []
    get = sqlite.SqlitePluginStore.get

    def counted(self, space, keys, now):
        asked.append(keys)
        return get(self, space, keys, now)

    monkeypatch.setattr(sqlite.SqlitePluginStore, "get", counted)
    assert [state.lookup("a") for _ in range(3)] == [1, 1, 1]
    assert asked == [["a"]]


def test_what_another_process_has_changed_is_seen(home: Home) -> None:
    ours, theirs = home.open(), home.open()
    ours.register("a", 1)
    assert theirs.lookup("a") == 1
    ours.register("a", 2)
    assert theirs.lookup("a") == 2
    assert theirs.consume("a").value == 2
    assert ours.lookup("a") is None


def test_nothing_is_made_before_the_first_write(home: Home) -> None:
    state = home.open()
    state.lookup("a"), state.entries(), state.consume("a"), state.clear()
    assert not home.file.exists()
    state.register("a", 1)
    assert home.file.exists()


def test_its_file_is_read_by_the_user_of_the_gateway_alone(home: Home) -> None:
    home.open().register("k", "secret")
    files = [*home.path.parent.glob("*.plugins*")]
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_it_works_before_open_and_after_close(home: Home) -> None:
    kernel = home.kernel()
    state = kernel.state("p").open("n")
    state.register("a", 1)
    async with kernel:
        assert kernel.health()["plugin_state"]["failing"] is None
        assert await asyncio.to_thread(state.lookup, "a") == 1
    assert not await asyncio.to_thread(Path(f"{home.file}-wal").exists)  # in order
    assert state.lookup("a") == 1


def test_threads_may_ask_at_once(home: Home) -> None:
    state = home.open()
    taken: list[Item] = []
    for number in range(50):
        state.register(str(number), number)

    def take() -> None:
        for number in range(50):
            item = state.consume(str(number))
            if item is not None:
                taken.append(item)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item.value for item in taken) == list(range(50))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_after_a_fork_has_a_connection_of_its_own(home: Home) -> None:
    state = home.open()
    state.register("a", 1)
    pid = os.fork()
    if pid == 0:
        good = state.lookup("a") == 1 and state.consume("a").value == 1
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert state.lookup("a") is None
    assert state.register("b", 1).durable


# --- a store that fails ---


def _break(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    calls: list[str] = []
    for name in names:

        def broken(self, *args, name=name):
            calls.append(name)
            raise sqlite.DiskError(path=self.address, problem="no space left")

        monkeypatch.setattr(sqlite.SqlitePluginStore, name, broken)
    return calls


@pytest.mark.case("O06")
async def test_a_store_that_fails_is_told_once_and_left_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = home.kernel()
    state = kernel.state("p").open("n", max_entries=3)
    assert state.register("before", 1).durable
    calls = _break(monkeypatch, "write", "get", "take", "drop", "rows", "changed")
    assert state.lookup("before") == 1
    item = state.register("a", 2)
    assert (item.value, item.durable) == (2, False)
    assert item.version > 1
    assert state.compare_and_set("a", 3, item.version).durable is False
    assert state.lookup("a") == 3
    taken = state.consume("a")
    assert (taken.value, taken.durable, state.consume("a")) == (3, False, None)
    for number in range(5):
        state.register(str(number), number)
    assert [item.key for item in state.entries()] == ["2", "3", "4"]
    assert (state.delete("2"), state.clear()) == (True, 2)
    assert len(calls) == 1
    assert caplog.text.count("goes on in memory alone") == 1
    monkeypatch.undo()
    assert state.register("later", 1).durable is False  # for as long as the process
    async with kernel:
        assert "no space left" in kernel.health()["plugin_state"]["failing"]
        reasons = kernel.is_well().reasons
        assert any("plugin state" in reason for reason in reasons)


@pytest.mark.case("O06")
@pytest.mark.parametrize("what", ["garbage", "newer", "foreign", "folder"])
def test_a_file_that_cannot_be_used_is_a_store_that_fails(
    home: Home, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    if what == "garbage":
        home.file.write_bytes(b"no database" * 1_000)
    elif what == "newer":
        home.open().register("a", 1)
        apsw.Connection(str(home.file)).execute("PRAGMA user_version = 99")
    elif what == "foreign":
        apsw.Connection(str(home.file)).execute("CREATE TABLE t (x)")
    else:
        home.file.mkdir()
    state = home.open()
    assert state.register("b", 2).durable is False
    assert state.lookup("b") == 2
    assert caplog.text.count("memory alone") == 1


@pytest.mark.case("O08")
def test_a_value_that_cannot_be_read_is_a_problem_of_its_key_alone(home: Home) -> None:
    state = home.open()
    for key in ("a", "torn", "b"):
        state.register(key, key)
    kernel = home.kernel()
    newer = kernel.state("p").open("n", schema=2)
    newer.register("newer", 1)
    db = apsw.Connection(str(home.file))
    db.execute("UPDATE items SET data = x'7b' WHERE key = 'torn'")
    db.close()
    found = state.lookup_many(["a", "torn", "none", "newer", "b"])
    kinds = [type(one) for one in found]
    assert kinds == [Item, Unreadable, type(None), Unreadable, Item]
    assert "no JSON" in found[1].problem
    assert "schema 2" in found[3].problem
    assert (state.lookup("torn"), state.lookup("newer")) == (None, None)
    assert [item.key for item in state.entries()] == ["a", "b"]
    assert state.consume("newer") is None
    assert newer.lookup("newer") == 1  # it is left for who can read it
    assert state.register_if_absent("torn", "whole").new
    assert state.lookup("torn") == "whole"


# --- exactly one taker ---

RACER = """
import os, sys, time
from turnfold import Kernel
path, keys, go = sys.argv[1], int(sys.argv[2]), sys.argv[3]
state = Kernel(path).state("p").open("n", max_entries=10_000)
state.lookup("0")
out = os.open(sys.argv[4], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while not os.path.exists(go):
    time.sleep(0.001)
for number in range(keys):
    item = state.consume(str(number))
    if item is not None:
        os.write(out, f"{number} {int(item.durable)}\\n".encode())
"""


def _race(
    home: Home, keys: int, racers: int, kill: bool
) -> list[list[tuple[int, int]]]:
    state = home.open(max_entries=10_000)
    for number in range(keys):
        state.register(str(number), number)
    go = home.path.parent / "go"
    logs = [home.path.parent / f"taken{number}" for number in range(racers)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(home.path), str(keys), str(go), str(log)]
        )
        for log in logs
    ]
    while not all(log.exists() for log in logs):
        time.sleep(0.01)
    go.touch()
    if kill:
        for number, one in enumerate(running[:-1]):
            while not logs[number].read_text() and one.poll() is None:
                time.sleep(0.001)
            one.send_signal(signal.SIGKILL)
    codes = [one.wait(60) for one in running]
    assert codes[-1] == 0
    told = [log.read_text().splitlines(keepends=True) for log in logs]
    whole = [[line for line in lines if line.endswith("\n")] for lines in told]
    return [[tuple(map(int, line.split())) for line in lines] for lines in whole]


@pytest.mark.case("O03")
def test_of_several_processes_one_takes_each_value(home: Home) -> None:
    taken = _race(home, keys=120, racers=3, kill=False)
    every = [one for lines in taken for one in lines]
    assert sorted(every) == [(number, 1) for number in range(120)]


@pytest.mark.case("O03")
def test_killed_in_the_middle_no_value_is_taken_twice_or_left(home: Home) -> None:
    taken = _race(home, keys=200, racers=3, kill=True)
    every = [number for lines in taken for number, _ in lines]
    assert len(every) == len(set(every))  # nobody took what another one had
    lost = set(range(200)) - set(every)
    assert len(lost) <= 2  # a process died between taking one and saying so
    assert home.open(max_entries=10_000).entries() == []


# --- the five uses of examples/plugin_state ---


@pytest.fixture
def uses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "plugin_state"))
    import uses

    yield uses
    del sys.modules["uses"]


def test_the_bot_knows_its_threads_after_a_restart(home: Home, uses) -> None:
    uses.Threads(home.kernel()).joined("slack", "1.2")
    again = uses.Threads(home.kernel())
    assert (again.is_in("slack", "1.2"), again.is_in("slack", "9")) == (True, False)
    home.clock.pass_ms(31 * 24 * HOUR)
    assert not again.is_in("slack", "1.2")


def test_a_click_finds_its_component(home: Home, uses) -> None:
    uses.Components(home.kernel()).add(["yes", "no"], {"do": "deploy"})
    again = uses.Components(home.kernel())
    assert again.actions(["no", "old"]) == [{"do": "deploy"}, None]


def test_a_form_is_submitted_once(home: Home, uses) -> None:
    one, two = uses.Modals(home.kernel()), uses.Modals(home.kernel())
    one.show("form", {"user": "ann"})
    assert two.submitted("form") == {"user": "ann"}
    assert one.submitted("form") is None


def test_the_bot_knows_its_own_echo(home: Home, uses) -> None:
    uses.SentMessages(home.kernel()).sent("m1", "entry:1")
    again = uses.SentMessages(home.kernel())
    assert (again.is_echo("m1"), again.is_echo("m2")) == (True, False)


def test_the_first_reaction_decides_and_only_about_what_was_shown(
    home: Home, uses
) -> None:
    one, two = uses.Approvals(home.kernel()), uses.Approvals(home.kernel())
    old = one.ask("m1", "deploy")
    shown = one.ask("m1", "deploy to production")
    assert not two.react("m1", old, "ann", allow=True)
    assert two.react("m1", shown, "ann", allow=False)
    assert not one.react("m1", shown, "bob", allow=True)
    decision = one.decision("m1")
    assert (decision["by"], decision["allow"]) == ("ann", False)
    assert json.dumps(decision)
