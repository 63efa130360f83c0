"""Webhooks inside of an ASGI application: a message is durable before its 2xx.

    orders = asgi.webhook(kernel, channel="orders", secret="whsec_...")
    app.mount("/orders", orders)            # Starlette, FastAPI, Litestar, Quart ...

`webhook` makes a plain ASGI application and needs no framework. A request is a POST of
one JSON object, as `turnfold_adapters.channels.webhook_reception` has it, with the same
table of answers: 200 once the message is durable, 4xx for a mistake of the sender, 503
and Retry-After for "not now".

`secret` (Standard Webhooks) or `check(body, headers)` decides if a request is genuine;
the body is the received bytes, from which signatures are made. One of them is needed:
`check=anybody` accepts every request. A body of more than `body_bytes` is answered with
413, one that takes longer than `body_ms` with 408. A request that its sender ends
half-way is ignored.

The kernel belongs to the loop that opened it. Mounted into an application, open it in that
application's lifespan (`async with kernel`); served alone, `webhook` answers the lifespan
of the server by opening and closing it. One process works on a store at a time; in the
others open a kernel with `work=False`, which only accepts.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from turnfold import Kernel
from turnfold.arguments import Id, Some, checked
from turnfold.errors import InvalidInputError
from turnfold_adapters.channels.webhook_http import Answer
from turnfold_adapters.channels.webhook_reception import (
    Check,
    Parse,
    Reception,
    refused,
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES = 1024 * 1024


class _RefusedError(Exception):
    """A body that is answered before it was read to its end."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def anybody(body: bytes, headers: Mapping[str, str]) -> bool:
    """A check that accepts every request: for a port that only trusted senders can
    reach."""
    del body, headers
    return True


@checked
def webhook(
    kernel: Kernel,
    *,
    channel: Id,
    account: Id = "default",
    secret: str | None = None,
    check: Check | None = None,
    parse: Parse | None = None,
    body_bytes: Some = BODY_BYTES,
    body_ms: Some = 10_000,
) -> App:
    """An ASGI application that hands messages to the kernel. See the module, and
    `Reception` for `parse` and `check`. Raises InvalidInputError without a check."""
    if secret is None and check is None:
        problem = "give a secret or a check; asgi.anybody accepts every request"
        raise InvalidInputError(field="check", problem=problem)
    reception = Reception(
        kernel.accept,
        channel=channel,
        account=account,
        secret=secret,
        check=check,
        parse=parse,
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(kernel, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            answer = await _answer(reception, scope, receive, body_bytes, body_ms)
            if answer is not None:
                await _send(send, answer)

    return app


async def _answer(
    reception: Reception, scope: Scope, receive: Receive, most: int, wait_ms: int
) -> Answer | None:
    """The answer to a request. None: the sender has closed the connection."""
    headers = {
        n.decode("latin-1").lower(): v.decode("latin-1") for n, v in scope["headers"]
    }
    try:
        async with asyncio.timeout(wait_ms / 1000):
            body = await _body(receive, headers, most)
    except _RefusedError as exc:
        return exc.answer
    except TimeoutError:
        return refused(408, "body", "the request took too long")
    if body is None:
        return None
    return await reception.answer(scope["method"], headers, body)


async def _body(
    receive: Receive, headers: Mapping[str, str], most: int
) -> bytes | None:
    length = headers.get("content-length", "0")
    _check_size(int(length) if length.isdecimal() else 0, most)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        _check_size(len(body), most)
        if not message.get("more_body", False):
            return bytes(body)


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise _RefusedError(refused(413, "body", f"the body may have {most} bytes"))


async def _send(send: Send, answer: Answer) -> None:
    body = json.dumps(answer.content, separators=(",", ":")).encode()
    length = {"content-length": str(len(body)), "content-type": "application/json"}
    named = {**length, **answer.headers}
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in named.items()]
    start = {"type": "http.response.start", "status": answer.status}
    await send({**start, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(kernel: Kernel, receive: Receive, send: Send) -> None:
    """Open the kernel with the server, and close it with the server. If opening fails,
    the server gets the error and does not start."""
    async with AsyncExitStack() as stack:
        await receive()
        try:
            await stack.enter_async_context(kernel)
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
