"""The adapter contract, version 2: the kernel's view of a channel (specs/design.md 11).

Only `send` is required. A property that an adapter does not declare counts as not
offered: a part without a declared delivery class is `blind`. The kernel looks each
optional method up once, when the channel is attached, and refuses claims without a
method behind them. `turnfold_model.check_channel` tests an adapter against this
contract.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen
from msgspec import Struct

from turnfold.arguments import Some, check_fields
from turnfold.enums import (
    Decoration,
    DeliveryClass,
    FailureClass,
    GateScope,
    Kind,
    PartAct,
)
from turnfold.errors import InvalidInputError
from turnfold.inbound import Inbound
from turnfold.messages import Payload, Route
from turnfold.wrong_calls import explained


class Receipt(Struct, frozen=True, kw_only=True):
    """The platform's proof of acceptance. `ids` may be empty only if the adapter
    declares `gives_ids=False`."""

    ids: tuple[str, ...] = ()
    thread: str | None = None


class Accepted(Struct, frozen=True, kw_only=True):
    """The platform accepted the part. `deduplicated`: it had the part already."""

    receipt: Receipt
    deduplicated: bool = False


@explained
@frozen(kw_only=True)
class Rejected:
    """Surely not accepted. `retry_after_ms` and `scope` go with RATE_LIMITED: a limit of
    the whole account should say ACCOUNT, or three conversations meet it for themselves
    first. `target` is the new conversation of TARGET_MOVED. `decoration` names the
    decoration that DECORATION refused: the next attempt goes without it. If it is not
    named, the decorations are dropped one after the other."""

    failure: FailureClass
    detail: str = ""
    retry_after_ms: int | None = None
    scope: GateScope = GateScope.CONVERSATION
    target: str | None = None
    decoration: Decoration | None = None


@explained
@frozen(kw_only=True)
class Unknown:
    """The part may or may not have been accepted."""

    cause: str
    detail: str = ""


Outcome = Accepted | Rejected | Unknown


@explained
@frozen(kw_only=True)
class Found:
    """A look-up found the part on the platform."""

    receipt: Receipt


@explained
@frozen(kw_only=True)
class Absent:
    """A look-up proved that the part is not there. Once `settle_ms` has passed since
    the last request, it never will be."""


@explained
@frozen(kw_only=True)
class CannotTell:
    """A look-up that could not find out. It never counts as Absent.

    `failure`: why the platform did not answer, if it did not. Such a look-up is made
    again until the entry expires, and the failure class closes its gate as after a
    send. `retry_after_ms` and `scope` as in `Rejected`."""

    detail: str = ""
    failure: FailureClass | None = None
    retry_after_ms: int | None = None
    scope: GateScope = GateScope.ACCOUNT


Verdict = Found | Absent | CannotTell


@explained
@frozen(kw_only=True)
class PartClass:
    """The platform's guarantees for one kind of part, best first.

    `classes`: the classes to rely on in turn, e.g. (KEYED, LOOKUP). BLIND is implied at
    the end. `key_window_ms`: how long the platform honours a key (None: for ever, 0:
    not at all, so that the next class is relied on). `settle_ms`: after this time a
    request of a dead sender has taken effect or never will. A window must be at least
    twice `settle_ms`: a key is used again during its first half, and the last such
    request must reach the platform before it forgets the key.
    """

    classes: tuple[DeliveryClass, ...] = ()
    key_window_ms: int | None = None
    settle_ms: int = 120_000

    def __attrs_post_init__(self) -> None:
        check_fields(self)


_NOTHING_OFFERED = PartClass()


def _pace(_: object, attribute: Any, value: object) -> None:
    given: Any = value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 < given < 2**53):
        problem = f"expected a number above 0, got {value!r:.80}"
        raise InvalidInputError(field=attribute.name, problem=problem)


@explained
@frozen(kw_only=True)
class Rate:
    """How many messages a second an account may send, in all and to one conversation.
    None: not declared; the kernel then learns from the platform's refusals."""

    account: float | None = field(default=None, validator=_pace)
    conversation: float | None = field(default=None, validator=_pace)


KINDS = ("text", "file", "native")  # of parts


@explained
@frozen(kw_only=True)
class Capabilities:
    """The declaration of an adapter, by kind of part ("text", "file", "native").

    `key_length` and `key_alphabet` bound the idempotency key. `limit` is the largest
    text part in `unit`s ("chars", "utf16", "bytes"). `max_parts` is the most messages
    that one payload may become (None: any number); a payload that would become more is
    refused. `gives_ids=False` says that the platform gives no message ids, so that an
    empty receipt is still an acceptance. `prepares` names the kinds of part that need
    `prepare` (None: all, if the method is there); the others save a commit. `skew_ms`:
    the largest difference between the platform's clock and the kernel's. A look-up
    includes evidence that is older by this difference; where it is not declared (None),
    `since_ms` is 0. `marks`: the adapter shows `attempt.marked` to the reader; the
    policy `resend_marked` needs it. `placeholder`: the text of a part of class editable
    until its first edit. `preview_ms`: the least time between two previews of a live
    reply. `captions`: how many `unit`s the caption of a file may have; 0: the channel
    does not send captions, and the kernel puts a text before the file. `native_files`:
    the channel sends the files of a `Native`; without it such a payload is refused.
    """

    parts: Mapping[str, PartClass] = field(factory=dict)
    key_length: int = 32
    key_alphabet: str = "0123456789abcdefghijklmnopqrstuvwxyz"
    limit: Some | None = None
    max_parts: Some | None = 100
    unit: str = "chars"
    gives_ids: bool = True
    prepares: tuple[str, ...] | None = None
    skew_ms: int | None = None
    marks: bool = False
    placeholder: str = "\u2026"
    preview_ms: Some = 1_000
    captions: int = 0
    native_files: bool = False

    def __attrs_post_init__(self) -> None:
        check_fields(self)

    def of(self, kind: str) -> PartClass:
        """The offer for one kind of part, such as "text"."""
        return self.parts.get(kind, _NOTHING_OFFERED)


class PlannedPart(Struct, frozen=True, kw_only=True):
    """One visible platform call of a plan. `payload` is stored and later passed to
    `send`, byte for byte."""

    payload: Payload
    kind: str  # "text", "file" or "native"


@frozen(kw_only=True)
class PlanContext:
    """The facts that a plan may use besides payload and route."""

    entry_id: str
    kind: Kind


class Part(Struct, frozen=True, kw_only=True):
    """A part as frozen by the plan, ready for the wire."""

    entry_id: str
    index: int  # from 0
    count: int
    kind: str
    payload: Payload
    key: str
    route: Route  # with the effective target and thread


class Attempt(Struct, frozen=True, kw_only=True):
    """The envelope of one attempt, as logged in `attempted`."""

    number: int  # from 1, per part, never reused
    at_ms: int  # wall time of the attempt: the time to sign with
    marked: bool = False  # show "may be a duplicate" to the reader
    act: PartAct = PartAct.SEND  # a placeholder is sent with its own text as payload
    prepared: Any = None  # the result of prepare(), this time


@runtime_checkable
class Channel(Protocol):
    """The required part of a channel."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """Make exactly one visible platform call, the client's own retries off."""


class FullChannel(Channel, Protocol):
    """Every optional method, for reading; implement those that the platform offers."""

    @property
    def capabilities(self) -> Capabilities:
        """The platform's offer, for each kind of part; read once, at `attach`."""

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Split a payload into parts, once. Pure and quick. An empty list suppresses
        it. An InvalidInputError refuses the payload."""

    async def prepare(self, part: Part) -> Any:
        """Upload, open, fetch a token: repeatable and invisible to the reader."""

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        """Was the part accepted by an attempt made since this wall time? `since_ms`
        leaves room for the declared skew."""

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        """Edit the message of `handle` so that it shows this part, and return its
        receipt. Needed by the class editable. "Not modified" is Accepted: an edit may
        be made again. A missing message is Rejected(HANDLE_GONE)."""

    async def retract(self, handle: Receipt, route: Route) -> None:
        """Delete a left-over placeholder. May fail; it is tried once."""

    def classify(self, exception: BaseException) -> Outcome | None:
        """The outcome for an exception of `send`; None = not known here."""

    async def aclose(self) -> None:
        """Close connections. Called once, when the channel's kernel closes: after the
        last call of the other methods and the last log entry."""


class Source(Protocol):
    """A source of inbound messages: yields pairs of (message or None, cursor)."""

    def __call__(
        self, cursor: str | None
    ) -> AsyncIterator[tuple[Inbound | None, str]]: ...
