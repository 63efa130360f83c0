"""Which exceptions prove that nothing was sent. The dangerous mistake is a false proof."""

import asyncio
import socket

import httpcore
import httpx
import pytest

from turnfold.enums import FailureClass
from turnfold.ports.channel import Rejected, Unknown
from turnfold_adapters.channels.webhook_errors import classify


class WrapperError(Exception):
    """What a client library around httpx might raise."""


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def in_context(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__context__ = inner
    return outer


def not_sent(exception: BaseException) -> bool:
    outcome = classify(exception)
    return type(outcome) is Rejected and outcome.failure is FailureClass.NOT_CONNECTED


@pytest.mark.case("B06")
@pytest.mark.parametrize(
    "exception",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.PoolTimeout("full"),
        httpx.ProxyError("no tunnel"),
        httpcore.ConnectError("refused"),
        httpcore.ConnectTimeout("slow"),
        ConnectionRefusedError(111, "refused"),
        socket.gaierror(-2, "no such host"),
    ],
)
def test_a_failed_connect_proves_that_nothing_was_sent(exception: Exception) -> None:
    assert not_sent(exception)


@pytest.mark.case("B06")
@pytest.mark.parametrize(
    "exception",
    [
        httpx.ReadTimeout("slow"),
        httpx.WriteTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.CloseError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.LocalProtocolError("odd"),
        httpx.DecodingError("odd"),
        httpx.UnsupportedProtocol("odd"),
        httpcore.ReadTimeout("slow"),
        ConnectionResetError(104, "reset"),
        BrokenPipeError(32, "pipe"),
        TimeoutError(),
        OSError("odd"),
    ],
)
def test_anything_later_is_unknown(exception: Exception) -> None:
    assert isinstance(classify(exception), Unknown)


@pytest.mark.case("B07")
def test_a_wrapped_connect_timeout_is_still_not_sent() -> None:
    inner = caused(WrapperError("once"), httpx.ConnectTimeout("slow"))
    assert not_sent(caused(WrapperError("twice"), inner))


@pytest.mark.case("B07")
def test_a_wrapped_read_timeout_is_still_unknown() -> None:
    assert isinstance(
        classify(caused(WrapperError("x"), httpx.ReadTimeout("slow"))), Unknown
    )


@pytest.mark.case("D17")
def test_a_second_try_inside_the_client_takes_the_proof_away() -> None:
    """First try refused, second try lost: the second may have arrived."""
    first = httpx.ConnectError("refused")
    assert isinstance(classify(in_context(httpx.ReadTimeout("x"), first)), Unknown)
    assert not not_sent(in_context(WrapperError("opaque"), first))
    wrapped = caused(in_context(WrapperError("x"), httpx.ReadError("reset")), first)
    assert isinstance(classify(wrapped), Unknown)


def test_a_group_is_proof_only_if_every_member_is() -> None:
    refused, lost = httpx.ConnectError("v6"), httpx.ReadError("v4")
    assert not_sent(ExceptionGroup("both", [refused, httpx.ConnectTimeout("v4")]))
    assert not not_sent(ExceptionGroup("mixed", [refused, lost]))
    assert not not_sent(ExceptionGroup("odd", [refused, ValueError("odd")]))


def test_a_loop_in_the_chain_does_not_hang() -> None:
    one, two = WrapperError("1"), WrapperError("2")
    caused(one, two)
    caused(two, one)
    assert classify(one) is None


@pytest.mark.case("L07")
@pytest.mark.parametrize(
    "exception",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        in_context(asyncio.CancelledError(), httpx.ReadTimeout("x")),
        caused(asyncio.CancelledError(), httpx.ConnectError("x")),
        ValueError("bug"),
    ],
)
def test_cancellations_and_bugs_are_not_judged_here(exception: BaseException) -> None:
    assert classify(exception) is None
