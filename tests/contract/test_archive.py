"""What goes out of the store goes into an archive first; it can be audited and asked."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from turnfold import Kernel, Settings
from turnfold._log.events import Pruned
from turnfold.audit import audit_archive, audit_store
from turnfold.errors import (
    DamagedError,
    InvalidInputError,
    NotAStoreError,
    ReadOnlyError,
)
from turnfold.inspect import Inspect
from turnfold.inspect import archive as files
from turnfold_adapters.stores.archive import ArchiveStore
from turnfold_cli import COMMANDS, app
from turnfold_cli.common import _OF_ARCHIVES
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import (
    Gateway,
    events,
    in_file,
    inbound,
    peek,
    spin,
)

DAY = 24 * 3_600_000
SHORT = Settings(dedupe_ms=DAY)


async def _echo(handle: Any) -> None:
    await handle.block("a block")
    await handle.reply(f"re: {handle.inbound.body['text']}")


async def _turns(gateway: Gateway, *numbers: int) -> list[str]:
    gateway.settings, gateway.handler = SHORT, _echo
    kernel = gateway.alive[0] if gateway.alive else await gateway.start()
    made = []
    for number in numbers:
        message = inbound(str(number), text=f"question {number}")
        made.append((await kernel.accept(message)).turn_id)
        await spin()
    return made


def _archives(folder: Path) -> list[Path]:
    """Those that have their name, and those that have not yet."""
    return sorted([*folder.glob("*.gz"), *folder.glob("*.part")])


async def _opened(path: Path) -> ArchiveStore:
    store = ArchiveStore(path)
    await store.open(read_only=True)
    return store


@pytest.mark.case("W13", "X19")
async def test_what_is_pruned_stands_in_an_archive_as_it_was(
    lone: Gateway, tmp_path: Path
) -> None:
    old = await _turns(lone, 1, 2, 3)
    (kernel,) = lone.alive
    before = {name: peek(kernel).read(name) for name in _streams(kernel, *old)}
    await lone.advance(2 * DAY)
    young = await _turns(lone, 4)
    done = await kernel.archive(tmp_path, older_ms=DAY, by="ann", per_file=2)
    assert (done.groups, len(done.files), done.pruned.streams) == (3, 2, 9)
    found = {}
    for path in done.files:
        found |= {n: tuple(r) for n, r in files.read(path).streams.items()}
    assert found == {name: tuple(rows) for name, rows in before.items()}
    assert not any(peek(kernel).read(name) for name in before)
    assert peek(kernel).read(young[0])
    said = [e for e in events(kernel, "store") if isinstance(e, Pruned)]
    assert [e.archive for e in said] == [
        files.read(p).manifest.digest for p in done.files
    ]
    assert (await audit_store(kernel.store)).passed
    for path in done.files:
        report = await audit_archive(await _opened(path), of=kernel.store)
        assert (report.first, report.streams) == (None, len(files.read(path).streams))


def _streams(kernel: Kernel, *turns: str) -> list[str]:
    return [s for turn in turns for s in (turn, *peek(kernel).children(turn))]


async def test_an_archive_is_asked_like_a_store(lone: Gateway, tmp_path: Path) -> None:
    (name, *_) = await _turns(lone, 1, 2)
    (kernel,) = lone.alive
    wanted = peek(kernel).body(*_asked(kernel, name))
    await lone.advance(2 * DAY)
    (path,) = (await kernel.archive(tmp_path, older_ms=DAY, by="ann")).files
    store = await _opened(path)
    inspect = Inspect(store)
    view: Any = await inspect.show("1")
    assert (view.id, view.outcome) == (name, "replied")
    assert wanted in [body.data for body in await store.bodies()]
    with pytest.raises(ReadOnlyError):
        await ArchiveStore(path).open()
    with pytest.raises(ReadOnlyError):
        await store.post([])


def _asked(kernel: Kernel, name: str) -> tuple[str, str]:
    first: Any = events(kernel, name)[0]
    return name, first.body


def test_the_command_line_archives_and_asks(tmp_path: Path) -> None:
    asyncio.run(_long_ago(tmp_path / "g.db"))
    home, store = tmp_path / "archives", ("-s", str(tmp_path / "g.db"))
    refused = _run("archive", str(home), "--older", "1d", *store)
    assert (refused.exit_code, len(refused.output.splitlines())) == (2, 1)
    home.mkdir()
    words = ("archive", str(home), "--older", "1d", "--clock-is-right", *store)
    assert _facts(*words, "--dry-run")["found"] == 2
    assert list(home.iterdir()) == []
    done = _facts(*words, "--yes")
    assert (done["groups"], done["pruned"]["streams"]) == (2, 6)
    (path,) = done["files"]
    assert len(_facts("turns", "-s", path)["rows"]) == 2
    assert _facts("show", "1", "-s", path)["what"] == "turn"
    assert len(_facts("list", "-s", path)["rows"]) == 4
    assert _facts("audit", path, "--of", store[1])["passed"]
    assert _facts("audit", store[1])["passed"]
    assert _facts("stats", "-s", path, "--since", "2000-01-01")["rows"][0]["out"] == 4
    assert len(_facts("find", "t", "QUESTION", "1", "-s", path)["found"]) == 1
    assert _run("log", "-s", path).stdout.count("outbox.delivered") == 4
    Path(path).write_bytes(Path(path).read_bytes()[:-9])
    for words in (("audit", path), ("turns", "-s", path)):
        broken = _run(*words)
        assert broken.exit_code in (1, 3)
        assert "cannot be read to its end" in broken.output


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_not_for_archives_says_so(name: str, tmp_path: Path) -> None:
    """And the archive is left as it is."""
    if name in (*_OF_ARCHIVES, "demo", "certify", "watchdog", "migrate"):
        return
    path = tmp_path / "x.ndjson.gz"
    path.write_bytes(b"an archive")
    some = {"copy": [str(path), "c.db"], "restore": [str(path), "-s", "c.db"]}
    first = ["1"] if name in ("retry", "discard") else []
    refused = _run(name, *some.get(name, [*first, "--store", str(path)]))
    assert refused.exit_code == 2
    assert "is an archive: only list, turns" in refused.output
    assert len(refused.output.splitlines()) == 1
    assert [*tmp_path.iterdir()] == [path]


async def _long_ago(path: Path) -> None:
    gateway = Gateway(store=in_file(path), clock=FakeClock(1_500_000_000_000))
    await _turns(gateway, 1, 2)
    await gateway.end()


def _run(*words: str) -> Any:
    return CliRunner().invoke(app([*words]), [*words])


def _facts(*words: str) -> Any:
    done = _run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def test_doing_it_again_takes_nothing_twice(
    lone: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _turns(lone, 1, 2)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)

    async def dies(*args: Any, **how: Any) -> None:
        raise KeyError

    with monkeypatch.context() as patched:
        patched.setattr(Kernel, "prune", dies)
        with pytest.raises(KeyError):
            await kernel.archive(tmp_path, older_ms=DAY, by="ann")
    assert len(_archives(tmp_path)) == 1
    done = await kernel.archive(tmp_path, older_ms=DAY, by="ann")
    assert (done.groups, done.again, done.pruned.streams) == (0, 6, 6)
    assert len(_archives(tmp_path)) == 1


async def test_what_moved_after_it_was_archived_is_archived_again(
    lone: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = await _turns(lone, 1)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)
    final = _streams(kernel, name)[-1]
    real = Kernel.prune

    async def late(self: Kernel, **how: Any) -> Any:
        await kernel.redact(final, by="ann")
        return await real(self, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Kernel, "prune", late)
        done = await kernel.archive(tmp_path, older_ms=0, by="ann", dead=True)
    assert (done.groups, done.pruned.streams) == (1, 0)
    assert done.pruned.left == {"moved": 1}
    await lone.advance(2 * DAY)
    done = await kernel.archive(tmp_path, older_ms=DAY, by="ann")
    assert (done.groups, done.again, done.pruned.streams) == (1, 0, 3)


async def test_only_what_a_prune_would_take_is_archived(
    lone: Gateway, tmp_path: Path
) -> None:
    await _turns(lone, 1)
    (kernel,) = lone.alive
    await lone.advance(DAY - 1)
    done = await kernel.archive(tmp_path, older_ms=1_000, by="ann")
    assert (done.files, _archives(tmp_path)) == ((), [])
    wrong: Any
    for wrong in (tmp_path / "none", "nul\0", 3):
        with pytest.raises(InvalidInputError):
            await kernel.archive(wrong, older_ms=1_000, by="ann")


async def test_an_archive_without_text_holds_none(
    lone: Gateway, tmp_path: Path
) -> None:
    await _turns(lone, 1)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)
    done = await kernel.archive(tmp_path, older_ms=DAY, by="ann", text=False)
    assert b"question" not in gzip.decompress(done.files[0].read_bytes())
    store = await _opened(done.files[0])
    report = await audit_archive(store, text=store.manifest.text)
    assert report.passed
    assert any("bodies" in said for said in report.unchecked)


@pytest.fixture
async def made(lone: Gateway, tmp_path: Path) -> Path:
    await _turns(lone, 1)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)
    return (await kernel.archive(tmp_path, older_ms=DAY, by="ann")).files[0]


def test_a_damaged_archive_is_named_as_such(made: Path) -> None:
    whole = made.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    start = lines[1].index(b'"hash":"') + 8
    other = lines[1][:start] + bytes(reversed(lines[1][start : start + 64]))
    changed = [lines[0], other + lines[1][start + 64 :], *lines[2:]]
    made.write_bytes(gzip.compress(b"".join(changed)))
    with pytest.raises(DamagedError, match="not those that its manifest names"):
        files.read(made)
    for wrong in (whole[:-30], whole[:40], gzip.compress(b"".join(lines[:-1]))):
        made.write_bytes(wrong)
        with pytest.raises(DamagedError):
            files.read(made)
    for other in (b"", b"text", gzip.compress(b"text\n"), gzip.compress(b'{"a":1}\n')):
        made.write_bytes(other)
        with pytest.raises((NotAStoreError, DamagedError)):
            files.read(made)


async def test_a_forged_archive_breaks_a_rule(made: Path, lone: Gateway) -> None:
    """Its manifest fits, its records do not."""
    content = files.read(made)
    first = content.records[0]
    body = content.bodies[0]
    (kernel,) = lone.alive
    store = await _opened(made)
    store.disk.bodies[body.stream, body.number] = replace(body, data=b"other")
    report = await audit_archive(store)
    assert report.first is not None
    assert report.first.rule == "store.body"
    store = await _opened(made)
    store.disk.log[0] = replace(first, at=first.at + 1)
    report = await audit_archive(store)
    assert report.first is not None
    assert report.first.rule == "chain.hash"
    store = await _opened(made)
    store.disk.log[0] = replace(first, hash=bytes(32))
    report = await audit_archive(store, of=kernel.store)
    assert {f.rule for f in report.findings} >= {"store.pruned"}
