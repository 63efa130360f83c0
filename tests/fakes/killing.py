"""Plays a bot, a program of its own: users write, the process is killed with SIGKILL
again and again, and what the platform shows is counted. A platform is a FAKE of ours or
a real server; `killing_telegram` is the first."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from turnfold import Kernel
from turnfold.inspect import Filter

PLACEHOLDER = "\u2026"
MARK = "(may be a duplicate) "
CHATS = 4
PATIENCE_S = 60.0
_LAST = 20  # lines of a bot that ended


class Platform(Protocol):
    """Where users write and the bot answers."""

    def facts(self) -> dict[str, str]:
        """What the bot finds in its environment: addresses and tokens."""

    def listened(self) -> bool:
        """Has the bot been here? What was said to nobody, some platforms never tell."""

    def says(self, chat: int, text: str) -> None:
        """A user writes."""

    def calls(self) -> int:
        """How many requests of the bot have come in: a sign of its life."""

    def texts(self) -> list[str]:
        """What the bot's messages show now."""

    def cut(self) -> None:
        """The next message of the bot is accepted, and the connection breaks."""

    def limit(self) -> None:
        """The next message of the bot meets a rate limit."""


class BotEndedError(Exception):
    """The bot ended by itself, so that nothing can be counted; with its last lines."""


@dataclass(frozen=True)
class Played:
    messages: int
    kills: int
    answered_on_platform: int
    lost: int  # neither answered nor parked
    parked: int  # in doubt or held, and waiting for a person
    doubled: int  # answers that stand there more than once
    marked: int  # of them, those that say so
    strays: int  # placeholders that were left over


@dataclass
class Play:
    platform: AbstractContextManager[Platform]
    script: Path
    store: Path
    answer: Callable[[str], str]
    messages: int = 24
    kills: int = 6
    seed: int = 1
    faults: float = 0.0  # this part of calls is cut after acceptance, as many are 429
    plain: bool = False  # without turnfold

    def run(self) -> Played:
        chance = random.Random(self.seed)
        with self.platform as api:
            self._start(api)
            try:
                self._wait(api.listened)
                for number in range(self.messages):
                    if chance.random() < self.kills / self.messages:
                        self._kill(api, chance)
                    self._plan_faults(api, chance)
                    api.says(1 + number % CHATS, f"message {number}")
                    self._said += 1
                    time.sleep(chance.uniform(0, 0.1))
                for _ in range(max(0, self.kills - self._killed)):
                    self._kill(api, chance)
                self._wait_for_life(api)
                self._wait(
                    lambda: not self._missing(api), PATIENCE_S if not self.plain else 5
                )
                time.sleep(1)  # for what should not come
            finally:
                self._bot.terminate()
                self._bot.wait(20)
            sys.stderr.write(self._told())
            return self._count(api)

    _bot: subprocess.Popen[bytes] = field(init=False)
    _killed = 0
    _said = 0
    _born = 0  # calls before this life

    def _start(self, api: Platform) -> None:
        self._born = api.calls()
        plain = {"PLAIN": "1"} if self.plain else {}
        # DEATHS: else three kills that hit one message alone are its own fault.
        ours = {"SETTLE": "300", "DEATHS": "1000", "STORE": str(self.store)}
        facts = {**plain, **ours, **api.facts()}
        command = [sys.executable, str(self.script), str(self.store)]
        with self._log.open("ab") as log:
            self._bot = subprocess.Popen(
                command, env={**os.environ, **facts}, stdout=log, stderr=log
            )

    @property
    def _log(self) -> Path:
        return self.store.with_suffix(".log")

    def _told(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def _kill(self, api: Platform, chance: random.Random) -> None:
        """After a few calls of this life, so that it dies in its work, or when it has no
        work left."""
        self._wait_for_life(api)
        wanted = api.calls() + chance.randint(4, 16)
        self._wait(
            lambda: api.calls() >= wanted or not self._missing(api, self._said),
            5.0 if self.plain else 15.0,
        )
        time.sleep(chance.uniform(0, 0.03))
        self._bot.send_signal(signal.SIGKILL)
        self._bot.wait()
        self._killed += 1
        self._start(api)

    def _wait_for_life(self, api: Platform) -> None:
        """A slow machine must not count as a loss of the bot."""
        self._wait(
            lambda: api.calls() > self._born or not self._missing(api, self._said)
        )

    def _plan_faults(self, api: Platform, chance: random.Random) -> None:
        for fault in (api.cut, api.limit):
            if chance.random() < self.faults:
                fault()

    def _missing(self, api: Platform, said: int | None = None) -> list[str]:
        shown = "\n".join(api.texts())
        count = self.messages if said is None else said
        wanted = (self.answer(f"message {n}") for n in range(count))
        return [words for words in wanted if f"{words}\n" not in f"{shown}\n"]

    def _wait(self, what: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        until = time.monotonic() + seconds
        while not what() and time.monotonic() < until:
            if self._bot.poll() is not None:
                last = "\n".join(self._told().splitlines()[-_LAST:])
                problem = f"the bot ended by itself, code {self._bot.returncode}:"
                raise BotEndedError(f"{problem}\n{last}")
            time.sleep(0.02)

    def _count(self, api: Platform) -> Played:
        texts = api.texts()
        bare = Counter(text.removeprefix(MARK) for text in texts)
        strays = bare[PLACEHOLDER]
        wanted = [self.answer(f"message {n}") for n in range(self.messages)]
        missing = len(self._missing(api))
        parked = 0 if self.plain else asyncio.run(_parked(self.store))
        return Played(
            messages=self.messages,
            kills=self._killed,
            answered_on_platform=self.messages - missing,
            lost=max(0, missing - parked),
            parked=parked,
            doubled=sum(max(0, bare[words] - 1) for words in wanted),
            marked=sum(text.startswith(MARK) for text in texts),
            strays=strays,
        )


async def _parked(store: Path) -> int:
    """Entries in doubt, and turns that are held."""
    async with Kernel(store) as kernel:
        held = await kernel.inspect.list(Filter(what="turn", person=True, limit=500))
        return int(kernel.health()["parked"]) + len(held)
