"""A store with a key: no file of it holds a text, and only the key opens it. Needs the
build of apsw with ciphers, which .ci/run brings; the usual one refuses a key."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.crash.test_keep_killed import _made as of_long_ago
from typer.testing import CliRunner

from turnfold import (
    MissingKeyError,
    NotEncryptedError,
    StoreKeyError,
    WrongKeyError,
)
from turnfold.errors import NotAStoreError
from turnfold.ports.plugins import Space, Write, plugin_store_at
from turnfold_adapters.plugins.sqlite import SqlitePluginStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_cli import app
from turnfold_model.testing.gateway import Gateway, in_file, inbound, spin

HAS_CIPHER = getattr(apsw, "mc_version", None) is not None
REQUIRED = os.environ.get("TURNFOLD_CIPHER") == "required"
needs_cipher = pytest.mark.skipif(
    not (HAS_CIPHER or REQUIRED), reason="apsw without ciphers; .ci/run brings it"
)
TEXTS = (b"question-Aq3", b"answer-Bq3", b"plugin-Cq3", b"SQLite format 3")
KEY = "key-Dq3"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secrets" / "key"
    path.parent.mkdir()
    path.write_text(f"{KEY}\n")
    monkeypatch.setenv("TURNFOLD_KEY_FILE", str(path))
    return path


async def _made(path: Path) -> None:
    async def answer(handle: Any) -> None:
        await handle.reply("answer-Bq3" * 9_000)

    gateway = Gateway(store=in_file(path))
    gateway.handler = answer
    kernel = await gateway.start()
    await kernel.accept(inbound("1", text="question-Aq3"))
    await spin()
    plugins = SqlitePluginStore(str(path))
    write = Write(
        key="k", data=TEXTS[2], schema=1, expires=None, now=0, most=9, evict=True
    )
    plugins.write(Space("p", "n"), write)
    _nothing_readable(path.parent)  # while its log is there
    await gateway.end()
    plugins.close()


def _nothing_readable(folder: Path) -> None:
    files = [f for f in folder.rglob("*") if f.is_file() and f.parent.name != "secrets"]
    assert files
    for file in files:
        data = file.read_bytes()
        assert [text for text in TEXTS if text in data] == [], file


async def _open(
    path: Path | str, *, read_only: bool, key_file: Path | None = None
) -> None:
    store = SqliteStore(path, key_file=key_file)
    try:
        await store.open(read_only=read_only)
    finally:
        await store.close()


def _run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app([*words]), [*words])
    assert done.exit_code == code, done.output
    return done


@needs_cipher
def test_no_file_of_a_store_with_a_key_can_be_read(tmp_path: Path, key: Path) -> None:
    path, copy = tmp_path / "g.db", tmp_path / "copy.db"
    asyncio.run(_made(path))
    _run("backup", str(copy), "-s", str(path))
    _nothing_readable(tmp_path)
    for store in (path, copy):
        assert json.loads(_run("audit", str(store), "--json").stdout)["passed"]
        assert "question-Aq3" in _run("show", "1", "-s", str(store)).output
    assert not (tmp_path / "g.db.bodies").exists()
    new = tmp_path / "new.db"
    _run("restore", str(copy), "-s", str(new))
    _run("backup", str(tmp_path / "bare.db"), "--without-text", "-s", str(path))
    _nothing_readable(tmp_path)


@needs_cipher
@pytest.mark.parametrize("read_only", [True, False])
def test_another_key_or_none_opens_nothing(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path = tmp_path / "g.db"
    asyncio.run(_made(path))
    before = path.read_bytes()
    key.write_text("other-Eq3")
    with pytest.raises(WrongKeyError) as caught:
        asyncio.run(_open(path, read_only=read_only))
    assert "other-Eq3" not in repr(caught.value) + str(caught.value)
    refused = _run("show", "1", "-s", str(path), code=3).output
    assert "other-Eq3" not in refused
    assert len(refused.splitlines()) == 1
    monkeypatch.delenv("TURNFOLD_KEY_FILE")
    with pytest.raises(MissingKeyError, match="--key-file"):
        asyncio.run(_open(path, read_only=read_only))
    assert path.read_bytes() == before


@needs_cipher
@pytest.mark.parametrize("read_only", [True, False])
def test_a_key_for_a_store_without_one_changes_nothing(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path = tmp_path / "g.db"
    monkeypatch.delenv("TURNFOLD_KEY_FILE")
    asyncio.run(_open(path, read_only=False))
    before = path.read_bytes()
    with pytest.raises(NotEncryptedError, match="turnfold copy"):
        asyncio.run(_open(path, read_only=read_only, key_file=key))
    assert path.read_bytes() == before


@needs_cipher
def test_each_store_may_name_its_own_key(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By argument, in the address and on the command line; `copy` changes a key."""
    path, other = tmp_path / "g.db", key.with_name("other")
    other.write_text("key-Fq3")
    asyncio.run(_made(path))
    monkeypatch.delenv("TURNFOLD_KEY_FILE")
    asyncio.run(_open(path, read_only=True, key_file=key))
    asyncio.run(_open(f"{path}?key_file={key}", read_only=True))
    for words in (
        ("--key-file", str(key), "-s", str(path)),
        ("-s", f"{path}?key_file={key}"),
    ):
        assert "question-Aq3" in _run("show", "1", *words).output
    assert "TURNFOLD_KEY_FILE" not in os.environ  # it was of that command alone
    assert "no key is given" in _run("status", str(path), code=3).output

    new = f"{tmp_path / 'new.db'}?key_file={other}"
    _run("copy", f"{path}?key_file={key}", new)
    _nothing_readable(tmp_path)
    assert "question-Aq3" in _run("show", "1", "-s", new).output
    _run("backup", str(tmp_path / "b.db"), "-s", new)
    _nothing_readable(tmp_path)
    _run("status", str(tmp_path / "b.db"), "--key-file", str(key), code=3)
    _run("show", "1", "-s", str(tmp_path / "b.db"), "--key-file", str(other))
    _run("copy", new, str(tmp_path / "plain.db"))
    assert "question-Aq3" in _run("show", "1", "-s", str(tmp_path / "plain.db")).output


@needs_cipher
def test_plugins_of_a_kernel_have_the_key_of_its_address(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TURNFOLD_KEY_FILE")
    address = SqliteStore(tmp_path / "g.db", key_file=key).address
    assert KEY not in address
    plugins = plugin_store_at(address)
    assert plugins is not None
    write = Write(
        key="k", data=TEXTS[2], schema=1, expires=None, now=0, most=9, evict=True
    )
    plugins.write(Space("p", "n"), write)
    _nothing_readable(tmp_path)
    plugins.close()


@needs_cipher
def test_a_pruned_store_with_a_key_is_copied_to_another_key(
    tmp_path: Path, key: Path
) -> None:
    path, other = tmp_path / "g.db", key.with_name("other")
    other.write_text("key-Eq3")
    asyncio.run(of_long_ago(path))
    words = ("--older", "1s", "--yes", "--clock-is-right", "-s", str(path))
    assert "are gone" in _run("prune", *words).output
    target = f"{tmp_path / 'n.db'}?key_file={other}"
    _run("copy", str(path), target)
    assert _run("list", "--json", "-s", target).output.count('"id"') == 1  # it waits
    assert "passed" in _run("audit", "-s", target).output


@needs_cipher
def test_an_archive_of_an_encrypted_store_is_announced_as_plain(
    tmp_path: Path, key: Path
) -> None:
    path = tmp_path / "g.db"
    asyncio.run(_made(path))
    folder = tmp_path / "archives"
    folder.mkdir()
    words = ("--older", "1d", "-s", str(path))
    refused = _run("archive", str(folder), *words, "--yes", code=2).output
    assert "--plain" in refused
    assert [*folder.iterdir()] == []
    _run("archive", str(folder), *words, "--dry-run")
    assert (
        "is not encrypted"
        in _run("archive", str(folder), *words, "--plain", "-y").output
    )
    assert "encrypted" in _run("log", "--bodies", "-s", str(path)).stderr


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_a_key_that_cannot_be_used_is_one_typed_error(
    tmp_path: Path, key: Path, text: str | None
) -> None:
    if text is None:
        key.unlink()
    else:
        key.write_text(text)
    with pytest.raises(StoreKeyError):
        asyncio.run(_open(tmp_path / "g.db", read_only=False))


@pytest.mark.skipif(HAS_CIPHER, reason="this build of apsw has ciphers")
def test_a_build_without_ciphers_makes_no_plain_store(
    tmp_path: Path, key: Path
) -> None:
    with pytest.raises(StoreKeyError, match="apsw-sqlite3mc"):
        asyncio.run(_open(tmp_path / "g.db", read_only=False))
    assert not [f for f in tmp_path.glob("g.db*") if f.stat().st_size]


def test_a_file_of_the_cipher_is_named_as_such_by_any_build(tmp_path: Path) -> None:
    """By the eight bytes of the header that the cipher leaves readable."""
    path, readable = tmp_path / "g.db", bytes((16, 0, 2, 2, 32, 64, 32, 32))
    path.write_bytes(b"sixteen of noise" + readable + bytes(4072))
    for read_only in (True, False):
        with pytest.raises(MissingKeyError, match="encrypted and no key is given"):
            asyncio.run(_open(path, read_only=read_only))
    path.write_bytes(bytes(4096))
    with pytest.raises(NotAStoreError):
        asyncio.run(_open(path, read_only=True))


def test_an_encrypted_store_that_begins_as_lines_do_is_audited_as_a_store(
    tmp_path: Path,
) -> None:
    """The cipher begins a file with chance: one in 256 begins with a brace."""
    path, readable = tmp_path / "g.db", bytes((16, 0, 2, 2, 32, 64, 32, 32))
    path.write_bytes(b"{ixteen of noise" + readable + bytes(4072))
    assert "encrypted and no key is given" in _run("audit", str(path), code=3).output
