"""An act on many is killed with SIGKILL at each of its steps; the same command again
ends it, and each entry is acted on once."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel
from turnfold._log.codec import decode
from turnfold._log.outbox_events import Delivered, Redriven
from turnfold.audit import audit_store
from turnfold.inspect import Filter
from turnfold.ports.store import Store, record_pages
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import reject, unknown

pytestmark = pytest.mark.timeout(180)
SECRET = "written-by-7"
COUNT = 450  # more than two batches

# Runs a command and dies before the step of that number. A step is a call that posts
# commands, or a commit.
CHILD = """
import os, signal, sys
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_cli import app

left = int(sys.argv[1])

def dying(real, after):
    async def step(self, *arguments):
        global left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = await real(self, *arguments)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return step

after = sys.argv[2] == "after"
for name in ("post", "commit"):
    setattr(SqliteStore, name, dying(getattr(SqliteStore, name), after))
words = sys.argv[3:]
app(words)(words)
"""


async def _incident(path: Path, act: str) -> None:
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    gone = reject("target_gone") if act == "retry" else unknown()
    gateway.platform.plays(*[gone] * COUNT)
    for n in range(COUNT):
        await kernel.enqueue(route(str(n)), "x")
    word = "failed_terminal" if act == "retry" else "parked"

    async def ended() -> int:
        return len(await kernel.inspect.list(Filter(status=(word,), limit=COUNT)))

    async with asyncio.timeout(60):
        while await ended() < COUNT:
            await asyncio.sleep(0.05)
    await gateway.end()


@pytest.fixture(scope="module", params=["resolve", "retry"])
def incident(request, tmp_path_factory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp(request.param) / "g.db"
    asyncio.run(_incident(path, request.param))
    return request.param, path


def _words(act: str, path: Path) -> list[str]:
    what = (
        ["resolve", "delivered", "--parked"]
        if act == "resolve"
        else ["retry", "--dead"]
    )
    return [*what, "--yes", "--by", "ann", "-s", str(path)]


def _run(words: list[str], step: int, when: str) -> int:
    command = [sys.executable, "-c", CHILD, str(step), when, *words]
    done = subprocess.run(
        command, capture_output=True, check=False, timeout=100, env=dict(os.environ)
    )
    return done.returncode


async def _acts(store: Store) -> list[str]:
    return [
        record.stream
        async for page in record_pages(store)
        for record in page
        for event in decode(record)
        if isinstance(event, Redriven) or (isinstance(event, Delivered) and event.by)
    ]


async def _judge(path: Path) -> tuple[int, int, list[object]]:
    store = SqliteStore(path)
    await store.open(read_only=True)
    try:
        done = await _acts(store)
        waiting = len(await store.inbox(10_000))
    finally:
        await store.close()
    async with Kernel(path, work=False) as kernel:
        report = await audit_store(kernel.store)
    assert len(done) == len(set(done)), "an entry was acted on twice"
    return len(done), waiting, list(report.findings)


@pytest.mark.case("X01", "Q03")
@pytest.mark.parametrize(
    ("step", "when"), [(1, "before"), (2, "after"), (4, "before"), (7, "after")]
)
def test_an_act_on_many_that_is_killed_ends_well_when_it_is_repeated(
    incident: tuple[str, Path], tmp_path: Path, step: int, when: str
) -> None:
    act, made = incident
    path = tmp_path / "g.db"
    path.write_bytes(made.read_bytes())
    words = _words(act, path)
    assert _run(words, step, when) == -signal.SIGKILL
    some, _, broken = asyncio.run(_judge(path))
    assert broken == []
    assert some < COUNT
    assert _run(words, 10**6, when) == 0
    assert asyncio.run(_judge(path)) == (COUNT, 0, [])


async def _talk(path: Path) -> None:
    async def answer(handle: Any) -> None:
        await handle.reply(f"you said {SECRET}")

    gateway = Gateway(store=in_file(path))
    gateway.handler = answer
    kernel = await gateway.start()
    for number in range(3):
        message = inbound(str(number), str(number), SECRET, sender="7")
        await kernel.accept(message)
        await spin()
    await gateway.end()


@pytest.mark.case("N03", "X01")
def test_an_erasing_of_a_sender_ends_well_after_any_kill(tmp_path: Path) -> None:
    """Each life dies a step later than the one before it, on the same store."""
    path = tmp_path / "g.db"
    asyncio.run(_talk(path))
    words = ["redact", "--sender", "7", "--yes", "-s", str(path)]
    for step, when in ((1, "before"), (1, "after"), (2, "before"), (2, "after")):
        assert _run(words, step, when) in (-signal.SIGKILL, 0)
        assert asyncio.run(_judge(path))[2] == []
    assert _run(words, 10**6, "after") == 0
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]
