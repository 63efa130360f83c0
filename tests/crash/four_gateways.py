"""Four forked gateways on one store, the worker of which is killed in the middle.

    python four_gateways.py FOLDER FLUSH

This process forks them, gives every message to two of them as a platform does that
repeats its webhooks, kills the worker with SIGKILL while messages come in, waits until
every message is answered, ends the others, audits the store, and prints a report as
JSON. The platform is a file: each line of it is one message that a reader would see.
"""

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from turnfold import Kernel
from turnfold.audit import Acceptance, audit_store
from turnfold.enums import DeliveryClass, Flush
from turnfold.inbound import Inbound
from turnfold.messages import Text
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    Receipt,
    Verdict,
)
from turnfold.ports.store import Listing
from turnfold.settings import Settings
from turnfold_adapters.stores.sqlite import SqliteStore

GATEWAYS, MESSAGES, CONVERSATIONS = 4, 60, 7
PATIENCE_S = 60.0
SETTINGS = Settings(backoff_base_ms=1, backoff_cap_ms=20, drain_ms=5_000)


class FileChannel:
    """The platform: a file that every process appends to, a line in one write."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=0)}
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "platform"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        assert isinstance(part.payload, Text)
        ident = os.urandom(6).hex()
        line = {"id": ident, "key": part.key, "text": part.payload.text}
        os.write(self._file, json.dumps(line).encode() + b"\n")
        await asyncio.sleep(0.003)  # the answer is on its way: a good time to die
        return Accepted(receipt=Receipt(ids=(ident,)))

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        found = [line["id"] for line in arrived(self._path) if line["key"] == part.key]
        return Found(receipt=Receipt(ids=(found[0],))) if found else Absent()


def arrived(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


# --- a gateway -----------------------------------------------------------------------


async def answer(turn: Any) -> None:
    await turn.reply(f"re: {turn.inbound.message_id}")


async def gateway(folder: Path, flush: Flush, number: int) -> None:
    """Accept this gateway's share while working or standing by, until SIGTERM."""
    store = SqliteStore(folder / "g.db", flush=flush)
    kernel = Kernel(store, settings=SETTINGS)
    kernel.attach("w", FileChannel(folder), on_unknown="hold")
    kernel.on_turn(resume=True)(answer)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with kernel:
        telling = asyncio.create_task(tell_when_working(kernel, folder, number))
        for message in share(number):
            await kernel.accept(message)
            with (folder / f"accepted-{number}").open("a") as file:
                file.write(f"{message.message_id}\n")
            await asyncio.sleep(0.005)
        await stop.wait()
        await telling


async def tell_when_working(kernel: Kernel, folder: Path, number: int) -> None:
    while not kernel.working:
        await asyncio.sleep(0.005)
    (folder / f"working-{number}").touch()


def share(number: int) -> list[Inbound]:
    """Every message comes to two gateways."""
    return [
        Inbound("w", conversation=str(n % CONVERSATIONS), message_id=f"m{n}")
        for n in range(MESSAGES)
        if number in (n % GATEWAYS, (n + 1) % GATEWAYS)
    ]


def child(folder: Path, flush: Flush, number: int) -> NoReturn:
    status = 1
    try:
        asyncio.run(asyncio.wait_for(gateway(folder, flush, number), PATIENCE_S))
        status = 0
    except BaseException:  # noqa: BLE001  there is nobody above us to hear of it
        traceback.print_exc()
    finally:
        os._exit(status)


# --- the parent ----------------------------------------------------------------------


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.005)


def working(folder: Path) -> list[int]:
    return sorted(int(p.name.partition("-")[2]) for p in folder.glob("working-*"))


def play(folder: Path, flush: Flush) -> dict[str, Any]:
    platform = folder / "platform"
    pids: dict[int, int] = {}
    for number in range(GATEWAYS):
        pid = os.fork()
        if pid == 0:
            child(folder, flush, number)
        pids[number] = pid
    until(lambda: len(arrived(platform)) >= MESSAGES // 4, "the first answers")
    (worker,) = working(folder)
    os.kill(pids[worker], signal.SIGKILL)
    os.waitpid(pids.pop(worker), 0)
    before = len(arrived(platform))
    until(lambda: len(texts(platform)) == MESSAGES, "an answer to every message")
    time.sleep(0.5)  # a second answer would come now
    workers = working(folder)
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    status = [os.waitpid(pid, 0)[1] for pid in pids.values()]
    return {
        "killed": worker,
        "before": before,
        "workers": workers,
        "status": status,
        "doubled": [t for t, many in texts(platform).items() if many > 1],
        "missing": [
            f"m{n}" for n in range(MESSAGES) if f"re: m{n}" not in texts(platform)
        ],
        **asyncio.run(audited(folder)),
    }


def texts(platform: Path) -> Counter[str]:
    return Counter(line["text"] for line in arrived(platform))


async def audited(folder: Path) -> dict[str, Any]:
    """The audit of the store, with the platform's list as its witness."""
    store = SqliteStore(folder / "g.db")
    await store.open(read_only=True)
    try:
        lines = arrived(folder / "platform")
        witness = [Acceptance(line["key"], line["id"]) for line in lines]
        report = await audit_store(store, witness=witness)
        turns = await store.list(Listing(prefix="turn:", limit=10_000))
        left = [command.stream for command in await store.inbox()]
    finally:
        await store.close()
    return {
        "finding": None if report.passed else str(report.first),
        "turns": Counter(row.phase for row in turns),
        "inbox": left,
    }


def main(arguments: Sequence[str]) -> None:
    folder, flush = arguments
    print(json.dumps(play(Path(folder), Flush(flush))))  # noqa: T201  the report


if __name__ == "__main__":
    main(sys.argv[1:])
