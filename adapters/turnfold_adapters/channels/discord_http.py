"""discord.py's HTTP client with one request for each call. Importing this needs discord.py.

`discord.http.HTTPClient` knows the routes, the multipart form and the errors of
Discord. Its `request` also sends again, up to five times, on 429, 500, 502, 504, 524
and a reset connection, and it sleeps before a request that it expects to be limited.
Here `request` does none of that: the kernel gets the answer of Discord, and waits by
its own log. aiohttp repeats a request on a kept connection that breaks. So no
connection is kept: if Discord closed one during a write, the message would be in doubt,
too.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import aiohttp
from discord import File
from discord.errors import DiscordServerError, Forbidden, HTTPException, NotFound
from discord.http import HTTPClient, Route
from discord.utils import _to_json

from turnfold_adapters.channels.discord_errors import ForeignAnswerError, SlowDownError


class OneRequest(HTTPClient):
    """Times in seconds: `wait` for an answer, `upload` for one with files."""

    def __init__(
        self, token: str, base_url: str, *, connect: float, wait: float, upload: float
    ) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # a loop that it never asks
        self.token = token
        self._base = base_url
        self._connect, self._wait, self._upload = connect, wait, upload
        self._own: aiohttp.ClientSession | None = None

    async def request(
        self,
        route: Route,
        *,
        files: Sequence[File] | None = None,
        form: Iterable[dict[str, Any]] | None = None,
        **given: Any,
    ) -> Any:
        """One request. Raises HTTPException, or an error of the connection."""
        headers = {"User-Agent": self.user_agent, "Authorization": f"Bot {self.token}"}
        data: Any = None
        if "json" in given:
            headers["Content-Type"] = "application/json"
            data = _to_json(given["json"])
        if form:
            data = aiohttp.FormData(quote_fields=False)
            for field in form:
                data.add_field(**field)
        url = self._base + route.url.removeprefix(Route.BASE)
        limit = self._upload if files else self._wait
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=self._connect)
        facts = {"headers": headers, "data": data, "timeout": timeout}
        async with self._session().request(
            route.method, url, allow_redirects=False, **facts
        ) as response:
            return _read(response, _parsed(await response.read()))

    def _session(self) -> aiohttp.ClientSession:
        if self._own is None or self._own.closed:
            self._own = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._own

    async def close(self) -> None:
        if self._own is not None:
            await self._own.close()


def _parsed(raw: bytes) -> Any:
    """The JSON of an answer, else its text. The library believes the content type, and
    raises errors of its parser for an answer that was cut off."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _made(
    kind: type[HTTPException], response: aiohttp.ClientResponse, body: Any
) -> HTTPException:
    """An error of the library. It reads the fields of a body unseen, so a body that is
    not Discord's may break it."""
    try:
        return kind(response, body)
    except (AttributeError, LookupError, TypeError, ValueError):
        return ForeignAnswerError(response, str(body)[:300])


def _read(response: aiohttp.ClientResponse, body: Any) -> Any:
    """The JSON of a success. Raises HTTPException for any other answer."""
    if response.status == 429:
        raise _slow_down(response, body)
    if response.status == 204:
        return None
    if not isinstance(body, dict):
        raise ForeignAnswerError(response, str(body)[:300])
    if 200 <= response.status < 300:
        return body
    kinds = {403: Forbidden, 404: NotFound}
    kind = kinds.get(response.status, HTTPException)
    kind = DiscordServerError if response.status >= 500 else kind
    raise _made(kind, response, body)


def _slow_down(response: aiohttp.ClientResponse, body: Any) -> SlowDownError:
    """The scope: `global` is the whole bot; `user` and `shared` are this channel. An
    answer without JSON comes from the proxy before Discord, and holds back the whole
    bot."""
    said = body if isinstance(body, dict) else {}
    words = said.get("message")
    error = SlowDownError(response, words if isinstance(words, str) else str(body))
    header = response.headers.get("Retry-After", "")
    error.retry_after = said.get("retry_after")
    if error.retry_after is None and header.replace(".", "", 1).isdigit():
        error.retry_after = float(header)
    scope = response.headers.get("X-RateLimit-Scope")
    error.whole_account = bool(said.get("global")) or scope == "global" or not said
    return error
