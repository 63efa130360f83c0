"""`turnfold copy`: from a file to PostgreSQL and back, and killed at each of its steps."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold._log.events import GateClosed
from turnfold.errors import DiskError
from turnfold.ports.plugins import Everything, Space, Write, plugin_store_at
from turnfold.ports.shards import chains_of
from turnfold.ports.store import (
    Command,
    Listing,
    Store,
    body_pages,
    key_pages,
    record_pages,
    store_at,
    summary_pages,
)
from turnfold_adapters.stores import moving
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_adapters.stores.postgres.staging import StagedSchema
from turnfold_cli import app
from turnfold_model.checks.store_kit import put
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import Platform, PlatformChannel

from .postgres import Postgres


async def answer(turn: Any) -> None:
    await turn.reply("yes")


async def history(path: Path) -> None:
    """Pruned entries, turns, erased texts, work that is open, a command that waits, and
    the state of plugins."""
    play = Gateway(store=in_file(path), handler=answer)
    kernel = await play.start()
    for conversation in ("first", "second"):
        sent = await kernel.enqueue(route(conversation), "old", "older")
        await kernel.settled(sent.entry_id, 5_000)
        await spin()
        await play.advance(1_000)
        done = await kernel.prune(older_ms=0, by="ann")
        assert done.streams == 1
    for number in range(3):
        turn = await kernel.accept(inbound(f"{number}", text="word " * 2_000))
        await turn.settled(5_000)
    await kernel.redact(turn.turn_id, by="ann")
    limit = GateClosed(reason="rate_limited", until=None)
    await kernel.append(lambda draft: draft.emit("gate:t/default", limit))
    await kernel.enqueue(route("open"), "still open")
    await spin()
    await play.end()
    remember(path)
    store = store_at(path)
    await store.open()
    waiting = {"stream": "turn:w", "at": 1, "data": b"{}", "key": "held"}
    await store.post([Command(id="c", kind="abort", **waiting)])
    await store.close()


def remember(address: str | Path) -> None:
    """Values of two plugins: one that was replaced, one that was taken."""
    plugins = plugin_store_at(address)
    assert plugins is not None
    with closing(plugins):
        for plugin, key in (("p", "a"), ("q", "a"), ("p", "a"), ("p", "gone")):
            how = {"schema": 1, "expires": None, "now": 0, "most": 9, "evict": True}
            plugins.write(Space(plugin, "n"), Write(key=key, data=b"1", **how))
        assert plugins.take(Space("p", "n"), "gone", 0, 1) is not None


def remembered(address: str | Path) -> Everything:
    plugins = plugin_store_at(address)
    assert plugins is not None
    with closing(plugins):
        return plugins.every()


async def shards(address: str) -> None:
    """The same on four shards, with a key that a command holds in one of them."""
    kernel = Kernel(f"{address}&shards=4")
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")
    kernel.on_turn()(answer)
    async with kernel:
        for number in range(6):
            place = {"conversation": f"{number}", "text": "word " * 2_000}
            turn = await kernel.accept(inbound(f"{number}", **place))
            await turn.settled(5_000)
        await kernel.redact(turn.turn_id, by="ann")
        for number in range(6):
            sent = await kernel.enqueue(route(f"{number}"), "old")
            await kernel.settled(sent.entry_id, 5_000)
        assert (await kernel.prune(older_ms=0, by="ann")).streams == 6
        await kernel.hold_back("t/default", by="ann")
        await kernel.enqueue(route("open"), "still open", key="once")
    store = PostgresStore(address)
    await store.open()
    part = store.shard(3)
    await part.open()
    waiting = {"stream": "turn:w", "at": 1, "data": b"{}", "key": "held"}
    await part.post([Command(id="c", kind="abort", **waiting)])
    await part.close()
    await store.close()
    await asyncio.to_thread(remember, address)


async def all_of(address: str | Path) -> list[Any]:
    """All that is copied: of a store of one shard, or of each shard."""
    store = store_at(address)
    await store.open(read_only=True)
    try:
        whole = [await _part(chain) for chain in chains_of(store)]
    finally:
        await store.close()
    return [*whole, await asyncio.to_thread(remembered, address)]


async def _part(chain: Store) -> list[Any]:
    await chain.open(read_only=True)
    try:
        return await _everything(chain)
    finally:
        await chain.close()


async def _everything(store: Store) -> list[Any]:
    counts = await store.maintenance.pruned()  # type: ignore[union-attr]
    parts: list[Any] = [(await store.load()).head, sorted(counts, key=repr)]
    for pages in (
        record_pages(store),
        body_pages(store),
        key_pages(store),
        summary_pages(store, Listing(prefix="")),
    ):
        rows = [row async for page in pages for row in page]
        parts.append(sorted(rows, key=repr))
    return [*parts, list(await store.inbox())]


def run(*words: str) -> tuple[int, dict[str, Any]]:
    arguments = ["copy", *words, "--json"]
    done = CliRunner().invoke(app(arguments), arguments)
    return done.exit_code, json.loads(done.output)


def test_a_store_moves_to_a_database_and_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    first, back = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    there = postgres.address("c1")
    asyncio.run(history(Path(first)))
    whole = asyncio.run(all_of(first))
    code, said = run(first, there, "--dry-run")
    assert (code, said["copied"], said["commands"]) == (0, False, 1)
    assert said["values"] == len(whole[-1].rows) == 2
    code, done = run(first, there)
    assert (code, done["copied"]) == (0, True), done
    assert asyncio.run(all_of(there)) == whole
    facts = ("records", "bodies", "keys", "commands", "head")
    assert [said[name] for name in facts] == [done[name] for name in facts]
    assert run(first, there)[0] == 0, "the same copy is there already"
    assert run(there, back)[0] == 0
    assert asyncio.run(all_of(back)) == whole
    assert run(str(tmp_path / "none.db"), there)[0] == 3


def test_a_copy_onto_itself_is_refused_however_the_address_is_spelt(
    postgres: Postgres, tmp_path: Path
) -> None:
    path, there = str(tmp_path / "a.db"), postgres.address("c13")
    asyncio.run(history(Path(path)))
    assert run(path, there)[0] == 0
    host = f"?host={postgres.folder}"
    for other in (
        f"postgresql://postgres@/postgres{host}&schema=c13&lease_ms=20000",
        f"postgresql://postgres@/{host}&schema=c13",
        there.replace("//postgres@", "//postgres:any@"),
    ):
        for words in ([there, other], [other, there, "--dry-run"]):
            code, said = run(*words)
            assert code == 2, said
            assert said["error"]["message"] == "source and target are one store", said


def test_no_password_of_an_address_is_printed(
    postgres: Postgres, tmp_path: Path
) -> None:
    first, there = str(tmp_path / "a.db"), postgres.address("c9")
    there = there.replace("postgres@", "postgres:secret@")
    asyncio.run(history(Path(first)))
    for words in (
        ["copy", first, there],
        ["audit", there, "--json"],
        ["restored", "-s", there],
        ["restore", first, "-s", there],
    ):
        done = CliRunner().invoke(app(words), words)
        assert done.exit_code == (2 if words[0] == "restore" else 0), done.output
        assert "postgresql://postgres@" in done.output, words
        assert "secret" not in done.output, words


async def test_a_worker_goes_on_with_the_copy(
    postgres: Postgres, tmp_path: Path
) -> None:
    path, there = tmp_path / "a.db", postgres.address("c2")
    await history(path)
    code, _ = await asyncio.to_thread(run, str(path), there)
    assert code == 0
    platform = Platform()
    kernel = Kernel(there)
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    await kernel.open()
    code, refused = await asyncio.to_thread(run, there, str(tmp_path / "b.db"))
    assert (code, refused["error"]["code"]) == (2, "store.owned")
    await kernel.connected("t")
    async with asyncio.timeout(10):
        while platform.contents != ["still open"]:
            await asyncio.sleep(0.02)
    await kernel.close()
    code, refused = await asyncio.to_thread(run, str(path), there)
    assert code == 2
    assert "it went on beyond the source" in refused["error"]["message"]


def test_a_target_with_anything_else_in_it_is_left_alone(
    postgres: Postgres, tmp_path: Path
) -> None:
    path, there = str(tmp_path / "a.db"), postgres.address("c3")
    asyncio.run(history(Path(path)))

    async def other() -> None:
        store = PostgresStore(there)
        await store.open()
        await put(store, "entry:other")
        await store.close()

    asyncio.run(other())
    before = asyncio.run(all_of(there))
    code, said = run(path, there)
    assert (code, "another history" in said["error"]["message"]) == (2, True)
    code, said = run(there, path)
    assert (code, "another history" in said["error"]["message"]) == (2, True)
    (tmp_path / "note.txt").write_text("mine")
    assert run(path, str(tmp_path / "note.txt"))[0] == 3
    assert (tmp_path / "note.txt").read_text() == "mine"
    assert asyncio.run(all_of(there)) == before


STEPS = [
    (moving, "_stored"),
    (PostgresStore, "post"),
    (PostgresStore, "open"),
    (StagedSchema, "clear"),
    (StagedSchema, "into_place"),
]


async def test_a_copy_of_another_history_gets_no_name(postgres: Postgres) -> None:
    """The server failed over after the copy was audited: it may lack a part of it."""
    staged = StagedSchema(postgres.address("c19"))
    store = PostgresStore(staged.new(1))
    await store.open()
    await put(store, "entry:a")
    await store.close()
    [(found,)] = await postgres.execute("SELECT history FROM c19_copying.mark")
    await postgres.execute("UPDATE c19_copying.mark SET history = '7/1'")
    with pytest.raises(DiskError, match="failed over during the copy"):
        await staged.into_place()
    assert not await staged.exists()
    await postgres.execute("UPDATE c19_copying.mark SET history = $1", found)
    await staged.into_place()
    assert await staged.exists()


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """SIGKILL before the step with this number, in a child."""
    left = [number]

    def counted(real: Any) -> Any:
        async def step(*args: Any, **how: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return await real(*args, **how)

        return step

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))
    yield


def life(number: int, words: list[str]) -> int:
    """One copy in a process of its own, which dies at a step; its exit code."""
    pid = os.fork()
    if pid == 0:
        with killed_at(number):
            code, _ = run(*words)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
@pytest.mark.parametrize(("schema", "each"), [("c4", 2), ("c5", 9)])
def test_a_copy_that_is_killed_at_any_step_ends_well_the_next_time(
    postgres: Postgres, tmp_path: Path, schema: str, each: int
) -> None:
    """Of one shard from a file, at every second step, and of four from a schema, at every
    ninth."""
    path, there = str(tmp_path / "a.db"), postgres.address(schema)
    if each > 2:
        path = postgres.address("c5_source")
    asyncio.run(history(Path(path)) if each == 2 else shards(path))
    whole = asyncio.run(all_of(path))
    for number in range(0, 60, each):
        code = life(number, [path, there])
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        sql = "SELECT FROM pg_namespace WHERE nspname = $1"
        assert not asyncio.run(postgres.execute(sql, schema)), (
            "nothing has its name before"
        )
    assert number > 6
    assert asyncio.run(all_of(there)) == whole


def test_a_store_of_four_shards_moves_to_another_schema_and_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    first, there = postgres.address("c6"), postgres.address("c7")
    asyncio.run(shards(first))
    whole = asyncio.run(all_of(first))
    assert sum(part[0].position > 0 for part in whole[:-1]) > 2
    assert sum(bool(part[1]) for part in whole[:-1]) > 1, "some were pruned"
    code, said = run(first, there, "--dry-run")
    assert (code, said["copied"], said["shards"], said["commands"]) == (0, False, 4, 1)
    code, done = run(first, f"{there}&shards=4")
    assert (code, done["copied"]) == (0, True), done
    assert asyncio.run(all_of(there)) == whole
    facts = ("records", "bodies", "keys", "commands", "head")
    assert [said[name] for name in facts] == [done[name] for name in facts]
    assert run(first, there)[0] == 0, "the same copy is there already"
    audited = CliRunner().invoke(app(["audit", there]), ["audit", there])
    assert audited.exit_code == 0, audited.output
    for target in (str(tmp_path / "a.db"), f"{postgres.address('c8')}&shards=2"):
        code, refused = run(first, target)
        assert (code, refused["error"]["code"]) == (2, "store.reshard"), refused
    asyncio.run(postgres.execute("DROP SCHEMA c6 CASCADE"))
    assert run(there, first)[0] == 0
    assert asyncio.run(all_of(first)) == whole


async def test_hosts_go_on_with_the_copy_of_four_shards(postgres: Postgres) -> None:
    """Open work is sent, old ids are found, keys of before are taken; the source is the
    older one then."""
    first, there = postgres.address("c10"), postgres.address("c11")
    await shards(first)
    assert (await asyncio.to_thread(run, first, there))[0] == 0
    platform = Platform()
    kernel = Kernel(there)
    kernel.attach("t", PlatformChannel(platform), on_unknown="hold")
    async with kernel:
        code, refused = await asyncio.to_thread(run, there, postgres.address("c12"))
        assert (code, refused["error"]["code"]) == (2, "store.owned")
        again = await kernel.enqueue(route("other"), "no", key="once")
        await kernel.let_go("t/default", by="ann")
        await again.settled(10_000)
        assert platform.contents == ["still open"]
    code, refused = await asyncio.to_thread(run, first, there)
    assert code == 2
    assert "it went on beyond the source" in refused["error"]["message"]
