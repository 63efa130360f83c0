"""News for the embedder, passed to hooks: dead letters, parks, bounces, held turns.

A hook is called at least once for each event of its kind, also after a death of the
process (`retelling`). For a stalled lane it is called once in each life.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.events import Event, Restored
from turnfold._runtime.calls import Calls, report
from turnfold._runtime.committer import Commit
from turnfold._state.entry import Entry
from turnfold._state.fold import State
from turnfold._state.turn import Turn
from turnfold.api.retelling import FAR, News, Retelling, news_id
from turnfold.api.telling import AGAIN, say_again
from turnfold.errors import InvalidInputError, TurnfoldError
from turnfold.logs import lines
from turnfold.messages import check_function

_LOG = lines()
_AGAIN_S = 5.0  # after the log could not be read

# Each may take a second argument, the id of the news.
Hook = Callable[..., Any]  # of an entry
HeldHook = Callable[..., Any]  # of a turn
RestoredHook = Callable[..., Any]  # of the event

_TOLD = {
    *(o.FailedTerminal, o.Parked, o.Doubted, o.Bounced),
    *(t.Dead, t.Held, Restored),
}
_NEWS = {*_TOLD, t.Answered, *AGAIN}


class Hooks:
    """Lists of functions, plain or async, that get the folded Entry, the Turn or the
    event. A function that requires a second argument also gets the id of the news.
    Hooks are called one after the other, in the order of the log, in a task of their
    own: no commit waits for them. After a death they are called again for news that
    they may have missed, with the same id and the current state. This holds for hooks
    that were registered when the kernel began to work."""

    def __init__(self, calls: Calls, deadline_ms: int | None) -> None:
        self._calls, self._deadline_ms = calls, deadline_ms
        self.terminal: list[Hook] = []
        self.parked: list[Hook] = []
        self.bounced: list[Hook] = []
        self.stalled: list[Hook] = []
        self.held: list[HeldHook] = []
        self.unread: list[HeldHook] = []
        self.restored: list[RestoredHook] = []
        self._news: deque[tuple[Hook, Any, str | None]] = deque()
        self._teller: asyncio.Task[None] | None = None
        self._means: Retelling | None = None
        self._seen = self._noted = 0  # positions up to which news are queued; were told
        self._behind: range | None = None  # positions: untold by an earlier life
        self.bugs = 0

    @property
    def untold(self) -> int:
        """Records of an earlier life whose news hooks have not heard yet."""
        return len(self._behind or ())

    def on_terminal(self, hook: Hook) -> Hook:
        """An entry ended undelivered."""
        return _added(self.terminal, hook)

    def on_parked(self, hook: Hook) -> Hook:
        """An entry waits for a person: its outcome is unknown."""
        return _added(self.parked, hook)

    def on_bounced(self, hook: Hook) -> Hook:
        """A delivered entry was refused afterwards."""
        return _added(self.bounced, hook)

    def on_stalled(self, hook: Hook) -> Hook:
        """The first entry of a lane has not moved for `stall_ms`: called once for it."""
        return _added(self.stalled, hook)

    def tell_stalled(self, entry: Entry, cause: str) -> None:
        """The kernel calls this for each stalled lane that it has found."""
        _warn(entry, f"has not moved: {cause}")
        self._line_up(self.stalled, entry, None)

    def on_held(self, hook: HeldHook) -> HeldHook:
        """A turn waits for a person: it may have been answered before, or it is too
        old."""
        return _added(self.held, hook)

    def on_dead(self, hook: HeldHook) -> HeldHook:
        """An update could not be read, or came with the key of another message. It is
        kept; `retry` runs it."""
        return _added(self.unread, hook)

    def on_restored(self, hook: RestoredHook) -> RestoredHook:
        """The store was found to be an older copy of itself."""
        return _added(self.restored, hook)

    def tell(self, commit: Commit, position: int) -> None:
        """The kernel calls this after each commit: news go to the log and to hooks.
        `position`: where the log ends now."""
        for number, (stream, event) in enumerate(commit.emitted):
            if type(event) not in _NEWS:
                continue
            if type(event) in AGAIN:
                say_again(stream, event)
                continue
            state = commit.moved.get(stream)
            self._say(stream, event, state)
            if type(event) in _TOLD:
                self._heard_of(_news(commit, number, stream, event, state))
        self._seen = position
        if self._means is not None and position - self._noted > FAR:
            self._begin_to_tell()

    def _heard_of(self, news: News) -> None:
        what = news.event if isinstance(news.event, Restored) else news.state
        if what is not None:
            self._line_up(self._hooks_of(news.event), what, news.id)

    def _hooks_of(self, event: Event) -> Sequence[Hook]:
        match event:
            case o.FailedTerminal():
                return self.terminal
            case o.Parked() | o.Doubted():
                return self.parked
            case o.Bounced():
                return self.bounced
            case t.Held():
                return self.held
            case t.Dead():
                return self.unread
            case Restored():
                return self.restored
            case _:
                return ()

    # --- the log ---

    def _say(self, stream: str, event: Event, state: State | None) -> None:
        match event:
            case o.FailedTerminal(reason=reason):
                _warn(state, f"ended undelivered: {reason}{_class_of(state)}")
            case o.Parked(reason=reason) | o.Doubted(reason=reason):
                _warn(state, f"is parked, in doubt: {reason}")
            case o.Bounced():
                _warn(state, "bounced")
            case t.Held(reason=reason) if isinstance(state, Turn):
                _LOG.warning("%s of %s is held: %s", state.stream, state.lane, reason)
            case t.Dead():
                _warn_of_update(stream, event)
            case t.Answered(silent=t.UNSTATED):
                text = "%s: the handler returned and said nothing"
                _LOG.warning(text, stream, extra={"stream": stream})
            case Restored():
                _warn_of_copy(event)
            case _:
                pass

    # --- calling them ---

    def _line_up(self, hooks: Sequence[Hook], what: Any, name: str | None) -> None:
        self._news.extend((hook, what, name) for hook in hooks)
        if self._news:
            self._begin_to_tell()

    def _begin_to_tell(self) -> None:
        if self._teller is None:
            self._teller = asyncio.get_running_loop().create_task(self._tell())
            self._teller.add_done_callback(_say_bug)

    async def begin(self, means: Retelling, position: int) -> None:
        """This kernel is the worker from now on. News that an earlier life may not have
        told come first. `position`: the end of the log when this kernel took the
        store."""
        self._means, self._seen = means, max(self._seen, position)
        if not self._any():
            self._noted = position
            return
        mark = await means.mark()
        self._noted = position if mark is None else mark
        if mark is None:  # events before the first hook are no news
            await means.note(position)
        elif mark < position:
            self._behind = range(mark, position)
            self._begin_to_tell()

    def _any(self) -> bool:
        told = self.terminal, self.parked, self.bounced, self.held, self.unread
        return any(told) or bool(self.restored)

    async def _tell(self) -> None:
        try:
            await self._catch_up()
            await self._tell_new()
            while self._behind is not None:
                await asyncio.sleep(_AGAIN_S)
                await self._catch_up()
                await self._tell_new()
        finally:
            self._teller = None

    async def _tell_new(self) -> None:
        while self._news:
            await self._call(*self._news.popleft())
            if not self._news:
                await self._note()
        if self._seen - self._noted > FAR:
            await self._note()

    async def _call(self, hook: Hook, what: Any, name: str | None) -> None:
        if _must_have_two(hook):
            hook = partial(_with_id, hook, name)
        end = await self._calls.ask(hook, what, deadline_ms=self._deadline_ms)
        error = TimeoutError("it hangs") if end is None else end.error
        if error is not None:
            self.bugs += 1
            report(
                "a hook failed; the stream that it was told of is not affected", error
            )

    async def _note(self) -> None:
        """Move the mark of told news, unless news of an earlier life are left."""
        seen = self._seen
        if self._means is None or not self._any() or seen <= self._noted:
            return
        if self._behind is not None:
            return
        if await self._means.note(seen):
            self._noted = seen

    async def _catch_up(self) -> None:
        behind, means = self._behind, self._means
        if behind is None or means is None:
            return
        try:
            while behind:
                page, last = await means.page(behind, _TOLD)
                if last == behind.start:
                    break
                for news in page:
                    await self._call_all(news)
                self._behind = behind = range(last, behind.stop)
        except TurnfoldError as exc:
            text = "news of an earlier life cannot be read now; trying again: %s"
            _LOG.warning(text, exc)
            return
        self._behind = None
        await self._note()

    async def _call_all(self, news: News) -> None:
        what = news.event if isinstance(news.event, Restored) else news.state
        for hook in self._hooks_of(news.event):
            if what is not None:
                await self._call(hook, what, news.id)

    async def end(self, timeout_s: float) -> None:
        """Tell the rest of the news, for at most `timeout_s`."""
        teller = self._teller
        if teller is None:
            return
        await asyncio.wait({teller}, timeout=timeout_s)
        if self._news or not teller.done():
            _LOG.error(
                "closing: %d news were not told to hooks; the next worker tells them",
                len(self._news) + 1,
            )
            self.cut_off()

    def cut_off(self) -> None:
        """Drop the remaining news."""
        self._news.clear()
        if self._teller is not None:
            self._teller.cancel()


def _news(
    commit: Commit, number: int, stream: str, event: Event, state: State | None
) -> News:
    later = sum(other == stream for other, _ in commit.emitted[number + 1 :])
    version = 0 if state is None else state.version - later
    return News(news_id(stream, version), stream, event, state)


def _say_bug(task: "asyncio.Task[None]") -> None:
    """A bug in here is told now, and not only by asyncio when its garbage goes. What is
    left of the news is told with the next ones."""
    if not task.cancelled() and (bug := task.exception()) is not None:
        report("the news for hooks stopped", bug)


def _added(hooks: list[Hook], hook: Hook) -> Hook:
    """A hook that cannot be called would be known as a bug only when news come."""
    check_function("hook", hook)
    signature = _signature(hook)
    if signature is not None and not (_binds(signature, 1) or _binds(signature, 2)):
        problem = (
            "it is called with one argument, or with a second one, the id of the news"
        )
        raise InvalidInputError(field="hook", problem=problem)
    hooks.append(hook)
    return hook


def _must_have_two(hook: Hook) -> bool:
    """Does the hook require a second argument, the id of the news?"""
    signature = _signature(hook)
    return signature is not None and not _binds(signature, 1) and _binds(signature, 2)


def _signature(hook: Hook) -> inspect.Signature | None:
    try:
        return inspect.signature(hook)
    except (TypeError, ValueError):  # a builtin without a signature
        return None


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _with_id(hook: Hook, name: str | None, what: Any) -> Any:
    return hook(what, name)


def _class_of(state: State | None) -> str:
    """The class of the last refusal, which says more than "permanent"."""
    failure = state.failure if isinstance(state, Entry) else None
    return "" if failure is None else f" ({failure})"


def _warn(state: State | None, news: str) -> None:
    if isinstance(state, Entry):
        facts = {"stream": state.stream, "lane": state.lane}
        _LOG.warning("%s to %s %s", *facts.values(), news, extra=facts)


def _warn_of_update(stream: str, event: t.Dead) -> None:
    why = "it cannot be read"
    if event.differs is not None:
        why = f"it has the key of {event.differs} and other bytes"
    text = "an update of %s/%s is kept as %s: %s"
    _LOG.warning(
        text, event.channel, event.account, stream, why, extra={"stream": stream}
    )


def _warn_of_copy(event: Restored) -> None:
    if event.by is not None:
        text = (
            "%s says that the store is a restored copy; its open turns and entries wait"
        )
        _LOG.error(text + " for a person", event.by, extra={"by": event.by})
        return
    if event.failover is not None:
        text = (
            "the database server went on as %s, which may lack the last commits; what is"
            " open waits for a person"
        )
        _LOG.error(text, event.failover)
        return
    _LOG.error(
        "the store is an older copy of itself: it ends at position %s and had got "
        "to %s; its open turns and entries wait for a person",
        event.position_found,
        event.position_seen,
    )
