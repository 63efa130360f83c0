"""Playing gateways on Matrix: one life after the other on one store, and the verdict.

What a reader of the room sees is the witness: exactly one event per part, in order, in
the right thread. The log is audited with those events as the platform's list.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnfold.audit import Acceptance, audit_store
from turnfold.ports.store import now
from turnfold_adapters.channels.matrix_content import KEY_FIELD
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.peek import Peek

from .synapse import User

GATEWAY = Path(__file__).with_name("matrix_gateway.py")
Point = tuple[str, int]  # a failpoint, and the how manieth time it is passed
Event = dict[str, Any]


@dataclass
class Nursery:
    """The process that gateways are forked from; see matrix_gateway."""

    process: asyncio.subprocess.Process
    log: Path
    pid: int = 0  # of the gateway that lives now

    async def life(
        self, order: Mapping[str, Any], heard: Callable[[Event], Awaitable[None]]
    ) -> int:
        """One gateway from birth to its end; its exit status."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        while line := await self.process.stdout.readline():
            event = json.loads(line)
            if event["what"] == "born":
                self.pid = event["pid"]
            if event["what"] == "ended":
                self.pid = 0
                return int(event["status"])
            await heard(event)
        raise AssertionError(self.log.read_text()[-4000:])

    def kill(self) -> None:
        """kill -9 for the gateway that lives now."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def nursery(folder: Path) -> AsyncIterator[Nursery]:
    log = folder / "gateways.err"
    with log.open("ab") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(GATEWAY),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=err,
        )
    made = Nursery(process, log)
    try:
        yield made
    finally:
        made.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@dataclass(kw_only=True)
class Stage:
    """Where scenes play: a room with a thread in it, and who plays."""

    nursery: Nursery
    folder: Path
    base_url: str  # where the gateway finds the homeserver
    bot: User
    alice: User
    room_id: str
    root_id: str  # of the thread
    within_s: float = 40

    async def play(self, scene: "Scene") -> "Scene":
        """From the first gateway to the one that comes to rest."""
        async with asyncio.timeout(self.within_s):
            while not scene.rested:
                await self._live(scene)
        return scene

    async def _live(self, scene: "Scene") -> None:
        async def heard(event: Event) -> None:
            if event["what"] == "listening" and not scene.said:
                scene.said = True
                await asyncio.to_thread(self._speak, scene)
            elif event["what"] == "stopped":
                scene.died.append(event["point"])
            elif event["what"] == "done":
                scene.points = Counter(event["points"])

        status = await self.nursery.life(self._order(scene), heard)
        scene.lives += 1
        scene.rested = status == 0
        if status not in (0, -signal.SIGKILL):
            text = self.nursery.log.read_text()[-4000:]
            raise AssertionError(f"a gateway ended by itself with {status}: {text}")

    def _speak(self, scene: "Scene") -> None:
        for name, threaded in scene.messages.items():
            relation = {"rel_type": "m.thread", "event_id": self.root_id}
            more = {"m.relates_to": relation} if threaded else {}
            self.alice.say(self.room_id, name, **more)

    def _order(self, scene: "Scene") -> dict[str, Any]:
        point, nth = scene.stops.pop(0) if scene.stops else ("", 0)
        return {
            "store": str(self.store_of(scene)),
            "base_url": self.base_url,
            "user_id": self.bot.user_id,
            "device_id": self.bot.device_id,
            "token": self.bot.token,
            "window_ms": scene.window_ms,
            "settle_ms": 300,
            "turns": len(scene.messages),
            "room": self.room_id,
            "notice": scene.notice,
            "forgetful": scene.forgetful,
            "point": point,
            "nth": nth,
        }

    def store_of(self, scene: "Scene") -> Path:
        return self.folder / f"{scene.name}.db"

    def judge(self, *scenes: "Scene") -> None:
        """What the room shows, and what the logs say."""
        events = self.bot.events(self.room_id, self.bot.user_id)
        problems = [
            f"{scene.name} (killed {scene.died}): {problem}"
            for scene in scenes
            for problem in self._problems(scene, events)
        ]
        assert not problems, "\n".join(problems)

    def _problems(self, scene: "Scene", events: Sequence[Event]) -> list[str]:
        told = [*scene.messages, scene.notice] if scene.notice else [*scene.messages]
        mine = [e for e in events if e["content"]["body"].startswith(f"{scene.name}-")]
        problems = []
        for name in told:
            seen = [e for e in mine if _name(e) == name]
            thread = self.root_id if scene.messages.get(name) else None
            wanted = [f"{name}: one", f"{name}: two", f"{name}.txt"]
            if [e["content"]["body"] for e in seen] != wanted:
                problems.append(f"{[e['content']['body'] for e in seen]}")
            if any(_thread(e) != thread for e in seen):
                problems.append(f"{name} is in {[_thread(e) for e in seen]}")
        return problems + self._log_problems(scene, mine)

    def _log_problems(self, scene: "Scene", mine: Sequence[Event]) -> list[str]:
        witness = [Acceptance(e["content"][KEY_FIELD], e["event_id"]) for e in mine]
        store = SqliteStore(self.store_of(scene), flush="loop")
        now(store.open(read_only=True))
        try:
            report = now(audit_store(store, witness=witness))
            kinds = Counter(Peek(store).names())
        finally:
            now(store.close())
        problems = [str(finding) for finding in report.findings]
        once = ("turn.accepted", "turn.answered", "turn.completed")
        wrong = [kind for kind in once if kinds[kind] != len(scene.messages)]
        return problems + [f"{kinds[kind]} x {kind}" for kind in wrong]


@dataclass(kw_only=True)
class Scene:
    """Some messages (or a notice), and where the gateways that take them die: the first
    at the first of `stops`, and so on; the one after the last lives."""

    name: str
    stops: list[Point] = field(default_factory=list)
    threaded: tuple[bool, ...] = (False, True)  # one message each
    announces: bool = False  # a notice from a client without channels
    window_ms: int | None = 3_600_000  # 0: the key is worth nothing, only a look-up
    forgetful: bool = False  # a channel that lies about its keys
    said: bool = False
    rested: bool = False
    lives: int = 0
    died: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)  # of the last life

    @property
    def messages(self) -> dict[str, bool]:
        """Name -> is it in the thread?"""
        return {f"{self.name}-{n}": t for n, t in enumerate(self.threaded)}

    @property
    def notice(self) -> str:
        return f"{self.name}-n" if self.announces else ""


async def play_all(stages: Sequence[Stage], scenes: Sequence[Scene]) -> None:
    """Every scene once, on whichever stage is free; then the verdicts."""
    waiting = list(scenes)
    played: dict[int, list[Scene]] = {}

    async def fill(number: int, stage: Stage) -> None:
        while waiting:
            scene = waiting.pop(0)
            played.setdefault(number, []).append(scene)
            await stage.play(scene)

    async with asyncio.TaskGroup() as group:
        for number, stage in enumerate(stages):
            group.create_task(fill(number, stage))
    for number, stage in enumerate(stages):
        await asyncio.to_thread(stage.judge, *played.get(number, []))


def _name(event: Event) -> str:
    """Of the message that an event answers."""
    body: str = event["content"]["body"]
    return body.partition(":")[0].removesuffix(".txt")


def _thread(event: Event) -> str | None:
    relation = event["content"].get("m.relates_to", {})
    threaded = relation.get("rel_type") == "m.thread"
    return relation["event_id"] if threaded else None
