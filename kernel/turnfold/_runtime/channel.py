"""Checking an adapter's answers against the contract.

An answer with wrong types must not reach the log, since it could not be read again. An
answer without proof does not count: a success without a receipt is unknown, a look-up
without a receipt cannot tell, an unreadable wait is no wait.
"""

import asyncio
import inspect
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import is_
from typing import Any

from turnfold._decide import rules
from turnfold._decide.gates import BuggyRejected, BuggyUnknown
from turnfold._decide.plan import MEASURES, Plan, make_plan
from turnfold._decide.unit_of_work import ChannelFacts
from turnfold._log.bodies import EncodedPayload
from turnfold._runtime.calls import (
    Calling,
    CallResult,
    Calls,
    answered,
    apart,
    contained,
    is_of_network,
    report,
    told,
)
from turnfold._runtime.policies import OnUnknown, policies
from turnfold._runtime.programs import Prepared
from turnfold.enums import Decoration, DeliveryClass, FailureClass, GateScope, Kind
from turnfold.errors import ContractError, InvalidInputError, TurnfoldError
from turnfold.logs import lines
from turnfold.messages import Payload, Route, identifier_problem
from turnfold.ports.channel import (
    KINDS,
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

_LOG = lines()
PLAN_S = 60.0  # a plan in a thread that takes longer is reported as hanging
_CODE = re.compile(r"[a-z0-9_.:-]{1,64}")
_LONGEST_WAIT_MS = 10 * 366 * 86_400_000  # more than this is not a time to wait
# Failure classes that only the kernel itself may use.
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
    """The answer of send() or classify() as one of the three outcomes."""
    if isinstance(answer, Accepted):
        return _accepted(answer, gives_ids=gives_ids)
    match answer:
        case Rejected():
            return _rejected(answer)
        case Unknown():
            return _unknown(answer)
        case _:
            return Unknown(cause="no_receipt", detail=f"send() gave {answer!r:.200}")


def _accepted(answer: Accepted, *, gives_ids: bool) -> Outcome:
    receipt = answer.receipt
    held = receipt_of(receipt, gives_ids=gives_ids)
    if held is None:
        return Unknown(cause="no_receipt", detail=f"{receipt!r:.200}")
    if held is receipt and type(answer.deduplicated) is bool:
        return answer
    return Accepted(receipt=held, deduplicated=answer.deduplicated is True)


def verdict_of(answer: object, *, gives_ids: bool) -> Verdict:
    """The answer of reconcile() as a verdict. A senseless answer becomes CannotTell."""
    match answer:
        case Found(receipt=receipt):
            held = receipt_of(receipt, gives_ids=gives_ids)
            if held is None:
                return CannotTell(detail=f"found, but {receipt!r:.200}")
            return Found(receipt=held)
        case Absent():
            return answer
        case CannotTell():
            return _cannot_tell(answer)
        case _:
            return CannotTell(detail=f"reconcile() gave {answer!r:.200}")


def _cannot_tell(answer: CannotTell) -> CannotTell:
    if answer.failure is None:
        return CannotTell(detail=_text(answer.detail))
    refused = Rejected(
        failure=answer.failure,
        detail=answer.detail,
        retry_after_ms=answer.retry_after_ms,
        scope=answer.scope,
    )
    return unanswered(_rejected(refused))


def unanswered(outcome: Outcome) -> CannotTell:
    """A look-up that the platform did not answer, with the reason if it is known."""
    if not isinstance(outcome, Rejected):
        return CannotTell(detail=getattr(outcome, "detail", ""))
    return CannotTell(
        detail=outcome.detail,
        failure=outcome.failure,
        retry_after_ms=outcome.retry_after_ms,
        scope=outcome.scope,
    )


def receipt_of(receipt: object, *, gives_ids: bool) -> Receipt | None:
    """A receipt of texts only; None if it proves nothing."""
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
        return receipt  # nearly always
    return Receipt(ids=kept, thread=thread)


def _id(value: object) -> str | None:
    if type(value) is str and value.isascii() and value.isprintable():
        return value  # nearly all
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or "\0" in text:
        return None
    return None if _unreadable(text) else str.__str__(text)  # not a subclass of str


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
        decoration=_decoration(answer.decoration),
    )


def _decoration(value: Any) -> Decoration | None:
    try:
        return None if value is None else Decoration(value)
    except ValueError:
        return None


def _unknown(answer: Unknown) -> Unknown:
    """A cause is a short code; free text belongs beside the log."""
    cause: Any = answer.cause
    detail = _text(answer.detail)
    if isinstance(cause, str) and _CODE.fullmatch(cause):
        return Unknown(cause=cause, detail=detail)
    return Unknown(cause="unclear", detail=f"{_text(cause)} {detail}".strip())


def _wait(value: Any) -> int | None:
    """Milliseconds to wait; None if the value cannot be read (D11)."""
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
    """The new address of a moved conversation; None if it cannot be an address."""
    if not isinstance(value, str):
        return None
    return None if identifier_problem(value) else value


def _text(value: object) -> str:
    return value[:1000] if isinstance(value, str) else f"{value!r:.1000}"


# --- An attached channel: its methods are looked up once, its answers are checked ---


_ARGUMENTS = {  # of the methods that are awaited
    "send": ("part", "key", "attempt"),
    "prepare": ("part",),
    "reconcile": ("part", "since_ms"),
    "edit": ("handle", "part", "key", "attempt"),
    "retract": ("handle", "route"),
}


class AttachedChannel:
    """One channel under one name and account. Raises ContractError if it is none."""

    def __init__(
        self,
        name: str,
        account: str,
        channel: object,
        on_unknown: OnUnknown | None = None,
    ) -> None:
        self.name, self.account, self.channel = name, account, channel
        self.on_unknown = on_unknown
        self.bugs = 0
        self.hung_plans: set[str] = set()  # entries whose plan has not ended
        self._send = self._method("send", required=True)
        self._prepare = self._method("prepare")
        self._reconcile = self._method("reconcile")
        self._edit = self._method("edit")
        self._retract = self._method("retract")
        self._classify = getattr(channel, "classify", None)
        self._planner = getattr(channel, "plan", None) and self._planned
        self.capabilities = self._declared()
        self.policies = policies(on_unknown, self.capabilities)

    def _method(self, name: str, *, required: bool = False) -> Any:
        method = getattr(self.channel, name, None)
        if method is None and not required:
            return None
        if not inspect.iscoroutinefunction(method):
            problem = f"{name}() must be an `async def` method"
            raise ContractError(channel=self.name, problem=problem)
        self._check_arguments(name, method)
        return method

    def _check_arguments(self, name: str, method: Any) -> None:
        """Check the signature now: else each message would fail on it."""
        if isinstance(self.channel, type):
            problem = f"{self.channel.__name__} is a class; attach an instance of it"
            raise ContractError(channel=self.name, problem=problem)
        arguments = _ARGUMENTS[name]
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError as exc:
            problem = f"{name}() must take ({', '.join(arguments)}): {exc}"
            raise ContractError(channel=self.name, problem=problem) from exc

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
        if DeliveryClass.EDITABLE in claims and self._edit is None:
            problem = "claims class editable but has no edit()"
            raise ContractError(channel=self.name, problem=problem)
        if declared.prepares is not None and self._prepare is None:
            problem = "names kinds to prepare but has no prepare()"
            raise ContractError(channel=self.name, problem=problem)
        return declared

    @property
    def skew_ms(self) -> int | None:
        """By how much the platform's clock may differ from ours, if declared."""
        return self.capabilities.skew_ms

    def prepares(self, kind: str) -> bool:
        """Does a part of this kind need prepare()?"""
        kinds = self.capabilities.prepares
        return self._prepare is not None and (kinds is None or kind in kinds)

    def edits(self, kind: str) -> bool:
        """Can a part of this kind be a placeholder first?"""
        return DeliveryClass.EDITABLE in self.capabilities.of(kind).classes

    def facts(self, max_age_ms: int | None = None) -> ChannelFacts:
        """The facts about the channel for decisions. `max_age_ms`: of an entry of this
        account."""
        return ChannelFacts(
            prepares=self.prepares,
            offer=self.capabilities.of,
            marks=self.capabilities.marks,
            policy=self.policies.get,
            max_age_ms=max_age_ms,
        )

    def plan(
        self,
        payloads: Sequence[Payload],
        route: Route,
        kind: Kind,
        entry: str,
        packed: Sequence[EncodedPayload] = (),
    ) -> Plan:
        """Run the adapter's plan. An InvalidInputError of the plan passes: so it
        refuses a payload. Any other error becomes a ContractError."""
        offers = self.capabilities
        arguments = (self._planner, offers, payloads, route, kind, entry, packed)
        if self._planner is None:  # no foreign code
            return make_plan(*arguments, self.policies)
        end = answered(make_plan, *arguments, self.policies)
        if end.error is None:
            plan: Plan = end.value
            return plan
        if isinstance(end.error, TurnfoldError):
            raise end.error
        raise self._no_plan(end.error) from end.error

    async def plan_large(
        self,
        payloads: Sequence[Payload],
        route: Route,
        kind: Kind,
        entry: str,
        packed: Sequence[EncodedPayload],
        salt: Callable[[], bytes],
    ) -> Plan:
        """The same in a thread, since it takes long. The thread is not pooled: a plan
        that never ends takes no place from others."""
        arguments = (payloads, route, kind, entry, packed)
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(PLAN_S, self._plan_hangs, entry)
        try:
            end = await apart(answered, self._plan_sealed, *arguments, salt)
        finally:
            alarm.cancel()
            self.hung_plans.discard(entry)
        if end.error is not None:
            raise end.error
        plan: Plan = end.value
        return plan

    def _plan_hangs(self, entry: str) -> None:
        """Log that a plan hangs. A thread cannot be ended: its caller waits until it
        ends or the kernel closes."""
        self.hung_plans.add(entry)
        where = f"channel {self.name}/{self.account}"
        _LOG.warning("%s: plan() hangs in a thread, awaited by %s", where, entry)

    def _plan_sealed(self, *arguments: Any) -> Plan:
        *given, salt = arguments
        plan = self.plan(*given)
        for part in plan.parts:
            if not part.packed.seals:
                part.packed.make_seals(salt)
        return plan

    def _planned(self, *arguments: Any) -> Any:
        end = answered(self.channel.plan, *arguments)  # type: ignore[attr-defined]
        if isinstance(end.error, InvalidInputError):  # refused, and no bug
            raise end.error
        if end.error is not None:
            raise self._no_plan(end.error) from end.error
        return end.value

    def _no_plan(self, error: BaseException) -> ContractError:
        self._bug("plan", error)
        problem = f"plan() raised {told(error)}"
        return ContractError(channel=self.name, problem=problem)

    # The calls: coroutines that let no error of an adapter pass.

    def prepare(self, part: Part) -> Calling:
        return contained(self._prepare, part)

    def send(self, part: Part, attempt: Attempt) -> Calling:
        return contained(self._send, part, part.key, attempt)

    def edit(self, handle: Receipt, part: Part, attempt: Attempt) -> Calling:
        return contained(self._edit, handle, part, part.key, attempt)

    @property
    def retracts(self) -> bool:
        return self._retract is not None

    def retract(self, handle: Receipt, route: Route) -> Calling:
        return contained(self._retract, handle, route)

    def reconcile(self, part: Part, since: int) -> Calling:
        return contained(self._reconcile, part, since)

    # The meaning of the end of such a call. A cancellation that the kernel did not ask
    # for comes from the adapter itself (L07), and counts like any other error.

    def prepared(self, end: CallResult) -> Prepared | Rejected:
        """After any error here nothing was sent."""
        if end.error is None:
            return Prepared(end.value)
        meant = self._meaning(end.error)
        if isinstance(meant, Rejected):
            return meant
        kind = BuggyRejected if self._bug("prepare", end.error) else Rejected
        return kind(failure=FailureClass.CANCELLED, detail=told(end.error))

    def outcome(self, end: CallResult) -> Outcome:
        if end.error is None:
            return self._held(end.value)
        meant = self._meaning(end.error)
        if meant is not None:
            return meant
        kind = BuggyUnknown if self._bug("send", end.error) else Unknown
        return kind(cause="raised", detail=told(end.error))

    def verdict(self, end: CallResult) -> Verdict:
        """A look-up that fails, or gives a senseless answer, cannot tell."""
        if end.error is not None:
            meant = self._meaning(end.error)
            if isinstance(meant, Rejected):
                return unanswered(meant)
            self._bug("reconcile", end.error)
            return CannotTell(detail=told(end.error))
        ids = self.capabilities.gives_ids
        read = answered(partial(verdict_of, gives_ids=ids), end.value)
        if read.error is None:
            verdict: Verdict = read.value
            return verdict
        return CannotTell(detail=told(read.error))

    def knows(self, error: BaseException) -> bool:
        """Does the channel give the error a meaning, such as a wrong token?"""
        return self._meaning(error) is not None

    def _meaning(self, exc: BaseException) -> Outcome | None:
        if self._classify is None or isinstance(exc, asyncio.CancelledError):
            return None
        end = answered(self._classify, exc)
        if end.error is not None:
            self._bug("classify", end.error)
        elif isinstance(end.value, Accepted | Rejected | Unknown):
            return self._held(end.value)
        elif isinstance(end.value, Exception):
            self._bug("classify", end.value)
        return None

    def _held(self, answer: object) -> Outcome:
        """The outcome of an answer. An answer that cannot even be printed proves
        nothing."""
        ids = self.capabilities.gives_ids
        read = answered(partial(outcome_of, gives_ids=ids), answer)
        if read.error is None:
            outcome: Outcome = read.value
            return outcome
        return Unknown(cause="no_receipt", detail=told(read.error))

    def _bug(self, method: str, error: BaseException) -> bool:
        """Count and log an error that is a bug of the adapter. A broken connection is
        no bug."""
        what = f"channel {self.name}/{self.account}: {method}() raised"
        if is_of_network(error):
            _LOG.warning("%s %s", what, told(error))
            return False
        self.bugs += 1
        report(what, error)
        return True


def attached(
    name: str, account: str, channel: object, on_unknown: OnUnknown | None
) -> AttachedChannel:
    """Raises ContractError for any error while the channel is inspected;
    InvalidInputError if `on_unknown` does not fit it."""
    end = answered(AttachedChannel, name, account, channel, on_unknown)
    if end.error is None:
        made: AttachedChannel = end.value
        return made
    if isinstance(end.error, TurnfoldError):
        raise end.error
    problem = f"its methods cannot be read: {told(end.error)}"
    raise ContractError(channel=name, problem=problem) from end.error


_KEY_SPACE = 2**64  # with fewer keys than this two could be equal by chance


def capabilities_problem(declared: Capabilities) -> str:
    """The first problem of declared capabilities; empty if there is none. Their types
    were checked when they were made."""
    c = declared
    if c.unit not in MEASURES:
        return f"unit {c.unit!r} is none of {', '.join(MEASURES)}"
    if len(set(c.key_alphabet)) != len(c.key_alphabet):
        return "key_alphabet has a character twice"
    if len(c.key_alphabet) < 2 or len(c.key_alphabet) ** c.key_length < _KEY_SPACE:
        return "key_alphabet and key_length leave too few keys to be unique"
    odd = [kind for kind in c.parts if kind not in KINDS]
    if odd:
        return f"parts has {odd[0]!r}, which is none of {', '.join(KINDS)}"
    problems = map(_offer_problem, c.parts.values())
    return next(filter(None, problems), "") or _editing_problem(c)


def _editing_problem(c: Capabilities) -> str:
    if not any(DeliveryClass.EDITABLE in o.classes for o in c.parts.values()):
        return ""
    if not c.gives_ids:
        return "class editable needs message ids: gives_ids must be True"
    if not str(c.placeholder).strip():
        return "placeholder has no visible character"
    return ""


def _offer_problem(offer: PartClass) -> str:
    window = offer.key_window_ms
    if DeliveryClass.KEYED in offer.classes and window is not None:
        return _window_problem(window, offer.settle_ms)
    return ""


def _window_problem(window: int, settle: int) -> str:
    """A key is used again during half of its window, and each such request must reach
    the platform in the other half. A later request meets a platform that has forgotten
    the key."""
    if window == 0 or window >= 2 * settle:  # 0: the key is never used again
        return ""
    return (
        f"key_window_ms {window} is shorter than twice settle_ms {settle}: a late "
        "request may land when its key is forgotten. Give the real settle_ms, or "
        "leave out the class keyed"
    )


# --- Closing channels: the store gets closed even if an adapter fails ---


_CLOSING_S = 5.0  # connections that are not closed in this time are dropped


async def close_channels(calls: Calls, desks: Iterable[AttachedChannel]) -> None:
    """Call aclose() of every channel that has it, once. Never raises."""
    by_channel = {id(desk.channel): desk for desk in desks}
    for desk in by_channel.values():
        close = answered(getattr, desk.channel, "aclose", None).value
        if close is None:
            continue
        end = await calls.ask(close, deadline_ms=int(_CLOSING_S * 1_000))
        error = TimeoutError("it hangs") if end is None else end.error
        if error is not None:
            where = f"channel {desk.name}/{desk.account}"
            report(f"{where} could not be closed", error)
