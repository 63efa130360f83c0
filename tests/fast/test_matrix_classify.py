"""What answers and exceptions mean to the Matrix channel. No server."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import aiohttp
import nio  # type: ignore[import-untyped]
import pytest

from turnfold.enums import DeliveryClass, FailureClass, GateScope
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.ports.channel import Accepted, Rejected, Unknown
from turnfold_adapters.channels.matrix import MatrixChannel
from turnfold_adapters.channels.matrix_client import (
    RedirectedError,
    RequestLostError,
    classify,
)
from turnfold_adapters.channels.matrix_outcomes import (
    Answer,
    RefusedError,
    parse_body,
    raise_for,
    refused,
    retry_after_ms,
    sent,
)

F = FailureClass
_KEY = aiohttp.client_reqrep.ConnectionKey(
    "host", 1, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=0
)


def answer(status: int, errcode: str = "", **body: Any) -> Answer:
    full = {"errcode": errcode, **body} if errcode else body
    return Answer(status=status, body=MappingProxyType(full))


def caused(outer: Exception, cause: BaseException) -> Exception:
    outer.__cause__ = cause
    return outer


def in_context(outer: Exception, context: BaseException) -> Exception:
    outer.__context__ = context
    return outer


@pytest.mark.case("D01", "D02", "D05", "B13")
@pytest.mark.parametrize(
    ("status", "errcode", "failure"),
    [
        (400, "M_BAD_JSON", F.INVALID_PAYLOAD),
        (400, "M_NOT_JSON", F.INVALID_PAYLOAD),
        (400, "M_UNKNOWN", F.INVALID_PAYLOAD),
        (401, "M_UNKNOWN_TOKEN", F.AUTH),
        (401, "M_MISSING_TOKEN", F.AUTH),
        (403, "M_FORBIDDEN", F.PERMISSION),
        (403, "M_USER_SUSPENDED", F.AUTH),
        (403, "M_CONSENT_NOT_GIVEN", F.AUTH),
        (403, "M_RESOURCE_LIMIT_EXCEEDED", F.TRANSIENT),
        (404, "M_NOT_FOUND", F.TARGET_GONE),
        (404, "M_UNRECOGNIZED", F.TRANSIENT),
        (413, "M_TOO_LARGE", F.TOO_LONG),
        (413, "", F.TOO_LONG),
        (429, "M_LIMIT_EXCEEDED", F.RATE_LIMITED),
        (429, "", F.RATE_LIMITED),
    ],
)
def test_a_definite_no_has_its_class(
    status: int, errcode: str, failure: FailureClass
) -> None:
    outcome = sent(answer(status, errcode), None)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is failure


@pytest.mark.case("B06", "L05")
@pytest.mark.parametrize(
    "ambiguous",
    [
        answer(500, "M_UNKNOWN"),
        answer(502),
        answer(503, "M_UNKNOWN"),
        answer(504),
        answer(524),
        answer(400),  # a proxy's, not the homeserver's: it has no errcode
        answer(401),
        answer(403),
        answer(404),
        answer(408, "M_UNKNOWN"),
        answer(200),
        answer(200, event_id=""),
        answer(200, event_id=7),
        answer(200, event_id=None),
    ],
    ids=lambda one: f"{one.status}-{dict(one.body)}",
)
def test_what_proves_nothing_is_unknown(ambiguous: Answer) -> None:
    assert isinstance(sent(ambiguous, None), Unknown)


def test_an_event_id_is_acceptance() -> None:
    outcome = sent(answer(200, event_id="$e"), "$root")
    assert isinstance(outcome, Accepted)
    assert (outcome.receipt.ids, outcome.receipt.thread) == (("$e",), "$root")


def test_a_token_that_is_being_renewed_is_no_matter_of_auth() -> None:
    body = MappingProxyType({"errcode": "M_UNKNOWN_TOKEN"})
    outcome = sent(Answer(status=401, body=body, renewing=True), None)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is F.TRANSIENT


@pytest.mark.case("D11")
@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ("5", {}, 5000),
        ("0.5", {}, 500),
        ("5", {"retry_after_ms": 9}, 5000),
        (None, {"retry_after_ms": 4722}, 4722),
        ("soon", {"retry_after_ms": 4722}, 4722),
        ("Thu, 01 Jan 2026 00:00:30 GMT", {}, 30_000),
        ("Thu, 01 Jan 2026 00:00:30 -0000", {}, 30_000),
        ("-1", {}, None),
        ("nan", {}, None),
        ("inf", {}, None),
        ("", {}, None),
        (None, {"retry_after_ms": "7"}, None),
        (None, {"retry_after_ms": True}, None),
        (None, {"retry_after_ms": -7}, None),
        ("99999999999", {}, 86_400_000),
    ],
)
def test_retry_after_is_read_in_ms_or_not_at_all(
    header: str | None, body: dict[str, Any], expected: int | None
) -> None:
    limited = Answer(status=429, body=body, retry_after=header)
    assert retry_after_ms(limited, datetime(2026, 1, 1, tzinfo=UTC)) == expected


def test_a_rate_limit_holds_the_account() -> None:
    outcome = sent(Answer(status=429, body={}, retry_after="5"), None)
    assert isinstance(outcome, Rejected)
    assert (outcome.retry_after_ms, outcome.scope) == (5000, GateScope.ACCOUNT)


@pytest.mark.case("B06", "B07")
@pytest.mark.parametrize(
    "exception",
    [
        aiohttp.ClientConnectorError(_KEY, OSError(111, "refused")),
        aiohttp.ClientConnectorDNSError(_KEY, OSError(-2, "no such name")),
        aiohttp.ConnectionTimeoutError("too slow"),
        ConnectionRefusedError(111, "refused"),
        caused(RuntimeError("wrapped"), ConnectionRefusedError()),
        caused(
            ValueError("twice wrapped"),
            caused(RuntimeError("wrapped"), aiohttp.ConnectionTimeoutError()),
        ),
        caused(aiohttp.ConnectionTimeoutError(), TimeoutError()),
    ],
    ids=repr,
)
def test_only_a_failure_to_connect_is_proof_that_nothing_was_sent(
    exception: Exception,
) -> None:
    outcome = classify(exception)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is F.NOT_CONNECTED


@pytest.mark.case("B06", "B08", "D18")
@pytest.mark.parametrize(
    "exception",
    [
        TimeoutError(),
        RequestLostError("cut"),
        RedirectedError("elsewhere"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "reset"),
        aiohttp.ClientPayloadError("half an answer"),
        aiohttp.SocketTimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        OSError("anything"),
        ValueError("a bug"),
        # A wrapper that failed to connect, tried again and was cut: the first story
        # is only the context, or lies below an exception that knows better.
        in_context(RuntimeError("second try"), ConnectionRefusedError()),
        in_context(TimeoutError("second try"), ConnectionRefusedError()),
        caused(aiohttp.ServerDisconnectedError("below"), ConnectionRefusedError()),
    ],
    ids=repr,
)
def test_every_other_exception_leaves_the_outcome_unknown(exception: Exception) -> None:
    assert isinstance(classify(exception), Unknown)


def test_a_cancellation_is_not_the_adapters_to_judge() -> None:
    assert classify(asyncio.CancelledError()) is None
    assert classify(KeyboardInterrupt()) is None


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert isinstance(classify(one), Unknown)


def test_what_prepare_was_refused_is_what_classify_says() -> None:
    no = refused("upload", F.TOO_LONG, "HTTP 413")
    assert classify(no) == no.rejected
    assert str(no) == "upload: HTTP 413"
    assert classify(nio.LocalProtocolError("not logged in")) == Rejected(
        failure=F.AUTH, detail="not logged in"
    )


def test_what_nobody_sees_may_be_tried_again_after_a_server_error() -> None:
    with pytest.raises(RefusedError) as caught:
        raise_for(answer(502), "upload")
    assert caught.value.rejected.failure is F.TRANSIENT
    raise_for(answer(200), "upload")


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[1]", b"\xff\xfe\x00", b"[" * 99_999]
)
def test_a_body_that_is_no_object_is_no_body(raw: bytes) -> None:
    assert dict(parse_body(raw)) == {}


def test_the_module_imports_without_nio_and_names_the_extra() -> None:
    code = """
import sys
sys.modules["nio"] = None
from turnfold.errors import MissingExtraError
from turnfold_adapters.channels.matrix import MatrixChannel
try:
    MatrixChannel("http://x", user_id="@b:x", device_id="D", token="t")
except MissingExtraError as exc:
    print(exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "turnfold[matrix]" in done.stdout
    assert MissingExtraError.code == "usage.missing_extra"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"user_id": "bot"}, "user_id"),
        ({"device_id": ""}, "device_id"),
        ({"token": None}, "token"),
        ({"password": "p"}, "token"),
    ],
)
def test_a_channel_that_cannot_work_is_refused_when_it_is_made(
    wrong: dict[str, Any], field: str
) -> None:
    right: dict[str, Any] = {"user_id": "@b:x", "device_id": "D", "token": "t"}
    with pytest.raises(InvalidInputError) as caught:
        MatrixChannel("http://x", **{**right, **wrong})
    assert caught.value.field == field


@pytest.mark.case("L02")
async def test_every_kind_of_part_is_keyed_first_and_looked_up_later() -> None:
    channel = MatrixChannel("http://x", user_id="@b:x", device_id="D", token="t")
    for kind in ("text", "file", "native"):
        given = channel.capabilities.of(kind)
        assert given.classes == (DeliveryClass.KEYED, DeliveryClass.LOOKUP)
        assert given.key_window_ms is not None
        assert given.key_window_ms < 24 * 3600 * 1000
    await channel.aclose()
