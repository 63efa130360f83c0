"""The answer to a request with a message, shared by the webhook inbox and the bridge to
ASGI.

The sender may forget a message after a 2xx, so a 200 is sent only after `accept` has
returned, which the kernel does after the COMMIT. After any other answer a sender sends
again (503) or learns its mistake (4xx).

A request is one JSON object:

    {"conversation": str,
     "message_id": str          (default: the webhook-id header)
     "key": str                 (a dedupe key of the sender's own)
     "thread": str | null, "event": str (default "message"), "control": bool,
     "sender": str, "sent_at": int (ms UTC), "revision": str (of an edit),
     "locale": str (the language of its author),
     "text": str                (the same as body.text)
     "body": any JSON}          (whatever the handler should see)

Channel and account come from the inbox, not from the sender, and a field that is not in
this list is refused: a misspelt `thread` must not end up in the root of a conversation.

    200  {"turn_id": str, "status": str, "new": bool}; {"status": "no_message"} if the
         embedder's `parse` gives None
    400  bad JSON or an invalid message; `field` and `problem` say which and why
    401  no valid Standard Webhooks signature      404, 405  not ours
    408, 413, 431  too slow, too large             500  a bug; logged to turnfold.webhook
    503  + Retry-After: the store or the limits say not now
"""

import asyncio
import inspect
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from turnfold.arguments import Id, checked
from turnfold.errors import (
    BackPressureError,
    InvalidInputError,
    NotOpenError,
    StoreError,
    TurnfoldError,
)
from turnfold.inbound import Inbound, Unreadable, printable
from turnfold.logs import lines
from turnfold_adapters.channels.webhook import signer
from turnfold_adapters.channels.webhook_http import Answer

Update = Inbound | Unreadable
Accept = Callable[[Any], Awaitable[Any]]
Parse = Callable[
    [Mapping[str, Any], Mapping[str, str]], Update | Awaitable[Update | None] | None
]
Check = Callable[[bytes, Mapping[str, str]], bool | Awaitable[bool]]

RETRY_AFTER_S = 5
# Far beyond any message, far below the depth at which a recursive encoder fails.
DEPTH = 64

_FIELDS = frozenset(
    {
        "conversation",
        "message_id",
        "key",
        "edits",
        "thread",
        "event",
        "control",
        "sender",
        "sent_at",
        "locale",
        "revision",
        "text",
        "body",
    }
)
_log = lines("turnfold.webhook")
_NO_MESSAGE = Answer(status=200, content={"status": "no_message"})


class Reception:
    """Hands messages to `accept` and makes the answers.

    `accept(inbound)` is the kernel's: its return means durable; `turn_id`, `status` and
    `new` of its result go into the answer. `secret`: Standard Webhooks secret.
    `check(body, headers)`: is a request genuine? For other signatures; it may be a
    coroutine function. `channel`, `account`: of these messages. `parse(message,
    headers)`: for senders with another shape; it makes the Inbound from the JSON object
    and the lower-case headers, and raises InvalidInputError for input that it refuses.
    None: there is no message in it. It may be a coroutine function.
    """

    @checked
    def __init__(
        self,
        accept: Accept,
        *,
        channel: Id,
        account: Id,
        secret: str | None = None,
        check: Check | None = None,
        parse: Parse | None = None,
    ) -> None:
        self._accept = accept
        self._verifier = signer(secret)
        self._check = check
        self._channel = channel
        self._account = account
        self._parse = parse or self._default_parse

    async def answer(
        self, method: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """The answer to a complete request. Header names are lower case."""
        if method != "POST":
            return refused(405, "method", "use POST", headers={"allow": "POST"})
        try:
            if not await self._is_genuine(headers, body):
                return refused(401, "signature", "no valid signature")
            inbound = await self._read(body, headers)
        except InvalidInputError as exc:
            return refused(400, exc.field, exc.problem)
        except BaseException as exc:
            if _is_for_us(exc):
                raise
            _report(f"a message to {self._channel} could not be read", exc)
            return _error(500, "internal")
        return _NO_MESSAGE if inbound is None else await self._stored(inbound)

    async def _read(self, body: bytes, headers: Mapping[str, str]) -> Update | None:
        """None: the request brings no message. An answer of another type is a bug of
        `parse` and no fault of the sender: it must send the message again."""
        given = self._parse(_json_object(body), headers)
        if inspect.isawaitable(given):
            given = await given
        if given is not None and not isinstance(given, Inbound | Unreadable):
            msg = f"parse gave {type(given).__name__}, expected Inbound"
            raise TypeError(msg)
        return given

    async def _is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        if not self._is_signed(headers, body):
            return False
        if self._check is None:
            return True
        said = self._check(body, headers)
        return bool(await said if inspect.isawaitable(said) else said)

    async def _stored(self, inbound: Update) -> Answer:
        try:
            accepted = await self._accept(inbound)
        except InvalidInputError as exc:
            return refused(400, exc.field, exc.problem)
        except (StoreError, BackPressureError, NotOpenError) as exc:
            _log.warning("%s not accepted: %s", inbound.dedupe_key, exc)
            return _later(exc.code)
        except BaseException as exc:
            if _is_for_us(exc):
                raise
            if isinstance(exc, asyncio.CancelledError):
                return _later("cancelled")  # accept was, by a kernel that shuts down
            _report(f"{inbound.dedupe_key} not accepted", exc)
            return _error(
                500, exc.code if isinstance(exc, TurnfoldError) else "internal"
            )
        names = ("turn_id", "status", "new")
        content = {name: _fact(accepted, name) for name in names}
        return Answer(status=200, content=content)

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        if self._verifier is None:
            return True
        from standardwebhooks import WebhookVerificationError  # noqa: PLC0415  an extra

        try:
            self._verifier.verify(body, dict(headers))
        except json.JSONDecodeError:
            return True  # the library parses after it has verified; 400 below
        except (WebhookVerificationError, ValueError, RecursionError):
            # ValueError: signature headers that are no base64 or have no comma.
            return False
        return True

    def _default_parse(
        self, message: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Inbound:
        for name in message.keys() - _FIELDS:
            raise InvalidInputError(field=name, problem="unknown field")
        control = message.get("control", False)
        if type(control) is not bool:
            raise InvalidInputError(field="control", problem="expected true or false")
        return Inbound(
            self._channel,
            account=self._account,
            conversation=_needed(message, "conversation"),
            message_id=_message_id(message, headers),
            key=message.get("key"),
            edits=message.get("edits"),
            event=message.get("event", "message"),
            revision=message.get("revision"),
            thread=message.get("thread"),
            sender=message.get("sender"),
            sent_at=message.get("sent_at"),
            locale=message.get("locale"),
            body=_body(message),
            control=control,
        )


def _report(what: str, error: BaseException) -> None:
    """With its traceback. An error that no handler of the log could show, or write as
    UTF-8, is told as far as it can be."""
    try:
        whole = "".join(traceback.format_exception(error))
    except KeyboardInterrupt:
        raise  # Ctrl-C
    except BaseException:  # noqa: BLE001  an error of foreign code may raise anything
        whole = type(error).__name__
    else:
        if whole == printable(whole):
            _log.error("%s", what, exc_info=error)
            return
    _log.error("%s: %s", what, printable(whole))


def _is_for_us(error: BaseException) -> bool:
    """Ctrl-C, or this task itself is being closed. Any other end of the embedder's code
    must not end the server."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or bool(task.cancelling())
    return isinstance(error, KeyboardInterrupt)


def _needed(message: Mapping[str, Any], name: str) -> Any:
    if name not in message:
        raise InvalidInputError(field=name, problem="missing")
    return message[name]


def _message_id(message: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
    """The message id of a request. Without an id and without a key each delivery would
    be a new message."""
    given = message.get("message_id", headers.get("webhook-id"))
    if given is None and message.get("key") is None:
        problem = "missing; send it, or the header webhook-id, or a key"
        raise InvalidInputError(field="message_id", problem=problem)
    return given


def _body(message: Mapping[str, Any]) -> Any:
    body = message.get("body", {})
    if "text" not in message:
        return body
    if not isinstance(body, dict):
        raise InvalidInputError(field="text", problem="body is no object to put it in")
    if not isinstance(message["text"], str):
        raise InvalidInputError(field="text", problem="expected text")
    if "text" in body:
        raise InvalidInputError(field="text", problem="given twice")
    return {**body, "text": message["text"]}


def _json_object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        problem = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
        raise InvalidInputError(field="json", problem=problem) from exc
    if not isinstance(value, dict):
        raise InvalidInputError(field="json", problem="expected an object")
    if _deeper(value, DEPTH):
        raise InvalidInputError(field="json", problem="nested too deeply")
    return value


def _deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        nested = [v for v in level if isinstance(v, dict | list)]
        level = [x for v in nested for x in (v.values() if type(v) is dict else v)]
    return bool(level)


def _fact(accepted: object, name: str) -> str | bool | None:
    """The message is durable, whatever else an `accept` of the embedder's own gives."""
    try:
        value = getattr(accepted, name, None)
        return value if value is None or type(value) is bool else str(value)
    except KeyboardInterrupt:
        raise  # Ctrl-C
    except BaseException:  # noqa: BLE001  a value of foreign code may raise anything
        return None


def refused(
    status: int, name: str, problem: str, *, headers: Mapping[str, str] | None = None
) -> Answer:
    content = {"error": "invalid", "field": name, "problem": problem}
    return Answer(status=status, content=content, headers=headers or {})


def _error(status: int, code: str) -> Answer:
    return Answer(status=status, content={"error": code})


def _later(code: str) -> Answer:
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return Answer(status=503, content={"error": code}, headers=headers)
