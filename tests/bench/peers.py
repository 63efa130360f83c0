"""The peers: one durable enqueue, one claim, one acknowledgement per message.

Each peer is set to the durability that is compared, and the level is read back from its
live connection. Nothing is tuned against a peer: WAL, one process, one message at a time.
None of them groups commits, and with threads none gets faster. So the figure of one
caller stands for any number of callers.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench.inside import LEVELS
from tests.bench.ours import PAYLOAD

AT_LEAST_ONCE, AT_MOST_ONCE = "at least once", "at most once"


class Peer:
    """`once()` is one lifecycle. `check(level)` fails if a live connection has another
    durability."""

    name = ""
    promise = AT_LEAST_ONCE

    def __init__(self, folder: Path, level: str) -> None:
        raise NotImplementedError

    def once(self) -> None:
        raise NotImplementedError

    def connections(self) -> list[sqlite3.Connection]:
        raise NotImplementedError

    def close(self) -> None:
        for connection in self.connections():
            connection.close()

    def check(self, level: str) -> None:
        for connection in self.connections():
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            found = connection.execute("PRAGMA synchronous").fetchone()[0]
            assert (mode, found) == ("wal", LEVELS[level]), (self.name, mode, found)

    def durable(self, level: str) -> None:
        for connection in self.connections():
            connection.execute(f"PRAGMA synchronous={level}")


class PersistQueue(Peer):
    name = "persist-queue"

    def __init__(self, folder: Path, level: str) -> None:
        from persistqueue import SQLiteAckQueue

        self._queue = SQLiteAckQueue(str(folder), auto_commit=True)
        self.durable(level)

    def once(self) -> None:
        self._queue.put(PAYLOAD)
        self._queue.ack(self._queue.get())

    def connections(self) -> list[sqlite3.Connection]:
        return list(
            {id(c): c for c in (self._queue._putter, self._queue._getter)}.values()
        )


class LiteQueue(Peer):
    name = "litequeue"

    def __init__(self, folder: Path, level: str) -> None:
        from litequeue import LiteQueue as Queue

        self._queue = Queue(str(folder / "queue.db"))
        self.durable(level)

    def once(self) -> None:
        self._queue.put(PAYLOAD)
        self._queue.done(self._queue.pop().message_id)

    def connections(self) -> list[sqlite3.Connection]:
        return [self._queue.conn]


class Huey(Peer):
    name = "huey"
    promise = AT_MOST_ONCE  # a task is deleted when it is claimed

    def __init__(self, folder: Path, level: str) -> None:
        from huey import SqliteHuey

        self._storage = SqliteHuey(filename=str(folder / "huey.db"), fsync=True).storage
        self.durable(level)

    def once(self) -> None:
        self._storage.enqueue(PAYLOAD.encode())
        self._storage.dequeue()

    def connections(self) -> list[sqlite3.Connection]:
        return [self._storage.conn]


class LocalQueue(Peer):
    """Its connection is inside a Rust extension, so the peer reports its own level."""

    name = "localqueue"

    def __init__(self, folder: Path, level: str) -> None:
        from localqueue import DurabilityMode, SimpleQueue

        modes = {"FULL": DurabilityMode.DURABLE, "NORMAL": DurabilityMode.RELAXED}
        self._queue: Any = SimpleQueue(str(folder), durability=modes[level])

    def once(self) -> None:
        self._queue.put(PAYLOAD)
        self._queue.ack(self._queue.get())

    def connections(self) -> list[sqlite3.Connection]:
        return []

    def check(self, level: str) -> None:
        told = self._queue.diagnostics()
        assert (told.journal_mode, told.synchronous) == ("wal", LEVELS[level]), told

    def close(self) -> None:
        self._queue.close()


class EventSourcing(Peer):
    name = "eventsourcing"

    def __init__(self, folder: Path, level: str) -> None:
        from eventsourcing.application import Application

        self._make = _message_class()
        self._app: Any = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(folder / "events.db"),
            }
        )
        self.once()  # makes its connections
        self.durable(level)

    def once(self) -> None:
        message = self._make(PAYLOAD)
        self._app.save(message)
        message.attempt()
        self._app.save(message)
        message.deliver("m1")
        self._app.save(message)

    def connections(self) -> list[sqlite3.Connection]:
        pool = self._app.factory.datastore.pool
        return [held._sqlite_conn for held in pool._pool]

    def close(self) -> None:
        self._app.close()


@cache
def _message_class() -> Any:
    """The library registers aggregates by name, so there can be only one class."""
    from eventsourcing.domain import Aggregate, event

    class Message(Aggregate):
        @event("Queued")
        def __init__(self, text: str) -> None:
            self.text, self.state = text, "queued"

        @event("Attempted")
        def attempt(self) -> None:
            self.state = "attempted"

        @event("Delivered")
        def deliver(self, receipt: str) -> None:
            self.state = receipt

    return Message


class TxOutbox(Peer):
    name = "txoutbox"

    def __init__(self, folder: Path, level: str) -> None:
        from txoutbox import Relay
        from txoutbox.adapters.sqlite import SqliteStorage

        async def publish(message: object) -> None:
            pass

        self._storage: Any = SqliteStorage(str(folder / "outbox.db"))
        self._storage.create_schema()
        self._relay = Relay(self._storage, publish)
        self._runner = asyncio.Runner()
        self.durable(level)

    def once(self) -> None:
        self._runner.run(self._once())

    async def _once(self) -> None:
        await self._storage.add("t", PAYLOAD)
        await self._relay.run_once()

    def connections(self) -> list[sqlite3.Connection]:
        return [self._storage._conn]

    def close(self) -> None:
        self._runner.close()
        super().close()


ALL: tuple[type[Peer], ...] = (
    PersistQueue,
    LiteQueue,
    Huey,
    LocalQueue,
    EventSourcing,
    TxOutbox,
)


def opened(folder: Path, level: str, missing: Callable[[str, str], None]) -> list[Peer]:
    """All peers that are installed and take the level; `missing` is told the name and
    the reason of each other one."""
    found: list[Peer] = []
    for kind in ALL:
        home = folder / kind.name
        home.mkdir()
        try:
            peer = kind(home, level)
            peer.check(level)
            peer.once()
        except ImportError as exc:
            missing(kind.name, f"not installed: {exc}")
        except (AssertionError, AttributeError) as exc:
            missing(kind.name, f"its durability cannot be read: {exc}")
        else:
            found.append(peer)
    return found
