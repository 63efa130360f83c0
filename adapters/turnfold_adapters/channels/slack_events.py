"""Inbound messages by the Events API, for any web server of the gateway.

    receiver = channel.receiver(signing_secret)
    status, text = await receiver.receive(kernel.accept, headers, body)

Slack waits three seconds for a 200, and without one sends the event again, three times
(docs.slack.dev/apis/events-api). The 200 is sent once the message is durable.

    200  it is durable, or no message for us      401  no valid signature
    400  no JSON object                           503  the store or Slack says not now
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import evolve
from slack_sdk.signature import SignatureVerifier

from turnfold.errors import (
    BackPressureError,
    InvalidInputError,
    NotOpenError,
    StoreError,
)
from turnfold.inbound import Inbound, Unreadable
from turnfold.logs import lines
from turnfold_adapters.channels.slack_client import SlackClient
from turnfold_adapters.channels.slack_errors import RefusedError
from turnfold_adapters.channels.slack_inbound import Names, inbound_of, is_news, is_ours

_log = lines("turnfold.slack")
Accept = Callable[[Inbound | Unreadable], Awaitable[Any]]
Reply = tuple[int, str]
_NOT_NOW = (BackPressureError, NotOpenError, StoreError, RefusedError)


class EventsReceiver:
    """The receiving end of the Events API. `SlackChannel.receiver` makes it."""

    def __init__(self, signing_secret: str, client: SlackClient, names: Names) -> None:
        if not signing_secret.strip():
            raise InvalidInputError(field="signing_secret", problem="it is empty")
        self._verifier = SignatureVerifier(signing_secret)
        self._client, self._names = client, names

    async def receive(
        self, accept: Accept, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """The status and the text to answer with. `accept`: the kernel's."""
        if not self._is_signed(headers, body):
            return 401, "no valid signature"
        try:
            given = json.loads(body)
        except ValueError:
            given = None
        if not isinstance(given, dict):
            return 400, "no JSON object"
        if given.get("type") == "url_verification":
            return 200, str(given.get("challenge", ""))
        try:
            await self._take(accept, given)
        except _NOT_NOW as exc:
            _log.warning("an event was not taken (%s); Slack sends it again", exc)
            return 503, "not now"
        return 200, ""

    async def _take(self, accept: Accept, given: Mapping[str, Any]) -> None:
        who = await self._client.identity()
        if not is_news(given) or is_ours(given, who.ids):
            return
        names = evolve(self._names, ids=who.ids)
        try:
            await accept(inbound_of(given, names))
        except InvalidInputError as exc:
            await accept(
                Unreadable(
                    names.channel, account=names.account, raw=given, error=str(exc)
                )
            )

    def _is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        try:
            return bool(self._verifier.is_valid_request(body, dict(headers)))
        except ValueError:  # a time stamp that is no number
            return False
