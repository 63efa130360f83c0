"""A watchdog ends a worker whose lease is over, and nobody else; then another host goes
on at once. The worker is a process of its own; the other host sees no process of it."""

import asyncio
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import Kernel, Route
from turnfold.enums import Status
from turnfold.errors import DiskError, ReadOnlyError
from turnfold.ports.channel import Accepted, Attempt, Part
from turnfold_adapters.stores.postgres import PostgresStore, ownership, watchdog
from turnfold_adapters.stores.postgres.watchdog import Watchdog
from turnfold_adapters.stores.processes import boot_id, start_time
from turnfold_cli import app
from turnfold_cli import watchdog as command
from turnfold_model.kill9.child import SETTINGS
from turnfold_model.testing.gateway import until

from .failover import Standby
from .postgres import Postgres, in_memory
from .test_postgres_killed import FileChannel, Scene, shown, verdicts

LEASE_MS = 1000
WAITS = f"&lease_ms={LEASE_MS}&max_pause_ms=3600000"  # nobody is taken as dead by time
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork, threads


class StoppingChannel(FileChannel):
    """The process stops in the middle of a send: it has left nothing at the platform,
    and would if it went on."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Accepted:
        if "stop" in str(part):
            os.kill(os.getpid(), signal.SIGSTOP)
        return await super().send(part, key, attempt)


async def worker(scene: Scene) -> None:
    """A host that delivers one message and stops in the middle of the second one."""
    async with Kernel(scene.address, settings=SETTINGS) as kernel:
        kernel.attach(
            "t", StoppingChannel(scene.platform, scene.delivery), on_unknown="hold"
        )
        to = Route(channel="t", conversation="1")
        first = await kernel.enqueue(to, "goes", key="goes")
        assert await first.settled(20_000) is Status.DELIVERED
        await kernel.enqueue(to, "stop", key="stop")
        await asyncio.sleep(600)


@contextmanager
def running(scene: Scene) -> Iterator[int]:
    """The worker in a process of its own."""
    pid = os.fork()
    if pid == 0:
        try:
            logging.getLogger("turnfold").setLevel(logging.CRITICAL)
            asyncio.run(worker(scene))
        except BaseException:  # noqa: BLE001  no caller is left to get the error
            traceback.print_exc()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def is_silent(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def turnfold_watchdog(address: str, *more: str) -> tuple[int, list[Any]]:
    """The command, in a process of its own: its exit code and its lines."""
    words = ("watchdog", "-s", address, "--json", *more)
    program = "from turnfold_cli import main; main()"
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *words, stdout=subprocess.PIPE
    )
    said, _ = await made.communicate()
    assert made.returncode is not None
    return made.returncode, [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize("shards", [1, 2])
async def test_another_host_goes_on_when_the_watchdog_has_ended_a_stopped_worker(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """It was stopped in the middle of a send of class `lookup`. Without the watchdog the
    other host waits for a person; with it the message goes out once."""
    more = f"&shards={shards}" if shards > 1 else ""
    scene = Scene(postgres.address() + WAITS + more, tmp_path / "shown")
    with running(scene) as pid:
        await until(lambda: is_silent(pid), 30)
        monkeypatch.setattr(ownership, "room", lambda: "another host")
        async with Kernel(scene.address, settings=SETTINGS) as kernel:
            channel = FileChannel(scene.platform, scene.delivery)
            kernel.attach("t", channel, on_unknown="hold")
            await asyncio.sleep(LEASE_MS / 1000 + 1.0)
            assert len(shown(scene.platform)) == 1
            code, (act,) = await turnfold_watchdog(scene.address, "--once")
            assert (code, act["did"], act["pid"]) == (0, "ended", pid)
            await until(lambda: len(shown(scene.platform)) == 2, 30)
            to = Route(channel="t", conversation="1")
            again = await kernel.enqueue(to, "stop", key="stop")
            assert await again.settled(20_000) is Status.DELIVERED
            await asyncio.sleep(0.5)
    assert len({*shown(scene.platform)}) == len(shown(scene.platform)) == 2
    assert await verdicts(scene.address) == [(0, None)] * shards
    assert await certified(postgres, scene, act["workers"]) == {
        ("dead", f"ended by the watchdog on {platform.node()}")
    }


async def certified(
    postgres: Postgres, scene: Scene, workers: list[str]
) -> set[tuple[str, str]]:
    schema = scene.address.partition("schema=")[2].partition("&")[0]
    sql = f"SELECT state, certified_by FROM {schema}.worker WHERE id = ANY ($1)"
    return {tuple(row) for row in await postgres.execute(sql, workers)}


# --- nobody else --------------------------------------------------------------------


class Yard:
    """A store with rows of workers whose processes are stand-ins."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres, self.address = postgres, postgres.address()
        self.schema = self.address.partition("schema=")[2]
        self.dog = Watchdog(self.address)
        self.children: list[subprocess.Popen[bytes]] = []

    async def open(self) -> None:
        store = PostgresStore(self.address)
        await store.open()
        await store.close()
        await self.dog.open()

    def process(self, **how: Any) -> int:
        self.children.append(subprocess.Popen(["sleep", "600"], cwd="/", **how))
        return self.children[-1].pid

    async def row(
        self, pid: int, name: str = "w", lease_s: float = -5, **but: Any
    ) -> None:
        values = {
            "boot": boot_id(),
            "room": ownership.room(),
            "started": start_time(pid),
        }
        values |= but
        sql = f"""INSERT INTO {self.schema}.worker
            (id, boot, room, pid, started, host, state, lease_until) VALUES
            ($1, $2, $3, $4, $5, 'here', 'alive', clock_timestamp() + make_interval(secs => $6))"""
        facts = (values["boot"], values["room"], pid, values["started"], lease_s)
        await self.postgres.execute(sql, name, *facts)

    async def states(self) -> dict[str, str]:
        sql = f"SELECT id, state FROM {self.schema}.worker"
        return {row["id"]: row["state"] for row in await self.postgres.execute(sql)}

    def lives(self) -> bool:
        """Does the last process live?"""
        return self.children[-1].poll() is None

    async def close(self) -> None:
        await self.dog.close()
        for child in self.children:
            child.kill()
            child.wait()


@asynccontextmanager
async def yard_at(postgres: Postgres) -> AsyncIterator[Yard]:
    """Nobody waits a second before each end."""
    made = Yard(postgres)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watchdog, "_GRACE_S", 0.05)
        await made.open()
        try:
            yield made
        finally:
            await made.close()


async def test_a_process_whose_lease_is_over_is_ended_and_certified(
    postgres: Postgres,
) -> None:
    """Stopped or not, with all its lives."""
    async with yard_at(postgres) as yard:
        pids = [yard.process(), yard.process()]
        os.kill(pids[0], signal.SIGSTOP)
        await yard.row(pids[0], "stopped")
        await yard.row(pids[1], "hangs")
        await yard.row(pids[1], "before")  # an earlier life of the same process
        acts = await yard.dog.look()
        assert {act.did for act in acts} == {"ended"}
        assert sorted(sorted(act.workers) for act in acts) == [
            ["before", "hangs"],
            ["stopped"],
        ]
        assert [child.wait() for child in yard.children] == [-signal.SIGKILL] * 2
        assert {*(await yard.states()).values()} == {"dead"}
        assert await yard.dog.look() == []


async def test_a_living_lease_and_another_machine_are_left_alone(
    postgres: Postgres,
) -> None:
    async with yard_at(postgres) as yard:
        alone: list[dict[str, Any]] = [
            {"lease_s": 60.0},
            {"boot": "another"},
            {"room": "another"},
            {"boot": ""},
        ]
        for number, but in enumerate(alone):
            await yard.row(yard.process(), f"w{number}", **but)
        assert await yard.dog.look() == []
        assert all(child.poll() is None for child in yard.children)
        assert {*(await yard.states()).values()} == {"alive"}


async def test_a_process_that_has_begun_a_new_life_is_left_alone(
    postgres: Postgres,
) -> None:
    async with yard_at(postgres) as yard:
        pid = yard.process()
        await yard.row(pid, "before")
        await yard.row(pid, "now", lease_s=60)
        assert await yard.dog.look() == []
        assert yard.lives()


async def test_a_worker_that_goes_on_meanwhile_is_left_alone(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the end it stands down and registers again."""
    async with yard_at(postgres) as yard:
        pid = yard.process()
        await yard.row(pid)

        async def goes_on(_: float) -> None:
            if "again" not in await yard.states():
                await yard.row(pid, "again", lease_s=60)

        with monkeypatch.context() as patch:
            patch.setattr(watchdog.asyncio, "sleep", goes_on)
            assert await yard.dog.look() == []
        assert yard.lives()


async def test_another_process_of_the_same_id_is_left_alone(postgres: Postgres) -> None:
    async with yard_at(postgres) as yard:
        pid = yard.process()
        await yard.row(pid, started=(start_time(pid) or 0) + 1)
        (act,) = await yard.dog.look()
        assert act.did == "gone"
        assert yard.lives()
        assert await yard.states() == {"w": "dead"}


async def test_a_process_that_has_ended_is_certified_before_its_lease_is_over(
    postgres: Postgres,
) -> None:
    """Also while nobody has asked for its end."""
    async with yard_at(postgres) as yard:
        pid = yard.process()
        await yard.row(pid, lease_s=60)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: start_time(pid) is None, 30)
        (act,) = await yard.dog.look()
        assert act.did == "gone"
        assert await yard.states() == {"w": "dead"}


async def test_its_own_process_and_a_hidden_start_are_left(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told."""
    ended: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda held, _: ended.append(held))
    monkeypatch.setattr(watchdog, "_DIES_S", 0.1)
    async with yard_at(postgres) as yard:
        await yard.row(os.getpid(), "own")
        await yard.row(yard.process(), "hidden", started=0)
        acts = await yard.dog.look()
        whys = {act.workers: act.why for act in acts if act.did == "left"}
        assert "own process" in whys["own",]
        assert "hidden" in whys["hidden",]
        assert ended == []
        assert {*(await yard.states()).values()} == {"alive"}


async def test_a_process_of_another_user_is_left(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a watchdog with all rights: who may write a row may not end processes."""
    async with yard_at(postgres) as yard:
        await yard.row(yard.process())
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
        (act,) = await yard.dog.look()
        assert (act.did, yard.lives()) == ("left", True)
        assert "runs as user" in act.why
        assert await yard.states() == {"w": "alive"}


async def test_what_is_left_is_logged_once(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    async with yard_at(postgres) as yard:
        await yard.row(yard.process(), started=0)
        for _ in range(2):
            (act,) = await yard.dog.look()
            assert act.did == "left"
        assert len(caplog.records) == 1


async def test_it_certifies_nobody_before_the_process_is_gone(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a disk lives on for a while after SIGKILL."""
    async with yard_at(postgres) as yard:
        await yard.row(yard.process())
        monkeypatch.setattr(watchdog, "_DIES_S", 0.1)
        with monkeypatch.context() as patch:
            patch.setattr(signal, "pidfd_send_signal", lambda *_: None)
            (act,) = await yard.dog.look()
        assert act.did == "left"
        assert "does not end" in act.why
        assert await yard.states() == {"w": "alive"}


async def test_an_answer_of_the_server_that_is_old_ends_nobody(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog was stopped itself, behind its question."""
    async with yard_at(postgres) as yard:
        await yard.row(yard.process())
        times = iter([0.0, 5.0])
        monkeypatch.setattr(watchdog, "_now", lambda: next(times))
        assert await yard.dog.look() == []
        assert yard.lives()


async def test_a_watchdog_that_is_cut_off_ends_nobody(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its question, and between two."""
    async with yard_at(postgres) as yard:
        await yard.row(yard.process())

        async def cut(_: float = 0) -> Any:
            raise ConnectionResetError

        with monkeypatch.context() as patch:
            patch.setattr(yard.dog._link, "_there", cut)
            with pytest.raises(DiskError):
                await yard.dog.look()
        with monkeypatch.context() as patch:
            sleep = asyncio.sleep

            async def then_cut(_: float) -> None:
                await sleep(0)
                patch.setattr(yard.dog._link, "_there", cut)

            patch.setattr(watchdog.asyncio, "sleep", then_cut)
            with pytest.raises(DiskError):
                await yard.dog.look()
        assert yard.lives()


async def test_a_standby_says_nothing_about_leases(postgres: Postgres) -> None:
    """A renewal may be on its way to it."""
    async with yard_at(postgres) as yard:
        await yard.row(yard.process())
        with in_memory() as folder, Standby(yard.postgres, folder / "s") as standby:
            await standby.caught_up()
            dog = Watchdog(standby.address(yard.schema))
            await dog.open()
            with pytest.raises(ReadOnlyError):
                await dog.look()
            await dog.close()
        assert yard.lives()


def test_it_is_for_postgresql_only(tmp_path: Path) -> None:
    words = ["watchdog", "-s", str(tmp_path / "g.db"), "--once"]
    made = CliRunner().invoke(app(words), words)
    assert made.exit_code == 2
    assert "is for a store in PostgreSQL" in made.output


async def test_the_command_goes_on_when_the_server_is_back(
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It tells once that it is cut off."""
    async with yard_at(postgres) as yard:
        cut = DiskError(path="x", problem="cut")
        looks: Iterator[Any] = iter([[], cut, cut, [], EOFError()])

        class Dog(Watchdog):
            async def look(self) -> Any:
                answer = next(looks)
                if isinstance(answer, Exception):
                    raise answer
                return answer

        real = asyncio.sleep
        monkeypatch.setattr(command.asyncio, "sleep", lambda _: real(0))
        with pytest.raises(EOFError):
            await command._watch(Dog(yard.address), 0.1, as_json=False)
        (line,) = caplog.records
        assert line.message.startswith(
            "nobody is ended while the server does not answer: x"
        )
