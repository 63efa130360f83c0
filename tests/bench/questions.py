"""How long an operator's questions take over a long history: in Python, and on the
command line with the start of its process. Times are of the processor: others only add
to those of a clock, and everything is in memory.

The store is made of copies. A real gateway plays a few turns with other ends; their
records are written again and again in bulk, under new ids, over 30 days.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from attrs import frozen
from msgspec.structs import replace

from turnfold import FailureClass
from turnfold._log.canonical import hash_of
from turnfold._log.ids import time_id
from turnfold.inspect import Filter, Inspect, Place
from turnfold.ports.store import (
    BLANK,
    Body,
    Record,
    Store,
    Stored,
    Summary,
    Write,
)
from turnfold_adapters.stores.memory import MemoryDisk
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.gateway import Gateway, in_memory, inbound, spin
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

Figures = dict[str, float]
_DAY_MS = 86_400_000
_BATCH = 1_000  # turns of one commit
_MESSAGE, _PLACE = "message-id", "chan/acct/conv"
_CHANNELS = ("telegram/support", "telegram/sales", "slack/default", "matrix/default")
_CONVERSATIONS = 5_000  # of each account
_RARE = 20_000  # of so many turns one stays parked


@frozen
class Pattern:
    """One turn as a gateway left it: everything of its streams."""

    turn: str
    records: Sequence[Record]
    summaries: Sequence[Summary]
    bodies: Sequence[Body]
    keys: Sequence[tuple[str, str]]


def questions(folder: Path, turns: int) -> Figures:
    path = folder / f"{turns}.db"
    began = time.perf_counter()
    asyncio.run(fill(SqliteStore(path, synchronous="NORMAL"), turns))
    figures = {"made in, s": time.perf_counter() - began}
    figures["size, MB"] = path.stat().st_size / 1e6
    figures |= asyncio.run(in_python(SqliteStore(path), turns))
    figures |= _on_the_command_line(path, turns)
    path.unlink()
    return figures


# --- the store ---------------------------------------------------------------------


async def _pattern(act: object | None) -> Pattern:
    store = in_memory()()
    gateway = Gateway(store=lambda: store, clock=FakeClock(wall=_DAY_MS))
    channel, account, conversation = _PLACE.split("/")
    gateway.channels = {(channel, account): PlatformChannel(gateway.platform)}

    async def answer(turn: object) -> None:
        await turn.reply("Dear customer, your order is on its way. " * 3)

    gateway.handler = answer
    kernel = await gateway.start()
    if act is not None:
        gateway.platform.plays(act, conversation=conversation)
    message = inbound(
        _MESSAGE, conversation, "where is my order?", channel, account=account
    )
    await kernel.accept(message)
    await spin()
    await gateway.advance(10_000)
    disk = store.disk
    await gateway.end()
    return _taken(disk)


def _taken(disk: MemoryDisk) -> Pattern:
    (turn,) = (name for name in disk.streams if name.startswith("turn:"))
    own = [r for r in disk.log if turn.partition(":")[2] in r.stream]
    names = {record.stream for record in own}
    bodies = [b for (name, _), b in disk.bodies.items() if b and name in names]
    return Pattern(
        turn=turn.partition(":")[2],
        records=own,
        summaries=[disk.summaries[name] for name in names],
        bodies=bodies,
        keys=[*disk.keys.items()],
    )


async def fill(store: Store, turns: int) -> None:
    """`store`: an empty one that is not open."""
    kicked = reject(FailureClass.PERMISSION, detail="403 Forbidden: bot was kicked")
    gone = reject(FailureClass.TARGET_GONE, detail="channel_not_found")
    fine, dead, lost, parked = [
        await _pattern(act) for act in (None, kicked, gone, unknown(cause="timeout"))
    ]
    order = cycle([fine] * 60 + [dead] + [fine] * 30 + [lost])
    await store.open()
    start = time.time_ns() // 1_000_000 - 30 * _DAY_MS
    head = BLANK
    for first in range(0, turns, _BATCH):
        write = Write(base=head)
        for number in range(first, min(first + _BATCH, turns)):
            pattern = parked if number % _RARE == 100 else next(order)
            at = start + number * 30 * _DAY_MS // turns
            write = _more(write, pattern, number, at)
        (answer,) = await store.commit([write])
        assert isinstance(answer, Stored), answer
        head = answer.head
    await store.close()


def _more(write: Write, pattern: Pattern, number: int, at: int) -> Write:
    """The write with one turn more. Its lists grow in place."""
    name = time_id(at, number.to_bytes(16, "big"))
    place = f"{_CHANNELS[number % 4]}/{number // 4 % _CONVERSATIONS}"
    channel, account, conversation = place.split("/")
    swaps = (
        (pattern.turn, name),
        (_MESSAGE, f"m{number}"),
        (_PLACE, place),
        ('"chan"', f'"{channel}"'),
        ('"acct"', f'"{account}"'),
        ('"conv"', f'"{conversation}"'),
    )

    def swap(text: str) -> str:
        for old, new in swaps:
            text = text.replace(old, new)
        return text

    if not write.records:
        write = replace(write, records=[], summaries=[], bodies=[], keys=[])
    position = write.base.position + len(write.records)
    orders: dict[str, int] = {}
    for record in pattern.records:
        position += 1
        events = swap(record.events.decode()).encode()
        stream = swap(record.stream)
        orders.setdefault(stream, position)
        new = replace(
            record, position=position, stream=stream, at=at, events=events, wall=None
        )
        write.records.append(replace(new, hash=hash_of(new)))
    for s in pattern.summaries:
        new = replace(
            s,
            stream=swap(s.stream),
            order=orders[swap(s.stream)],
            created=at,
            updated=at,
            lane=swap(s.lane),
            parent=None if s.parent is None else swap(s.parent),
            due=None,
            expires=None if s.expires is None else at + _DAY_MS,
        )
        write.summaries.append(new)
    write.bodies.extend(replace(b, stream=swap(b.stream)) for b in pattern.bodies)
    write.keys.extend((swap(key), swap(stream)) for key, stream in pattern.keys)
    return write


# --- the questions -----------------------------------------------------------------


def _asked(turns: int) -> dict[str, Callable[[Inspect], Awaitable[object]]]:
    now = time.time_ns() // 1_000_000
    week, day = now - 7 * _DAY_MS, now - _DAY_MS
    place = Place(channel="telegram", account="support", conversation="0")
    return {
        "status": lambda i: i.overview(),
        "stats of 7 days by channel": lambda i: i.stats(
            ("channel",), Filter(since=week)
        ),
        "stats of all by account": lambda i: i.stats(("account",)),
        "stats of all by reason": lambda i: i.stats(("reason",)),
        "stats of all by day": lambda i: i.stats(("day",)),
        "list": lambda i: i.page(),
        "dead of a day": lambda i: i.page(
            Filter(what="entry", status=("failed_terminal",), since=day)
        ),
        "parked": lambda i: i.page(Filter(what="entry", status=("parked",))),
        "of one conversation": lambda i: i.page(
            Filter(channel="telegram", conversation="0", limit=50)
        ),
        "of one reason and channel": lambda i: i.page(
            Filter(what="entry", channel="slack", reason=("target_gone",))
        ),
        "of a rare reason": lambda i: i.page(
            Filter(what="entry", channel="telegram", reason=("timeout",))
        ),
        "find at a time": lambda i: i.find(place, Filter(since=week, until=day)),
        "find words of nobody in 2 days": lambda i: i.find(
            Place(channel="telegram"), Filter(since=now - 2 * _DAY_MS), "nobody"
        ),
        "turns of a conversation": lambda i: i.page(
            Filter(what="turn", channel="telegram", conversation="0")
        ),
        "of an account": lambda i: i.page(Filter(what="entry", account="support")),
        "show by message id": lambda i: i.show(f"m{turns // 2}"),
        "show by short id": lambda i: i.show("t1"),
        "gates": lambda i: i.gates(),
        "worker": lambda i: i.worker(),
        "channels": lambda i: i.channels(Filter(since=week)),
    }


async def in_python(
    store: Store, turns: int, clock: Callable[[], float] = time.process_time
) -> Figures:
    """The least of four times for each question."""
    await store.open(read_only=True)
    inspect = Inspect(store)
    found: Figures = {}
    for name, ask in _asked(turns).items():
        times = []
        for _ in range(4):
            began = clock()
            await ask(inspect)
            times.append(clock() - began)
        found[f"{name}, ms"] = 1000 * min(times)
    await store.close()
    return found


def _typed(turns: int) -> Iterator[str]:
    yield "status"
    yield "stats"
    yield "stats --by day --since 30d"
    yield "list --dead --since today"
    yield "list --conversation 0 --channel telegram"
    yield "find telegram/support/0 --since 1w"
    yield f"show m{turns // 2}"
    yield "turns --conversation 0"
    yield "gates"
    yield "worker"
    yield "channels"
    yield "health"
    yield "size"
    yield "prune --older 20d --dry-run"


def _on_the_command_line(path: Path, turns: int) -> Figures:
    """The least of three runs, with the start of the process."""
    found: Figures = {}
    for words in _typed(turns):
        times = []
        for _ in range(3):
            began = _of_children()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "turnfold",
                    *words.split(),
                    "--store",
                    str(path),
                ],
                capture_output=True,
                check=False,
            )
            times.append(_of_children() - began)
        found[f"turnfold {words}, ms"] = 1000 * min(times)
    return found


def _of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system
