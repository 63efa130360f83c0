"""Calls of Slack's Web API by slack_sdk: one request per call, a connection of its own
for each, no retry handler, no proxy of the environment."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
from attrs import frozen
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from turnfold.enums import GateScope
from turnfold_adapters.channels.slack_errors import (
    Answer,
    answer_of,
    classify,
    invisible,
    refusal,
)

_UPLOADED = 200


@frozen(kw_only=True)
class Times:
    """Time-outs in seconds."""

    connect: float
    request: float
    upload: float


@frozen(kw_only=True)
class Identity:
    """The bot's identity at Slack, by auth.test."""

    user: str
    bot: str

    @property
    def ids(self) -> frozenset[str]:
        return frozenset({self.user, self.bot} - {""})


class SlackClient:
    """The client of one token. It owns a connection pool, so close it. It may be used
    again after that."""

    def __init__(
        self, token: str, base_url: str, times: Times, proxy: str | None
    ) -> None:
        self._times = times
        # An empty list: the library's default repeats a lost request.
        self.web = AsyncWebClient(token, base_url, retry_handlers=[])
        self.web.proxy = proxy  # not the one of the environment
        self._identity: Identity | None = None

    async def close(self) -> None:
        session, self.web.session = self.web.session, None
        if session is not None:
            await session.close()

    async def call(self, method: str, given: Mapping[str, Any]) -> Answer:
        """One call with a JSON body. Raises the errors of aiohttp; a refusal of Slack
        is an answer."""
        return await self._answer(method, json=dict(given))

    async def ask(self, method: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """One invisible call that may be repeated. Returns the body of its answer.
        Raises RefusedError."""
        form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
        try:
            answer = await self._answer(method, data=form)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise invisible(classify(exc), method) from exc
        if not answer.ok:
            raise invisible(refusal(answer, GateScope.ACCOUNT), method)
        return answer.body

    async def identity(self) -> Identity:
        """Raises RefusedError."""
        if self._identity is None:
            said = await self.ask("auth.test", {})
            user, bot = said.get("user_id"), said.get("bot_id")
            self._identity = Identity(user=str(user or ""), bot=str(bot or ""))
        return self._identity

    async def upload(self, url: str, data: bytes) -> None:
        """Upload the bytes of a file to the address from Slack. Raises RefusedError."""
        session = self.open()
        timeout = aiohttp.ClientTimeout(
            total=self._times.upload, sock_connect=self._times.connect
        )
        try:
            async with session.post(
                url, data=data, timeout=timeout, proxy=self.web.proxy
            ) as done:
                status = done.status
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise invisible(classify(exc), "upload") from exc
        if status != _UPLOADED:
            raise invisible(refusal(Answer(status=status, body={})), "upload")

    async def _answer(self, method: str, **given: Any) -> Answer:
        self.open()
        try:
            response = await self.web.api_call(method, **given)
        except SlackApiError as exc:
            return answer_of(exc)
        except aiohttp.ClientError:
            raise
        except (AttributeError, ValueError, LookupError):
            # The library fails on an answer that does not come from Slack: plain text,
            # bytes, an unknown character set.
            return Answer(status=0, body={})
        data = response.data
        body = data if isinstance(data, dict) else {}
        return Answer(status=response.status_code, body=body)

    def open(self) -> aiohttp.ClientSession:
        """A connector of the running loop. Each call has a connection of its own: if
        Slack closed a kept one during a write, the message would be in doubt."""
        session = self.web.session
        if session is None or session.closed:
            timeout = aiohttp.ClientTimeout(
                total=self._times.request, sock_connect=self._times.connect
            )
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=256, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=timeout,
            )
            self.web.session = session
        return session
