"""The meaning of an answer of Slack, or of an exception of slack_sdk, for a part.

| answer | outcome |
|---|---|
| `fatal_error`, `internal_error`, `service_unavailable`, any HTTP 5xx | unknown |
| HTTP 429, `ratelimited`, `rate_limited`, `message_limit_exceeded` | rate_limited; `Retry-After` is in seconds |
| an error of `_BY_ERROR` | as that table says |
| any other `error` that Slack named | invalid_payload |
| no JSON of Slack (a page of a proxy, a torn answer), any status | unknown |
| the connect failed | not_connected |
| any other error of aiohttp, a time-out | unknown |

Slack says of `fatal_error` and `internal_error`: "It's possible some aspect of the
operation succeeded before the error was raised"
(docs.slack.dev/reference/methods/chat.postMessage). A refusal is proof only if Slack
wrote it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import aiohttp
from attrs import define, field, frozen
from slack_sdk.errors import SlackApiError, SlackClientError

from turnfold.enums import Decoration, FailureClass, GateScope
from turnfold.errors import ChannelError
from turnfold.ports.channel import CannotTell, Outcome, Rejected, Unknown

# A wait of more than a day is misread, or an error of the server.
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000

AMBIGUOUS = frozenset({"fatal_error", "internal_error", "service_unavailable"})
_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_CLASSES: Mapping[FailureClass, tuple[str, ...]] = {
    # The token is invalid: no call of this account can succeed.
    FailureClass.AUTH: (
        *("not_authed", "invalid_auth", "account_inactive", "token_revoked"),
        *("token_expired", "two_factor_setup_required"),
    ),
    # This call is not allowed here. A missing scope concerns one method, so it does not
    # hold the account back.
    FailureClass.PERMISSION: (
        *("missing_scope", "no_permission", "not_allowed_token_type", "access_denied"),
        *("accesslimited", "ekm_access_denied", "enterprise_is_restricted"),
        *("team_access_not_granted", "not_in_channel", "restricted_action"),
        *("restricted_action_read_only_channel", "restricted_action_thread_locked"),
        *("restricted_action_thread_only_channel", "messages_tab_disabled"),
        *("posting_to_general_channel_denied", "channel_type_not_supported"),
        *("method_not_supported_for_channel_type", "cannot_dm_bot"),
        *("slack_connect_file_link_sharing_blocked", "file_uploads_disabled"),
        *("slack_connect_blocked_file_type", "blocked_file_type"),
    ),
    FailureClass.TARGET_GONE: (
        *("channel_not_found", "is_archived", "is_inactive", "user_not_found"),
        *("user_disabled", "team_not_found"),
    ),
    FailureClass.HANDLE_GONE: (
        *("message_not_found", "cant_update_message", "edit_window_closed"),
    ),
    FailureClass.TOO_LONG: (
        *("msg_too_long", "msg_blocks_too_long", "attachment_payload_limit_exceeded"),
        *("too_many_attachments", "file_too_large", "storage_limit_reached"),
    ),
    # Slack could not begin. An upload that it forgot is made again by `prepare`.
    FailureClass.TRANSIENT: (
        *("team_added_to_org", "org_login_required", "request_timeout"),
        *("file_not_found", "file_update_failed", "file_not_ready"),
    ),
    FailureClass.DECORATION: (
        *("thread_not_found", "invalid_thread_ts", "cannot_reply_to_message"),
        "restricted_action_non_threadable_channel",
    ),
}
_BY_ERROR = MappingProxyType(
    {error: failure for failure, errors in _CLASSES.items() for error in errors}
)

# After such an error the request was surely not sent. Any other aiohttp error leaves
# its outcome unknown.
_CONNECTING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    ConnectionRefusedError,
)
_LOST = (aiohttp.ClientError, TimeoutError, OSError, SlackClientError)


@frozen(kw_only=True)
class Answer:
    """One answer. `error`: the word that Slack wrote; None if Slack wrote none."""

    status: int
    body: Mapping[str, Any]
    retry_after: str | None = None

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.body.get("ok") is True

    @property
    def error(self) -> str | None:
        said = self.body.get("error")
        return said if isinstance(said, str) and self.body.get("ok") is False else None

    @property
    def detail(self) -> str:
        """The error with Slack's details: a scope, a field."""
        needed = self.body.get("needed")
        more = self.body.get("response_metadata")
        told = more.get("messages") if isinstance(more, dict) else None
        words = (self.error or f"HTTP {self.status}", needed, told)
        return " ".join(str(word) for word in words if word)[:300]


@define(kw_only=True, slots=False)
class RefusedError(ChannelError):
    """An invisible call failed. `rejected`: the outcome."""

    code = "channel.slack_refused"
    template = "{method}: {detail}"
    method: str
    detail: str
    rejected: Rejected = field(repr=False)


def answer_of(exception: SlackApiError) -> Answer:
    """The answer in an exception. The library wraps its own response, or aiohttp's when
    it could not read the body."""
    response = exception.response
    data = getattr(response, "data", None)
    status = getattr(response, "status_code", getattr(response, "status", 0))
    headers = {k.lower(): str(v) for k, v in dict(response.headers or {}).items()}
    return Answer(
        status=int(status),
        body=data if isinstance(data, dict) else {},
        retry_after=headers.get("retry-after"),
    )


def refusal(
    answer: Answer, scope: GateScope = GateScope.CONVERSATION
) -> Rejected | None:
    """The definite "no" in an answer, or None if it is not one."""
    detail, error = answer.detail, answer.error
    if answer.status == 429 or (error in _LIMITED and answer.status < 500):
        return Rejected(
            failure=FailureClass.RATE_LIMITED,
            detail=detail,
            retry_after_ms=retry_after_ms(answer),
            scope=scope,
        )
    if error is None or error in AMBIGUOUS or answer.status >= 500:
        return None
    failure = _BY_ERROR.get(error, FailureClass.INVALID_PAYLOAD)
    what = Decoration.THREAD if failure is FailureClass.DECORATION else None
    return Rejected(failure=failure, detail=detail, decoration=what)


def refused(answer: Answer, scope: GateScope = GateScope.CONVERSATION) -> Outcome:
    """The outcome of a visible call without an ok."""
    return refusal(answer, scope) or Unknown(
        cause=answer.error or f"http_{answer.status}", detail=answer.detail
    )


def classify(exception: BaseException) -> Outcome | None:
    """The outcome for an exception of a call; None if it comes neither from the client
    library nor from the network."""
    if isinstance(exception, RefusedError):
        return exception.rejected
    if isinstance(exception, SlackApiError):
        return refused(answer_of(exception))
    detail = f"{type(exception).__name__}: {exception}".rstrip(": ")[:300]
    if isinstance(exception, _CONNECTING):
        return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)
    if isinstance(exception, _LOST):
        return Unknown(cause="no_answer", detail=detail)
    return None


def invisible(outcome: Outcome | None, method: str) -> RefusedError:
    """The error of an invisible call: an unknown outcome is only transient there, since
    the call may be repeated."""
    if not isinstance(outcome, Rejected):
        detail = getattr(outcome, "detail", "")
        outcome = Rejected(failure=FailureClass.TRANSIENT, detail=detail)
    return RefusedError(method=method, detail=outcome.detail, rejected=outcome)


# Only a person can help, so the look-up is not repeated.
_HOPELESS = frozenset(
    {
        FailureClass.PERMISSION,
        FailureClass.TARGET_GONE,
        FailureClass.INVALID_PAYLOAD,
        FailureClass.DECORATION,
        FailureClass.HANDLE_GONE,
    }
)


def cannot_tell(error: RefusedError) -> CannotTell:
    """The verdict of a look-up that Slack did not answer. A missing scope ends it: then
    the policy of the entry, or a person, decides."""
    said = error.rejected
    if said.failure in _HOPELESS:
        return CannotTell(detail=str(error))
    return CannotTell(
        detail=str(error),
        failure=said.failure,
        retry_after_ms=said.retry_after_ms,
        scope=GateScope.ACCOUNT,
    )


def retry_after_ms(answer: Answer) -> int | None:
    """How long to wait, in ms; None if Slack does not say it.

    >>> retry_after_ms(Answer(status=429, body={}, retry_after="30"))
    30000
    """
    try:
        seconds = float(answer.retry_after or "")
    except ValueError:
        return None
    if not 0 <= seconds < float("inf"):
        return None
    return min(int(seconds * 1000), RETRY_AFTER_MAX_MS)
