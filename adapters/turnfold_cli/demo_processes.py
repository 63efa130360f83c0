"""The two processes of a demo: the platform, and the gateway in its many lives."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from turnfold_cli.demo_plan import Class, Kill

_STARTS_WITHIN_S = 30.0
_ENDS_WITHIN_S = 20.0


class DemoError(Exception):
    """The demo could not be completed, so it has no verdict on turnfold."""


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Raises DemoError if the block takes longer than that."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise DemoError(f"{what} within {seconds:g} s") from exc


async def _first_line(process: Process, what: str) -> bytes:
    assert process.stdout is not None  # noqa: S101  we asked for a pipe
    async with within(_STARTS_WITHIN_S, f"{what} did not listen"):
        line = await process.stdout.readline()
    if not line:
        raise DemoError(f"{what} ended before it listened")
    return line


@asynccontextmanager
async def platform(
    mode: Class, seed: int, cuts: int, among: int, folder: Path
) -> AsyncIterator[str]:
    """The stand-in platform in a process of its own; yields its base URL."""
    options = {
        "class": mode,
        "seed": seed,
        "cuts": cuts,
        "among": among,
        "journal": folder / "platform.jsonl",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    module = "turnfold_cli.platform"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *flags, "--until-eof", stdin=PIPE, stdout=PIPE
    )  # its input closes at any death of this process; then it ends, too
    try:
        yield str(json.loads(await _first_line(process, "the platform"))["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


class Gateway:
    """One gateway seen from outside: a series of processes, one for each life. If the
    demo dies, the input of a process closes, and the process drains and ends. `url`:
    its present or last address."""

    def __init__(self, store: str, platform: str, mode: Class, log: IO[bytes]) -> None:
        self._flags = [f"--store={store}", f"--platform={platform}", f"--class={mode}"]
        self._log = log
        self._process: Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._listens = asyncio.Event()
        self.url = ""
        self.starts = 0
        self.works = 0  # how often it became the worker
        self.working = False
        self.served = False  # it has listened in this life
        self.stops: list[str] = []  # the failpoints of its deaths

    async def start(self, kill: Kill | None = None) -> None:
        """Begin a life. Returns before it listens."""
        flags: Sequence[str] = self._flags
        if kill is not None and kill.stop is not None:
            flags = [*flags, f"--stop={kill.stop.name}", f"--nth={kill.stop.nth}"]
        module = "turnfold_cli.demo_gateway"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *flags,
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._log,
        )
        self.starts += 1
        self.served = False
        self._watch = asyncio.create_task(self._read(self._process))

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101  we asked for a pipe
        async for line in process.stdout:
            said = json.loads(line)
            if "port" in said:
                self.url = f"http://127.0.0.1:{said['port']}/"
                self.served = True
                self._listens.set()
            elif "working" in said:
                self.works += 1
                self.working = True
            else:
                self.stops.append(said["stopped"])
        self._listens.clear()
        self.working = False

    async def listening(self) -> str:
        """Wait until it listens, and return its address."""
        async with within(_STARTS_WITHIN_S, "the gateway did not listen"):
            await self._listens.wait()
        return self.url

    async def die(self, after_s: float) -> None:
        """Wait until it has killed itself, or kill it `after_s` after it listens."""
        process, watch = self._alive()
        ready = asyncio.create_task(self._listens.wait())
        async with within(_STARTS_WITHIN_S, "the gateway did not listen"):
            await asyncio.wait({ready, watch}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        await asyncio.wait({watch}, timeout=after_s)
        if process.returncode is None and not watch.done():
            process.kill()
        await watch
        status = await process.wait()
        if status != -signal.SIGKILL:
            raise DemoError(f"the gateway ended by itself with {status}; see its log")

    @property
    def listens(self) -> bool:
        return self._listens.is_set()

    def signal(self, number: int) -> None:
        """A signal to this life, if it still lives."""
        process, _ = self._alive()
        if process.returncode is None:
            process.send_signal(number)

    async def ended(self) -> int:
        """Wait for any end of this life, and return its exit code."""
        process, watch = self._alive()
        await watch
        return await process.wait()

    def close_input(self) -> None:
        """Let it drain and end, without waiting for that."""
        process, _ = self._alive()
        assert process.stdin is not None  # noqa: S101  we asked for a pipe
        process.stdin.close()

    async def end(self, *also: int) -> None:
        """Close its input and wait until it has drained. A clean end has exit code 0,
        or one of the given codes."""
        process, watch = self._alive()
        assert process.stdin is not None  # noqa: S101  we asked for a pipe
        process.stdin.close()
        async with within(_ENDS_WITHIN_S, "the gateway did not end"):
            status = await process.wait()
        await watch
        if status not in (0, *also):
            raise DemoError(f"the gateway ended with {status}; see its log")

    async def abandon(self) -> None:
        """Kill the process, if it is still there."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._watch is not None:
            await asyncio.wait({self._watch})

    def _alive(self) -> tuple[Process, asyncio.Task[None]]:
        if self._process is None or self._watch is None:
            raise DemoError("the gateway was not started")
        return self._process, self._watch
