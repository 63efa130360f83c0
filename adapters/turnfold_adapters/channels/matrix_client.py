"""One HTTP request per call, over matrix-nio. Importing this needs matrix-nio.

nio builds the requests (`nio.Api`) and owns the connection; `AsyncClient.send` is its
door without a retry loop. Two layers below it repeat on their own, and both are off:

- nio's `_send` repeats on 429 and on time-outs, by default for ever. It is not used
  here, and the limits are 0 in case nio ever reaches for it.
- aiohttp repeats a PUT once when the connection breaks, because PUT is idempotent in
  HTTP. It does so only for its own exceptions, so a middleware turns those into
  `RequestLostError`; the same middleware keeps it from following redirects.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import nio  # type: ignore[import-untyped]  # ships no types
from attrs import evolve

from turnfold.enums import FailureClass
from turnfold.ports.channel import Outcome, Rejected, Unknown
from turnfold_adapters.channels.matrix_outcomes import (
    Answer,
    RefusedError,
    parse_body,
    raise_for,
    refused,
)

Request = tuple[str, str] | tuple[str, str, str]  # method, path[, body], as nio.Api

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RequestLostError(aiohttp.ClientError):
    """The connection broke when the request may already have been on the wire."""


class RedirectedError(aiohttp.ClientError):
    """The address answers with a redirect. Following it would be a second request."""


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp middleware: no silent repetition, no redirect."""
    try:
        response = await handler(request)
    except aiohttp.ClientConnectorError:
        raise  # never connected; aiohttp does not repeat these
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise RequestLostError(str(exc) or type(exc).__name__) from exc
    if response.status in _REDIRECTS:
        status, target = response.status, response.headers.get("Location", "")
        response.close()
        message = f"HTTP {status} to {target}; give the homeserver's own address"
        raise RedirectedError(message)
    return response


# The first exception in the chain of causes that is in one of these decides. Any
# aiohttp error outside of connecting leaves the outcome of the request unknown.
_CONNECTING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    ConnectionRefusedError,  # never raised by a connected socket
)
TRANSPORT = (aiohttp.ClientError, TimeoutError, OSError)


def classify(exception: BaseException) -> Outcome | None:
    """The meaning of an exception: `Rejected` only if the request cannot have been sent.

    Walks the causes (`raise .. from ..`) from the outermost inwards and stops at the
    first known one. An implicit context is never proof of "not sent": a wrapper that
    failed to connect, tried again and timed out has the first failure as its context.
    None for a BaseException that is no `Exception`, such as a cancellation.
    """
    if not isinstance(exception, Exception):
        return None
    seen: set[int] = set()
    current: BaseException | None = exception
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        verdict = _verdict(current)
        if verdict is not None:
            return verdict
        current = current.__cause__
    return Unknown(cause=type(exception).__name__, detail=_text(exception))


def _verdict(exception: BaseException) -> Outcome | None:
    if isinstance(exception, RefusedError):
        return exception.rejected
    if isinstance(exception, _CONNECTING):
        return Rejected(failure=FailureClass.NOT_CONNECTED, detail=_text(exception))
    if isinstance(exception, nio.LocalProtocolError):
        return Rejected(failure=FailureClass.AUTH, detail=_text(exception))
    if isinstance(exception, TRANSPORT):
        return Unknown(cause=type(exception).__name__, detail=_text(exception))
    return None


def _text(exception: BaseException) -> str:
    return (str(exception) or type(exception).__name__)[:500]


class MatrixClient:
    """A logged-in device. Times are in ms. It owns a connection pool, so close it."""

    def __init__(
        self,
        *,
        homeserver: str,
        user_id: str,
        device_id: str,
        token: str | None,
        password: str | None,
        timeout_ms: int,
        connect_timeout_ms: int = 10_000,
    ) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self._password = password
        self._timeout_ms = timeout_ms
        self._connect_timeout_ms = connect_timeout_ms
        self._known = False  # has the server confirmed user and device?
        self._entering = asyncio.Lock()
        config = nio.AsyncClientConfig(
            max_limit_exceeded=0, max_timeouts=0, encryption_enabled=False
        )
        self._nio = nio.AsyncClient(
            homeserver.rstrip("/"), user_id, device_id, config=config
        )
        self._nio.access_token = token or ""

    async def close(self) -> None:
        await self._nio.close()

    async def ready(self) -> None:
        """Log in if necessary, and check once that the token belongs to this user and
        device.

        A token of another user would make the bot answer itself and a look-up miss
        its own messages; one of another device has another scope for keys. Raises
        `RefusedError` or a transport error.
        """
        async with self._entering:
            if not self._nio.access_token:
                await self._login()
            if not self._known:
                await self._check_identity()

    async def put_event(
        self, room_id: str, kind: str, content: dict[str, Any], txn_id: str
    ) -> Answer:
        """One PUT of an event. Raises transport errors; logs in before if necessary."""
        await self.ready()
        return await self.call(nio.Api.room_send("", room_id, kind, content, txn_id))

    async def upload(
        self, name: str, data: bytes, mime: str, *, timeout_ms: int
    ) -> str:
        """Upload a file and return its mxc address."""
        body = await self.ask(
            nio.Api.upload("", name or None),
            "upload",
            data=data,
            content_type=mime,
            timeout_ms=timeout_ms,
        )
        uri = body.get("content_uri")
        if not isinstance(uri, str) or not uri:
            raise refused("upload", FailureClass.TRANSIENT, "no content_uri")
        return uri

    async def is_encrypted(self, room_id: str) -> bool:
        request = nio.Api.room_get_state_event("", room_id, "m.room.encryption")
        try:
            await self.ask(request, "is the room encrypted")
        except RefusedError as exc:
            if exc.rejected.failure is FailureClass.TARGET_GONE:
                return False  # 404: there is no such state
            raise
        return True

    async def call(
        self,
        request: Request,
        *,
        data: bytes | None = None,
        content_type: str = "application/json",
        timeout_ms: int | None = None,
    ) -> Answer:
        """Make one HTTP request. Raises the errors of aiohttp; see `classify`."""
        method, path = request[0], _without_token(request[1])
        body = request[2].encode() if len(request) == 3 else data
        headers = {"Content-Type": content_type}
        if self._nio.access_token:
            headers["Authorization"] = f"Bearer {self._nio.access_token}"
        self._open()
        response = await self._nio.send(
            method, path, body, headers, timeout=self._timeout(timeout_ms)
        )
        async with response:
            raw = await response.read()
        answer = Answer(
            status=response.status,
            body=parse_body(raw),
            retry_after=response.headers.get("Retry-After"),
        )
        return self._after(answer)

    async def ask(
        self,
        request: Request,
        what: str,
        *,
        data: bytes | None = None,
        content_type: str = "application/json",
        timeout_ms: int | None = None,
    ) -> Mapping[str, Any]:
        """`call` for invisible requests: the body, or `RefusedError` unless 2xx."""
        await self.ready()
        answer = await self.call(
            request, data=data, content_type=content_type, timeout_ms=timeout_ms
        )
        raise_for(answer, what)
        return answer.body

    def _after(self, answer: Answer) -> Answer:
        """With a password, log in again after a refused token."""
        if answer.status != 401 or self._password is None or not answer.errcode:
            return answer
        self._nio.access_token = ""
        return evolve(answer, renewing=True)

    def _timeout(self, timeout_ms: int | None) -> aiohttp.ClientTimeout:
        total_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        return aiohttp.ClientTimeout(
            total=total_ms / 1000, sock_connect=self._connect_timeout_ms / 1000
        )

    def _open(self) -> None:
        if self._nio.client_session is None:
            self._nio.client_session = aiohttp.ClientSession(middlewares=(_once,))

    async def _login(self) -> None:
        if self._password is None:
            raise refused("log in", FailureClass.AUTH, "no token and no password")
        answer = await self.call(
            nio.Api.login(self.user_id, self._password, device_id=self.device_id)
        )
        if answer.status == 403:
            raise refused("log in", FailureClass.AUTH, answer.detail)
        raise_for(answer, "log in")
        self._nio.access_token = str(answer.body.get("access_token") or "")
        self._known = False

    async def _check_identity(self) -> None:
        answer = await self.call(nio.Api.whoami(""))
        raise_for(answer, "who am I")
        for name, ours in (("user_id", self.user_id), ("device_id", self.device_id)):
            theirs = answer.body.get(name)
            # An application service has no device of its own.
            if theirs != ours and not (name == "device_id" and theirs is None):
                problem = f"the token is for {name} {theirs}, not {ours}"
                raise refused("who am I", FailureClass.AUTH, problem)
        self._known = True


def _without_token(path: str) -> str:
    """nio.Api puts the token into the query, where proxies log it; we use a header."""
    parts = urlsplit(path)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = urlencode([(key, value) for key, value in query if key != "access_token"])
    return f"{parts.path}?{kept}" if kept else parts.path
