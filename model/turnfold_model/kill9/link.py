"""The line between a child that can be killed and its parent: JSON lines on a socket.

The output of a child is in the kernel of the operating system and outlives it, as a
request does that has left a real process. Nothing is buffered on the child's side.
"""

import asyncio
import json
import os
import socket
from typing import Any

_CHUNK = 65_536


class Lines:
    """Bytes to JSON objects; a line without its end waits."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


def write_line(sock: socket.socket, what: dict[str, Any]) -> None:
    sock.sendall(json.dumps(what).encode() + b"\n")


class Link:
    """The child's end, on the running loop. Without its parent a child ends at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = Lines()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self.finish = asyncio.Event()  # the parent wants nothing more
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def say(self, op: str, **what: Any) -> None:
        write_line(self._sock, {"op": op, **what})

    async def ask(self, op: str, **what: Any) -> dict[str, Any]:
        self._asked += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._asked] = future
        self.say(op, ask=self._asked, **what)
        answer: dict[str, Any] = await future
        return answer

    def _readable(self) -> None:
        data = self._sock.recv(_CHUNK)
        if not data:
            os._exit(3)
        for line in self._lines.feed(data):
            if line["op"] == "finish":
                self.finish.set()
            else:
                self._waiting.pop(line["ask"]).set_result(line)
