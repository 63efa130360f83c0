"""Inbound webhooks: a message per POST, answered only after it is durable.

The sender may forget a message once it sees a 2xx, so a 200 is sent after `accept` has
returned, which the kernel does after the COMMIT, and never before. Everything else is
an answer after which a sender sends again (503) or learns its mistake (4xx).

A request is one JSON object:

    {"conversation": str,
     "message_id": str          (default: the webhook-id header)
     "key": str                 (a dedupe key of the sender's own)
     "thread": str | null, "event": str (default "message"), "control": bool,
     "sender": str, "sent_at": int (ms UTC), "revision": str (of an edit),
     "text": str                (the same as body.text)
     "body": any JSON}          (whatever the handler should see)

Channel and account come from the inbox, not from the sender, and a field that is not in
this list is refused: a misspelt `thread` must not end up in the root of a conversation.

    200  {"turn_id": str, "status": str, "new": bool}
    400  bad JSON or an invalid message; `field` and `problem` say which and why
    401  no valid Standard Webhooks signature      404, 405  not ours
    408, 413, 431  too slow, too large             500  a bug; logged to turnfold.webhook
    503  + Retry-After: the store or the limits say not now
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from turnfold.errors import (
    BackPressureError,
    InvalidInputError,
    NotOpenError,
    StoreError,
    TurnfoldError,
)
from turnfold.inbound import Inbound
from turnfold_adapters.channels.webhook import signer
from turnfold_adapters.channels.webhook_http import Answer, HttpServer, Limits, Request

Accept = Callable[[Inbound], Awaitable[Any]]
Parse = Callable[[Mapping[str, Any], Mapping[str, str]], Inbound]

RETRY_AFTER_S = 5
# Far beyond any message, far below the depth at which a recursive encoder fails.
DEPTH = 64

_FIELDS = frozenset(
    {
        "conversation",
        "message_id",
        "key",
        "thread",
        "event",
        "control",
        "sender",
        "sent_at",
        "revision",
        "text",
        "body",
    }
)
_log = logging.getLogger("turnfold.webhook")


class WebhookInbox:
    """Listens on `host`:`port` (0: any free one) and hands messages to `accept`.

    `accept(inbound)` is the kernel's: its return means durable; `turn_id`, `status` and
    `new` of what it returns go into the answer. `secret`: Standard Webhooks secret; with
    None anybody who can reach the port can write. `channel`, `account`: whose messages
    these are. `parse(message, headers)`: for senders with another shape; it makes the
    Inbound from the JSON object and the lower-case headers, and raises InvalidInputError
    for input that it refuses.

    Use it as `async with`, or `start()` and `aclose()`. A sender that hangs up does not
    cancel its `accept`; closing waits `limits.drain_ms` for it.
    """

    def __init__(
        self,
        accept: Accept,
        *,
        secret: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "/",
        channel: str = "webhook",
        account: str = "default",
        parse: Parse | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._accept = accept
        self._verifier = signer(secret)
        self._path = path
        self._channel = channel
        self._account = account
        self._parse = parse or self._default_parse
        self._server = HttpServer(
            self._respond, host=host, port=port, limits=limits or Limits()
        )

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._server.port

    async def start(self) -> None:
        await self._server.start()

    async def aclose(self) -> None:
        await self._server.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _respond(self, request: Request) -> Answer:
        if request.path != self._path:
            return _refused(404, "path", "nothing here")
        if request.method != "POST":
            return _refused(405, "method", "use POST", headers={"allow": "POST"})
        if not self._genuine(request):
            return _refused(401, "webhook-signature", "no valid signature")
        try:
            inbound = self._parse(_json_object(request.body), request.headers)
        except InvalidInputError as exc:
            return _refused(400, exc.field, exc.problem)
        except Exception:  # noqa: BLE001  the embedder's parser may raise anything
            _log.exception("the parser of webhook %s failed", self._path)
            return _error(500, "internal")
        return await self._stored(inbound)

    async def _stored(self, inbound: Inbound) -> Answer:
        try:
            accepted = await self._accept(inbound)
        except InvalidInputError as exc:
            return _refused(400, exc.field, exc.problem)
        except (StoreError, BackPressureError, NotOpenError) as exc:
            _log.warning("%s not accepted: %s", inbound.dedupe_key, exc)
            return _later(exc.code)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # it is us who are being closed
            return _later("cancelled")  # accept was, by a kernel that shuts down
        except Exception as exc:  # noqa: BLE001  whatever it was, there is no 200
            _log.exception("%s not accepted", inbound.dedupe_key)
            return _error(
                500, exc.code if isinstance(exc, TurnfoldError) else "internal"
            )
        content = {
            "turn_id": _text(getattr(accepted, "turn_id", None)),
            "status": _text(getattr(accepted, "status", None)),
            "new": getattr(accepted, "new", None),
        }
        return Answer(status=200, content=content)

    def _genuine(self, request: Request) -> bool:
        if self._verifier is None:
            return True
        from standardwebhooks import WebhookVerificationError  # noqa: PLC0415  an extra

        try:
            self._verifier.verify(request.body, dict(request.headers))
        except json.JSONDecodeError:
            return True  # the library parses after it has verified; we say 400 below
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
            event=message.get("event", "message"),
            revision=message.get("revision"),
            thread=message.get("thread"),
            sender=message.get("sender"),
            sent_at=message.get("sent_at"),
            body=_body(message),
            control=control,
        )


def _needed(message: Mapping[str, Any], name: str) -> Any:
    if name not in message:
        raise InvalidInputError(field=name, problem="missing")
    return message[name]


def _message_id(message: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
    """Without an id and without a key each delivery would be a new message."""
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


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _refused(
    status: int, name: str, problem: str, *, headers: Mapping[str, str] | None = None
) -> Answer:
    content = {"error": "invalid", "field": name, "problem": problem}
    return Answer(status=status, content=content, headers=headers or {})


def _error(status: int, code: str) -> Answer:
    return Answer(status=status, content={"error": code})


def _later(code: str) -> Answer:
    headers = {"retry-after": str(RETRY_AFTER_S)}
    return Answer(status=503, content={"error": code}, headers=headers)
