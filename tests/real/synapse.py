"""A real Matrix homeserver for tests: Synapse, in its own venv, on a loopback port.

The venv is made once, in `.servers/synapse-venv` of the checkout (git-ignored) or where
`TURNFOLD_SERVERS` points; each session gets a fresh database in a temporary folder.
Synapse is AGPL and runs as a separate process; nothing of it is imported.
"""

import fcntl
import hashlib
import hmac
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

ROOT = Path(__file__).resolve().parents[2]
SECRET = "registration-secret-of-a-test"  # the server listens on loopback only
SETTINGS = """
server_name: localhost
report_stats: false
suppress_key_server_warning: true
trusted_key_servers: []
enable_registration: false
registration_shared_secret: "{secret}"
presence: {{enabled: false}}
# A first sync may otherwise be answered from a cache that is two minutes old.
caches: {{sync_response_cache_duration: 0}}
listeners:
  - port: {port}
    type: http
    tls: false
    bind_addresses: ["127.0.0.1"]
    resources: [{{names: [client], compress: false}}]
rc_message: {{per_second: 10000, burst_count: 10000}}
rc_login:
  address: {{per_second: 1000, burst_count: 1000}}
  account: {{per_second: 1000, burst_count: 1000}}
rc_room_creation: {{per_second: 1000, burst_count: 1000}}
rc_media_create: {{per_second: 1000, burst_count: 1000}}
rc_joins:
  local: {{per_second: 1000, burst_count: 1000}}
rc_invites:
  per_room: {{per_second: 1000, burst_count: 1000}}
  per_user: {{per_second: 1000, burst_count: 1000}}
  per_issuer: {{per_second: 1000, burst_count: 1000}}
"""


class CannotInstallError(Exception):
    """The package could not be installed (no network, no wheel for this platform)."""


def synapse_python() -> Path:
    """The interpreter of the venv that has Synapse, made on first use."""
    base = Path(os.environ.get("TURNFOLD_SERVERS") or ROOT / ".servers")
    base.mkdir(parents=True, exist_ok=True)
    ignore = base / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    python = base / "synapse-venv" / "bin" / "python"
    with (base / "synapse.lock").open("w") as lock:  # several test workers, one venv
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not _has_synapse(python):
            _install(python)
    return python


def _has_synapse(python: Path) -> bool:
    if not python.exists():
        return False
    code = "from importlib.util import find_spec; find_spec('synapse.app.homeserver').loader"
    check = [str(python), "-c", code]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def _install(python: Path) -> None:
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(python.parent.parent)],
        [str(python), "-m", "pip", "install", "--quiet", "matrix-synapse"],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotInstallError(done.stderr[-2000:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


class Synapse:
    """One homeserver. `base_url` is stable over restarts; so is what it stored."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "synapse.out"
        # verify=False: there is no TLS here, and loading root certificates is slow.
        self._http = httpx.Client(base_url=self.base_url, timeout=30, verify=False)
        self._generate()

    def _generate(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = self.folder / "test.yaml"
        ours.write_text(SETTINGS.format(secret=SECRET, port=self.port))
        generate = ["--generate-config", "--report-stats=no", "--server-name=localhost"]
        self._run("synapse.app.homeserver", "-c", "homeserver.yaml", *generate)

    def _run(self, module: str, *arguments: str) -> str:
        command = [str(self._python), "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *, timeout: float = 60) -> None:
        """Start, and return when it answers."""
        assert self._process is None
        configs = ("-c", "homeserver.yaml", "-c", "test.yaml")
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._python, "-m", "synapse.app.homeserver", *configs],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # so that it is ended as a group, by its id
            )
        deadline = time.monotonic() + timeout
        while not self._answers():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill9()
                raise AssertionError(self._log.read_text()[-4000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            answer = self._http.get("/_matrix/client/versions", timeout=2)
        except httpx.TransportError:
            return False  # not listening yet
        return answer.status_code == 200

    def kill9(self) -> None:
        """As a power cut would, but for the page cache."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._http.close()
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start again on the same port and data; kills first what still runs."""
        self.kill9()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, how)
            process.wait(timeout=15)
        except ProcessLookupError:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=15)

    def register(self, name: str, *, admin: bool = False) -> None:
        """Make the user `@name:localhost` with the password `name`."""
        url = "/_synapse/admin/v1/register"
        nonce = self._http.get(url).json()["nonce"]
        role = "admin" if admin else "notadmin"
        told = f"{nonce}\0{name}\0{name}\0{role}".encode()
        mac = hmac.new(SECRET.encode(), told, hashlib.sha1).hexdigest()
        who = {"username": name, "password": name, "admin": admin}
        body = {"nonce": nonce, "mac": mac, **who}
        answer = self._http.post(url, json=body)
        assert answer.is_success, answer.text

    def login(self, name: str, device_id: str) -> "User":
        """A session of a user that was registered here, on the device named."""
        user = User(http=self._http, name=name, device_id=device_id)
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": name,
            "device_id": device_id,
        }
        user.token = user.post("/v3/login", body)["access_token"]
        return user


@dataclass(kw_only=True)
class User:
    """A user seen from outside: a plain client to set scenes and to count events."""

    http: httpx.Client = field(repr=False)
    name: str
    device_id: str
    token: str = field(default="", repr=False)

    @property
    def user_id(self) -> str:
        return f"@{self.name}:localhost"

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer; `path` is below `/_matrix/client` unless it says so."""
        return self._ask(method, path, body).json()

    def _ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        prefix = "" if path.startswith("/_") else "/_matrix/client"
        answer = self.http.request(method, prefix + path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer

    def download(self, mxc: str) -> bytes:
        return self._ask(
            "GET", f"/v1/media/download/{mxc.removeprefix('mxc://')}"
        ).content

    def post(self, path: str, body: object) -> Any:
        return self.call("POST", path, body)

    def create_room(self, *invite: str, **more: object) -> str:
        body = {"preset": "private_chat", "invite": list(invite), **more}
        return str(self.post("/v3/createRoom", body)["room_id"])

    def join(self, room_id: str) -> None:
        self.post(f"/v3/join/{quote(room_id)}", {})

    def leave(self, room_id: str) -> None:
        self.post(f"/v3/rooms/{quote(room_id)}/leave", {})

    def leave_all(self) -> None:
        """Leave every room: a first sync takes as long as there are rooms."""
        for room_id in self.call("GET", "/v3/joined_rooms")["joined_rooms"]:
            self.leave(room_id)

    def say(self, room_id: str, text: str, **content: object) -> str:
        return self.put_event(
            room_id, "m.room.message", {"msgtype": "m.text", "body": text, **content}
        )

    def put_event(self, room_id: str, kind: str, content: object) -> str:
        txn = f"{time.monotonic_ns()}"
        path = f"/v3/rooms/{quote(room_id)}/send/{kind}/{txn}"
        return str(self.call("PUT", path, content)["event_id"])

    def redact(self, room_id: str, event_id: str) -> None:
        path = f"/v3/rooms/{quote(room_id)}/redact/{quote(event_id)}/"
        self.call("PUT", f"{path}{time.monotonic_ns()}", {})

    def events(self, room_id: str, sender: str) -> list[dict[str, Any]]:
        """Everything but state that a user sent to the room, oldest first."""
        found: list[dict[str, Any]] = []
        start = ""
        while True:
            path = f"/v3/rooms/{quote(room_id)}/messages?dir=b&limit=500{start}"
            page = self.call("GET", path)
            found += [e for e in page["chunk"] if e["sender"] == sender]
            if "end" not in page:
                break
            start = f"&from={page['end']}"
        return [e for e in reversed(found) if "state_key" not in e]

    def limit_messages(self, user_id: str, per_second: int, burst: int) -> None:
        """Set the rate limit of one user (as an admin of the server)."""
        path = f"/_synapse/admin/v1/users/{quote(user_id)}/override_ratelimit"
        body = {"messages_per_second": per_second, "burst_count": burst}
        self.post(path, body)
