"""Inbound messages by Socket Mode, none lost and none taken twice.

Slack sends an envelope and waits for an answer to it, and sends an envelope without an
answer again (docs.slack.dev/apis/events-api/using-socket-mode). The kernel asks this
source for the next message only after the last one is durable, and only then is the
envelope answered. A message that was accepted and not yet answered comes again after a
crash; the kernel's dedupe keys drop it.

Slack gives up after a few attempts within minutes: messages are lost if no process of
the bot runs for longer than that.
"""

import asyncio
import time
from collections.abc import AsyncGenerator

import aiohttp
from attrs import define, evolve
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse

from turnfold.errors import ChannelError
from turnfold.inbound import Inbound
from turnfold.logs import lines
from turnfold_adapters.channels.slack_client import SlackClient
from turnfold_adapters.channels.slack_inbound import (
    Body,
    Names,
    inbound_of,
    is_news,
    is_ours,
)

__all__ = ["Names", "NotConnectedError", "listen"]

_log = lines("turnfold.slack")
# The library retries one address for ever, even one that Slack has dropped.
_LONGEST_OUTAGE_S = 60.0
_LOOK_S = 5.0


@define(kw_only=True, slots=False)
class NotConnectedError(ChannelError):
    """Socket Mode has had no connection for too long; the source begins anew."""

    code = "channel.slack_not_connected"
    template = "no connection to Slack for {seconds} s"
    seconds: int


async def listen(
    client: SlackClient, app_token: str, names: Names, proxy: str | None
) -> AsyncGenerator[Inbound, None]:
    """Yields messages, for ever, without the bot's own. Raises RefusedError,
    SlackApiError or NotConnectedError: then the kernel begins anew."""
    who = await client.identity()
    names = evolve(names, ids=who.ids)
    envelopes: asyncio.Queue[SocketModeRequest] = asyncio.Queue()
    socket = await _connected(client, app_token, proxy, envelopes)
    try:
        while True:
            envelope = await _next(socket, envelopes)
            body: Body = envelope.payload
            if is_news(body) and not is_ours(body, who.ids):
                yield inbound_of(body, names)
            # Durable: the kernel asked for the next one.
            await _answer(socket, envelope)
    finally:
        await socket.close()  # type: ignore[no-untyped-call]  # the library's


async def _connected(
    client: SlackClient,
    app_token: str,
    proxy: str | None,
    envelopes: "asyncio.Queue[SocketModeRequest]",
) -> SocketModeClient:
    client.open()
    socket = SocketModeClient(app_token, logger=_log.logger, web_client=client.web)
    socket.proxy = proxy  # not the one of the environment

    async def keep(_: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        envelopes.put_nowait(request)

    socket.socket_mode_request_listeners.append(keep)
    try:
        socket.wss_uri = await socket.issue_new_wss_url()
        connecting = socket.connect()  # type: ignore[no-untyped-call]  # the library's
        await asyncio.wait_for(connecting, _LONGEST_OUTAGE_S)
    except BaseException:
        await socket.close()  # type: ignore[no-untyped-call]  # the library's
        raise
    return socket


async def _next(
    socket: SocketModeClient, envelopes: "asyncio.Queue[SocketModeRequest]"
) -> SocketModeRequest:
    alive = time.monotonic()
    while True:
        try:
            return await asyncio.wait_for(envelopes.get(), _LOOK_S)
        except TimeoutError:
            if await socket.is_connected():
                alive = time.monotonic()
            elif time.monotonic() - alive > _LONGEST_OUTAGE_S:
                seconds = int(time.monotonic() - alive)
                raise NotConnectedError(seconds=seconds) from None


async def _answer(socket: SocketModeClient, envelope: SocketModeRequest) -> None:
    try:
        await socket.send_socket_mode_response(
            SocketModeResponse(envelope_id=envelope.envelope_id)
        )
    except (aiohttp.ClientError, ConnectionError) as exc:
        # Slack sends it again over the next connection, and its key is known.
        _log.info("envelope %s was not answered: %s", envelope.envelope_id, exc)
