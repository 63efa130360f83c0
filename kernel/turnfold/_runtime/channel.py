"""What an adapter answered, held to the contract.

An answer that lies about its types must not reach the log, where it could never be read
again, and what is not proven does not count: a success without a receipt is unknown, a
look-up without one cannot tell, a wait that nobody can read is no wait.
"""

import asyncio
import inspect
import logging
import math
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from operator import is_
from typing import Any

from turnfold._decide import rules
from turnfold._decide.plan import MEASURES, Plan, make_plan
from turnfold._log.bodies import EncodedPayload
from turnfold._log.frozen import frozen
from turnfold._runtime.programs import Prepared
from turnfold.enums import DeliveryClass, FailureClass, GateScope, Kind
from turnfold.errors import ContractError
from turnfold.messages import Payload, Route, identifier_problem
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)

_CODE = re.compile(r"[a-z0-9_.:-]{1,64}")
_LONGEST_WAIT_MS = 10 * 366 * 86_400_000  # more than this is not a time to wait
# Classes that only the kernel itself can know of.
_OURS = frozenset(
    {
        FailureClass.OWNER_DIED,
        FailureClass.DRAIN,
        FailureClass.STOPPED,
        FailureClass.ABSENT,
        FailureClass.NOT_SENT,
    }
)


def outcome_of(answer: object, *, gives_ids: bool) -> Outcome:
    """What send() or classify() gave back, as one of the three outcomes."""
    match answer:
        case Accepted(receipt=receipt):
            held = receipt_of(receipt, gives_ids=gives_ids)
            if held is None:
                return Unknown(cause="no_receipt", detail=f"{receipt!r:.200}")
            if held is receipt and type(answer.deduplicated) is bool:
                return answer
            return Accepted(receipt=held, deduplicated=answer.deduplicated is True)
        case Rejected():
            return _rejected(answer)
        case Unknown():
            return _unknown(answer)
        case _:
            return Unknown(cause="no_receipt", detail=f"send() gave {answer!r:.200}")


def verdict_of(answer: object, *, gives_ids: bool) -> Verdict:
    """What reconcile() gave back. Nonsense could not tell."""
    match answer:
        case Found(receipt=receipt):
            held = receipt_of(receipt, gives_ids=gives_ids)
            if held is None:
                return CannotTell(detail=f"found, but {receipt!r:.200}")
            return Found(receipt=held)
        case Absent():
            return answer
        case CannotTell(detail=detail):
            return CannotTell(detail=_text(detail))
        case _:
            return CannotTell(detail=f"reconcile() gave {answer!r:.200}")


def receipt_of(receipt: object, *, gives_ids: bool) -> Receipt | None:
    """A receipt of texts only; none if it proves nothing."""
    if not isinstance(receipt, Receipt):
        return None
    given: Any = receipt.ids
    if not isinstance(given, tuple | list):
        return None
    kept = tuple([text for item in given if (text := _id(item)) is not None])
    if len(kept) < len(given) or not rules.receipt_given(kept, gives_ids=gives_ids):
        return None
    thread = None if receipt.thread is None else _id(receipt.thread) or None
    if thread is receipt.thread and all(map(is_, kept, given)):
        return receipt  # nearly all: nothing had to be mended
    return Receipt(ids=kept, thread=thread)


def _id(value: object) -> str | None:
    if type(value) is str and value.isascii() and value.isprintable():
        return value  # nearly all
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or "\0" in text:
        return None
    return None if _unreadable(text) else str.__str__(text)  # of no class of its own


def _unreadable(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)


def _rejected(answer: Rejected) -> Outcome:
    try:
        failure = FailureClass(answer.failure)
    except ValueError:
        detail = f"no such failure class: {answer.failure!r:.80}"
        return Unknown(cause="nonsense", detail=detail)
    if failure in _OURS:
        failure = FailureClass.TRANSIENT
    return Rejected(
        failure=failure,
        detail=_text(answer.detail),
        retry_after_ms=_wait(answer.retry_after_ms),
        scope=_scope(answer.scope),
        target=_target(answer.target),
    )


def _unknown(answer: Unknown) -> Unknown:
    """A cause is a short code; free text belongs beside the log."""
    cause: Any = answer.cause
    detail = _text(answer.detail)
    if isinstance(cause, str) and _CODE.fullmatch(cause):
        return Unknown(cause=cause, detail=detail)
    return Unknown(cause="unclear", detail=f"{_text(cause)} {detail}".strip())


def _wait(value: Any) -> int | None:
    """Milliseconds to wait; none when it cannot be read (D11)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return min(math.ceil(value), _LONGEST_WAIT_MS) if value > 0 else None


def _scope(value: Any) -> GateScope:
    try:
        return GateScope(value)
    except ValueError:
        return GateScope.CONVERSATION


def _target(value: object) -> str | None:
    """Where a conversation has moved to, if that can be an address at all."""
    if not isinstance(value, str):
        return None
    return None if identifier_problem(value) else value


def _text(value: object) -> str:
    return value[:1000] if isinstance(value, str) else f"{value!r:.1000}"


# --- A channel as attached: its methods found once, its answers held to the contract ---


@frozen
class CallResult:
    """How a call of an adapter ended."""

    value: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, asyncio.CancelledError)


Calling = Coroutine[Any, Any, CallResult]


class AttachedChannel:
    """One channel under one name and account. Raises ContractError if it is none."""

    def __init__(self, name: str, account: str, channel: object) -> None:
        self.name, self.account, self.channel = name, account, channel
        self._send = self._method("send", required=True)
        self._prepare = self._method("prepare")
        self._reconcile = self._method("reconcile")
        self._classify = getattr(channel, "classify", None)
        self._planner = getattr(channel, "plan", None)
        self.capabilities = self._declared()

    def _method(self, name: str, *, required: bool = False) -> Any:
        method = getattr(self.channel, name, None)
        if method is None and not required:
            return None
        if not inspect.iscoroutinefunction(method):
            problem = f"{name}() must be an `async def` method"
            raise ContractError(channel=self.name, problem=problem)
        return method

    def _declared(self) -> Capabilities:
        declared = getattr(self.channel, "capabilities", None)
        if declared is None:
            return Capabilities()
        if not isinstance(declared, Capabilities):
            problem = f"capabilities must be Capabilities, not {type(declared)}"
            raise ContractError(channel=self.name, problem=problem)
        problem = capabilities_problem(declared)
        if problem:
            raise ContractError(channel=self.name, problem=problem)
        claims = {c for offer in declared.parts.values() for c in offer.classes}
        if DeliveryClass.LOOKUP in claims and self._reconcile is None:
            problem = "claims class lookup but has no reconcile()"
            raise ContractError(channel=self.name, problem=problem)
        if declared.prepares is not None and self._prepare is None:
            problem = "names kinds to prepare but has no prepare()"
            raise ContractError(channel=self.name, problem=problem)
        return declared

    def prepares(self, kind: str) -> bool:
        """Does a part of this kind need prepare()?"""
        kinds = self.capabilities.prepares
        return self._prepare is not None and (kinds is None or kind in kinds)

    def plan(
        self,
        payloads: Sequence[Payload],
        route: Route,
        kind: Kind,
        entry: str,
        packed: Sequence[EncodedPayload] = (),
    ) -> Plan:
        """Raises what the adapter's plan raises, and ContractError."""
        offers = self.capabilities
        return make_plan(self._planner, offers, payloads, route, kind, entry, packed)

    # The calls: coroutines that never raise what an adapter raises.

    def prepare(self, part: Part) -> Calling:
        return _contained(self._prepare, part)

    def send(self, part: Part, attempt: Attempt) -> Calling:
        return _contained(self._send, part, part.key, attempt)

    def reconcile(self, part: Part, since: int) -> Calling:
        return _contained(self._reconcile, part, since)

    # What the end of such a call means. One that was cancelled without our asking was
    # cancelled by the adapter itself (L07): an error like any other.

    def prepared(self, end: CallResult) -> Prepared | Rejected:
        """Whatever went wrong here, nothing was sent."""
        if end.error is None:
            return Prepared(end.value)
        meant = self._meaning(end.error)
        if isinstance(meant, Rejected):
            return meant
        return Rejected(failure=FailureClass.TRANSIENT, detail=_told(end.error))

    def outcome(self, end: CallResult) -> Outcome:
        if end.error is None:
            return self._held(end.value)
        error = end.error
        return self._meaning(error) or Unknown(cause="raised", detail=_told(error))

    def verdict(self, end: CallResult) -> Verdict:
        """A look-up that fails, or answers nonsense, could not tell."""
        if end.error is not None:
            return CannotTell(detail=_told(end.error))
        try:
            return verdict_of(end.value, gives_ids=self.capabilities.gives_ids)
        except Exception as exc:  # noqa: BLE001  an answer that cannot even be shown
            return CannotTell(detail=_told(exc))

    def _meaning(self, exc: BaseException) -> Outcome | None:
        if self._classify is None or isinstance(exc, asyncio.CancelledError):
            return None
        try:
            meant = self._classify(exc)
        except Exception:  # noqa: BLE001  a broken classifier knows nothing
            return None
        given = isinstance(meant, Accepted | Rejected | Unknown)
        return self._held(meant) if given else None

    def _held(self, answer: object) -> Outcome:
        try:
            return outcome_of(answer, gives_ids=self.capabilities.gives_ids)
        except Exception as exc:  # noqa: BLE001  an answer that cannot even be shown
            return Unknown(cause="no_receipt", detail=_told(exc))


_KEY_SPACE = 2**64  # fewer keys than this would meet by chance


def capabilities_problem(declared: Capabilities) -> str:
    """What a plan or the log could not live with; nothing if all is well."""
    c = declared
    if c.unit not in MEASURES:
        return f"unit {c.unit!r} is none of {', '.join(MEASURES)}"
    if c.limit is not None and (type(c.limit) is not int or c.limit < 1):
        return f"limit {c.limit!r} is no positive number"
    if len(set(c.key_alphabet)) != len(c.key_alphabet):
        return "key_alphabet has a character twice"
    if len(c.key_alphabet) < 2 or len(c.key_alphabet) ** c.key_length < _KEY_SPACE:
        return "key_alphabet and key_length leave too few keys to be unique"
    return next(filter(None, map(_offer_problem, c.parts.values())), "")


def _offer_problem(offer: PartClass) -> str:
    if not all(isinstance(c, DeliveryClass) for c in offer.classes):
        return f"classes {offer.classes!r} are no delivery classes"
    window, settle = offer.key_window_ms, offer.settle_ms
    if window is not None and (type(window) is not int or window < 0):
        return f"key_window_ms {window!r} is no time"
    if type(settle) is not int or settle < 0:
        return f"settle_ms {settle!r} is no time"
    if DeliveryClass.KEYED in offer.classes and window is not None:
        return _window_problem(window, settle)
    return ""


def _window_problem(window: int, settle: int) -> str:
    """A key is used again for half of its window, and each such request must land in
    the other half. What lands later meets a platform that forgot the key."""
    if window == 0 or window >= 2 * settle:  # 0: it is never used again
        return ""
    return (
        f"key_window_ms {window} is shorter than twice settle_ms {settle}: a late "
        "request may land when its key is forgotten. Give the real settle_ms, or "
        "leave out the class keyed"
    )


class AdapterExitError(Exception):
    """The adapter called sys.exit() or the like; the process goes on."""


async def _contained(
    call: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
) -> CallResult:
    try:
        return CallResult(await call(*arguments))
    except KeyboardInterrupt:
        raise  # a person ends the process
    except SystemExit as exc:  # asyncio lets it stop the loop, wherever it is raised
        return CallResult(error=AdapterExitError(str(exc)))
    except BaseException as exc:  # noqa: BLE001  its end, whatever it is
        return CallResult(error=exc)


def end_of(task: asyncio.Task[CallResult]) -> CallResult:
    """The end of a task that may have been cut off before it began."""
    if task.cancelled():
        return CallResult(error=asyncio.CancelledError("cancelled"))
    error = task.exception()
    return task.result() if error is None else CallResult(error=error)


def _told(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"[:1000]
    except Exception:  # noqa: BLE001  an error that cannot even be shown
        return type(exc).__name__


# --- Taking leave of channels: whatever an adapter does, the store gets closed ---


_LOG = logging.getLogger("turnfold")
_CLOSING_S = 5.0  # connections that cannot be given back in this time are let go


async def close_channels(desks: Iterable[AttachedChannel]) -> None:
    """Call aclose() of every channel that has it, once. Never raises."""
    by_channel = {id(desk.channel): desk for desk in desks}
    for desk in by_channel.values():
        close = getattr(desk.channel, "aclose", None)
        if close is None:
            continue
        try:
            await _within_time(close())
        except Exception:  # noqa: BLE001  an adapter may raise anything
            where = (desk.name, desk.account)
            _LOG.exception("channel %s/%s could not be closed", *where)


async def _within_time(call: Any) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=_CLOSING_S)
    if not task.done():
        task.cancel()
        raise TimeoutError(f"aclose() has no end after {_CLOSING_S:.0f} s")
    if task.cancelled():
        raise RuntimeError("aclose() cancelled itself")
    task.result()
