"""A copy of a SQLite store, made while others write, and the sizes of its parts.

The copy is one commit of the store: SQLite's backup reads inside one transaction. It is
written to `<target>.part`, its large bodies to `<target>.part.bodies`, the state of
plugins to `<target>.part.plugins`. All are renamed when the copy is durable, the
database last. So a file at `target` is complete. A crash leaves files that the next
copy removes first.

A copy without text has no bodies, no commands and no state of plugins, and no page that
held them.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import apsw

from turnfold.errors import DiskError
from turnfold.logs import lines
from turnfold_adapters.plugins.sqlite import read_only
from turnfold_adapters.stores import cipher
from turnfold_adapters.stores.private import make_private
from turnfold_adapters.stores.sqlite import schema
from turnfold_adapters.stores.sqlite.connection import typed_error
from turnfold_adapters.stores.sqlite.files import BodyFolder, sync_folder

_LOG = lines()
_PAGES = 2_000  # per step
_IN_FILES = """
    SELECT id FROM body WHERE salt IS NOT NULL AND data IS NULL
    UNION ALL SELECT place FROM late_body WHERE salt IS NOT NULL AND data IS NULL
"""
_PLUGINS = (".plugins", ".plugins-wal", ".plugins-shm")
_SIDES = ("", "-wal", "-shm", "-journal", *_PLUGINS)
_STRIP = (
    "UPDATE body SET salt = NULL, data = NULL WHERE salt IS NOT NULL",
    "UPDATE late_body SET salt = NULL, data = NULL WHERE salt IS NOT NULL",
    "DELETE FROM inbox",
    "DELETE FROM answer",
)
Tell = Callable[[int, int], None]
_Writer = Callable[[Path], apsw.Connection]


def sides(path: Path) -> Iterator[Path]:
    """The files of a database and of the state of plugins, and the folder of its bodies."""
    yield from (path.with_name(f"{path.name}{side}") for side in _SIDES)
    yield path.with_name(f"{path.name}.bodies")


def copy(
    conn: apsw.Connection, folder: BodyFolder, target: Path, tell: Tell, *, text: bool
) -> None:
    """`conn`: for reading, and not used elsewhere meanwhile. Raises DiskError, also if a file is at `target`."""
    part = target.with_name(f"{target.name}.part")
    there = [path for path in sides(target) if path.exists()]
    if there:
        raise DiskError(path=str(there[0]), problem="it exists already; move it away")
    try:
        clear(part)
        make_private(str(part))
        new = partial(_writer, key_file=folder.key_file)
        places = _pages(conn, new, part, tell)
        if text:
            _bodies(folder, places, new, part)
            _plugins(Path(conn.filename), new, part, folder.key_file)
        else:
            _strip(new, part)
        into_place(part, target)
    except apsw.Error as exc:
        raise typed_error(exc, str(target)) from exc
    except OSError as exc:
        raise DiskError(path=str(target), problem=str(exc)) from exc


def _writer(path: Path, key_file: str | None) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE
    return cipher.connect(str(path), path=str(path), key_file=key_file, flags=flags)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pages(conn: apsw.Connection, writer: _Writer, part: Path, tell: Tell) -> list[int]:
    """Copy the database as of one commit. Returns the places of its bodies in files."""
    new = writer(part)
    try:
        new.pragma("synchronous", "FULL")
        conn.execute("BEGIN")
        try:
            places = [row[0] for row in conn.execute(_IN_FILES)]
            with new.backup("main", conn, "main") as work:
                while not work.done:
                    work.step(_PAGES)
                    tell(work.page_count - work.remaining, work.page_count)
        finally:
            conn.execute("COMMIT")
        new.execute("DELETE FROM owner")  # the copy has had no worker
        new.pragma("wal_checkpoint", "TRUNCATE")
    finally:
        new.close()
    return places


def _bodies(folder: BodyFolder, places: list[int], writer: _Writer, part: Path) -> None:
    """Copy the files of bodies. A missing file was erased after the copied commit."""
    if not places:
        return
    new = BodyFolder(str(part))
    gone = []
    for place in places:
        data = folder.read(place)
        if data is None:
            gone.append(place)
        else:
            new.write(place, data)
    if gone:
        _erase(writer, part, gone)


def _strip(writer: _Writer, part: Path) -> None:
    """Erase the text and write all pages anew, so that none holds erased bytes."""
    conn = writer(part)
    try:
        conn.pragma("secure_delete", 1)
        for sql in _STRIP:
            conn.execute(sql)
        conn.pragma("application_id", schema.WITHOUT_TEXT)
        conn.execute("VACUUM")
        conn.pragma("wal_checkpoint", "TRUNCATE")
    finally:
        conn.close()


def _plugins(path: Path, writer: _Writer, part: Path, key_file: str | None) -> None:
    """Copy the state of plugins. An unreadable one is left out, since this state may be
    lost."""
    source = path.with_name(f"{path.name}.plugins")
    if not source.exists():
        return
    target = part.with_name(f"{part.name}.plugins")
    make_private(str(target))
    try:
        _copied(read_only(source, key_file), writer(target))
    except apsw.Error as exc:
        _LOG.warning("%s is not in the copy: %s", source, exc)
        target.unlink()
        return
    _sync(target)


def _copied(old: apsw.Connection, new: apsw.Connection) -> None:
    try:
        with new.backup("main", old, "main") as work:
            work.step()
        new.pragma("journal_mode", "DELETE")  # its first use makes it WAL again
    finally:
        new.close()
        old.close()


def _erase(writer: _Writer, part: Path, places: list[int]) -> None:
    """Erase the bodies in the copy that the store has erased meanwhile. A body that the
    store has lost stays named, so that the audit finds it."""
    conn = writer(part)
    try:
        conn.pragma("secure_delete", 1)
        rows = [(place,) for place in places]
        for table, column in (("body", "id"), ("late_body", "place")):
            sql = f"UPDATE {table} SET salt = NULL, data = NULL WHERE {column} = ?"
            conn.executemany(sql, rows)
    finally:
        conn.close()


def into_place(staged: Path, target: Path) -> None:
    """Rename a finished store to its final name, the database last. No file may have
    that name. Raises OSError."""
    _sync(staged)
    for path in [path for path in sides(staged) if path.exists() and path != staged]:
        path.replace(target.with_name(target.name + path.name[len(staged.name) :]))
    staged.replace(target)
    sync_folder(target.parent)


def take_back(staged: Path, target: Path) -> None:
    """Undo a crash in `into_place`, which may have left bodies and plugins under their
    new names and the database under its old one. If the database is not under its old
    name, these files belong to another store and stay."""
    if not staged.exists() or target.exists():
        return
    for side in (".bodies", ".plugins"):
        moved, home = (p.with_name(f"{p.name}{side}") for p in (target, staged))
        if moved.exists() and not home.exists():
            moved.replace(home)


def clear(staged: Path) -> None:
    """Remove the files of an earlier, unfinished copy."""
    for path in (*sides(staged), *_helpers(staged)):
        _remove(path)


def _helpers(path: Path) -> Iterator[Path]:
    yield from (path.with_name(f"{path.name}.{name}") for name in ("mark", "worker"))


def move_away(path: Path, aside: Path) -> None:
    """Rename the store at a path, the database first: so no store without its bodies is
    found there. After a crash a second call goes on. Raises DiskError if both names of
    a file are taken."""
    for old in sides(path):
        new = aside.with_name(aside.name + old.name[len(path.name) :])
        if not old.exists():
            continue
        if new.exists():
            raise DiskError(path=str(new), problem="it exists already; move it away")
        old.replace(new)
    sync_folder(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def size(conn: apsw.Connection, path: str) -> Mapping[str, int]:
    """Bytes of each file, and of each table with its indexes, by SQLite's `dbstat`."""
    found: dict[str, int] = {}
    base = Path(path)
    for file in sides(base):
        if file.is_dir():
            found["bodies"] = sum(f.stat().st_size for f in file.iterdir())
        elif file.exists():
            found[f"file{file.name[len(base.name) :]}"] = file.stat().st_size
    tables = """SELECT m.tbl_name, sum(d.pgsize) FROM dbstat AS d
                JOIN sqlite_schema AS m ON m.name = d.name
                WHERE d.aggregate = 1 GROUP BY m.tbl_name"""
    for name, amount in conn.execute(tables):
        found[f"table {name}"] = amount
    page, free = conn.pragma("page_size"), conn.pragma("freelist_count")
    found["free"] = page * free
    return found


def room(path: str) -> Mapping[str, int]:
    """The bytes of the database and its log, and the free bytes of its disk; empty if
    the disk does not answer."""
    try:
        found = [Path(f"{path}{side}") for side in ("", "-wal")]
        taken = sum(file.stat().st_size for file in found if file.exists())
        return {"bytes": taken, "free_bytes": shutil.disk_usage(Path(path).parent).free}
    except OSError:
        return {}


def kind(conn: apsw.Connection | None) -> Mapping[str, bool]:
    """`text`: False for a copy without bodies. Empty if the file cannot be read: health
    must answer then, too."""
    try:
        return {} if conn is None or schema.has_text(conn) else {"text": False}
    except apsw.Error:
        return {}
