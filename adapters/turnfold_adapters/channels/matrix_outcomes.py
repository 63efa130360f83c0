"""The meaning of a Matrix homeserver's answer for a part. Pure: no I/O, no nio.

A failure class that ends or holds an entry needs a Matrix `errcode`: a bare 403 or 404
may come from a proxy, a firewall or a page of a hosting company, and says nothing about
the room. Without an `errcode` only 413 and 429 count; any other status is Unknown.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from attrs import define, frozen

from turnfold.enums import FailureClass, GateScope
from turnfold.errors import ChannelError
from turnfold.ports.channel import Accepted, Outcome, Receipt, Rejected, Unknown

# A wait of more than a day is misread, or an error of the server; the kernel's own
# back-off is better for the user than a silent week.
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000

_BY_ERRCODE = MappingProxyType(
    {
        "M_LIMIT_EXCEEDED": FailureClass.RATE_LIMITED,
        "M_TOO_LARGE": FailureClass.TOO_LONG,
        "M_UNKNOWN_TOKEN": FailureClass.AUTH,
        "M_MISSING_TOKEN": FailureClass.AUTH,
        "M_USER_LOCKED": FailureClass.AUTH,
        "M_USER_SUSPENDED": FailureClass.AUTH,
        "M_USER_DEACTIVATED": FailureClass.AUTH,
        "M_CONSENT_NOT_GIVEN": FailureClass.AUTH,
        # The whole server is full or frozen (it says so with a 403): the room is fine.
        "M_RESOURCE_LIMIT_EXCEEDED": FailureClass.TRANSIENT,
        # The path is unknown: a wrong base URL, or a server in an upgrade.
        "M_UNRECOGNIZED": FailureClass.TRANSIENT,
    }
)
_BY_STATUS = MappingProxyType(
    {
        400: FailureClass.INVALID_PAYLOAD,
        401: FailureClass.AUTH,
        403: FailureClass.PERMISSION,
        404: FailureClass.TARGET_GONE,
        413: FailureClass.TOO_LONG,
        429: FailureClass.RATE_LIMITED,
    }
)
_WITHOUT_ERRCODE = frozenset({413, 429})


@frozen(kw_only=True)
class Answer:
    """One HTTP answer. `body` is empty when it was not a JSON object. `renewing`: the
    token was refused, and the client is going to log in for a new one."""

    status: int
    body: Mapping[str, Any]
    retry_after: str | None = None  # the unchanged header
    renewing: bool = False

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def errcode(self) -> str:
        return _word(self.body.get("errcode"))

    @property
    def detail(self) -> str:
        words = (f"HTTP {self.status}", self.errcode, _word(self.body.get("error")))
        return " ".join(word for word in words if word)[:500]


@define(kw_only=True, slots=False)
class RefusedError(ChannelError):
    """A step before the wire, or of a look-up, was refused. `rejected`: the outcome."""

    code = "channel.matrix_refused"
    template = "{what}: {detail}"
    what: str
    detail: str
    rejected: Rejected


def refused(what: str, failure: FailureClass, detail: str) -> RefusedError:
    rejected = Rejected(failure=failure, detail=f"{what}: {detail}")
    return RefusedError(what=what, detail=detail, rejected=rejected)


def sent(answer: Answer, thread: str | None) -> Outcome:
    """The outcome of the PUT of an event. An answer without an event id is no
    acceptance."""
    if not answer.ok:
        return refusal(answer) or Unknown(
            cause=f"http_{answer.status}", detail=answer.detail
        )
    event_id = _word(answer.body.get("event_id"))
    if not event_id:
        return Unknown(cause="no_event_id", detail=answer.detail)
    return Accepted(receipt=Receipt(ids=(event_id,), thread=thread))


def refusal(answer: Answer) -> Rejected | None:
    """The definite "no" in an answer, or None if it is not one."""
    failure = _failure(answer)
    if failure is None:
        return None
    if failure is not FailureClass.RATE_LIMITED:
        return Rejected(failure=failure, detail=answer.detail)
    return Rejected(
        failure=failure,
        detail=answer.detail,
        retry_after_ms=retry_after_ms(answer),
        scope=GateScope.ACCOUNT,  # homeservers count per user, not per room
    )


def _failure(answer: Answer) -> FailureClass | None:
    if not 400 <= answer.status < 500:
        return None
    if answer.renewing:
        return FailureClass.TRANSIENT
    if not answer.errcode:
        known = answer.status in _WITHOUT_ERRCODE
        return _BY_STATUS[answer.status] if known else None
    return _BY_ERRCODE.get(answer.errcode) or _BY_STATUS.get(answer.status)


def raise_for(answer: Answer, what: str) -> None:
    """Raise `RefusedError` unless the answer is a success.

    For invisible requests that may be repeated: an answer that is Unknown for a send is
    only TRANSIENT here.
    """
    if answer.ok:
        return
    rejected = refusal(answer) or Rejected(
        failure=FailureClass.TRANSIENT, detail=answer.detail
    )
    raise RefusedError(what=what, detail=answer.detail, rejected=rejected)


def retry_after_ms(answer: Answer, now: datetime | None = None) -> int | None:
    """How long to wait, in ms: the header first (the body's field is deprecated).

    None if neither can be read.

    >>> retry_after_ms(Answer(status=429, body={}, retry_after="5"))
    5000
    """
    found = _header_ms(answer.retry_after, now or datetime.now(UTC))
    if found is None:
        found = _number_ms(answer.body.get("retry_after_ms"), scale=1)
    return found


def _header_ms(header: str | None, now: datetime) -> int | None:
    if header is None:
        return None
    try:
        return _number_ms(float(header), scale=1000)
    except ValueError:
        pass  # not a number, so by RFC 9110 it must be a date
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return _number_ms((aware - now).total_seconds(), scale=1000)


def _number_ms(value: object, *, scale: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    scaled = value * scale
    if not 0 <= scaled < float("inf"):  # refuses NaN as well
        return None
    return min(int(scaled), RETRY_AFTER_MAX_MS)


def parse_body(raw: bytes) -> Mapping[str, Any]:
    """The JSON object in `raw`, or an empty one: a proxy's page is not an answer."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return MappingProxyType({})
    return value if isinstance(value, dict) else MappingProxyType({})


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""
