"""One run of the demo: post, kill, restart, wait for the end, ask the platform."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
from attrs import define, field, frozen

from turnfold.inspect.shards import read_all
from turnfold.ports.store import Store, store_at
from turnfold_cli.demo_plan import STORE, Again, Class, Message, Plan
from turnfold_cli.demo_processes import DemoError, Gateway, platform
from turnfold_model.testing.peek import at_rest

WITNESS, LOG = "witness.json", "gateway.log"

_APART_S = (0.005, 0.03)
_POST_WITHIN_S = 10.0
_ODD_MAX = 20
SETTLES_WITHIN_S = 90.0
_POLL_S = 0.1


@define
class Progress:
    """The progress of a run."""

    posted: int = 0  # messages that got their 200
    redelivered: int = 0
    kills: int = 0
    stage: str = "starting"


@frozen(kw_only=True)
class Posted:
    """A 200 of the gateway: it has the message."""

    turn: str
    new: bool | None  # None: only the worker can know


@define
class Evidence:
    """The evidence of a run, for its judgement."""

    folder: Path
    address: str  # of the store
    accepted: dict[str, list[Posted]] = field(factory=dict)  # message -> its 200s
    witness: list[dict[str, Any]] = field(factory=list)
    stats: dict[str, Any] = field(factory=dict)
    stops: list[str] = field(factory=list)
    odd_answers: list[str] = field(factory=list)  # neither 200 nor 503
    kills: int = 0
    starts: int = 0
    hosts: int = 1
    shards: int = 1
    pauses: int = 0
    cuts: int = 0  # of connections to the store
    faults: list[str] = field(factory=list)  # of all hosts, or of the store's server
    takeovers: int = 0
    settled: bool = False
    seconds: float = 0.0


class Door(Protocol):
    """An address for posting messages."""

    async def listening(self) -> str:
        """Wait until a gateway listens, and return its address."""


@define
class Poster:
    """The sending half of the platform: it posts each message under one id until a
    200."""

    client: httpx.AsyncClient
    gateway: Door
    evidence: Evidence
    progress: Progress
    rng: random.Random
    _pace: asyncio.Lock = field(factory=asyncio.Lock)

    async def post(self, message: Message) -> None:
        await self._until_taken(message)
        self.progress.posted += 1
        if message.again is Again.AT_ONCE:
            await self.repeat(message)

    async def repeat(self, message: Message) -> None:
        await self._until_taken(message)
        self.progress.redelivered += 1

    async def _until_taken(self, message: Message) -> None:
        while True:
            async with self._pace:  # messages do not come all at once
                await asyncio.sleep(self.rng.uniform(*_APART_S))
                url = await self.gateway.listening()
            try:
                answer = await self.client.post(url, json=message.request)
            except httpx.TransportError:
                continue  # killed meanwhile: it may have the message or not
            if answer.status_code == 200:
                got = answer.json()
                posted = Posted(turn=got["turn_id"], new=got["new"])
                self.evidence.accepted.setdefault(message.name, []).append(posted)
                return
            if answer.status_code != 503:
                self._note_odd(f"{message.name} was answered {answer.status_code}")

    def _note_odd(self, said: str) -> None:
        """Note an answer that is a bug of the gateway; the message is sent again."""
        self.evidence.odd_answers.append(said)
        if len(self.evidence.odd_answers) > _ODD_MAX:
            raise DemoError(f"{said}, after many odd answers; see the gateway's log")


async def run(
    plan: Plan, mode: Class, seed: int, folder: Path, progress: Progress
) -> Evidence:
    """Carry out the plan. Raises DemoError if the demo itself cannot go on."""
    began = time.monotonic()
    evidence = Evidence(folder, f"sqlite:{folder / STORE}")
    among = max(plan.parts * 2 // 3, plan.cuts)
    async with platform(mode, seed, plan.cuts, among, folder) as url:
        with (folder / LOG).open("ab") as log:
            gateway = Gateway(evidence.address, url, mode, log)
            try:
                async with httpx.AsyncClient(timeout=_POST_WITHIN_S) as client:
                    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
                    poster = Poster(client, gateway, evidence, progress, rng)
                    await _lives(plan, gateway, poster)
                    evidence.settled = await settle(evidence.address, progress)
                    await gateway.end()
                    await ask(client, url, evidence)
            finally:
                await gateway.abandon()
    evidence.kills, evidence.starts = progress.kills, gateway.starts
    evidence.stops, evidence.seconds = gateway.stops, time.monotonic() - began
    return evidence


async def _lives(plan: Plan, gateway: Gateway, poster: Poster) -> None:
    """Give every life its share of the messages, and end all but the last by a kill."""
    kills = [*plan.kills, None]
    late: list[Message] = []
    async with asyncio.TaskGroup() as posts:
        for batch, kill in zip(plan.batches(), kills, strict=True):
            poster.progress.stage = str(kill.stop.name if kill and kill.stop else "any")
            await gateway.start(kill)
            for message in late:
                posts.create_task(poster.repeat(message))
            for message in batch:
                posts.create_task(poster.post(message))
            late = [m for m in batch if m.again is Again.LATER]
            if kill is not None:
                await gateway.die(kill.after_s)
                poster.progress.kills += 1
        for message in late:
            posts.create_task(poster.repeat(message))


async def settle(address: str, progress: Progress) -> bool:
    """Wait until every turn and entry is closed or waits for a person."""
    progress.stage = "settling"
    async with reading(address) as store:
        end = time.monotonic() + SETTLES_WITHIN_S
        while time.monotonic() < end:
            # The inbox first: what leaves it meanwhile is in the log, and seen there.
            if not await store.inbox(1) and at_rest((await store.load()).open):
                return True
            await asyncio.sleep(_POLL_S)
    return False


@asynccontextmanager
async def reading(address: str) -> AsyncIterator[Store]:
    """The gateway's store, opened for reading by this process."""
    store = store_at(address)
    await store.open(read_only=True)
    store = await read_all(store)
    try:
        yield store
    finally:
        await store.close()


async def ask(client: httpx.AsyncClient, url: str, evidence: Evidence) -> None:
    witness = (await client.get(f"{url}/witness")).json()
    evidence.witness = witness["messages"]
    evidence.stats = (await client.get(f"{url}/stats")).json()
    path = evidence.folder / WITNESS
    path.write_text(json.dumps(witness, indent=1), encoding="utf-8")
