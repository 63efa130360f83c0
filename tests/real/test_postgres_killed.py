"""A worker on PostgreSQL is killed before and after each of its effects: the statements
of its lease and its seat, each commit, each send. The next process of the host ends the
work: nothing is lost, and nothing is sent twice. In class `blind` the policy `drop` gives
up what may have been sent; in class `editable` a placeholder may stand there twice.
TURNFOLD_LONG=1 plays the classes beside `lookup`, too."""

import asyncio
import logging
import os
import secrets
import signal
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import frozen

from turnfold import Inbound, Kernel, Route
from turnfold.api.shard_kernel import shard_of_place
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, PartAct, Status
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    Capabilities,
    Found,
    Part,
    PartClass,
    Receipt,
    Verdict,
)
from turnfold.ports.shards import chains_of
from turnfold.ports.store import Store, store_at
from turnfold_adapters.stores.postgres import PostgresStore, ownership
from turnfold_adapters.stores.postgres.connection import Session
from turnfold_model.kill9.child import SETTINGS
from turnfold_model.testing.failpoints import Failpoints, Stop

from .postgres import Postgres

EMPTY, GONE = "empty", "gone"
_MOST = 80  # points of one life
_LONG = pytest.mark.skipif(
    not os.environ.get("TURNFOLD_LONG"), reason="a minute each; TURNFOLD_LONG=1"
)
_STATEMENTS = {
    getattr(ownership, name): name.strip("_").lower()
    for name in ("_REGISTER", "_TAKE", "_FREE", "_CERTIFY", "_RENEW")
}


class FileChannel:
    """The platform is a file: what a killed process had shown stays there."""

    def __init__(self, path: Path, delivery: DeliveryClass) -> None:
        self._path, self._keyed = path, delivery is DeliveryClass.KEYED
        offer = PartClass(classes=(delivery,), settle_ms=0)
        self.capabilities = Capabilities(parts={"text": offer})
        if delivery is DeliveryClass.EDITABLE:
            self.edit, self.retract = self._edit, self._retract

    async def send(self, part: Part, key: str, attempt: Attempt) -> Accepted:
        del key
        if attempt.act is PartAct.PLACEHOLDER:
            message = secrets.token_hex(8)
            self._write(f"{EMPTY} {message}")
            return Accepted(receipt=Receipt(ids=(message,)))
        if not (self._keyed and part.key in shown(self._path)):
            self._write(part.key)
        return Accepted(receipt=Receipt(ids=(part.key,)))

    async def _edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Accepted:
        del key, attempt
        self._write(f"{part.key} {handle.ids[0]}")
        return Accepted(receipt=handle)

    async def _retract(self, handle: Receipt, route: Route) -> None:
        del route
        self._write(f"{GONE} {handle.ids[0]}")

    def _write(self, line: str) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{line}\n".encode())
        os.close(file)

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        del since_ms
        if part.key in shown(self._path):
            return Found(receipt=Receipt(ids=(part.key,)))
        return Absent()


def shown(path: Path) -> list[str]:
    """What each message shows: of one that was edited the last line counts."""
    last: dict[str, str] = {}
    for number, line in enumerate(
        path.read_text().splitlines() if path.exists() else ()
    ):
        what, _, message = line.partition(" ")
        last[message or str(number)] = what
    return [what for what in last.values() if what not in (EMPTY, GONE)]


def empty(path: Path) -> int:
    """Placeholders that were made."""
    lines = path.read_text().splitlines() if path.exists() else ()
    return sum(line.startswith(EMPTY) for line in lines)


@frozen
class Scene:
    """The store, the platform's file, and the help that the platform gives."""

    address: str
    platform: Path
    delivery: DeliveryClass = DeliveryClass.LOOKUP

    @property
    def blind(self) -> bool:
        return self.delivery is DeliveryClass.BLIND


async def work(scene: Scene, name: str, points: Failpoints) -> None:
    """One message and one entry, from the start of a worker to its orderly end."""
    if "shards=" in scene.address:
        count_commits(points)
        kernel = Kernel(scene.address, settings=SETTINGS)
    else:
        watched = points.watch(PostgresStore(scene.address))
        kernel = Kernel(watched, settings=SETTINGS, probe=points.probe)
    channel = FileChannel(scene.platform, scene.delivery)
    kernel.attach("t", channel, on_unknown="drop" if scene.blind else "hold")

    @kernel.on_turn(resume=True)
    async def answer(turn: Any) -> None:
        if not await turn.previous():
            await turn.reply("yes")

    async with kernel:
        turn = await kernel.accept(Inbound("t", conversation="1", message_id=name))
        to = Route(channel="t", conversation="4")
        sent = await kernel.enqueue(to, "note", key=name)
        await turn.settled(20_000)
        dropped = [Status.FAILED_TERMINAL] * scene.blind
        assert await sent.settled(20_000) in [Status.DELIVERED, *dropped]


def count_statements(reach: Callable[[str], None]) -> None:
    """A point on either side of each statement of ownership; for a child only."""
    for method in ("fetchval", "execute"):
        setattr(Session, method, _counted(getattr(Session, method), reach))


def count_commits(points: Failpoints) -> None:
    """The same for the commits of each shard, and for the wire: a host takes no probe."""

    def stored(real: Any) -> Any:
        async def commit(store: Any, writes: Any) -> Any:
            one = points.watch(cast("Any", _Calling(partial(real, store))))
            return await one.commit(writes)

        return commit

    async def send(channel: FileChannel, *args: Any) -> Accepted:
        points.reach("before Send")
        done = await shows(channel, *args)
        points.reach("after Send")
        return done

    shows = FileChannel.send
    PostgresStore.commit = stored(PostgresStore.commit)  # type: ignore[method-assign]
    FileChannel.send = send  # type: ignore[method-assign]


@frozen
class _Calling:
    """A store that only commits."""

    commit: Any


def _counted(real: Any, reach: Callable[[str], None]) -> Any:
    async def asked(session: Session, sql: str, *values: object) -> Any:
        name = _STATEMENTS.get(sql)
        if name:
            reach(f"before {name}")
        answer = await real(session, sql, *values)
        if name:
            reach(f"after {name}")
        return answer

    return asked


def life(scene: Scene, name: str, stop: Stop | None) -> str:
    """One process; the name of the point at which it died, empty if it ended well."""
    told = scene.platform.with_name("point")
    told.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            logging.getLogger("turnfold").setLevel(logging.ERROR)
            points = Failpoints(stop, told=told.write_text)
            count_statements(points.reach)
            asyncio.run(work(scene, name, points))
            status = 0
        except BaseException:  # noqa: BLE001  no caller is left to get the error
            traceback.print_exc()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == (-signal.SIGKILL if told.exists() else 0), code
    return told.read_text() if told.exists() else ""


async def verdicts(address: str) -> list[tuple[int, object]]:
    """Of each shard the number of open streams, and the first finding of the audit."""
    store = store_at(address)
    await store.open(read_only=True)
    try:
        return [await _verdict(chain) for chain in chains_of(store)]
    finally:
        await store.close()


async def _verdict(chain: Store) -> tuple[int, object]:
    await chain.open(read_only=True)
    try:
        return len((await chain.load()).open), (await audit_store(chain)).first
    finally:
        await chain.close()


def die_at_each(
    scene: Scene, before: Stop | None, last: str, each: int = 1
) -> list[str]:
    """The points at which a life died; after each of them everything is in order."""
    died: list[str] = []
    for nth in range(1, _MOST):
        if before is not None:
            assert life(scene, f"m{nth}", before) == before.name
        point = life(scene, f"m{nth}", Stop(1 + each * (nth - 1)))
        if point:
            died.append(point)
            assert life(scene, f"m{nth}", None) == ""
        lines = shown(scene.platform)
        dropped = 2 * len(died) if scene.blind else 0  # two are on the wire at most
        assert len({*lines}) == len(lines), (point, lines)
        assert 2 * nth - dropped <= len(lines) <= 2 * nth, (point, lines)
        deaths = len(died) + nth * (before is not None)
        assert empty(scene.platform) <= 2 * (nth + deaths), point
        if point in ("", last):
            break
    return died


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
@pytest.mark.parametrize(
    ("delivery", "before", "last"),
    [
        (DeliveryClass.LOOKUP, None, ""),
        (DeliveryClass.LOOKUP, Stop(1, "after Send"), "before CallHandler"),
        pytest.param(DeliveryClass.KEYED, None, "", marks=_LONG),
        pytest.param(DeliveryClass.BLIND, None, "", marks=_LONG),
        pytest.param(DeliveryClass.EDITABLE, None, "", marks=_LONG),
        pytest.param(
            DeliveryClass.EDITABLE,
            Stop(1, "after Send"),
            "before CallHandler",
            marks=_LONG,
        ),
    ],
)
def test_a_worker_killed_at_any_effect_loses_nothing_and_doubles_nothing(
    postgres: Postgres,
    tmp_path: Path,
    delivery: DeliveryClass,
    before: Stop | None,
    last: str,
) -> None:
    """Alone; and as the one that takes over from a worker that was killed with a message
    on the wire, up to its first call of the handler. Two or three processes for each
    point: it takes longer than a second."""
    address = f"{postgres.address()}&lease_ms=60000"
    scene = Scene(address, tmp_path / "shown", delivery)
    died = die_at_each(scene, before, last)
    assert asyncio.run(verdicts(address)) == [(0, None)]
    names = ["certify", "register", "take"] + ["Send", "free"] * (before is None)
    for name in names:
        assert {f"before {name}", f"after {name}"} <= {*died}, (name, died)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_a_host_of_two_shards_killed_at_every_third_effect_loses_nothing(
    postgres: Postgres, tmp_path: Path
) -> None:
    """The message lies in one shard, the entry in the other; the seats of both are taken
    over by the next process."""
    assert {shard_of_place("t", "default", n, 2) for n in "14"} == {0, 1}
    address = f"{postgres.address()}&lease_ms=60000&shards=2"
    died = die_at_each(Scene(address, tmp_path / "shown"), None, "", each=3)
    assert asyncio.run(verdicts(address)) == [(0, None), (0, None)]
    kinds = {point.split()[1] for point in died}
    # The order of two shards differs from run to run, so a send may be none of the third.
    assert {"register", "take", "commit", "free"} <= kinds, died
