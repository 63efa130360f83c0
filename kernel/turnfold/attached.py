"""A channel as attached: its methods found once, its answers held to the contract.

Whatever an adapter does - raise anything, cancel itself, return nothing, return a
"success" without a receipt - comes out of here as one of three outcomes, and only what
is proven counts as proven.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from turnfold.answers import outcome_of, verdict_of
from turnfold.effects import Prepared
from turnfold.errors import ContractError
from turnfold.frozen import frozen
from turnfold.packing import Packed
from turnfold.payloads import Payload, Route
from turnfold.planning import MEASURES, Plan, make_plan
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    CannotTell,
    Capabilities,
    Outcome,
    Part,
    PartClass,
    Rejected,
    Unknown,
    Verdict,
)
from turnfold.words import DeliveryClass, FailureClass, Kind


@frozen
class End:
    """How a call of an adapter ended."""

    value: Any = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, asyncio.CancelledError)


Calling = Coroutine[Any, Any, End]


class Attached:
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
        packed: Sequence[Packed] = (),
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

    def prepared(self, end: End) -> Prepared | Rejected:
        """Whatever went wrong here, nothing was sent."""
        if end.error is None:
            return Prepared(end.value)
        meant = self._meaning(end.error)
        if isinstance(meant, Rejected):
            return meant
        return Rejected(failure=FailureClass.TRANSIENT, detail=_told(end.error))

    def outcome(self, end: End) -> Outcome:
        if end.error is None:
            return self._held(end.value)
        error = end.error
        return self._meaning(error) or Unknown(cause="raised", detail=_told(error))

    def verdict(self, end: End) -> Verdict:
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
) -> End:
    try:
        return End(await call(*arguments))
    except KeyboardInterrupt:
        raise  # a person ends the process
    except SystemExit as exc:  # asyncio lets it stop the loop, wherever it is raised
        return End(error=AdapterExitError(str(exc)))
    except BaseException as exc:  # noqa: BLE001  its end, whatever it is
        return End(error=exc)


def end_of(task: asyncio.Task[End]) -> End:
    """The end of a task that may have been cut off before it began."""
    if task.cancelled():
        return End(error=asyncio.CancelledError("cancelled"))
    error = task.exception()
    return task.result() if error is None else End(error=error)


def _told(exc: BaseException) -> str:
    try:
        return f"{type(exc).__name__}: {exc}"[:1000]
    except Exception:  # noqa: BLE001  an error that cannot even be shown
        return type(exc).__name__
