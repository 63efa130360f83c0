"""A chat platform in this process, for tests: scripted, and with a list of its own.

The platform lists its accepted messages in `messages`: this list is
the witness against it. Every send plays the next act of the script of its conversation
(or of the common script) and accepts when there is none.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from turnfold.audit import Acceptance
from turnfold.enums import DeliveryClass, FailureClass, PartAct
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.ports.channel import (
    KINDS,
    Absent,
    Accepted,
    Attempt,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    PlannedPart,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)

Planner = Callable[[Payload], Sequence[PlannedPart]]


@frozen(kw_only=True)
class Message:
    """A visible message and its source."""

    id: str
    account: str
    conversation: str
    thread: str | None
    content: str
    key: str
    entry: str
    part: int
    attempt: int
    marked: bool
    empty: bool = False  # a placeholder that no edit has filled


@frozen(kw_only=True)
class Act:
    """The platform's treatment of one request. `lands`: the platform has the message,
    even if the sender gets no answer. `answer`: the result of send(); `error`: raised
    by send()."""

    lands: bool = False
    answer: Any = None
    error: BaseException | None = None
    hold: asyncio.Event | None = None  # nothing happens before this
    cut: bool = False  # the request is taken at once; it is the answer that waits
    deaf: bool = False  # does not end when it is cancelled
    honest: bool = True  # the answer is the receipt of the message that landed


def accept() -> Act:
    return Act(lands=True)


def accept_in(thread: str) -> Act:
    """Accepted, in a thread that the platform opened for it."""
    return Act(lands=True, honest=False, answer=_Threaded(thread))


def reject(failure: FailureClass, **facts: Any) -> Act:
    return Act(honest=False, answer=Rejected(failure=failure, **facts))


def unknown(*, lands: bool = False, cause: str = "cut") -> Act:
    return Act(lands=lands, honest=False, answer=Unknown(cause=cause))


def raises(error: BaseException, *, lands: bool = False) -> Act:
    return Act(lands=lands, error=error)


def answers(value: object, *, lands: bool = False) -> Act:
    """Something that is no outcome, or a lie."""
    return Act(lands=lands, honest=False, answer=value)


def hang(*, lands: bool = False) -> Act:
    """Never answers, but ends when it is cancelled."""
    return Act(lands=lands, hold=asyncio.Event(), cut=True)


def wait_for(event: asyncio.Event, *, deaf: bool = False) -> Act:
    """Accepts once the event is set; `deaf`: even if it was cancelled before."""
    return Act(lands=True, hold=event, deaf=deaf)


def cancels_itself(*, lands: bool = False) -> Act:
    return Act(lands=lands, error=asyncio.CancelledError("by the adapter"))


@frozen
class _Threaded:
    thread: str


@define(eq=False)
class Platform:
    """The server. `keyed`: it honours keys. Requests arrive in `calls`, look-ups in
    `asked`, prepared parts in `prepared`; verdicts and prepare acts can be scripted."""

    keyed: bool = False
    messages: list[Message] = field(factory=list)
    calls: list[tuple[str, int, int]] = field(factory=list)  # entry, part, attempt
    asked: list[tuple[str, int]] = field(factory=list)
    prepared: list[tuple[str, int]] = field(factory=list)
    verdicts: deque[Verdict | BaseException] = field(factory=deque)
    preparing: deque[Act] = field(factory=deque)
    _made: int = 0
    _script: deque[Act] = field(factory=deque)
    _scripts: defaultdict[str, deque[Act]] = field(factory=lambda: defaultdict(deque))

    def plays(self, *acts: Act, conversation: str | None = None) -> None:
        """The faults of the next requests, in order."""
        chosen = self._scripts[conversation] if conversation else self._script
        chosen.extend(acts)

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.messages if not message.empty]

    def witness(self) -> list[Acceptance]:
        """For an audit: the messages that show a part."""
        return [Acceptance(m.key, m.id) for m in self.messages if not m.empty]

    @property
    def strays(self) -> list[Message]:
        """Placeholders that stand there, and no edit has filled them."""
        return [message for message in self.messages if message.empty]

    @property
    def doubled(self) -> list[Message]:
        """Messages that stand there although an earlier one brought the same part."""
        seen: set[tuple[str, int]] = set()
        again = []
        for message in self.messages:
            if message.empty:
                continue
            if (message.entry, message.part) in seen:
                again.append(message)
            seen.add((message.entry, message.part))
        return again

    def _next(self, conversation: str) -> Act:
        for script in (self._scripts[conversation], self._script):
            if script:
                return script.popleft()
        return accept()

    async def take(
        self, part: Part, key: str, attempt: Attempt, handle: Receipt | None = None
    ) -> Any:
        """One request. `handle`: of the message that it edits."""
        self.calls.append((part.entry_id, part.index, attempt.number))
        act = self._next(part.route.conversation)
        if not act.cut:
            await _hold(act)
        outcome: Any = None
        if act.lands and handle is not None:
            outcome = self._edit(part, handle)
        elif act.lands:
            outcome = self._land(part, key, attempt)
        if act.cut:
            await _hold(act)
        if act.error is not None:
            raise act.error
        if act.honest:
            return outcome
        if isinstance(act.answer, _Threaded) and isinstance(outcome, Accepted):
            receipt = Receipt(ids=outcome.receipt.ids, thread=act.answer.thread)
            return Accepted(receipt=receipt)
        return act.answer

    def _edit(self, part: Part, handle: Receipt) -> Outcome:
        """The message shows the part from now on; the same again changes nothing."""
        for number, message in enumerate(self.messages):
            if (message.id,) == handle.ids:
                content = shown(part.payload)
                self.messages[number] = evolve(message, content=content, empty=False)
                return Accepted(receipt=handle)
        return Rejected(failure=FailureClass.HANDLE_GONE)

    def retract(self, handle: Receipt) -> None:
        """Take a message away."""
        self.messages = [m for m in self.messages if (m.id,) != handle.ids]

    def _land(self, part: Part, key: str, attempt: Attempt) -> Accepted:
        for message in self.messages:
            if self.keyed and message.key == key:
                receipt = Receipt(ids=(message.id,))
                return Accepted(receipt=receipt, deduplicated=True)
        self._made += 1
        message = Message(
            id=f"m{self._made}",
            account=part.route.account,
            conversation=part.route.conversation,
            thread=part.route.thread,
            content=shown(part.payload),
            key=key,
            entry=part.entry_id,
            part=part.index,
            attempt=attempt.number,
            marked=attempt.marked,
            empty=attempt.act is PartAct.PLACEHOLDER,
        )
        self.messages.append(message)
        return Accepted(receipt=Receipt(ids=(message.id,)))

    def find(self, part: Part) -> Verdict:
        """A look-up."""
        self.asked.append((part.entry_id, part.index))
        if self.verdicts:
            verdict = self.verdicts.popleft()
            if isinstance(verdict, BaseException):
                raise verdict
            return verdict
        for message in self.messages:
            if (message.entry, message.part) == (part.entry_id, part.index):
                return Found(receipt=Receipt(ids=(message.id,)))
        return Absent()


def shown(payload: Payload) -> str:
    """A payload as one line, for comparison."""
    match payload:
        case Text(text=text):
            return text
        case File(name=name):
            return f"[{name}]"
        case Native(body=body):
            return f"{{{','.join(sorted(body))}}}"


async def _hold(act: Act) -> None:
    if act.hold is None:
        return
    while not act.hold.is_set():
        try:
            await act.hold.wait()
        except asyncio.CancelledError:
            if not act.deaf:
                raise


class PlatformChannel:
    """An adapter to a Platform. It has the optional methods only if they are asked
    for: `lookup` gives it reconcile(), `prepares` prepare(), `planner` plan()."""

    def __init__(
        self,
        platform: Platform,
        *classes: DeliveryClass,
        settle_ms: int = 0,
        key_window_ms: int | None = None,
        prepares: bool = False,
        planner: Planner | None = None,
        classify: Callable[[BaseException], Outcome | None] | None = None,
        **declared: Any,
    ) -> None:
        offer = PartClass(
            classes=classes, key_window_ms=key_window_ms, settle_ms=settle_ms
        )
        parts: Mapping[str, PartClass] = dict.fromkeys(KINDS, offer)
        self.platform = platform
        self.capabilities = Capabilities(parts=parts, marks=True, **declared)
        if DeliveryClass.LOOKUP in classes:
            self.reconcile = self._reconcile
        if DeliveryClass.EDITABLE in classes:
            self.edit, self.retract = self._edit, self._retract
        if prepares:
            self.prepare = self._prepare
        if planner is not None:
            self._planner = planner
            self.plan = self._plan
        if classify is not None:
            self.classify = classify

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        return await self.platform.take(part, key, attempt)

    async def _edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Any:
        return await self.platform.take(part, key, attempt, handle)

    async def _retract(self, handle: Receipt, route: Route) -> None:
        del route
        self.platform.retract(handle)

    async def _reconcile(self, part: Part, since_ms: int) -> Verdict:  # noqa: ARG002  the contract's signature
        return self.platform.find(part)

    async def _prepare(self, part: Part) -> str:
        self.platform.prepared.append((part.entry_id, part.index))
        if self.platform.preparing:
            act = self.platform.preparing.popleft()
            await _hold(act)
            if act.error is not None:
                raise act.error
        return f"prepared:{part.index}"

    def _plan(self, payload: Payload, *_: object) -> Sequence[PlannedPart]:
        return self._planner(payload)
