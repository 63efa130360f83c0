"""Placeholders that nobody needs are taken back, where the channel can.

A retraction is no part of the log: it shows nothing, and the log says without it which
placeholders are left over. Each is tried once, after the commit that leaves it over. A
process that dies before that leaves an empty message behind.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping

from turnfold._log import outbox_events as o
from turnfold._runtime.calls import Calls, told
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.committer import Commit
from turnfold._runtime.sender import route_of
from turnfold._state.entry import Entry
from turnfold.ports.channel import Receipt

_LOG = logging.getLogger("turnfold")
_LEAVING = frozenset({o.Placed, o.PartRefused, o.FailedTerminal, o.Aborted})
_DEADLINE_MS = 10_000


class Retractor:
    """Watches commits and retracts the placeholders that they leave over."""

    def __init__(
        self, channels: Mapping[tuple[str, str], AttachedChannel], calls: Calls
    ) -> None:
        self._channels, self._calls = channels, calls
        self._tasks: set[asyncio.Task[None]] = set()

    def moved(self, commit: Commit) -> None:
        for stream, event in commit.emitted:
            if type(event) in _LEAVING:
                entry = commit.moved.get(stream)
                if isinstance(entry, Entry):
                    self._retract(entry, left_over(entry, event))

    def _retract(self, entry: Entry, handles: Iterator[tuple[str, ...]]) -> None:
        channel = self._channels.get((entry.channel, entry.account))
        if channel is None or not channel.retracts:
            return
        for handle in handles:
            work = self._call(channel, entry, handle)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(
        self, channel: AttachedChannel, entry: Entry, handle: tuple[str, ...]
    ) -> None:
        route = route_of(entry, entry.target)
        call = self._calls.begin(
            channel.retract, Receipt(ids=handle), route, deadline_ms=_DEADLINE_MS
        )
        end = await call.ended
        error = TimeoutError("it hangs") if end is None else end.error
        if error is not None:
            _LOG.info("%s: its placeholder stays: %s", entry.stream, told(error))


def left_over(entry: Entry, event: object) -> Iterator[tuple[str, ...]]:
    """The placeholders that an event leaves over. One that may show an answer, by an
    edit in doubt, stays."""
    if isinstance(event, o.Placed):
        if event.stray:
            yield event.handle
        return
    if entry.open and not isinstance(event, o.PartRefused):
        return
    if entry.handle and not entry.doubt and not entry.open:
        yield entry.handle
    for state in entry.others:
        refused = isinstance(event, o.PartRefused) and state.part == event.part
        over = refused or (not entry.open and state.end is None)
        if state.handle and not state.doubt and over:
            yield state.handle
