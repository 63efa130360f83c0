"""Plugin state in a SQLite file beside the store: `<store>.plugins`.

WAL, one connection a process. A write is in the log of SQLite when the call returns and
survives the death of the process; after a loss of power the latest writes may be gone.
`take` and a write with `expect` are synced, so that they survive a loss of power.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import apsw

from turnfold.errors import BusyError, DiskError, NewerSchemaError, NotAStoreError
from turnfold.ports.plugins import Everything, Row, Space, Write, Wrote
from turnfold_adapters.stores import cipher
from turnfold_adapters.stores.private import make_private

P = ParamSpec("P")
T = TypeVar("T")
_APPLICATION = 0x74666C70  # "tflp"
_SCHEMA = 1
_BUSY_MS = 1_000  # a handler waits for it
_SWEEP = 100  # expired rows that one write removes (O05)
_TABLES = """
CREATE TABLE versions (next INTEGER NOT NULL) STRICT;
INSERT INTO versions VALUES (0);
CREATE TABLE items (
    plugin TEXT NOT NULL,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    data BLOB NOT NULL,
    version INTEGER NOT NULL,
    schema INTEGER NOT NULL,
    expires INTEGER,
    PRIMARY KEY (plugin, namespace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX by_age ON items (plugin, namespace, version);
CREATE INDEX by_expiry ON items (plugin, namespace, expires) WHERE expires IS NOT NULL;
CREATE TABLE counts (
    plugin TEXT NOT NULL, namespace TEXT NOT NULL, rows INTEGER NOT NULL,
    PRIMARY KEY (plugin, namespace)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON items BEGIN
    INSERT INTO counts VALUES (new.plugin, new.namespace, 1)
    ON CONFLICT DO UPDATE SET rows = rows + 1;
END;
CREATE TRIGGER discounted AFTER DELETE ON items BEGIN
    UPDATE counts SET rows = rows - 1
    WHERE plugin = old.plugin AND namespace = old.namespace;
END;
"""
_HERE = "plugin = ?1 AND namespace = ?2"
_FAULTS = (
    (
        """SELECT plugin, namespace, count(*) FROM items GROUP BY 1, 2
           EXCEPT SELECT plugin, namespace, rows FROM counts""",
        "the count of a namespace is not that of its values",
    ),
    (
        "SELECT 1 FROM items, versions WHERE version > next LIMIT 1",
        "a value has a version that was never given out",
    ),
    (
        "SELECT 1 FROM items GROUP BY version HAVING count(*) > 1 LIMIT 1",
        "two values have the same version",
    ),
)
_ROW = "SELECT key, data, version, schema, expires FROM items WHERE"
_GET = f"{_ROW} {_HERE} AND key = ?3"
_ALL = f"{_ROW} {_HERE} AND (expires IS NULL OR expires > ?3) ORDER BY version"
_EVERY = "SELECT plugin, namespace, key, data, version, schema, expires FROM items"
_COUNT = f"SELECT rows FROM counts WHERE {_HERE}"
_PUT = (
    "INSERT INTO items VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET "
    "data = ?4, version = ?5, schema = ?6, expires = ?7"
)
_NEXT = "UPDATE versions SET next = next + 1 RETURNING next"
_DELETE = f"DELETE FROM items WHERE {_HERE} AND key = ?3"
_SWEEP_SOME = (
    f"DELETE FROM items WHERE {_HERE} AND key IN (SELECT key FROM items WHERE {_HERE} "
    f"AND expires <= ?3 LIMIT {_SWEEP})"
)
_EVICT = (
    f"DELETE FROM items WHERE {_HERE} AND key IN (SELECT key FROM items WHERE {_HERE} "
    "ORDER BY version LIMIT ?3)"
)
_CLEAR = f"DELETE FROM items WHERE {_HERE}"


def _typed(
    call: "Callable[Concatenate[SqlitePluginStore, P], T]",
) -> "Callable[Concatenate[SqlitePluginStore, P], T]":
    """Translates apsw's errors into errors of the port."""

    @wraps(call)
    def typed(self: "SqlitePluginStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(self, *args, **kwargs)
        except apsw.BusyError as exc:
            raise BusyError(path=self.address, waited_ms=_BUSY_MS) from exc
        except (apsw.Error, OSError) as exc:
            raise DiskError(path=self.address, problem=str(exc)) from exc

    return typed


class SqlitePluginStore:
    """`path`: of the store beside it. Not thread-safe: the kernel has a lock around it.
    After a fork the child opens a connection of its own."""

    def __init__(self, path: str, *, key_file: str | None = None) -> None:
        self._key_file = key_file
        self._path = Path(f"{path}.plugins")
        self._connection: apsw.Connection | None = None
        self._pid = 0
        self._kept: list[apsw.Connection] = []  # of a parent, which closes them

    @property
    def address(self) -> str:
        return str(self._path)

    # --- the port ---

    @_typed
    def write(self, space: Space, write: Write) -> Wrote:
        with self._transaction(sync=write.expect is not None) as db:
            there = _live(db, space, write.key, write.now)
            version = 0 if there is None else there.version
            if write.expect is not None and write.expect != version:
                return Wrote(there, stored=False, count=_count(db, space))
            db.execute(_SWEEP_SOME, (*space, write.now))
            if there is None and not _room(db, space, write):
                return Wrote(None, stored=False, count=_count(db, space), full=True)
            ((number,),) = db.execute(_NEXT)
            row = Row(write.key, write.data, number, write.schema, write.expires)
            values = (*space, row.key, row.data, number, row.schema, row.expires)
            db.execute(_PUT, values)
            return Wrote(row, stored=True, count=_count(db, space))

    @_typed
    def get(self, space: Space, keys: Sequence[str], now: int) -> list[Row | None]:
        db = self._opened(create=False)
        if db is None:
            return [None for _ in keys]
        return [_live(db, space, key, now) for key in keys]

    @_typed
    def take(self, space: Space, key: str, now: int, schema: int) -> Row | None:
        if self._opened(create=False) is None:
            return None
        with self._transaction(sync=True) as db:
            row = _live(db, space, key, now)
            if row is None or row.schema > schema:
                return None
            db.execute(_DELETE, (*space, key))
            return row

    @_typed
    def drop(self, space: Space, key: str | None, now: int) -> int:
        if self._opened(create=False) is None:
            return 0
        with self._transaction() as db:
            if key is None:
                live = len(list(db.execute(_ALL, (*space, now))))
                db.execute(_CLEAR, space)
                return live
            row = _live(db, space, key, now)
            db.execute(_DELETE, (*space, key))
            return int(row is not None)

    @_typed
    def rows(self, space: Space, now: int) -> list[Row]:
        db = self._opened(create=False)
        if db is None:
            return []
        return [Row(*row) for row in db.execute(_ALL, (*space, now))]

    @_typed
    def every(self) -> Everything:
        if not self._path.exists():
            return Everything()
        db = read_only(self._path, self._key_file)
        try:
            if not self._known(db):
                return Everything()
            ((last,),) = db.execute("SELECT next FROM versions")
            found = db.execute(f"{_EVERY} ORDER BY version")
            rows = [(Space(*row[:2]), Row(*row[2:])) for row in found]
        finally:
            db.close()
        return Everything(last, rows)

    @_typed
    def bring(self, everything: Everything) -> None:
        with self._transaction(sync=True) as db:
            db.execute("UPDATE versions SET next = ?", (everything.last,))
            for space, r in everything.rows:
                row = (r.key, r.data, r.version, r.schema, r.expires)
                db.execute(_PUT, (*space, *row))

    @_typed
    def changed(self) -> int:
        db = self._opened(create=False)
        if db is None:
            return 0
        ((number,),) = db.execute("PRAGMA data_version")
        return int(number)

    @_typed
    def faults(self) -> list[str]:
        if not self._path.exists():
            return []
        db = read_only(self._path, self._key_file)
        try:
            if not self._known(db):
                return []
            lines = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
            found = [f"its database says: {line}" for line in lines if line != "ok"]
            found += [
                text for sql, text in _FAULTS if any(True for _ in db.execute(sql))
            ]
        finally:
            db.close()
        return found

    def close(self) -> None:
        """Close the connection, unless it belongs to a parent process."""
        db, self._connection = self._connection, None
        if db is not None and self._pid == os.getpid():
            db.close()

    # --- the connection ---

    @contextmanager
    def _transaction(self, *, sync: bool = False) -> Iterator[apsw.Connection]:
        db = self._opened(create=True)
        assert db is not None  # noqa: S101  it was created
        db.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _opened(self, *, create: bool) -> apsw.Connection | None:
        """Open the file; a reader does not create it."""
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        if self._connection is not None:
            self._kept.append(self._connection)
            self._connection = None
        if not create and not self._path.exists():
            return None
        self._connection, self._pid = self._connect(), os.getpid()
        return self._connection

    def _connect(self) -> apsw.Connection:
        make_private(self.address)
        db = cipher.connect(self.address, path=self.address, key_file=self._key_file)
        try:
            db.set_busy_timeout(_BUSY_MS)
            db.execute("PRAGMA journal_mode = WAL")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: apsw.Connection) -> None:
        """Make the tables once; other processes may do so at the same moment."""
        if self._known(db):
            return
        db.execute("BEGIN IMMEDIATE")
        if not self._known(db):
            db.execute(_TABLES)
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_SCHEMA}")
        db.execute("COMMIT")

    def _known(self, db: apsw.Connection) -> bool:
        (kind,) = next(iter(db.execute("PRAGMA application_id")))
        (found,) = next(iter(db.execute("PRAGMA user_version")))
        if kind != _APPLICATION:
            ((tables,),) = db.execute("SELECT count(*) FROM sqlite_schema")
            if kind or tables:
                problem = "another program made it"
                raise NotAStoreError(path=self.address, problem=problem)
            return False
        if found > _SCHEMA:
            raise NewerSchemaError(path=self.address, found=found, known=_SCHEMA)
        return True


def read_only(path: Path, key_file: str | None = None) -> apsw.Connection:
    """A connection that creates no files, not even a -shm."""
    logged = path.with_name(f"{path.name}-wal").exists()
    how = "readonly_shm=1" if logged else "immutable=1"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    name = f"file:{quote(str(path))}?mode=ro&{how}"
    db = cipher.connect(name, path=str(path), key_file=key_file, flags=flags)
    db.set_busy_timeout(_BUSY_MS)
    return db


def _live(db: apsw.Connection, space: Space, key: str, now: int) -> Row | None:
    for row in db.execute(_GET, (*space, key)):
        found = Row(*row)
        return found if found.lives(now) else None
    return None


def _count(db: apsw.Connection, space: Space) -> int:
    return next((int(rows) for (rows,) in db.execute(_COUNT, space)), 0)


def _room(db: apsw.Connection, space: Space, write: Write) -> bool:
    """Make room for one more row. Expired rows count until a sweep removes them; an
    eviction removes only the oldest of this namespace."""
    over = _count(db, space) - write.most + 1
    if over > 0 and write.evict:
        db.execute(_EVICT, (*space, over))
        over = 0
    if over > 0:  # an expired row with this key is replaced
        replaced = any(True for _ in db.execute(_GET, (*space, write.key)))
        return over <= replaced
    return True
