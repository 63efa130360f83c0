"""The parent's side: forks the processes, plays the platform, counts the deaths.

One thread and one selector: a process that forks should have no second thread.
"""

import contextlib
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from turnfold.enums import DeliveryClass, Flush
from turnfold_model.kill9.child import Command, Role, child
from turnfold_model.kill9.link import Lines, write_line

_CHUNK = 65_536


class StuckError(Exception):
    """A run that does not come to an end."""


@frozen(kw_only=True)
class Scene:
    """One run. `deaths`: at which of its points the first worker dies, the second, and
    so on; the one after the last lives. `lose`: which answer of the platform is lost,
    0 = none. `client`: the commands come from a process of its own, which dies at
    `client_dies` first. `standby`: the next worker is there before the first dies."""

    delivery: DeliveryClass
    deaths: tuple[int, ...] = ()
    lose: int = 0
    commands: tuple[Command, ...] = (Command(what="accept", name="m1"),)
    client: bool = False
    client_dies: int = 0
    standby: bool = False
    flush: Flush = Flush.LOOP

    def __str__(self) -> str:
        named = {"deaths": self.deaths, "lose": self.lose, "client": self.client_dies}
        facts = [f"{name}={value}" for name, value in named.items() if value]
        flags = ["client"] * self.client + ["standby"] * self.standby
        flags += ["thread"] * (self.flush is Flush.THREAD)
        return " ".join([self.delivery.value, *facts, *flags])


@frozen(kw_only=True)
class Arrived:
    """One message that shows something, as the platform saw it."""

    key: str
    id: str
    text: str
    conversation: str


@define
class Wire:
    """The platform: the messages that it shows, in order, and how often it was asked.
    `empty`: the placeholders that no edit has filled yet."""

    delivery: DeliveryClass
    lose: int = 0
    arrived: list[Arrived] = field(factory=list)
    sends: int = 0
    empty: list[str] = field(factory=list)
    _made: int = 0

    def answer(self, line: dict[str, Any]) -> dict[str, Any]:
        match line["op"]:
            case "send":
                self.sends += 1
                return {"id": self._take(line), "lost": self.sends == self.lose}
            case "edit":
                self.sends += 1
                self._show(line["id"], line)
                return {"id": line["id"], "lost": self.sends == self.lose}
            case "retract":
                self.empty = [name for name in self.empty if name != line["id"]]
                self.arrived = [a for a in self.arrived if a.id != line["id"]]
                return {}
            case "find":
                return {"id": self._find(line["key"])}
            case _:
                return {"id": f"upload-{line['key']}"}

    def _take(self, line: dict[str, Any]) -> str:
        edits = self.delivery is DeliveryClass.EDITABLE  # files have a key there
        keyed = self.delivery is DeliveryClass.KEYED or (
            edits and line["text"].startswith("[")
        )
        known = self._find(line["key"]) if keyed else None
        if known is not None:
            return known
        self._made += 1
        name = f"p{self._made}"
        if line["empty"]:
            self.empty.append(name)
        else:
            self._show(name, line)
        return name

    def _show(self, name: str, line: dict[str, Any]) -> None:
        """The message shows this from now on."""
        shown = Arrived(
            key=line["key"],
            id=name,
            text=line["text"],
            conversation=line["conversation"],
        )
        places = [n for n, message in enumerate(self.arrived) if message.id == name]
        if places:
            self.arrived[places[0]] = shown
            return
        if name in self.empty:
            self.empty.remove(name)
        self.arrived.append(shown)

    def _find(self, key: str) -> str | None:
        return next((a.id for a in self.arrived if a.key == key), None)


@define(eq=False)
class Child:
    pid: int
    sock: socket.socket
    role: Role
    lines: Lines = field(factory=Lines)
    opened: bool = False
    told: bool = False  # that it may finish
    status: int | None = None

    @property
    def alive(self) -> bool:
        return self.status is None


@define
class Stage:
    """Plays one scene on a store. The result stands in its fields."""

    scene: Scene
    store: Path
    wire: Wire
    within_s: float = 15.0
    confirmed: dict[Command, dict[str, Any]] = field(factory=dict)
    aborted_after: dict[str, int] = field(factory=dict)  # turn -> arrivals until then
    stopped: list[str] = field(factory=list)  # the points that a process died at
    broken: list[str] = field(factory=list)
    troubles: int = 0
    _children: list[Child] = field(factory=list)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _rested: bool = False

    @classmethod
    def of(cls, scene: Scene, store: Path) -> "Stage":
        return cls(scene, store, Wire(scene.delivery, scene.lose))

    @property
    def forks(self) -> int:
        return len(self._children)

    def play(self) -> None:
        """From the first process to the last. Raises StuckError."""
        end = time.monotonic() + self.within_s
        try:
            while not self._over():
                self._man()
                self._let_finish()
                if time.monotonic() > end:
                    raise StuckError(f"{self.scene}: no rest in {self.within_s} s")
                for key, _ in self._selector.select(timeout=0.1):
                    self._hear(key.data)
        finally:
            self._clear()

    def _over(self) -> bool:
        alive = any(one.alive for one in self._children)
        return bool(self.broken) or (self._rested and not alive)

    # --- the processes on stage ---

    def _man(self) -> None:
        """Start the missing processes."""
        workers = [one for one in self._children if one.role.works]
        if not any(one.alive for one in workers) and not self._rested:
            self._start_worker(len(workers))
        elif self.scene.standby and len(workers) == 1 and workers[0].opened:
            self._start_worker(1)
        clients = [one for one in self._children if not one.role.works]
        wanted = self.scene.client and self._unconfirmed()
        if wanted and workers and not any(one.alive for one in clients):
            dies = 0 if clients else self.scene.client_dies
            self._fork(self._role(works=False, die=dies, commands=self._unconfirmed()))

    def _start_worker(self, number: int) -> None:
        deaths = self.scene.deaths
        die = deaths[number] if number < len(deaths) else 0
        commands = () if self.scene.client else self._unconfirmed()
        self._fork(self._role(works=True, die=die, commands=commands))

    def _role(self, *, works: bool, die: int, commands: tuple[Command, ...]) -> Role:
        return Role(
            store=str(self.store),
            delivery=self.scene.delivery,
            commands=commands,
            works=works,
            die=die,
            flush=self.scene.flush,
        )

    def _unconfirmed(self) -> tuple[Command, ...]:
        return tuple(c for c in self.scene.commands if c not in self.confirmed)

    def _fork(self, role: Role) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for one in self._children:
                one.sock.close()
            ours.close()
            child(theirs, role)
        theirs.close()
        one = Child(pid, ours, role)
        self._children.append(one)
        self._selector.register(ours, selectors.EVENT_READ, one)

    def _let_finish(self) -> None:
        if self._unconfirmed():
            return
        for one in self._children:
            if one.alive and one.role.works and not one.told:
                one.told = True
                # It may be dead already, which its end of the line will tell.
                with contextlib.suppress(ConnectionError):
                    write_line(one.sock, {"op": "finish"})

    def _clear(self) -> None:
        for one in self._children:
            if one.alive:
                os.kill(one.pid, signal.SIGKILL)
                os.waitpid(one.pid, 0)
            one.sock.close()
        self._selector.close()

    # --- their messages ---

    def _hear(self, one: Child) -> None:
        try:
            data = one.sock.recv(_CHUNK)
        except ConnectionResetError:
            data = b""  # it died with words of ours unread
        if not data:
            self._bury(one)
            return
        for line in one.lines.feed(data):
            self._take(one, line)

    def _take(self, one: Child, line: dict[str, Any]) -> None:
        match line["op"]:
            case "opened":
                one.opened = True
            case "stopped":
                self.stopped.append(line["point"])
            case "done":
                self.troubles += line["troubles"]
            case "confirmed":
                self._confirm(one.role.commands[line["number"]], line)
            case _:
                answer = {"op": "answer", "ask": line["ask"], **self.wire.answer(line)}
                with contextlib.suppress(ConnectionError):  # an answer too late
                    write_line(one.sock, answer)

    def _confirm(self, command: Command, line: dict[str, Any]) -> None:
        self.confirmed.setdefault(command, line)
        if line.get("aborted"):
            self.aborted_after.setdefault(line["turn"], len(self.wire.arrived))

    def _bury(self, one: Child) -> None:
        self._selector.unregister(one.sock)
        _, status = os.waitpid(one.pid, 0)
        one.status = os.waitstatus_to_exitcode(status)
        if one.status == 0 and one.role.works:
            self._rested = True
        elif one.status not in (0, -signal.SIGKILL):
            self.broken.append(f"a process ended by itself with {one.status}")
