"""Inbound webhooks on a port of its own: one message per POST, answered only after it
is durable. `webhook_reception` has the shape of a request and the table of answers;
`turnfold_adapters.bridges.asgi` takes the same requests inside of an ASGI application.
"""

from typing import Self

from turnfold.arguments import Id, Port, Word, checked
from turnfold_adapters.channels.webhook_http import Answer, HttpServer, Limits, Request
from turnfold_adapters.channels.webhook_reception import (
    Accept,
    Parse,
    Reception,
    refused,
)


class WebhookInbox:
    """Listens on `host`:`port` (0: any free one) and hands messages to `accept`.

    `accept(inbound)` is the kernel's: its return means durable; `turn_id`, `status` and
    `new` of its result go into the answer. `secret`: Standard Webhooks secret; with
    None any client of the port can write. `channel`, `account`: of these messages.
    `parse(message, headers)`: for senders with another shape; it makes the Inbound from
    the JSON object and the lower-case headers, and raises InvalidInputError for input
    that it refuses. None: there is no message in it. It may be a coroutine function.

    Use it as `async with`, or `start()` and `aclose()`. A sender that hangs up does not
    cancel its `accept`; closing waits `limits.drain_ms` for it.
    """

    @checked
    def __init__(
        self,
        accept: Accept,
        *,
        secret: str | None = None,
        host: Word = "127.0.0.1",
        port: Port = 0,
        path: Word = "/",
        channel: Id = "webhook",
        account: Id = "default",
        parse: Parse | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._path = path
        self._reception = Reception(
            accept, channel=channel, account=account, secret=secret, parse=parse
        )
        self._server = HttpServer(
            self._respond, host=host, port=port, limits=limits or Limits()
        )

    @property
    def port(self) -> int:
        """The listening port, once started."""
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
            return refused(404, "path", "nothing here")
        return await self._reception.answer(
            request.method, request.headers, request.body
        )
