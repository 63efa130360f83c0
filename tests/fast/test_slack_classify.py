"""The meaning of Slack's answers, read by the real slack_sdk, and of lost ones."""

import ssl
from typing import Any

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from turnfold import FailureClass, GateScope
from turnfold.enums import Decoration
from turnfold.ports.channel import CannotTell, Outcome, Rejected, Unknown
from turnfold_adapters.channels.slack_errors import (
    Answer,
    RefusedError,
    cannot_tell,
    classify,
    invisible,
    refused,
)

F = FailureClass
case = pytest.mark.case


def raised(status: int, body: Any, headers: dict[str, str] | None = None) -> Exception:
    """The error that the library makes of an answer."""
    response = AsyncSlackResponse(
        client=None,
        http_verb="POST",
        api_url="chat.postMessage",
        req_args={},
        data=body,
        headers=headers or {},
        status_code=status,
    )
    with pytest.raises(SlackApiError) as caught:
        response.validate()
    return caught.value


def meant(error: str, status: int = 200) -> Outcome | None:
    return classify(raised(status, {"ok": False, "error": error}))


@case("D01", "D02", "D05")
@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("invalid_auth", F.AUTH),
        ("token_revoked", F.AUTH),
        ("account_inactive", F.AUTH),
        ("missing_scope", F.PERMISSION),
        ("not_in_channel", F.PERMISSION),
        ("restricted_action_read_only_channel", F.PERMISSION),
        ("ekm_access_denied", F.PERMISSION),
        ("channel_not_found", F.TARGET_GONE),
        ("is_archived", F.TARGET_GONE),
        ("message_not_found", F.HANDLE_GONE),
        ("cant_update_message", F.HANDLE_GONE),
        ("edit_window_closed", F.HANDLE_GONE),
        ("msg_too_long", F.TOO_LONG),
        ("msg_blocks_too_long", F.TOO_LONG),
        ("thread_not_found", F.DECORATION),
        ("cannot_reply_to_message", F.DECORATION),
        ("team_added_to_org", F.TRANSIENT),
        ("file_not_found", F.TRANSIENT),
        ("no_text", F.INVALID_PAYLOAD),
        ("invalid_blocks", F.INVALID_PAYLOAD),
        ("metadata_too_large", F.INVALID_PAYLOAD),
        ("a_word_that_slack_invents_tomorrow", F.INVALID_PAYLOAD),
    ],
)
def test_a_named_error_is_a_refusal(error: str, failure: FailureClass) -> None:
    outcome = meant(error)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is failure
    assert error in outcome.detail


@case("B13", "B20")
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("error", ["fatal_error", "internal_error"])
def test_slack_says_itself_that_these_prove_nothing(error: str, status: int) -> None:
    assert isinstance(meant(error, status), Unknown)


@pytest.mark.parametrize(
    "error", ["service_unavailable", "ratelimited", "channel_not_found"]
)
def test_whatever_a_server_error_says_it_proves_nothing(error: str) -> None:
    assert isinstance(meant(error, 503), Unknown)


@pytest.mark.parametrize("body", [{}, {"error": "no ok"}, {"ok": False}])
@pytest.mark.parametrize("status", [200, 302, 403, 404, 502])
def test_an_answer_without_a_word_of_slack_proves_nothing(
    body: Any, status: int
) -> None:
    assert isinstance(classify(raised(status, body)), Unknown)


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        ("30", 30_000),
        ("0", 0),
        ("1.5", 1_500),
        (None, None),
        ("soon", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("99999999", 24 * 3600 * 1000),
    ],
)
@case("D11")
def test_a_rate_limit_says_in_seconds_how_long_to_wait(
    header: str | None, wait_ms: int | None
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    body = {"ok": False, "error": "ratelimited"}
    outcome = classify(raised(429, body, headers))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is F.RATE_LIMITED
    assert outcome.retry_after_ms == wait_ms
    assert outcome.scope is GateScope.CONVERSATION


def test_a_rate_limit_of_the_edge_has_no_body() -> None:
    outcome = refused(Answer(status=429, body={}, retry_after="2"), GateScope.ACCOUNT)
    assert isinstance(outcome, Rejected)
    assert (outcome.retry_after_ms, outcome.scope) == (2_000, GateScope.ACCOUNT)


def test_a_thread_that_is_gone_is_a_decoration() -> None:
    outcome = meant("thread_not_found")
    assert isinstance(outcome, Rejected)
    assert outcome.decoration is Decoration.THREAD


def test_the_scope_that_is_missing_is_named() -> None:
    body = {"ok": False, "error": "missing_scope", "needed": "channels:history"}
    outcome = classify(raised(200, body))
    assert isinstance(outcome, Rejected)
    assert outcome.detail == "missing_scope channels:history"


@case("B07", "D12")
def test_a_connect_that_failed_is_proven_not_sent() -> None:
    key = aiohttp.client_reqrep.ConnectionKey(
        "slack.invalid", 443, True, True, None, None, None
    )
    failed = (
        aiohttp.ClientConnectorError(key, OSError("refused")),
        aiohttp.ClientConnectorSSLError(key, ssl.SSLError("no")),
        aiohttp.ConnectionTimeoutError("slow"),
        ConnectionRefusedError(),
    )
    for error in failed:
        outcome = classify(error)
        assert isinstance(outcome, Rejected)
        assert outcome.failure is F.NOT_CONNECTED


@case("B06")
@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.SocketTimeoutError("slow"),
        aiohttp.ClientPayloadError("torn"),
        aiohttp.ClientOSError("reset"),
        TimeoutError(),
        ConnectionResetError(),
    ],
)
def test_any_other_loss_is_unknown(error: Exception) -> None:
    assert isinstance(classify(error), Unknown)


def test_what_is_not_of_the_network_is_not_ours_to_judge() -> None:
    assert classify(ValueError("a bug")) is None


# --- calls that nobody sees ---


@case("B04")
@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer(status=200, body={"ok": False, "error": "missing_scope"}), None),
        (Answer(status=200, body={"ok": False, "error": "channel_not_found"}), None),
        (Answer(status=200, body={"ok": False, "error": "invalid_auth"}), F.AUTH),
        (Answer(status=200, body={"ok": False, "error": "fatal_error"}), F.TRANSIENT),
        (Answer(status=502, body={}), F.TRANSIENT),
        (Answer(status=429, body={}, retry_after="60"), F.RATE_LIMITED),
    ],
)
def test_a_look_up_without_an_answer_cannot_tell(
    answer: Answer, failure: FailureClass | None
) -> None:
    """Without a failure a person or the policy decides; with one it is asked again."""
    error = invisible(refused(answer), "conversations.history")
    assert isinstance(error, RefusedError)
    verdict = cannot_tell(error)
    assert isinstance(verdict, CannotTell)
    assert verdict.failure is failure
    assert "conversations.history" in verdict.detail
