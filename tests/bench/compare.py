"""turnfold beside its floor, its peers and two servers, all in turn in one run.

A shared machine's disk changes its speed within a second. So each subject gets a short
slice in each round, and a ratio is the median of the ratios of the rounds.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random

import apsw
from attrs import define, field
from tests.bench import floor, ours, peers, servers

Figures = dict[str, float]
Missing = Callable[[str, str], None]  # takes a name, and why it was not measured
US = "turnfold"
# Peers do not get faster with more callers, so one caller stands for any number.
_SERVED = (1, 100)


class Raw:
    """The limit of the disk: one row per commit through apsw, nothing else."""

    name = "raw apsw, one commit"

    def __init__(self, path: Path, level: str) -> None:
        self._conn = apsw.Connection(str(path))
        self._conn.pragma("journal_mode", "WAL")
        self._conn.pragma("synchronous", level)
        self._conn.pragma("wal_autocheckpoint", 0)
        self._conn.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, data BLOB)")

    def once(self) -> None:
        self._conn.execute("BEGIN IMMEDIATE")
        self._conn.execute("INSERT INTO row (data) VALUES (?)", (b"x" * 500,))
        self._conn.execute("COMMIT")

    def close(self) -> None:
        self._conn.close()


@define
class Rounds:
    """The figures of each round, by name."""

    seen: dict[str, list[float]] = field(factory=dict)

    def note(self, name: str, value: float) -> None:
        self.seen.setdefault(name, []).append(value)

    def note_run(self, name: str, run: ours.Run) -> None:
        self.note(name, run.rate)
        self.note(f"{name}, p50 ms", run.at(0.5))
        self.note(f"{name}, p99 ms", run.at(0.99))
        self.note(f"{name}, p99 / p50", run.at(0.99) / run.at(0.5))
        self.note(f"{name}, cpu us", run.cpu_us)

    def medians(self) -> Figures:
        return {name: statistics.median(values) for name, values in self.seen.items()}

    def ratio(self, above: str, below: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.seen[above], self.seen[below], strict=True)
        return statistics.median(one / other for one, other in pairs)


@define
class Setting:
    """How long to compare: so many rounds, so many seconds for a slice. More senders
    get up to four times as long, since a round of 100 messages is long itself."""

    rounds: int
    seconds: float
    senders: tuple[int, ...]

    def slice_s(self, senders: int) -> float:
        return self.seconds * min(senders, 4)


def side_by_side(
    folder: Path, level: ours.Level, how: Setting, missing: Missing
) -> Figures:
    """Medians of rates, times and processor time, and turnfold's ratio to everybody."""
    home = folder / level
    home.mkdir()
    rounds = Rounds()
    blocking = [Raw(home / "raw.db", level), *peers.opened(home, level, missing)]
    with asyncio.Runner() as runner:
        stage = _Stage(how, blocking)
        runner.run(stage.open(home, level, missing))
        gc.collect()
        gc.freeze()  # the libraries' objects are no part of a message
        stage.play(rounds, runner)
        runner.run(stage.close())
    for subject in blocking:
        subject.close()
    return rounds.medians() | stage.ratios(rounds)


@define
class _Stage:
    """Everybody who is compared: `blocking` subjects take no loop, `awaited` ones have a
    lifecycle and the numbers of senders to run with."""

    how: Setting
    blocking: Sequence[Raw | peers.Peer]
    awaited: dict[str, tuple[ours.Lifecycle, tuple[int, ...]]] = field(factory=dict)
    closing: AsyncExitStack = field(factory=AsyncExitStack)

    async def open(self, folder: Path, level: ours.Level, missing: Missing) -> None:
        if level == "FULL":
            for server in await servers.started(folder, missing):
                self.awaited[server.name] = server.lifecycle, _SERVED
                self.closing.push_async_callback(server.close)
        await self.open_ours(folder, level, floor.LAYOUTS)

    async def open_ours(
        self, folder: Path, level: ours.Level, layouts: tuple[type[floor.Floor], ...]
    ) -> None:
        senders = self.how.senders
        for layout in layouts:
            subject = layout(folder / f"{layout.__name__}.db", level)
            self.awaited[layout.name] = subject.lifecycle, senders
            self.closing.callback(subject.close)
        store = ours.sqlite(folder / "turnfold.db", level)
        kernel = await self.closing.enter_async_context(ours.gateway(store))
        self.awaited[US] = ours.lifecycle_of(kernel), senders
        for lifecycle, _ in self.awaited.values():  # warm
            await ours.closed_loop(lifecycle, 10, 0.2)

    async def close(self) -> None:
        await self.closing.aclose()

    def play(self, rounds: Rounds, runner: asyncio.Runner) -> None:
        """Each round has an order of its own: a slice after a busy one gets less of a
        shared processor, and so would always the same subject."""
        slices = [
            *(
                partial(self._play_blocking, rounds, subject)
                for subject in self.blocking
            ),
            *(
                partial(self._play, rounds, runner, name, lifecycle, count)
                for name, (lifecycle, senders) in self.awaited.items()
                for count in senders
            ),
        ]
        order = Random(0)
        for _ in range(self.how.rounds):
            for play in slices:
                play()
            order.shuffle(slices)

    def _play_blocking(self, rounds: Rounds, subject: Raw | peers.Peer) -> None:
        rounds.note(subject.name, rate_of(subject.once, self.how.seconds))

    def _play(
        self,
        rounds: Rounds,
        runner: asyncio.Runner,
        name: str,
        lifecycle: ours.Lifecycle,
        count: int,
    ) -> None:
        load = ours.closed_loop(lifecycle, count, self.how.slice_s(count))
        rounds.note_run(f"{name}, {count}", runner.run(load))

    def ratios(self, rounds: Rounds) -> Figures:
        found = {}
        for count in self.how.senders:
            us = f"{US}, {count}"
            for peer in self.blocking:
                found[f"{us} / {peer.name}"] = rounds.ratio(us, peer.name)
            for name, (_, senders) in self.awaited.items():
                if name != US and count in senders:
                    found[f"{us} / {name}"] = rounds.ratio(us, f"{name}, {count}")
            for layout in floor.LAYOUTS:
                other = f"{layout.name}, {count}, cpu us"
                found[f"{us}, cpu / {layout.name}"] = rounds.ratio(
                    f"{us}, cpu us", other
                )
        return found


def rate_of(once: Callable[[], None], seconds: float) -> float:
    """Calls a second."""
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        once()
        count += 1
    return count / passed


def against_floor(folder: Path, how: Setting) -> Figures:
    """turnfold beside raw commits and the floor alone; for the gate."""
    raw = Raw(folder / "raw.db", "FULL")
    rounds, layout = Rounds(), floor.EventRows

    stage = _Stage(how, [raw])
    with asyncio.Runner() as runner:
        runner.run(stage.open_ours(folder, "FULL", (layout,)))
        stage.play(rounds, runner)
        runner.run(stage.close())
    raw.close()
    found = {}
    for count in how.senders:
        us, other = f"{US}, {count}", f"{layout.name}, {count}"
        found[f"{us} / raw commits"] = rounds.ratio(us, raw.name)
        found[f"{us}, cpu / {layout.name}"] = rounds.ratio(
            f"{us}, cpu us", f"{other}, cpu us"
        )
    return found
