"""Outbound webhooks: one signed POST per part.

Signed as Standard Webhooks say (`webhook-id`, `webhook-timestamp`,
`webhook-signature`). The id is the part's idempotency key, the same on every attempt,
and is also sent as `Idempotency-Key`. Only the embedder knows how the receiver treats
that key, so the delivery classes are arguments; without them a webhook is `blind`.

One `send` is one request: no retries, no redirects, no second try on another
connection. The shapes of requests and answers are documented in `webhook_wire`, the
outcomes of exceptions in `webhook_errors`. `webhook_wire` also has the table of
statuses:

    2xx with an id     accepted         2xx without id        unknown
    2xx {"ok": false}  invalid_payload
    400 422 other 4xx  invalid_payload  401 407   auth     402 403 451     permission
    404 405 421 423 425 307  transient  410 301 308   target_gone   413     too_long
    429, 503 + Retry-After   rate_limited
    409                accepted if it names the first id; invalid_payload if it says
                       key_reused; else unknown (in progress)
    408 499 5xx, other 3xx, anything lost after the connect   unknown
    no connection              not_connected
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from attrs import evolve

from turnfold.arguments import Line, Some, Url, Word, checked
from turnfold.enums import DeliveryClass, FailureClass, GateScope, Kind
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.messages import LARGE, Native, Payload, Route, Text, files_of
from turnfold.ports.channel import (
    KINDS,
    Absent,
    Attempt,
    CannotTell,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    PlanContext,
    PlannedPart,
    Receipt,
    Rejected,
    Verdict,
)
from turnfold_adapters import text
from turnfold_adapters.channels import webhook_errors, webhook_wire
from turnfold_adapters.channels.secrets import Secrets, quiet, unlogged
from turnfold_adapters.channels.webhook_wire import Reply, ReplyRules

if TYPE_CHECKING:
    import ssl

    import httpx


# An answer is an id and a few flags; a larger one is not kept in memory.
CAPTION_MOST = 1 << 20  # characters; the receiver may have a limit, too
REPLY_BYTES = 256 * 1024


def _with_time(outcome: Outcome, attempt: Attempt) -> Outcome:
    """Add the signed time to a refusal of the signature: the receiver may refuse the
    signature because of its time."""
    if not isinstance(outcome, Rejected) or outcome.failure is not FailureClass.AUTH:
        return outcome
    when = datetime.fromtimestamp(attempt.at_ms // 1000, UTC).isoformat()
    return evolve(outcome, detail=f"signed at {when}; {outcome.detail}")


class WebhookChannel:
    """Sends parts as JSON to one URL.

    `secret`: Standard Webhooks secret ("whsec_" and base64, or plain base64); None
    sends unsigned. `classes`, `key_window_ms`, `settle_ms`: the receiver's guarantees,
    see `PartClass`; LOOKUP needs `lookup_url`, called as GET `lookup_url`?key=...
    `message_url`: the address for changes of a message, with `{id}` in the place of its
    id; EDITABLE needs it. PUT brings the part that the message shows from then on,
    DELETE takes the message away. `limit`: the longest text of the receiver, in
    characters, at least 64; longer ones are split by their format
    (`turnfold_adapters.text`). `gives_ids=False`: the receiver gives no ids and any 2xx
    counts as accepted. `id_header`: the header with the id, if the body has none.
    `headers`: sent with every request (authorisation). `connect_timeout_ms` and
    `timeout_ms` (the whole request) bound one attempt; keep the second under the
    kernel's attempt deadline (60 s by default). `client`: an httpx.AsyncClient to use
    in the place of an own one; the channel does not close it.

    Raises InvalidInputError for arguments that contradict each other and
    MissingExtraError when the extra `turnfold[webhook]` is not installed.
    """

    @checked
    def __init__(
        self,
        url: Url,
        *,
        secret: str | None = None,
        classes: Collection[DeliveryClass | str] = (),
        key_window_ms: int | None = None,
        settle_ms: int = 120_000,
        lookup_url: Url | None = None,
        message_url: Url | None = None,
        limit: int | None = None,
        gives_ids: bool = True,
        id_header: Word = webhook_wire.ID_HEADER,
        headers: Mapping[Word, Line] | None = None,
        connect_timeout_ms: Some = 10_000,
        timeout_ms: Some = 45_000,
        retry_default_ms: int = webhook_wire.RETRY_DEFAULT_MS,
        retry_cap_ms: int = webhook_wire.RETRY_CAP_MS,
        rate_scope: GateScope = GateScope.ACCOUNT,
        client: "httpx.AsyncClient | None" = None,
    ) -> None:
        self._httpx = _load_httpx()
        self._url = self._checked_url(url, "url")
        self._lookup_url = lookup_url and self._checked_url(lookup_url, "lookup_url")
        self._message_url = message_url and self._checked_url(
            message_url, "message_url"
        )
        self._signer = signer(secret)
        self._headers = {n.lower(): v for n, v in (headers or {}).items()}
        self._secrets = self._known_secrets(secret)
        self._timeout_s = timeout_ms / 1000
        self._rules = ReplyRules(
            gives_ids=gives_ids,
            id_header=id_header,
            retry_default_ms=retry_default_ms,
            retry_cap_ms=retry_cap_ms,
            rate_scope=rate_scope,
        )
        text.check(limit, "chars")
        offered = self._checked_classes(classes)
        self._capabilities = Capabilities(
            parts=_parts(offered, key_window_ms, settle_ms),
            limit=limit,
            gives_ids=gives_ids,
            marks=True,
            captions=CAPTION_MOST,
            native_files=True,
        )
        self._owned = client is None
        self._client = client or self._own_client(connect_timeout_ms, reuse=offered)

    def _known_secrets(self, secret: str | None) -> Secrets:
        urls = filter(None, (self._url, self._lookup_url, self._message_url))
        return Secrets(self._headers, urls, ((secret or "").removeprefix("whsec_"),))

    def _checked_url(self, url: str, name: str) -> str:
        try:
            parsed = self._httpx.URL(url)
        except (self._httpx.InvalidURL, TypeError) as exc:
            raise InvalidInputError(field=name, problem=str(exc)) from exc
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidInputError(field=name, problem="expected an http(s) URL")
        return url

    def _checked_classes(
        self, classes: Collection[DeliveryClass | str]
    ) -> tuple[DeliveryClass, ...]:
        try:
            offered = tuple(dict.fromkeys(DeliveryClass(c) for c in classes))
        except ValueError as exc:
            raise InvalidInputError(field="classes", problem=str(exc)) from exc
        if DeliveryClass.LOOKUP in offered and not self._lookup_url:
            problem = "the class lookup needs a lookup_url"
            raise InvalidInputError(field="classes", problem=problem)
        if DeliveryClass.EDITABLE in offered and "{id}" not in (
            self._message_url or ""
        ):
            problem = "the class editable needs a message_url with {id}"
            raise InvalidInputError(field="classes", problem=problem)
        return offered

    def _own_client(
        self, connect_ms: int, *, reuse: tuple[DeliveryClass, ...]
    ) -> "httpx.AsyncClient":
        # If the receiver closes a kept connection during a write, the outcome is
        # unknown. With a delivery class that costs a look-up or a repeat, but without
        # one a parked message: so a blind receiver gets a new connection each time.
        limits = (
            self._httpx.Limits()
            if reuse
            else self._httpx.Limits(max_keepalive_connections=0)
        )
        client: httpx.AsyncClient = self._httpx.AsyncClient(
            trust_env=False,  # a proxy of the environment would get the token
            limits=limits,
            verify=_tls(),
            follow_redirects=False,
            timeout=self._httpx.Timeout(self._timeout_s, connect=connect_ms / 1000),
        )
        return client

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Long texts in pieces of their own format, other payloads whole."""
        del route, kind, context
        return text.plan(payload, self._capabilities.limit, "chars")

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """POST the part once. Cancellation passes through; the outcome is then unknown,
        as for every failure after the connect."""
        return await self._bring("POST", self._url, part, key, attempt)

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        """PUT the part in the place of a message. A 404 or 410 that says
        `"found": false` means that the message is gone."""
        return await self._bring("PUT", self._one(handle), part, key, attempt, handle)

    async def retract(self, handle: Receipt, route: Route) -> None:
        """DELETE a message. Raises the errors of httpx."""
        del route
        await self._request("DELETE", self._one(handle), self._headers)

    def _one(self, handle: Receipt) -> str:
        """The address for changes of a message."""
        return (self._message_url or "").replace("{id}", quote(handle.ids[0], safe=""))

    async def _bring(
        self,
        method: str,
        url: str,
        part: Part,
        key: str,
        attempt: Attempt,
        edited: Receipt | None = None,
    ) -> Outcome:
        try:
            body = await self._body(part, key, attempt)
        except OSError as exc:
            # Only a File by path gets here: its bytes are lost for good.
            detail = f"file {part.payload!r}: {exc}"
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=detail)
        sign = partial(self._signed, body, key, attempt)
        headers = await asyncio.to_thread(sign) if len(body) > LARGE else sign()
        try:
            reply = await self._request(method, url, headers, content=body)
        except (self._httpx.HTTPError, self._httpx.StreamError, OSError) as exc:
            outcome = self.classify(exc)
            if outcome is None:
                raise
            return outcome
        if edited is not None and webhook_wire.is_gone(reply):
            return Rejected(failure=FailureClass.HANDLE_GONE)
        outcome = webhook_wire.outcome_of(reply, self._rules, now_ms=_now_ms())
        return self._secrets.cut_from(_with_time(outcome, attempt))

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        """Ask `lookup_url` for the key of the part.

        200 with an id is Found; a 404, or a 200 with `"found": false` in its JSON, is
        Absent; anything else is CannotTell, also a 404 that does not say so, because
        proxies and half-deployed receivers answer 404 for things that exist. The key
        names one part exactly, so `since_ms` is not needed to tell parts apart.
        """
        del since_ms
        if not self._lookup_url:
            return CannotTell(detail="no lookup_url")
        url = self._httpx.URL(self._lookup_url).copy_merge_params({"key": part.key})
        try:
            reply = await self._request("GET", url, self._headers)
        except (self._httpx.HTTPError, self._httpx.StreamError, OSError) as exc:
            return self._secrets.cut_from(_unanswered(exc))
        return self._secrets.cut_from(_verdict(reply, part, self._rules))

    def classify(self, exception: BaseException) -> Outcome | None:
        """See `webhook_errors.classify`."""
        return self._secrets.cut_from(webhook_errors.classify(exception))

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        if self._owned:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _body(self, part: Part, key: str, attempt: Attempt) -> bytes:
        if _is_long(part.payload):  # reading and base64 would block the loop
            return await asyncio.to_thread(
                webhook_wire.request_body, part, key, attempt
            )
        return webhook_wire.request_body(part, key, attempt)

    def _signed(self, body: bytes, key: str, attempt: Attempt) -> dict[str, str]:
        headers = {
            **self._headers,
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            "idempotency-key": key,
            "webhook-id": key,
            "webhook-timestamp": str(attempt.at_ms // 1000),
        }
        if self._signer is not None:
            when = datetime.fromtimestamp(attempt.at_ms // 1000, UTC)
            headers["webhook-signature"] = self._signer.sign(key, when, body.decode())
        return headers

    async def _request(
        self,
        method: str,
        url: "httpx.URL | str",
        headers: Mapping[str, str],
        *,
        content: bytes | None = None,
    ) -> Reply:
        request = self._client.build_request(
            method, url, headers=dict(headers), content=content
        )
        # httpx bounds each read, so a receiver that drips bytes could hold the call for
        # ever.
        async with asyncio.timeout(self._timeout_s):
            with unlogged():
                response = await self._client.send(
                    request, stream=True, follow_redirects=False
                )
            try:
                body = await _bounded(response)
            finally:
                await response.aclose()
        headers_low = {name.lower(): value for name, value in response.headers.items()}
        return Reply(status=response.status_code, headers=headers_low, body=body)


def _parts(
    classes: tuple[DeliveryClass, ...], key_window_ms: int | None, settle_ms: int
) -> dict[str, PartClass]:
    offer = PartClass(classes=classes, key_window_ms=key_window_ms, settle_ms=settle_ms)
    return dict.fromkeys(KINDS, offer)


def _is_long(payload: Payload) -> bool:
    if isinstance(payload, Text):
        return len(payload.text) > LARGE
    large = isinstance(payload, Native) and payload.large
    return large or bool(files_of(payload))


async def _bounded(response: "httpx.Response") -> bytes | None:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return None  # not requested, and unpacking has no bound
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > REPLY_BYTES:
            return None
    return bytes(body)


def _unanswered(exc: Exception) -> CannotTell:
    """No answer: a look-up may always be repeated."""
    meant = webhook_errors.classify(exc)
    down = isinstance(meant, Rejected)
    failure = FailureClass.NOT_CONNECTED if down else FailureClass.TRANSIENT
    return CannotTell(detail=f"{type(exc).__name__}: {exc}", failure=failure)


def _busy(reply: Reply, rules: ReplyRules) -> CannotTell:
    """The verdict without a clear answer. A failure that says nothing about the message
    is passed on."""
    detail = f"HTTP {reply.status} without a clear answer"
    meant = webhook_wire.outcome_of(reply, rules, now_ms=_now_ms())
    held = (FailureClass.RATE_LIMITED, FailureClass.AUTH)
    if isinstance(meant, Rejected) and meant.failure in held:
        return CannotTell(
            detail=detail,
            failure=meant.failure,
            retry_after_ms=meant.retry_after_ms,
            scope=meant.scope,
        )
    failure = FailureClass.TRANSIENT if reply.status >= 500 else None
    return CannotTell(detail=detail, failure=failure)


def _verdict(reply: Reply, part: Part, rules: ReplyRules) -> Verdict:
    shape = webhook_wire.json_object(reply.body)
    about = {"key": part.key, "conversation": part.route.conversation}
    if any(shape.get(name, value) != value for name, value in about.items()):
        return CannotTell(detail="the look-up answered about another message")
    if shape.get("found") is False and reply.status in (200, 404):
        return Absent()
    receipt_id = webhook_wire.normal_id(shape.get("id"))
    if reply.status == 200 and receipt_id is not None:
        thread = webhook_wire.normal_id(shape.get("thread"))
        return Found(receipt=Receipt(ids=(receipt_id,), thread=thread))
    return _busy(reply, rules)


def signer(secret: str | None) -> Any:
    """A `standardwebhooks.Webhook` for the secret; None stays None.

    Raises InvalidInputError for a secret that is not base64, which the library would
    quietly read as another secret, and MissingExtraError without the extra.
    """
    if secret is None:
        return None
    try:
        from standardwebhooks import Webhook  # noqa: PLC0415  an extra
    except ImportError as exc:
        raise _missing("standardwebhooks") from exc
    encoded = secret.removeprefix("whsec_")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(field="secret", problem="not base64") from exc
    if not raw:
        raise InvalidInputError(field="secret", problem="empty")
    return Webhook(raw)


def _load_httpx() -> Any:
    try:
        import httpx  # noqa: PLC0415  an extra: this module imports without it
    except ImportError as exc:
        raise _missing("httpx") from exc
    quiet("httpx")
    return httpx


@cache
def _tls() -> "ssl.SSLContext":
    """One TLS context for all channels: reading the root certificates takes longer (25
    ms) than the rest of making a channel."""
    context: ssl.SSLContext = _load_httpx().create_ssl_context()
    return context


def _missing(package: str) -> MissingExtraError:
    return MissingExtraError(extra="webhook", package=package)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
