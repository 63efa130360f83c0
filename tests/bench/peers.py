"""The peers: one durable enqueue, one claim, one acknowledgement per message.

Each is set to the durability that is compared, and says which one its live connection
really has. Nothing here is tuned against them: WAL, one process, one message at a time
(with threads or in batches of one none of them gets faster).
"""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench.ours import PAYLOAD

LEVELS = {"FULL": 2, "NORMAL": 1}


class Peer:
    """`once()` is one lifecycle. `setting()` is read from the live connection."""

    name = ""
    promise = "at least once"
    history = False  # does it keep what it has delivered?

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
    history = True

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
    promise = "at most once"  # a task is deleted when it is claimed

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
    """Its connection is inside a Rust extension: it reports its level itself."""

    name = "localqueue"
    history = True

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
    history = True

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
    """Its aggregates are registered by name, so there can be only one."""
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
    history = True

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


def opened(folder: Path, level: str, told: Callable[[str], None]) -> list[Peer]:
    """Those that are installed and take the level; who is missing is said."""
    found: list[Peer] = []
    for kind in ALL:
        home = folder / f"{kind.name}-{level}"
        home.mkdir()
        try:
            peer = kind(home, level)
            peer.check(level)
            peer.once()
        except ImportError as exc:
            told(f"{kind.name} is left out: {exc}")
        except (AssertionError, AttributeError) as exc:
            told(f"{kind.name} is left out, its durability cannot be read: {exc}")
        else:
            found.append(peer)
    return found
