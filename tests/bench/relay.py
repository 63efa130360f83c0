"""A network in a process of its own: whatever passes comes later, each way by half a round
trip. Threads, since `time.sleep` keeps to tenths of a millisecond and an event loop to
one. `python -m tests.bench.relay SOCKET ROUND_TRIP_MS` says its port on a line, and ends
with its standard input.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue


@contextmanager
def relayed(upstream: Path, round_trip_ms: float) -> Iterator[int]:
    """The port that leads to a Unix socket over that network."""
    words = [sys.executable, "-m", "tests.bench.relay", str(upstream)]
    with subprocess.Popen(
        [*words, str(round_trip_ms)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def _serve(upstream: str, delay_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX)
        server.connect(upstream)
        for one, other in ((client, server), (server, client)):
            under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            _start(_read, one, under_way, delay_s)
            _start(_write, other, under_way)


def _start(work: Callable[..., None], *given: object) -> None:
    threading.Thread(target=work, args=given, daemon=True).start()


def _read(
    one: socket.socket, under_way: "SimpleQueue[tuple[float, bytes]]", delay_s: float
) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            under_way.put((time.monotonic() + delay_s, data))
    under_way.put((0.0, b""))


def _write(other: socket.socket, under_way: "SimpleQueue[tuple[float, bytes]]") -> None:
    with suppress(OSError):
        while (piece := under_way.get())[1]:
            time.sleep(max(0.0, piece[0] - time.monotonic()))
            other.sendall(piece[1])
        other.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    _start(_serve, sys.argv[1], float(sys.argv[2]) / 2000)
    sys.stdin.read()
