"""The recipes for orchestrators in specs/postgres.md: the unit of systemd is run by a
small supervisor that does what systemd does with these lines; the program for Kubernetes
asks a fake of its API."""

import asyncio
import http.server
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .postgres import Postgres
from .test_postgres_certificates import WAITS, table_at

ROOT = Path(__file__).parents[2]
GATEWAY = """
import asyncio, os
from turnfold import Kernel
async def main():
    async with Kernel(os.environ["TURNFOLD_STORE"]):
        print("up", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
BIN = Path(sys.executable).parent


def unit() -> list[tuple[str, str]]:
    """The lines of the unit in the page that has the option ExecStopPost."""
    page = (ROOT / "specs/postgres.md").read_text("utf-8")
    (block,) = [b for b in page.split("\n\n") if "ExecStopPost=" in b]
    lines = [line.strip() for line in block.splitlines()]
    assert lines[0] == "[Service]"
    return [
        (name, value) for name, _, value in (line.partition("=") for line in lines[1:])
    ]


class Supervisor:
    """As systemd: it starts ExecStart, and after its end ExecStopPost in the same
    environment, with SERVICE_RESULT. `%H` is the host and `%n` the unit."""

    def __init__(self, store: str, folder: Path) -> None:
        self.lines = unit()
        self.folder = folder
        given = [v for name, v in self.lines if name == "Environment"]
        pairs = [pair.partition("=") for v in given for pair in shlex.split(v)]
        self.environment = dict(os.environ) | {
            name: self._of(v) for name, _, v in pairs
        }
        self.environment["TURNFOLD_STORE"] = store

    def _of(self, value: str) -> str:
        return value.replace("%H", "node-1").replace("%n", "gateway.service")

    def command(self, name: str, **more: str) -> list[str]:
        """The words of a line. Programs of the page's folder are those of this Python."""
        (value,) = [v for n, v in self.lines if n == name]
        words = shlex.split(self._of(value.removeprefix("-")))
        known = self.environment | more
        for key, text in known.items():
            words = [word.replace(f"${{{key}}}", text) for word in words]
        return [str(BIN / Path(words[0]).name), *words[1:]]

    def start(self) -> subprocess.Popen[bytes]:
        (self.folder / "gateway.py").write_text(GATEWAY)
        made = subprocess.Popen(
            self.command("ExecStart"),
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
        )
        assert made.stdout is not None
        assert made.stdout.readline() == b"up\n"
        return made

    def stopped(self, result: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("ExecStopPost", SERVICE_RESULT=result),
            env=self.environment | {"SERVICE_RESULT": result},
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
        )


async def test_the_unit_of_systemd_says_that_its_gateway_is_gone(
    postgres: Postgres, tmp_path: Path
) -> None:
    """Long before its lease is over: the machine sees it. Again, it is harmless."""
    schema = postgres.address().partition("schema=")[2]
    address = postgres.address(schema) + WAITS.replace("1000", "60000", 1)
    supervisor = Supervisor(address, tmp_path)
    gateway = await asyncio.to_thread(supervisor.start)
    wrong = await asyncio.to_thread(supervisor.stopped, "success")
    assert wrong.returncode == 1
    assert f"process {gateway.pid} runs on this machine" in wrong.stdout
    gateway.send_signal(signal.SIGKILL)
    await asyncio.to_thread(gateway.wait)
    assert gateway.stdout is not None
    gateway.stdout.close()
    for _ in range(2):
        done = await asyncio.to_thread(supervisor.stopped, "signal")
        assert (done.returncode, done.stderr) == (0, "")
    sql = f"SELECT state, instance, certified_by FROM {schema}.worker"
    assert [tuple(row) for row in await postgres.execute(sql)] == [
        ("dead", "node-1/gateway.service", "systemd: signal")
    ]


# --- Kubernetes -------------------------------------------------------------------------


@contextmanager
def fake_cluster(objects: Mapping[str, Any]) -> Iterator[str]:
    """A fake of the API server; 404 for all that it has not. `objects`: by path."""

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = objects.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def pod(
    uid: str, state: str | None, phase: str = "Running", reason: str = "Error"
) -> Any:
    ours = {"name": "gateway", "state": {state: {"reason": reason}}}
    statuses: list[Any] = [ours] if state else []
    statuses.append({"name": "sidecar", "state": {"running": {}}})
    status = {"phase": phase, "containerStatuses": statuses}
    return {"metadata": {"uid": uid}, "status": status}


def node(ready: str) -> Any:
    return {"status": {"conditions": [{"type": "Ready", "status": ready}]}}


CLUSTER = {
    "/api/v1/namespaces/default/pods/ended": pod("u1", "terminated"),
    "/api/v1/namespaces/default/pods/backs-off": pod("u2", "waiting"),
    # Others write the phase of a pod whose node does not answer.
    "/api/v1/namespaces/default/pods/lost": pod("u3", "running", "Failed"),
    "/api/v1/namespaces/default/pods/unknown": pod("u4", None),
    "/api/v1/namespaces/default/pods/unseen": pod(
        "u10", "terminated", "Failed", "ContainerStatusUnknown"
    ),
    "/api/v1/namespaces/default/pods/again": pod("another", "running"),
    "/api/v1/nodes/ready": node("True"),
    "/api/v1/nodes/silent": node("Unknown"),
}
INSTANCES = {
    "silent/ended/u1": True,
    "ready/backs-off/u2": True,
    "silent/lost/u3": False,
    "ready/unknown/u4": False,
    "ready/unseen/u10": False,
    "ready/again/u5": True,
    "silent/again/u6": False,
    "ready/deleted/u7": True,
    "silent/deleted/u8": False,  # the trap: deleted, and its node does not answer
    "removed/deleted/u9": True,
    "no-pod": False,
}


async def test_kubernetes_says_which_gateways_are_gone(postgres: Postgres) -> None:
    async with table_at(postgres) as table:
        for name in INSTANCES:
            await table.row(name, instance=name)
        await table.row("live", lease_s=600, instance="removed/live/u0")
        with fake_cluster(CLUSTER) as api:
            await run_certifier(table.address, api)
        states = await table.states()
        gone = {name: states[name] == "dead" for name in INSTANCES}
        assert gone == INSTANCES
        assert states["live"] == "alive"


async def test_a_cluster_that_does_not_answer_certifies_nobody(
    postgres: Postgres,
) -> None:
    async with table_at(postgres) as table:
        await table.row("one", instance="removed/deleted/u9")
        said = await run_certifier(table.address, "http://127.0.0.1:9")
        assert "cannot look" in said
        assert await table.states() == {"one": "alive"}


async def run_certifier(store: str, api: str) -> str:
    """What the program writes to stderr."""
    program = str(ROOT / "examples/kubernetes/certifier.py")
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        "--once",
        env=os.environ | {"TURNFOLD_STORE": store, "KUBERNETES_API": api},
        stderr=subprocess.PIPE,
    )
    _, said = await made.communicate()
    assert made.returncode == 0, said
    return said.decode()
