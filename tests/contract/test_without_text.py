"""A copy without text holds the whole history and none of the texts; a backup takes the
state of plugins along, and the audit looks at it."""

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import apsw
import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.errors import UnsafeStoreError
from turnfold.ports.plugins import Space, Write
from turnfold_adapters.plugins.sqlite import SqlitePluginStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_cli import app
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import unknown

TEXTS = ("question-Aq3", "answer-Bq3", "error-Cq3", "plugin-Dq3", "posted-Eq3")


async def _made(path: Path) -> None:
    """A turn with a large answer, an entry in doubt, the state of a plugin, and a message
    in the inbox."""

    async def answer(handle: Any) -> None:
        await handle.reply("answer-Bq3" * 9_000)

    gateway = Gateway(store=in_file(path))
    gateway.handler = answer
    kernel = await gateway.start()
    await kernel.accept(inbound("1", text="question-Aq3"))
    await spin()
    gateway.platform.plays(unknown(cause="error-Cq3"))
    await kernel.enqueue(route("9"), "answer-Bq3")
    await spin()
    client = Kernel(path, work=False)
    await client.open()
    with SqlitePlugins(path) as state:
        state.put("k", b"plugin-Dq3")
    await gateway.end()
    await client.accept(inbound("2", text="posted-Eq3"))
    await client.close()


class SqlitePlugins:
    def __init__(self, path: Path) -> None:
        self._store = SqlitePluginStore(str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def put(self, key: str, data: bytes) -> None:
        write = Write(
            key=key, data=data, schema=1, expires=None, now=0, most=9, evict=True
        )
        self._store.write(Space("p", "n"), write)

    def get(self, key: str) -> bytes | None:
        (row,) = self._store.get(Space("p", "n"), [key], 0)
        return None if row is None else row.data


@pytest.fixture
def store(tmp_path: Path) -> Path:
    asyncio.run(_made(tmp_path / "g.db"))
    return tmp_path / "g.db"


def _run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app([*words]), [*words])
    assert done.exit_code == code, done.output
    return done


def _facts(*words: str, code: int = 0) -> Any:
    return json.loads(_run(*words, "--json", code=code).stdout)


def _holds(path: Path, text: str) -> bool:
    found = [
        path,
        *path.parent.glob(f"{path.name}*"),
        *path.parent.glob(f"{path.name}.bodies/*"),
    ]
    return any(text.encode() in f.read_bytes() for f in found if f.is_file())


@pytest.mark.case("N03", "X19")
def test_a_copy_without_text_has_the_history_and_no_text(store: Path) -> None:
    copy = store.with_name("copy.db")
    assert [text for text in TEXTS if not _holds(store, text)] == []
    done = _facts("backup", str(copy), "--without-text", "-s", str(store))
    assert done["text"] is False
    assert [text for text in TEXTS if _holds(copy, text)] == []
    assert [p.name for p in store.parent.glob("copy.db*")] == ["copy.db"]
    report, whole = _facts("audit", str(copy)), _facts("audit", str(store))
    assert report["passed"]
    assert "bodies: this is a copy without text" in report["unchecked"]
    assert (report["head"], report["events"]) == (whole["head"], whole["events"])
    rows = [
        _facts(word, "-s", str(path))["rows"]
        for word in ("turns", "list")
        for path in (copy, store)
    ]
    assert [[row["id"] for row in found] for found in rows[::2]] == [
        [row["id"] for row in found] for found in rows[1::2]
    ]
    assert _facts("show", "1", "-s", str(copy))["outcome"] == "replied"
    for row in (*rows[0], *rows[2]):
        _run("show", row["id"], "-s", str(copy), "-v")


async def _opened(path: Path) -> None:
    store = SqliteStore(path)
    try:
        await store.open()
    finally:
        await store.close()


def test_nobody_works_on_a_copy_without_text(store: Path) -> None:
    copy = store.with_name("copy.db")
    _run("backup", str(copy), "--without-text", "-s", str(store))
    with pytest.raises(UnsafeStoreError, match="without text"):
        asyncio.run(_opened(copy))
    refused = _run("restore", str(copy), "-s", str(store.with_name("new.db")), code=3)
    assert "without text" in refused.output
    assert not store.with_name("new.db").exists()


def test_text_in_a_copy_without_text_is_a_finding(store: Path) -> None:
    copy = store.with_name("copy.db")
    _run("backup", str(copy), "--without-text", "-s", str(store))
    conn = apsw.Connection(str(copy))
    conn.execute(
        "UPDATE body SET salt = x'00', data = x'00' WHERE id IN (SELECT min(id) FROM body)"
    )
    conn.close()
    report = _facts("audit", str(copy), code=1)
    assert {finding["rule"] for finding in report["findings"]} == {"store.body"}


def test_a_backup_takes_the_state_of_plugins_along(store: Path) -> None:
    copy, new = store.with_name("copy.db"), store.with_name("new.db")
    _run("backup", str(copy), "-s", str(store))
    with SqlitePlugins(copy) as state:
        assert state.get("k") == b"plugin-Dq3"
        state.put("later", b"x")
    _run("restore", str(copy), "-s", str(new))
    with SqlitePlugins(new) as state:
        assert (state.get("k"), state.get("later")) == (b"plugin-Dq3", b"x")
    with SqlitePlugins(store) as state:
        state.put("mine", b"x")
    _run("restore", str(copy), "-s", str(store), "--replace")
    with SqlitePlugins(store) as state:
        assert state.get("mine") is None
    with SqlitePlugins(store.with_name("g.db.replaced")) as state:
        assert state.get("mine") == b"x"
    assert not _facts("size", "-s", str(store))["files"].get("x")
    assert _facts("size", "-s", str(store))["files"]["file.plugins"]


def test_the_audit_looks_at_the_state_of_plugins(store: Path) -> None:
    assert _facts("audit", str(store))["passed"]
    conn = apsw.Connection(f"{store}.plugins")
    conn.execute("UPDATE counts SET rows = 7; UPDATE versions SET next = 0")
    conn.close()
    report = _facts("audit", str(store), code=1)
    assert [f["rule"] for f in report["findings"]] == ["store.plugins"] * 2
    Path(f"{store}.plugins").write_bytes(b"no database" * 500)
    report = _facts("audit", str(store), code=1)
    assert [f["rule"] for f in report["findings"]] == ["store.plugins"]


def test_a_cache_that_cannot_be_read_stops_no_backup(store: Path, caplog: Any) -> None:
    Path(f"{store}.plugins").write_bytes(b"no database" * 500)
    _run("backup", str(store.with_name("copy.db")), "-s", str(store))
    assert "is not in the copy" in caplog.text
    assert not store.with_name("copy.db.plugins").exists()
