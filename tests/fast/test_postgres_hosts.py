"""Several hosts in the address of a store on PostgreSQL: how it is read, and which host
is the primary. No server is asked: the hosts are played."""

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import Any

import pytest

from turnfold.errors import (
    DiskError,
    InvalidInputError,
    NoAccessError,
    StoreError,
    UnsafeStoreError,
)
from turnfold_adapters.stores.postgres import primary
from turnfold_adapters.stores.postgres.connection import Link, Place
from turnfold_adapters.stores.postgres.hosts import Host
from turnfold_adapters.stores.postgres.primary import Way

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "hosts", "address"),
    [
        ("u:s3cret@a:1,b:2/d", ["a:1", "b:2"], "u@a:1,b:2/d"),
        ("a,b/d?target_session_attrs=read-write", ["a", "b"], "a,b/d"),
        ("a,b/d?target_session_attrs=primary&port=7", ["a:7", "b:7"], "a:7,b:7/d"),
        ("u@/d?host=/tmp/a,b&port=1,2", ["/tmp/a:1", "b:2"], "u@/tmp/a:1,b:2/d"),
        ("%2Ftmp:5,[::1]:6,[::2]/d", ["/tmp:5", "[::1]:6", "[::2]"], None),
        ("u:a%2Cs3cret@a,b/d", ["a", "b"], "u@a,b/d"),
        ("u:s3cret@a:1/d", [], "u@a:1/d"),
        ("/d?host=/tmp", [], "/tmp/d"),
        ("[::1]:5/d", [], "[::1]:5/d"),
    ],
)
def test_hosts_are_read(url: str, hosts: list[str], address: str | None) -> None:
    place = Place.parsed(f"postgresql://{url}")
    assert [*map(str, place.hosts)] == hosts
    if address is not None:
        assert place.address == f"postgresql://{address}?schema=turnfold"
    assert SECRET not in place.address
    assert (SECRET in place.dsn) == (SECRET in url)
    assert "target_session_attrs=any" in place.dsn, "turnfold itself looks"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("a,,b/d", "a host between two commas, or beside one, is empty"),
        ("a,/d", "is empty"),
        (",/d", "is empty"),
        (":1,b/d", "a port has no host"),
        ("a,b/d?port=1,2,3", "2 hosts and 3 ports: give one port for all"),
        ("a/d?port=1,2", "several ports and one host"),
        ("a:1,b/d?port=2", "take `port=` out"),
        ("a,b/d?host=c", "take `host=` out"),
        ("::1,b/d", "an IPv6 address stands in brackets"),
        ("[::1,b/d", "a host with . is no IPv6 address"),
        ("a:70000,b/d", "a port is no number from 1 to 65535"),
        ("a:0/d", "a port is no number"),
        ("a,b/d?target_session_attrs=any", "Write read-write, or leave it out"),
        (
            "a,b/d?target_session_attrs=prefer-standby",
            "give the address of that standby",
        ),
        ("a/d?target_session_attrs=read-only", "written on the primary alone"),
        # A password that is not written as it must be.
        ("u:s3cret/x@a,b/d", "%2F"),
        ("u:12/s3cret@a,b/d", "%2F"),
        ("u:s3cret@x@a/d", "%40"),
        ("u:12?s3cret@a/d", "%3F"),
        ("u:s3cret#@a/d", "%23"),
        ("u:s3cret/d", "if it belongs to a password"),
    ],
)
def test_odd_hosts_are_refused_and_say_what_to_do(url: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as raised:
        Place.parsed(f"postgresql://{url}")
    assert SECRET not in str(raised.value)


def test_hosts_of_the_environment_are_several_hosts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "1,2")
    assert [*map(str, Place.parsed("postgresql:///d").hosts)] == ["a:1", "b:2"]
    assert not Place.parsed("postgresql://c/d").hosts


# --- which host is the primary ------------------------------------------------------


class Server:
    """A played server, as a connection sees it. `history`: None on a standby."""

    def __init__(self, history: str | None, started: str = "") -> None:
        self.history, self.started = history, started or str(id(self))
        self.open = 0

    def connection(self) -> Any:
        return _Connection(self)


class _Connection:
    def __init__(self, server: Server) -> None:
        self.server, self.history, self.started = server, server.history, server.started
        server.open += 1

    async def fetch(self, _: str) -> Any:
        return [(self.history is None, self.started)]

    async def fetchval(self, _: str) -> Any:
        return self.history

    @asynccontextmanager
    async def transaction(self) -> Any:
        yield

    def terminate(self) -> None:
        self.server.open -= 1


def refused() -> StoreError:
    return DiskError(path="x", problem="no connection: refused")


class Cluster:
    """Hosts by name: a server, an error of a connection, or None for a silent one."""

    def __init__(self, **hosts: Server | StoreError | None) -> None:
        self.hosts = hosts
        self.way = Way([Host(name, None) for name in hosts], "postgresql://a,b/d")

    async def make(self, host: Host) -> Any:
        played = self.hosts[host.name]
        if played is None:
            await asyncio.sleep(60)
        if isinstance(played, StoreError):
            raise played
        assert played is not None
        return played.connection()

    async def found(self, *, looks: bool = False, later: bool = True) -> Server:
        if later:
            self.way._seen_at = 0.0  # so that all hosts are asked
        connection, turn = await self.way.connection(self.make, looks=looks)
        assert turn == self.way.turn
        server = connection.server  # type: ignore[attr-defined]
        assert isinstance(server, Server)
        return server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primary, "_AFTER_PRIMARY_S", 0.1)
    monkeypatch.setattr(primary, "_AFTER_STANDBY_S", 0.1)


@pytest.mark.parametrize("looks", [False, True])
async def test_a_standby_is_skipped_with_a_line_in_the_log(
    looks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "turnfold")
    standby, first = Server(None), Server("7/1")
    cluster = Cluster(a=standby, b=first)
    for _ in range(2):
        assert await cluster.found(looks=looks) is first
    assert (standby.open, first.open) == (0, 2)
    [line] = [record.getMessage() for record in caplog.records]
    assert "the primary is b; skipped: a: a standby" in line


async def test_only_a_look_takes_a_standby_and_only_without_a_primary(
    caplog: pytest.LogCaptureFixture,
) -> None:
    standby = Server(None)
    cluster = Cluster(a=refused(), b=standby)
    with pytest.raises(DiskError, match="no primary answers: a: refused; b: a standby"):
        await cluster.found()
    assert standby.open == 0
    assert await cluster.found(looks=True) is standby
    assert "no primary answers; looks ask the standby b" in caplog.text


async def test_a_machine_that_is_gone_takes_no_time_of_a_lease() -> None:
    """It answers nothing, and stands before the primary in the address."""
    first = Server("7/1")
    async with asyncio.timeout(5):
        assert await Cluster(a=None, b=first).found() is first
        with pytest.raises(DiskError, match="a: no answer; b: a standby"):
            await Cluster(a=None, b=Server(None)).found()


async def test_of_two_primaries_the_later_one_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = Server("7/9"), Server("7/A")
    assert await Cluster(a=old, b=new).found() is new
    assert "a: a primary of before (7/9): stop it" in caplog.text
    assert (old.open, new.open) == (0, 1)


@pytest.mark.parametrize("other", ["7/2", "8/1", ""])
async def test_two_primaries_of_which_none_is_the_later_one_are_refused(
    other: str,
) -> None:
    both = Server("7/2"), Server(other)
    with pytest.raises(UnsafeStoreError, match="are both primaries"):
        await Cluster(a=both[0], b=both[1]).found()
    assert [server.open for server in both] == [0, 0]


async def test_two_names_of_one_server_are_one() -> None:
    first = Server("7/1")
    assert await Cluster(a=first, b=first).found() is first
    assert first.open == 1


@pytest.mark.parametrize("back", ["7/1", "8/5"])
async def test_a_process_never_goes_back_to_a_primary_of_before(back: str) -> None:
    cluster = Cluster(a=Server("7/1"), b=refused())
    await cluster.found()
    new = Server("7/2")
    cluster.hosts |= {"a": refused(), "b": new}
    assert await cluster.found() is new
    cluster.hosts |= {"a": Server(back), "b": refused()}
    with pytest.raises(DiskError, match="a: a primary of before"):
        await cluster.found()


async def test_when_one_connection_finds_another_primary_all_leave_theirs() -> None:
    class User:
        left = 0

        def leave(self) -> None:
            self.left += 1

    user = User()
    cluster = Cluster(a=Server("7/1"), b=Server(None))
    cluster.way.add(user)
    for _ in range(2):
        await cluster.found()
    assert (cluster.way.turn, user.left) == (0, 0)
    cluster.hosts |= {"a": refused(), "b": Server("7/2")}
    await cluster.found()
    assert (cluster.way.turn, user.left) == (1, 1)


async def test_a_statement_without_an_answer_makes_the_process_look_around(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine of the primary is frozen or cut off, and another one is promoted."""
    monkeypatch.setattr(primary, "_SILENT_S", 0.02)
    first, second = Server("7/1"), Server(None)
    cluster = Cluster(a=first, b=second)
    await cluster.found()
    cluster.hosts["a"] = None
    with cluster.way.watched(cluster.make):
        await asyncio.sleep(0.2)
        assert cluster.way.turn == 0, "a standby is not promoted yet"
        cluster.hosts["b"] = third = Server("7/2")
        await asyncio.sleep(0.4)
        assert cluster.way.turn == 1
    await asyncio.sleep(0.15)
    assert (first.open, second.open, third.open) == (1, 0, 0)


async def test_a_connection_of_an_earlier_primary_is_used_no_more() -> None:
    """Also one that was being made while the other primary was found."""
    place = Place.parsed("postgresql://a,b/d")
    cluster = Cluster(a=Server("7/1"), b=Server(None))
    link = Link(place, "test", cluster.way)
    link._made_to = cluster.make  # type: ignore[method-assign,assignment]
    ended: list[Any] = []

    class Made(_Connection):
        def is_closed(self) -> bool:
            return bool(ended)

        def is_in_transaction(self) -> bool:
            return False

        def terminate(self) -> None:
            ended.append(self.server)

    old = cluster.hosts["a"]
    assert isinstance(old, Server)
    link._connection = Made(old)  # type: ignore[assignment]
    cluster.way.turn = 1
    there: Any = await link._there()
    assert there.server is old
    assert ended == [old]
    assert link._turn == 1


async def test_shortly_after_a_find_only_the_primary_is_asked() -> None:
    first, other = Server("7/1"), Server(None)
    cluster = Cluster(a=first, b=other)
    await cluster.found()
    cluster.hosts["b"] = None
    async with asyncio.timeout(0.05):
        assert await cluster.found(later=False) is first
    first.started = "later"  # it was started again: another host may be the primary
    cluster.hosts["b"] = new = Server("7/2")
    assert await cluster.found(later=False) is new
    assert (first.open, new.open) == (2, 1)


async def test_a_caller_that_is_cancelled_leaves_no_connection() -> None:
    first = Server("7/1")
    asked = asyncio.ensure_future(Cluster(a=first, b=None).found())
    await asyncio.sleep(0.02)
    assert first.open == 1
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert first.open == 0


async def test_what_a_person_must_mend_is_said_with_its_host() -> None:
    closed = NoAccessError(path="x", problem="no such user", advice="check the user")
    with pytest.raises(NoAccessError, match="b: no such user"):
        await Cluster(a=refused(), b=closed).found()
    with pytest.raises(DiskError, match="b: no such user"):
        await Cluster(a=Server(None), b=closed).found()
