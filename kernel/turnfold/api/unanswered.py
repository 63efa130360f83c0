"""The commands of this process that no owner has answered yet: for health and the log.

A command is durable in the inbox once it is posted, so an error of the store after that
says only why this process cannot do it alone. The caller may stop waiting; the command
stays in sight until an owner has done it.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from turnfold._runtime.lasting import Lasting
from turnfold.errors import (
    BusyError,
    DiskError,
    LostStoreError,
    NotOpenError,
    RequestedError,
    StoreError,
)
from turnfold.logs import lines
from turnfold.ports.store import Command, Store, Wanted

_LOG = lines()
_Problem = StoreError | NotOpenError
APPLY, READ = "apply the inbox", "read the answer"
_FOLLOW_S = 1.0  # between two looks for commands whose callers have stopped waiting


class Unanswered:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._since: dict[str, tuple[str, float]] = {}  # by id: kind, loop time
        self._problems: dict[str, _Problem] = {}  # by what this process cannot do
        self._following: Lasting | None = None

    def facts(self) -> dict[str, Any]:
        """For health: how many wait, the age of the oldest one, and why this process
        cannot do them alone."""
        first = min((since for _, since in self._since.values()), default=None)
        return {
            "count": len(self._since),
            "oldest_ms": None if first is None else int(1000 * (_now() - first)),
            "problem": self._why() if self._since else None,
        }

    def posted(self, commands: Iterable[Command]) -> None:
        now = _now()
        self._since |= {command.id: (command.kind, now) for command in commands}

    def answered(self, names: Iterable[str]) -> None:
        for name in names:
            self._since.pop(name, None)

    def works(self, what: str) -> None:
        """The store has done what was asked of it."""
        self._problems.pop(what, None)

    def fails(self, what: str, problem: _Problem) -> None:
        """The store refused. Each reason has one line in the log until it is over."""
        before = self._problems.get(what)
        self._problems[what] = problem
        if type(problem) is not type(before):
            text = "a command waits for a worker; this process cannot %s: %s"
            facts = {"store": self._store.address}
            _LOG.warning(text, what, _words(problem), extra=facts)

    def _why(self) -> str | None:
        told = [f"cannot {w}: {_words(p)}" for w, p in self._problems.items()]
        return "; ".join(told) or None

    def given_up(self, command: Command, waited_ms: int) -> RequestedError:
        """The error of a caller that stops waiting."""
        why = self._why()
        told = {} if why is None else {"problem": why}
        path, kind = self._store.address, command.kind
        return RequestedError(path=path, command=kind, waited_ms=waited_ms, **told)

    def lost(self, commands: Sequence[Command]) -> None:
        """Their inbox is gone."""
        self.answered([command.id for command in commands])

    def follow(self) -> None:
        """Look for the answers for which no caller waits any more."""
        if self._since and self._following is None:
            self._following = Lasting("watch of unanswered commands", self._follow)

    async def _follow(self) -> None:
        while self._since:
            await asyncio.sleep(_FOLLOW_S)
            try:
                await self._look()
            except LostStoreError:
                self._since.clear()
            except (StoreError, NotOpenError) as exc:
                self.fails(READ, exc)
        self._following = None

    async def _look(self) -> None:
        asked = frozenset(self._since)
        waiting = (await self._store.fetch(Wanted(answers=asked))).waiting
        for name in asked - waiting & asked:
            kind, since = self._since.pop(name, ("", 0.0))
            waited = int(1000 * (_now() - since))
            facts = {"command": kind, "waited_ms": waited, "store": self._store.address}
            _LOG.info("%s was done after %s ms", kind, waited, extra=facts)

    async def end(self) -> None:
        """Stop looking: this kernel is being closed."""
        if self._following is not None:
            await self._following.stop()


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of several mailboxes as one."""
    ages = [part["oldest_ms"] for part in parts if part["oldest_ms"] is not None]
    return {
        "count": sum([part["count"] for part in parts]),
        "oldest_ms": max(ages, default=None),
        "problem": next((part["problem"] for part in parts if part["problem"]), None),
    }


def reason(facts: Mapping[str, Any], most_ms: int) -> str | None:
    """Why these facts are not well; None if they are."""
    if facts["oldest_ms"] is None or facts["oldest_ms"] <= most_ms:
        return None
    why = facts["problem"] or "none has answered"
    seconds = facts["oldest_ms"] // 1000
    count = f"{facts['count']} command(s) have waited for a worker for {seconds} s"
    return f"{count} (start one; turnfold inbox lists them): {why}"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _words(problem: _Problem) -> str:
    """The problem without advice for a call that was not stored: this one was."""
    match problem:
        case DiskError():
            return f"{problem.path}: {problem.problem}"
        case BusyError():
            return f"{problem.path} stayed locked by another process"
        case NotOpenError():
            return "this kernel was closed"
        case _:
            return str(problem)
