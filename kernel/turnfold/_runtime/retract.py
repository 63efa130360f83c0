"""Left-over placeholders are retracted, where the channel can. If a placeholder may
show a part of a stopped live reply, it is edited into a notice instead.

Neither call is logged: the log shows without it which placeholders are left over. Each
call is tried once, after the commit that leaves the placeholder over. If the process
dies before the call, the message stays as it was.
"""

import asyncio
from collections.abc import Iterator, Mapping

from turnfold._decide.schedule import LIVE_KIND
from turnfold._log import outbox_events as o
from turnfold._runtime.calls import told
from turnfold._runtime.channel import AttachedChannel
from turnfold._runtime.committer import Commit
from turnfold._runtime.sender import Sender, route_of
from turnfold._runtime.words import Wording
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.enums import AbortReason
from turnfold.logs import lines
from turnfold.messages import Text
from turnfold.notices import DEFAULTS, Notice, words_for
from turnfold.ports.channel import Receipt, Rejected
from turnfold.settings import Settings

_LOG = lines()
_LEAVING = frozenset({o.Placed, o.PartRefused, o.FailedTerminal, o.Aborted})
_DEADLINE_MS = 10_000


class Retractor:
    """Watches commits and retracts the placeholders that they leave over."""

    def __init__(
        self,
        channels: Mapping[tuple[str, str], AttachedChannel],
        sender: Sender,
        settings: Settings,
        wording: Wording,
    ) -> None:
        self._channels, self._sender = channels, sender
        self._settings, self._wording = settings, wording
        self._tasks: set[asyncio.Task[None]] = set()

    def moved(self, commit: Commit) -> None:
        for stream, event in commit.emitted:
            if type(event) in _LEAVING:
                entry = commit.moved.get(stream)
                if isinstance(entry, Entry):
                    said = self._words(commit, entry, event)
                    self._end(entry, said, left_over(entry, event))

    def _end(self, entry: Entry, said: str, handles: Iterator[tuple[str, ...]]) -> None:
        channel = self._channels.get((entry.channel, entry.account))
        if channel is None:
            return
        for handle in handles:
            text = said if handle == entry.handle else ""
            work = self._take_back(channel, entry, handle, text)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def rested(self, until: float) -> None:
        """Wait until no call is under way, at most until this time of the loop: each is
        made once, and what it cuts off stays on the screen."""
        left = until - asyncio.get_running_loop().time()
        if self._tasks and left > 0:
            await asyncio.wait(self._tasks, timeout=left)

    def _words(self, commit: Commit, entry: Entry, event: object) -> str:
        """The words of a notice; empty for none. A placeholder can be edited only into
        a text."""
        cause = said_of(entry, event)
        if not cause:
            return ""
        turn = commit.moved.get(entry.turn or "")
        notice = Notice(
            cause=cause,
            text=DEFAULTS[cause],
            channel=entry.channel,
            account=entry.account,
            conversation=entry.conversation,
            locale=turn.first.locale if isinstance(turn, Turn) else None,
        )
        words = words_for(self._settings.notices, notice)
        said = self._wording.ask(words, notice) if callable(words) else Text(words)
        return said.text if isinstance(said, Text) else ""

    async def _take_back(
        self,
        channel: AttachedChannel,
        entry: Entry,
        handle: tuple[str, ...],
        notice: str,
    ) -> None:
        if notice and channel.edits(LIVE_KIND):
            outcome = await self._sender.last_words(channel, entry, notice)
            if not isinstance(outcome, Rejected):
                return  # the notice may be shown
            _LOG.info("%s: its notice is refused: %s", entry.stream, outcome.failure)
        if channel.retracts:
            await self._retract(channel, entry, handle)

    async def _retract(
        self, channel: AttachedChannel, entry: Entry, handle: tuple[str, ...]
    ) -> None:
        route = route_of(entry, entry.target)
        call = self._sender.calls.begin(
            channel.retract, Receipt(ids=handle), route, deadline_ms=_DEADLINE_MS
        )
        end = await call.ended
        error = TimeoutError("it hangs") if end is None else end.error
        if error is not None:
            _LOG.info("%s: its placeholder stays: %s", entry.stream, told(error))


_STOPPED = {AbortReason.USER: "stopped", AbortReason.SUPERSEDED: "superseded"}


def said_of(entry: Entry, event: object) -> str:
    """The cause of the notice for a stopped live reply; empty for any other
    placeholder, which shows no part of an answer."""
    if not entry.live or not isinstance(event, o.Aborted):
        return ""
    return _STOPPED.get(event.reason, "")


def left_over(entry: Entry, event: object) -> Iterator[tuple[str, ...]]:
    """The placeholders that an event leaves over. A placeholder that may show an
    answer, by an edit in doubt, stays."""
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
