"""What an adapter answered, held to the contract.

An answer that lies about its types must not reach the log, where it could never be read
again, and what is not proven does not count: a success without a receipt is unknown, a
look-up without one cannot tell, a wait that nobody can read is no wait.
"""

import math
import re
from operator import is_
from typing import Any

from turnfold import guards
from turnfold.arguments import identifier_problem
from turnfold.ports.channel import (
    Absent,
    Accepted,
    CannotTell,
    Found,
    Outcome,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)
from turnfold.words import FailureClass, GateScope

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
    if len(kept) < len(given) or not guards.receipt_given(kept, gives_ids=gives_ids):
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
