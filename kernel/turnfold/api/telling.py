"""Log lines of a kernel's life: its begin and end, and each missing channel or handler.

A line's facts stand in `extra`, too, so a program can read them. INFO logs each step of
a life once, WARNING each missing channel or handler once, DEBUG each attempt or run
that is tried again.
"""

from collections.abc import Container
from typing import Any
from urllib.parse import unquote

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.ids import GATE
from turnfold._runtime.open_streams import OpenStreams
from turnfold.logs import lines
from turnfold.ports.store import Owner

_LOG = lines()

AGAIN = {o.FailedRetryable, o.Deferred, o.OutcomeUnknown, t.RunFailed, t.Released}


def say_open(address: str, role: str) -> None:
    """`role`: worker, standby or client."""
    _LOG.info("%s is open as %s", address, role, extra={"store": address, "role": role})


def say_standby(address: str, owner: Owner | None) -> None:
    """Another process holds the lock; the owner record names it, if it can be read."""
    pid, host = (None, None) if owner is None else (owner.pid, owner.host)
    facts = {"store": address, "owner_pid": pid, "owner_host": host}
    _LOG.info("%s has a worker: pid %s on %s", address, pid, host, extra=facts)


def say_working(address: str, epoch: int, book: OpenStreams) -> None:
    """This process is the worker now, and has taken up the open streams."""
    facts = {
        "store": address,
        "epoch": epoch,
        "position": book.position,
        "open_entries": book.open_count,
    }
    text = "the worker of %s: epoch %s, position %s, %s open entries"
    _LOG.info(text, *facts.values(), extra=facts)


def say_closing(address: str, live: int) -> None:
    """`live`: how many lanes and turns closing waits for."""
    facts = {"store": address, "under_way": live}
    _LOG.info("closing %s, %s under way", *facts.values(), extra=facts)


def say_closed(address: str) -> None:
    _LOG.info("%s is closed", address, extra={"store": address})


def say_kept(address: str, calls: int) -> None:
    """A store is closed here and not released: calls of channels hang."""
    text = "%s is kept until %s call(s) of channels have ended, or this process"
    _LOG.warning(text, address, calls, extra={"store": address, "hung_calls": calls})


def say_kept_for_good(address: str) -> None:
    """The loop has ended first: nobody can wait for the calls any more."""
    text = "%s is kept until this process ends: its loop ended before calls of channels"
    _LOG.warning(text, address, extra={"store": address})


def say_released(address: str) -> None:
    """The calls that kept a closed store have ended."""
    text = "%s is released: the calls of channels have ended"
    _LOG.info(text, address, extra={"store": address})


def say_again(stream: str, event: Any) -> None:
    """An attempt or a run failed or was put off, and is tried again."""
    facts: dict[str, Any] = {"stream": stream, "event": type(event).__name__}
    facts |= {name: getattr(event, name, None) for name in ("part", "attempt", "due")}
    failure = getattr(event, "failure", None) or getattr(event, "cause", None)
    text = "%s: %s part %s attempt %s, again at %s ms"
    _LOG.debug(
        text + " (%s)", *facts.values(), failure, extra={**facts, "failure": failure}
    )


class Missing:
    """Missing channels and handlers that entries or turns wait for, each logged once.
    `attached`: the attached channels and accounts."""

    def __init__(self, attached: Container[tuple[str, str]]) -> None:
        self._attached = attached
        self._channels: dict[tuple[str, str], None] = {}
        self.handles = False  # a handler is registered
        self._told_handler = False

    def facts(self) -> list[str]:
        """The missing channels and handlers, in words."""
        left = [key for key in self._channels if key not in self._attached]
        names = [f"channel {name} with account {account}" for name, account in left]
        handler = ["handler"] if self._told_handler and not self.handles else []
        return [*handler, *names]

    def channel(self, name: str, account: str, waiting: str = "an entry waits") -> None:
        key = (name, account)
        if key in self._channels or key in self._attached:
            return
        self._channels[key] = None
        _LOG.warning(
            "no channel is attached as %s with account %s: %s for it",
            *(name, account, waiting),
            extra={"missing": "channel", "channel": name, "account": account},
        )

    def handler(self, waiting: str = "a turn waits") -> None:
        if self._told_handler or self.handles:
            return
        self._told_handler = True
        text = "no handler is registered (kernel.on_turn): %s for it"
        _LOG.warning(text, waiting, extra={"missing": "handler"})

    def see(self, book: OpenStreams) -> None:
        """After commands of other processes, which may have what is missing here."""
        for gate in book.open_by_account():
            name, _, account = gate.removeprefix(GATE).partition("/")
            self.channel(unquote(name), unquote(account), "entries wait")
        if not self.handles and book.turn_lanes():
            self.handler()

    def look(self, book: OpenStreams) -> None:
        """When a store is taken over: log each missing channel or handler that its
        entries and turns wait for."""
        accounts = {(*lane.split("/")[:2],) for lane in book.lanes()}
        for name, account in sorted(accounts):
            self.channel(unquote(name), unquote(account), "entries wait")
        turns = len(book.turn_lanes())
        if turns:
            self.handler(f"turns of {turns} conversations wait")
