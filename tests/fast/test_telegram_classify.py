"""The meaning of python-telegram-bot's exceptions, made by its own parser of answers."""

import httpx
import pytest
from telegram.error import BadRequest, NetworkError, TelegramError, TimedOut
from telegram.request import HTTPXRequest

from turnfold import FailureClass, GateScope
from turnfold.ports.channel import Rejected, Unknown
from turnfold_adapters.channels.telegram_errors import classify, is_not_modified

pytestmark = pytest.mark.filterwarnings("ignore:Deprecated since version v22.2")


async def raised(answer: httpx.Response | Exception) -> TelegramError:
    """The exception of the real library for an answer or an error of the network."""

    def reply(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(reply)
    request = HTTPXRequest(httpx_kwargs={"transport": transport})
    try:
        await request.post("http://telegram.invalid/bot1/sendmessage")
    except TelegramError as exc:
        return exc
    finally:
        await request.shutdown()
    raise AssertionError("nothing was raised")


def said(status: int, words: str, **parameters: int) -> httpx.Response:
    body = {"ok": False, "error_code": status, "description": words}
    return httpx.Response(status, json=body | {"parameters": parameters})


F = FailureClass


@pytest.mark.parametrize(
    ("status", "words", "failure"),
    [
        (400, "Bad Request: chat not found", F.TARGET_GONE),
        (400, "Bad Request: can't parse entities: no end tag", F.DECORATION),
        (400, "Bad Request: message thread not found", F.DECORATION),
        (400, "Bad Request: message to be replied not found", F.DECORATION),
        (400, "Bad Request: message is too long", F.TOO_LONG),
        (400, "Bad Request: message caption is too long", F.TOO_LONG),
        (400, "Bad Request: message to edit not found", F.HANDLE_GONE),
        (400, "Bad Request: not enough rights to send text messages", F.PERMISSION),
        (400, "Bad Request: CHAT_WRITE_FORBIDDEN", F.PERMISSION),
        (400, "Bad Request: message text is empty", F.INVALID_PAYLOAD),
        (401, "Unauthorized", F.AUTH),
        (403, "Forbidden: bot was blocked by the user", F.PERMISSION),
        (403, "Forbidden: user is deactivated", F.TARGET_GONE),
        (404, "Not Found", F.AUTH),
        (409, "Conflict: terminated by other getUpdates request", F.TRANSIENT),
        (413, "Request Entity Too Large", F.TOO_LONG),
        (429, "Too Many Requests", F.RATE_LIMITED),
    ],
)
async def test_a_stated_refusal(status: int, words: str, failure: FailureClass) -> None:
    outcome = classify(await raised(said(status, words)))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is failure


@pytest.mark.case("A04")
async def test_a_page_with_413_is_a_refusal() -> None:
    """Telegram's own front and the proxies before it answer so, and pass nothing on."""
    page = "<html><title>413 Request Entity Too Large</title></html>"
    outcome = classify(await raised(httpx.Response(413, text=page)))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is F.TOO_LONG


async def test_a_rate_limit_has_its_wait_and_the_scope_of_the_channel() -> None:
    error = await raised(said(429, "Too Many Requests: retry after 7", retry_after=7))
    for scope in (GateScope.CONVERSATION, GateScope.ACCOUNT):
        outcome = classify(error, scope)
        assert isinstance(outcome, Rejected)
        assert (outcome.retry_after_ms, outcome.scope) == (7_000, scope)


async def test_a_group_that_moved_names_its_new_id() -> None:
    words = "Bad Request: group chat was upgraded to a supergroup chat"
    outcome = classify(await raised(said(400, words, migrate_to_chat_id=-1005)))
    assert isinstance(outcome, Rejected)
    assert (outcome.failure, outcome.target) == (F.TARGET_MOVED, "-1005")


@pytest.mark.parametrize(
    "answer",
    [
        said(500, "Internal Server Error"),
        said(502, "Bad Gateway"),
        httpx.Response(403, text="<html>blocked by a proxy</html>"),
        httpx.Response(404, text="no such page"),
        httpx.Response(502, text="Request Entity Too Large (413)"),
        httpx.Response(200, text="<html>sign in to this network</html>"),
        httpx.ReadTimeout("no answer"),
        httpx.WriteTimeout("half sent"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
    ],
)
@pytest.mark.case("A04")
async def test_what_proves_nothing_is_unknown(
    answer: httpx.Response | Exception,
) -> None:
    assert isinstance(classify(await raised(answer)), Unknown)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("no answer"),
        httpx.PoolTimeout("full"),
    ],
)
async def test_only_a_failed_connect_is_proof_that_nothing_was_sent(
    error: Exception,
) -> None:
    outcome = classify(await raised(error))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is F.NOT_CONNECTED


def test_a_second_request_after_a_failed_connect_may_have_arrived() -> None:
    lost = NetworkError("second try")
    lost.__cause__ = httpx.ReadError("reset")
    lost.__context__ = httpx.ConnectError("refused")
    assert isinstance(classify(lost), Unknown)
    assert isinstance(classify(TimedOut()), Unknown)
    assert classify(KeyError("a bug")) is None


def test_an_edit_without_a_difference_is_told_by_its_words() -> None:
    assert is_not_modified(BadRequest("Message is not modified: exactly the same"))
    assert not is_not_modified(BadRequest("message to edit not found"))
