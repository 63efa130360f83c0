"""Each act of a person and the import are killed before and after each of their steps:
nothing is lost, and the same command again ends as it would have without the kill.

A step is a post to the inbox, a commit of the store, a COMMIT of SQLite, and a rename,
link, removal or fsync of a file. A process runs the command on a copy of the store and
dies by SIGKILL at the step with its number; another one repeats it.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_cli_acts import incident
from tests.contract.test_import import put

from turnfold import Settings
from turnfold._log.codec import decode
from turnfold.audit import audit_store
from turnfold.ports.store import Listing, record_pages
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, spin

pytestmark = pytest.mark.timeout(300)

ACTS = (
    "retry --dead",
    "resolve delivered --parked",
    "discard --dead",
    "ack --dead",
    "abort --open",
    "open t/default/w",
    "close t/b",
    "unhold --held",
    "redact --dead",
    "resubmit --status failed",
    "import queue",
)

# Forks a child for each life, so that the modules are loaded once.
LIVES = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.crash.forking import forked
from tests.crash import test_each_act_killed as test
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_adapters.stores.sqlite.writing import Writing
from turnfold_cli import app
words = sys.argv[2:]
app(words)  # loads it

def dying(left):
    def step():
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
    def counted(owner, name):
        real = getattr(owner, name)
        def call(*args, **how):
            step()
            done = real(*args, **how)
            step()
            return done
        setattr(owner, name, call)
    def awaited(owner, name):
        real = getattr(owner, name)
        async def call(*args, **how):
            step()
            done = await real(*args, **how)
            step()
            return done
        setattr(owner, name, call)
    for name in ("rename", "replace", "link", "unlink", "fsync"):
        counted(os, name)
    counted(Writing, "_end")
    awaited(SqliteStore, "post")
    awaited(SqliteStore, "commit")

def life(number):
    if number is not None:
        dying([number])
    sys.argv = ["turnfold", *words]
    app(words)()

test.put_back()
assert forked(life, None) in (0, 1)
assert forked(test.note) == 0
for number in range(200):
    test.put_back()
    code = forked(life, number)
    assert code in (0, 1, -9), code
    assert forked(test.look) == 0
    again = forked(life, None) if code == -9 else code
    # all was done before it died: nothing is left to do, or it is refused
    assert again in (0, 1, 2), again
    assert forked(test.compare) == 0, (number, code, again)
    if code != -9:
        print(f"ended after {number} steps")
        break
"""


def put_back() -> None:
    for name in ("now", "queue"):
        shutil.rmtree(name, ignore_errors=True)
    shutil.copytree("made", "now")
    shutil.copytree("files", "queue")


def _told() -> dict[str, Any]:
    """What stands in the store and in the folder of the import."""
    return asyncio.run(_states()) | {
        "files": sorted(p.name for p in Path("queue").rglob("*.json"))
    }


async def _states() -> dict[str, Any]:
    store = SqliteStore("now/g.db")
    await store.open(read_only=True)
    try:
        report = await audit_store(store)
        rows = await store.list(Listing(prefix="", limit=1_000))
        acts = [
            f"{record.stream} {type(event).__name__}"
            async for page in record_pages(store)
            for record in page
            for event in decode(record)
            if getattr(event, "by", None)
        ]
        waiting = [command.kind for command in await store.inbox()]
    finally:
        await store.close()
    assert report.passed, report.first
    ours = [row for row in rows if row.stream != "store"]
    return {
        "rows": sorted((_name(r.stream), r.open, str(r.phase)) for r in ours),
        "acts": sorted(
            {*map(_name, acts)} if _twice_is_once(acts) else map(_name, acts)
        ),
        "inbox": waiting,
    }


def _twice_is_once(acts: list[str]) -> bool:
    """A place that is held back twice is held back. No other act is done twice."""
    return acts[-1].endswith(" GateClosed")


def _name(stream: str) -> str:
    """An imported entry gets another id each time."""
    stream, space, event = stream.partition(" ")
    made = json.loads(Path("before.json").read_text())
    return (stream if stream in made else "new") + space + event


def note() -> None:
    Path("whole.json").write_text(json.dumps(_told()))


def look() -> None:
    """The log is whole, and no stream is gone."""
    names = {row[0] for row in _told()["rows"]}
    assert {*json.loads(Path("before.json").read_text())} <= names


def compare() -> None:
    told = json.loads(json.dumps(_told()))
    whole = json.loads(Path("whole.json").read_text())
    assert told == whole, f"{told}\n{whole}"


async def _made(path: Path) -> None:
    """An incident; and a turn that is held, because it was alone in three deaths."""
    await incident(path, parked=3)
    gateway = Gateway(store=in_file(path), settings=Settings(max_runs=1))

    async def stuck(_: Any) -> None:
        await asyncio.Event().wait()

    gateway.handler = stuck
    kernel = await gateway.start()
    await kernel.accept(inbound("9", "held"))
    for _ in range(3):
        kernel = await gateway.restart(kernel)
        await gateway.advance(60_000)
    await spin()
    await gateway.end()


async def _names(path: Path) -> list[str]:
    store = SqliteStore(path)
    await store.open(read_only=True)
    rows = await store.list(Listing(prefix="", limit=1_000))
    await store.close()
    return [row.stream for row in rows if row.stream != "store"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "made").mkdir()
    asyncio.run(_made(folder / "made" / "g.db"))
    names = asyncio.run(_names(folder / "made" / "g.db"))
    (folder / "before.json").write_text(json.dumps(names))
    for number in range(3):
        put(folder / "files" / "delivery-queue", f"n{number}")
    return folder


@pytest.mark.case("X01", "Q03", "M01", "M03")
@pytest.mark.parametrize("act", ACTS)
def test_an_act_that_is_killed_at_any_step_ends_well_when_it_is_repeated(
    made: Path, tmp_path: Path, act: str
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "folder"))
    words = [*act.split(), "-s", "now/g.db"]
    if act != "import queue":
        words += ["--by", "ann", "--yes"]
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", LIVES, root, *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-3_000:]
    assert int(done.stdout.rpartition("ended after ")[2].split()[0]) >= 4
