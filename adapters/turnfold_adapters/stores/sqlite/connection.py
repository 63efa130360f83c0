"""Connections to a SQLite file: settings that are checked, errors that are typed.

Every setting that a promise needs is read back after it was set, because SQLite reports
no error for a setting that it cannot apply.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

import apsw
from attrs import frozen

from turnfold.errors import (
    BusyError,
    DamagedError,
    DiskError,
    InvalidInputError,
    NotAStoreError,
    StoreError,
    UnsafeStoreError,
)
from turnfold_adapters.stores import cipher
from turnfold_adapters.stores.sqlite import schema

Synchronous = Literal["EXTRA", "FULL", "NORMAL", "OFF"]

_LEVELS = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}
_PAUSE_S = 50e-6  # SQLite's own timeout backs off to 100 ms: measured stalls of seconds


@frozen(kw_only=True)
class Settings:
    """The settings of a store's connections; `SqliteStore` documents them."""

    path: str
    synchronous: Synchronous = "FULL"
    vfs: str | None = None
    exclusive: bool = False
    key_file: str | None = None


class BusyWait:
    """A busy handler: short equal pauses until the budget is used up, or no pause while
    `patient` is false. `waited_ms`: the length of the last wait.
    """

    def __init__(self, budget_ms: int) -> None:
        self._budget_s = budget_ms / 1000
        self.patient = True
        self._since = 0.0
        self.waited_ms = 0

    def __call__(self, prior: int) -> bool:
        now = time.monotonic()
        if prior == 0:
            self._since = now
        waited_s = now - self._since
        self.waited_ms = int(waited_s * 1000)
        if waited_s >= self._budget_s or not self.patient:
            return False
        time.sleep(_PAUSE_S)
        return True


def open_writer(
    settings: Settings, wait: BusyWait, look: Callable[[apsw.Connection], None] | None
) -> apsw.Connection:
    """The one connection that writes; creates the file if there is none. `look` is
    called once SQLite has read the log, and before anything is written.

    Raises UnsafeStoreError if WAL or the synchronous level is not available.
    """
    _check_access(settings.path, os.W_OK, "write")
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    conn = _connect(settings, settings.path, flags)
    try:
        conn.set_busy_handler(wait)  # before journal_mode, which can itself be busy
        if settings.exclusive:
            conn.pragma("locking_mode", "EXCLUSIVE")
        _restrain(conn)
        blank = schema.is_blank(conn)
        if look is not None:
            look(conn)
        if not blank:
            _check_layout(conn, settings.path)
        _require_wal(conn, settings.path)
        _require_synchronous(conn, settings)
        conn.pragma("wal_autocheckpoint", 0)  # never in the middle of work
        _require_secure_delete(conn, settings.path)
        if blank:
            schema.create(conn)
    except BaseException:
        conn.close()
        raise
    return conn


def _check_layout(conn: apsw.Connection, path: str) -> None:
    """`schema.check`; closing a refused file leaves its log where it is."""
    try:
        schema.check(conn, path, read_only=False)
    except StoreError:
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        raise


def open_reader(settings: Settings, wait: BusyWait) -> apsw.Connection:
    """A connection that cannot write, beside a writer of this process."""
    flags = apsw.SQLITE_OPEN_READWRITE
    conn = _connect(settings, settings.path, flags)
    conn.set_busy_handler(wait)
    _restrain(conn)
    conn.pragma("query_only", 1)
    return conn


def open_mover(settings: Settings) -> apsw.Connection:
    """A connection for checkpoints beside a writer of this process, with the writer's
    sync level."""
    flags = apsw.SQLITE_OPEN_READWRITE
    conn = _connect(settings, settings.path, flags)
    try:
        conn.pragma("wal_autocheckpoint", 0)
        _require_synchronous(conn, settings)
    except BaseException:
        conn.close()
        raise
    return conn


def open_read_only(
    settings: Settings, wait: BusyWait, *, immutable: bool
) -> apsw.Connection:
    """A connection that creates, changes and locks nothing, not even the -shm file.

    `immutable`: for a file without -wal, which no process has open; SQLite then takes
    no lock at all and does not look for other files.
    """
    _check_access(settings.path, os.R_OK, "read")
    mode = "immutable=1" if immutable else "readonly_shm=1"
    uri = f"file:{quote(settings.path)}?mode=ro&{mode}"
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    conn = _connect(settings, uri, flags)
    conn.set_busy_handler(wait)
    _restrain(conn)
    return conn


def _check_access(path: str, mode: int, word: str) -> None:
    """Raises DiskError for a file of another user. SQLite would open it for reading, and
    leave a -wal and a -shm with its mode: then nobody could write it, also not once its
    own mode is right."""
    if os.access(path, os.F_OK) and not os.access(path, mode):
        problem = f"this user may not {word} it; be the user of the gateway"
        raise DiskError(path=path, problem=problem)


def _connect(settings: Settings, name: str, flags: int) -> apsw.Connection:
    return cipher.connect(
        name,
        path=settings.path,
        key_file=settings.key_file,
        flags=flags,
        vfs=settings.vfs,
    )


def _restrain(conn: apsw.Connection) -> None:
    conn.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    conn.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    conn.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # One plan for all values of a statement. Else SQLite asks of each bound value if it
    # fits a partial index, and compiles the statement anew for every other value.
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _require_wal(conn: apsw.Connection, path: str) -> None:
    mode = conn.pragma("journal_mode", "WAL")
    if mode != "wal":
        problem = f"its file system has no shared memory, WAL is refused ({mode})"
        raise UnsafeStoreError(path=path, problem=problem)


def _require_synchronous(conn: apsw.Connection, settings: Settings) -> None:
    conn.pragma("synchronous", settings.synchronous)
    # macOS only, elsewhere without effect: fsync there does not reach the platter.
    conn.pragma("fullfsync", 1 if settings.synchronous in ("FULL", "EXTRA") else 0)
    level = conn.pragma("synchronous")
    if level != _LEVELS[settings.synchronous]:
        problem = f"synchronous is {level}, not {settings.synchronous}"
        raise UnsafeStoreError(path=settings.path, problem=problem)


def _require_secure_delete(conn: apsw.Connection, path: str) -> None:
    """Set secure_delete always, not only while erasing: so bytes that move inside a
    file leave no copy."""
    if conn.pragma("secure_delete", 1) != 1:
        problem = "this SQLite cannot erase for good (secure_delete is refused)"
        raise UnsafeStoreError(path=path, problem=problem)


def typed_error(exc: Exception, path: str, waited_ms: int = 0) -> StoreError:
    """The error for the caller for a database error outside a COMMIT."""
    if isinstance(exc, apsw.BusyError | apsw.LockedError):
        return BusyError(path=path, waited_ms=waited_ms)
    if isinstance(exc, apsw.NotADBError):
        problem = "not a database, or a damaged one"
        return cipher.unreadable(path) or NotAStoreError(path=path, problem=problem)
    if isinstance(exc, apsw.CorruptError | apsw.ConstraintError):
        return DamagedError(path=path, problem=problem_of(exc))
    return DiskError(path=path, problem=problem_of(exc))


def problem_of(exc: Exception) -> str:
    """The error in one line, with the name of SQLite's extended code, if there is
    one."""
    code = getattr(exc, "extendedresult", None)
    name = apsw.mapping_extended_result_codes.get(code) if code is not None else None
    return f"{exc} ({name})" if name else str(exc)


class _HasPath(Protocol):
    @property
    def path(self) -> str: ...

    @property
    def wait(self) -> BusyWait: ...


P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=_HasPath)


def typed(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Translates errors of the database into errors of the port, for reading
    methods."""

    @wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except apsw.Error as exc:
            raise typed_error(exc, self.path, self.wait.waited_ms) from exc
        except UnicodeDecodeError as exc:
            problem = f"a text in it is not UTF-8: {exc}"
            raise DamagedError(path=self.path, problem=problem) from exc
        except (UnicodeEncodeError, OverflowError) as exc:  # no row can hold this value
            raise InvalidInputError(field="query", problem=str(exc)) from exc

    return wrapper


def rollback(conn: apsw.Connection, cause: BaseException) -> bool:
    """Ends an open transaction without masking its cause; False if that failed too.

    A full disk may have ended it already.
    """
    if not conn.in_transaction:
        return True
    try:
        conn.execute("ROLLBACK")
    except apsw.Error as exc:
        cause.add_note(f"rolling back failed too: {problem_of(exc)}")
        return False
    return True


def row_of(conn: apsw.Connection, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
    """The first row as a tuple, or None; leaves no cursor open."""
    rows = conn.execute(sql, bindings).fetchall()
    return rows[0] if rows else None


# --- the place of a store --------------------------------------------------------
# Every part of the library uses `resolve`, so a writer and a sweeper use the same file,
# and a later change of directory or HOME has no effect.

# POSIX locks or shared memory of these do not hold between machines.
_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "fuse.ceph-fuse",
        "fuse.davfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
        "smbfs",
    }
)
_MOUNTS = Path("/proc/self/mountinfo")


def located(address: str | os.PathLike[str]) -> tuple[str, str | None]:
    """The path that an address means, and the key file that it names."""
    if not isinstance(address, str):
        return resolve(address), None
    path, key_file = cipher.parsed(address)
    return resolve(path), key_file


def resolve(path: str | os.PathLike[str]) -> str:
    """The present absolute path, without links.

    Raises UnsafeStoreError for names that mean a database in memory to SQLite, and
    NotAStoreError for names that no file can have.
    """
    text = _text(path)
    if not text or text == ":memory:" or "\0" in text:
        problem = "it is not the path of a file; for a store in memory use MemoryStore"
        raise UnsafeStoreError(path=text, problem=problem)
    try:
        text.encode()
        return os.path.realpath(Path(text).expanduser())
    except (UnicodeEncodeError, RuntimeError, OSError) as exc:
        shown = text.encode(errors="backslashreplace").decode()
        raise NotAStoreError(path=shown, problem=str(exc)) from exc


def _text(path: object) -> str:
    """The path as text. Raises InvalidInputError for any other value."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        problem = f"expected str or os.PathLike of str, got {type(path).__name__}"
        raise InvalidInputError(field="path", problem=problem)
    return text


def check_file(path: str) -> None:
    """Raises NotAStoreError for a folder, and for a pipe or a device, whose opening may
    never end."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    if S_ISDIR(mode):
        raise NotAStoreError(path=path, problem="it is a folder")
    if not S_ISREG(mode):
        raise NotAStoreError(path=path, problem="it is no regular file")


def check_links(path: str) -> None:
    """Raises UnsafeStoreError for a file with two names: the log and the locks of a
    store go by its name, so two workers would not see each other."""
    if Path(path).stat().st_nlink > 1:
        problem = "the file has another name (a hard link); remove one of the names"
        raise UnsafeStoreError(path=path, problem=problem)


def check_disk(path: str) -> None:
    """Raises UnsafeStoreError for a network disk."""
    kind = file_system(path)
    if kind in _NETWORK:
        problem = f"{kind} is a network file system; locks do not hold there"
        raise UnsafeStoreError(path=path, problem=problem)


def file_system(path: str) -> str | None:
    """The type of the file system under a path, None where the system does not say."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:  # not Linux
        return None
    return file_system_in(lines, path)


def file_system_in(mounts: list[str], path: str) -> str | None:
    """As `file_system`, from lines of mountinfo; later mounts cover earlier ones."""
    best, found = -1, None
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = _unescaped(left.split(" ")[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), right.split(" ")[0]
    return found


def _unescaped(point: str) -> str:
    for code, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        point = point.replace("\\" + code, char)
    return point


def has_wal(path: str) -> bool:
    """True if a store must be read through its write-ahead log.

    Raises UnsafeStoreError if there is one that cannot be read without writing.
    """
    try:
        size = os.stat(f"{path}-wal").st_size  # noqa: PTH116  asked before each read
    except (FileNotFoundError, NotADirectoryError):
        return False
    shm = Path(f"{path}-shm").exists()
    if not shm and size:
        problem = "it has a -wal but no -shm; open it once for writing"
        raise UnsafeStoreError(path=path, problem=problem)
    return shm


def stamp(path: str) -> tuple[int, ...]:
    """A stamp of a file. It changes after each writer, even if the writer left no log
    behind."""
    status = os.stat(path)  # noqa: PTH116  as above
    return status.st_ino, status.st_size, status.st_mtime_ns


def touched(path: str, before: tuple[int, ...]) -> bool:
    """True if a writer has the file open, or had it since the stamp `before`."""
    return has_wal(path) or stamp(path) != before
