"""What a SQLite store opens, what it refuses, and that looking leaves no trace."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from turnfold.errors import (
    DiskError,
    NewerSchemaError,
    NotAStoreError,
    ReadOnlyError,
    UnsafeStoreError,
)
from turnfold.ports.store import now
from turnfold_adapters.stores.sqlite import SqliteStore, schema
from turnfold_adapters.stores.sqlite.connection import (
    Settings,
    _require_synchronous,
    file_system_in,
)
from turnfold_model.checks.store_kit import command, head_of, put, whole_log


def _store(path: object, **options: Any) -> SqliteStore:
    """A store whose calls do not suspend, so that no test here needs a loop."""
    return SqliteStore(path, flush="loop", **options)  # type: ignore[arg-type]  # some tests pass no path


ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one record, closed."""
    path = tmp_path / "store.db"
    store = _store(path)
    now(store.open())
    now(put(store, "entry:a"))
    now(store.close())
    return path


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    if not ROOT:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"mounting is refused here: {done.stderr.decode().strip()}")


def _edit(path: Path, sql: str) -> None:
    conn = apsw.Connection(str(path))
    conn.execute(sql)
    conn.close()


def _snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        file.name: (file.stat().st_size, file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.iterdir()
    }


def _read(path: Path) -> int:
    store = _store(path)
    now(store.open(read_only=True))
    try:
        return len(now(whole_log(store)))
    finally:
        now(store.close())


@pytest.mark.case("M06")
def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    _edit(path, f"PRAGMA user_version = {schema.SCHEMA + 1}")
    before = _snapshot(path.parent)
    with pytest.raises(NewerSchemaError) as caught:
        now(_store(path).open())
    assert (caught.value.found, caught.value.known) == (2, 1)
    assert _snapshot(path.parent) == before


@pytest.mark.case("M06")
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("number", [0, -1])
def test_a_layout_that_no_turnfold_writes_is_refused_and_left_as_it_is(
    path: Path, number: int, read_only: bool
) -> None:
    _edit(path, f"PRAGMA user_version = {number}")
    before = _snapshot(path.parent)
    with pytest.raises(NotAStoreError, match=f"number {number}"):
        now(_store(path).open(read_only=read_only))
    assert _snapshot(path.parent) == before


@pytest.mark.case("W04")
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE log RENAME COLUMN hash TO digest",
        "ALTER TABLE log ADD COLUMN more TEXT",
        "ALTER TABLE pruned RENAME COLUMN by TO whom",
        "ALTER TABLE tally RENAME COLUMN count TO n",
        "ALTER TABLE inbox RENAME TO outbox",
        "DROP TABLE digested",
        "DROP INDEX inbox_key",
    ],
)
@pytest.mark.parametrize("killed", [False, True])
def test_a_changed_table_is_refused_and_left_as_it_is(
    path: Path, tmp_path: Path, change: str, killed: bool
) -> None:
    """No statement runs before the look; the log of a killed writer stays, too."""
    conn = apsw.Connection(str(path))
    conn.execute(change)
    if killed:  # as files, without the close that would empty the log
        path = _copied(path, tmp_path / "killed")
    conn.close()
    before = _snapshot(path.parent)
    with pytest.raises(NotAStoreError, match=change.split()[2]):
        now(_store(path).open())
    assert {**_snapshot(path.parent), f"{path.name}-shm": b""} == {
        **before,
        f"{path.name}-shm": b"",
    }


def test_a_further_index_is_nobodys_business(path: Path) -> None:
    _edit(path, "CREATE INDEX mine ON log (at)")
    assert _read(path) == 1
    store = _store(path)
    now(store.open())
    now(store.close())


def _copied(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.parent / name, folder / name)
    return folder / path.name


@pytest.mark.case("M06")
def test_a_newer_schema_that_only_adds_can_still_be_read(path: Path) -> None:
    _edit(path, f"PRAGMA user_version = {schema.SCHEMA + 1}")
    assert _read(path) == 1


@pytest.mark.case("M06")
@pytest.mark.parametrize(
    "change", ["UPDATE layout SET readable_by = 2", "DROP TABLE layout"]
)
def test_a_newer_schema_that_says_so_is_not_even_read(path: Path, change: str) -> None:
    _edit(path, f"PRAGMA user_version = {schema.SCHEMA + 1}")
    _edit(path, change)
    with pytest.raises(NewerSchemaError):
        now(_store(path).open(read_only=True))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_foreign_database_is_refused_and_left_as_it_is(
    tmp_path: Path, read_only: bool
) -> None:
    path = tmp_path / "other.db"
    _edit(path, "CREATE TABLE t (a)")
    before = _snapshot(tmp_path)
    with pytest.raises(NotAStoreError, match="another program"):
        now(_store(path).open(read_only=read_only))
    assert _snapshot(tmp_path) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but longer than a header would be" * 20)
    before = path.read_bytes()
    with pytest.raises(NotAStoreError):
        now(_store(path).open(read_only=read_only))
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_a_folder_is_refused(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(NotAStoreError):
        now(_store(tmp_path).open(read_only=read_only))


@pytest.mark.case("W12")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, read_only: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAStoreError, match="no regular file"):
        now(_store(tmp_path / "pipe").open(read_only=read_only))


@pytest.mark.case("W12")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_of_another_user_is_told_and_nothing_is_left_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    """A -wal with its mode would stay, and refuse the gateway's own user later."""
    store = _store(path)
    now(store.open())
    now(store.close())
    before = sorted(path.parent.iterdir())
    may = os.R_OK if not read_only else 0
    monkeypatch.setattr(os, "access", lambda _, mode: mode & ~may == os.F_OK)  # as root
    word = "read" if read_only else "write"
    with pytest.raises(DiskError, match=f"this user may not {word} it"):
        now(_store(path).open(read_only=read_only))
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.case("W12")
def test_a_lock_file_that_is_a_link_to_itself_is_a_typed_error(path: Path) -> None:
    lock = Path(f"{path}.worker")
    lock.unlink(missing_ok=True)
    lock.symlink_to(lock)
    store = _store(path)
    now(store.open())
    with pytest.raises(DiskError, match=r"store\.db\.worker"):
        now(store.ownership().take())
    now(store.close())


@pytest.mark.case("W12")
def test_a_mark_of_gigabytes_is_not_read_whole(path: Path) -> None:
    mark = Path(f"{path}.mark")
    mark.touch()
    os.truncate(mark, 1 << 40)
    store = _store(path)
    now(store.open())
    assert now(store.watermark()) is None
    now(store.close())


def test_an_empty_file_becomes_a_store_but_is_none_to_read(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    with pytest.raises(NotAStoreError, match="empty"):
        now(_store(path).open(read_only=True))
    store = _store(path)
    now(store.open())
    now(put(store, "entry:a"))
    now(store.close())
    assert _read(path) == 1


def test_a_creation_that_was_cut_short_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    _edit(path, "PRAGMA journal_mode = WAL")  # what is there before the tables are
    store = _store(path)
    now(store.open())
    assert now(head_of(store)).position == 0
    now(store.close())


def test_a_copy_without_wal_mode_is_opened(path: Path, tmp_path: Path) -> None:
    _edit(path, f"VACUUM INTO '{tmp_path / 'copy.db'}'")
    assert _read(tmp_path / "copy.db") == 1
    store = _store(tmp_path / "copy.db")
    now(store.open())
    now(put(store, "entry:b"))
    now(store.close())
    assert _read(tmp_path / "copy.db") == 2


def test_a_missing_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="folder"):
        now(_store(tmp_path / "none" / "store.db").open())
    with pytest.raises(NotAStoreError, match="does not exist"):
        now(_store(tmp_path / "none.db").open(read_only=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(UnsafeStoreError):
        SqliteStore(path)


@pytest.mark.case("N10")
def test_reading_leaves_no_trace(path: Path) -> None:
    before = _snapshot(path.parent)
    assert _read(path) == 1
    assert _snapshot(path.parent) == before


@pytest.mark.case("N10")
def test_reading_beside_a_writer_leaves_no_trace(path: Path) -> None:
    writer = _store(path)
    now(writer.open())
    now(put(writer, "entry:b"))
    before = _snapshot(path.parent)
    assert _read(path) == 2
    assert _snapshot(path.parent).keys() == before.keys()
    assert _snapshot(path.parent)["store.db"] == before["store.db"]
    now(writer.close())


@pytest.mark.case("N10")
def test_a_reader_that_came_first_sees_a_later_writer(path: Path) -> None:
    reader, writer = _store(path), _store(path)
    now(reader.open(read_only=True))
    assert len(now(whole_log(reader))) == 1
    now(writer.open())
    now(put(writer, "entry:b"))
    assert len(now(whole_log(reader))) == 2
    with pytest.raises(ReadOnlyError):
        now(reader.post([command("1")]))
    now(writer.close())
    now(reader.close())


@pytest.mark.case("N10")
def test_a_log_without_its_index_is_not_guessed_at(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(b"x" * 100)
    before = _snapshot(path.parent)
    with pytest.raises(UnsafeStoreError, match="-shm"):
        now(_store(path).open(read_only=True))
    assert _snapshot(path.parent) == before


@pytest.mark.case("N10")
def test_a_store_on_a_read_only_disk_is_read_but_not_opened(mount: Path) -> None:
    path = mount / "store.db"
    store = _store(path)
    now(store.open())
    now(put(store, "entry:a"))
    now(store.close())
    _mount("-o", "remount,ro", str(mount))
    assert _read(path) == 1
    with pytest.raises(DiskError):
        now(_store(path).open())
    assert sorted(file.name for file in mount.iterdir()) == ["store.db"]


def test_opening_an_existing_store_changes_no_byte(path: Path) -> None:
    before = _snapshot(path.parent)
    for _ in range(2):
        store = _store(path)
        now(store.open())
        assert now(head_of(store)).position == 1
        now(store.close())
    assert _snapshot(path.parent) == before


@pytest.mark.case("E07", "F07")
def test_the_path_is_resolved_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv("HOME", str(real))
    monkeypatch.chdir(real)
    words = ["store.db", "~/store.db", str(tmp_path / "link" / "store.db")]
    stores = [_store(word) for word in words]
    monkeypatch.setenv("HOME", str(other))
    monkeypatch.chdir(other)
    for number, store in enumerate(stores, 1):
        now(store.open())
        now(put(store, "entry:a"))
        assert now(head_of(store)).position == number
        assert store.address == str(real / "store.db")
        now(store.close())
    assert list(other.iterdir()) == []


@pytest.mark.case("Q02")
def test_power_settings_are_what_was_asked_for(path: Path) -> None:
    for level, number in (("FULL", 2), ("NORMAL", 1), ("EXTRA", 3), ("OFF", 0)):
        store = _store(path, synchronous=level)
        now(store.open())
        assert store._writer is not None
        assert store._writer.pragma("synchronous") == number
        assert store._writer.pragma("journal_mode") == "wal"
        assert store._writer.pragma("wal_autocheckpoint") == 0
        now(store.close())
    default = _store(path)
    assert default._settings.synchronous == "FULL"


def test_a_level_that_is_not_granted_is_refused() -> None:
    """SQLite answers a setting that it does not honour with silence."""

    class Deaf:
        def pragma(self, name: str, value: object = None) -> int:
            del name, value
            return 1

    with pytest.raises(UnsafeStoreError, match="synchronous is 1, not FULL"):
        _require_synchronous(Deaf(), Settings(path="x"))  # type: ignore[arg-type]


def test_a_disk_without_shared_memory_is_refused(tmp_path: Path) -> None:
    """SQLite itself would go on without WAL, silently."""
    with pytest.raises(UnsafeStoreError, match="shared memory"):
        now(_store(tmp_path / "store.db", vfs="unix-none").open())


MOUNTS = [
    "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
    "30 21 0:40 / /srv/chat rw shared:2 - nfs4 server:/export rw",
    r"31 21 0:41 / /srv/my\040disk rw - fuse.sshfs host: rw",
    "32 30 0:42 / /srv/chat/local rw - xfs /dev/sdb rw",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a.db", "ext4"),
        ("/srv/chat/a.db", "nfs4"),
        ("/srv/chatter/a.db", "ext4"),
        ("/srv/my disk/a.db", "fuse.sshfs"),
        ("/srv/chat/local/a.db", "xfs"),
    ],
)
def test_the_file_system_under_a_path_is_found(path: str, kind: str) -> None:
    assert file_system_in(MOUNTS, path) == kind


def test_a_network_disk_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = "turnfold_adapters.stores.sqlite.connection.file_system"
    monkeypatch.setattr(place, lambda _: "nfs4")
    with pytest.raises(UnsafeStoreError, match="nfs4"):
        now(_store(path).open())
