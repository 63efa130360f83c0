"""An existing Slack Bolt app (slack_bolt, async), with all its listeners, made durable.

    app = AsyncApp(token=TOKEN)
    @app.message(...)                                             # as ever
    asyncio.run(bolt.run(app, "bot.db", app_token=APP_TOKEN))     # instead of a handler

Bolt acknowledges an event before its listener runs, so a process that dies then has
lost it. Here an event is durable before the acknowledgement, and becomes a turn. The
turn gives the event to the app, and its listeners run. While they run, their messages
are collected and not sent: together they are the answer of the turn. They leave through
the outbox once the listeners have returned. If the process dies before that, the
listeners run again, and no reader has seen any message. After that they never run
again.

- Collected is chat.postMessage, by `say` or by the `client` of the listener. Until such
  a message leaves it has a time stamp that begins with zeros. It may be updated or
  deleted: the collected message changes. It has no thread, no permalink, no reactions.
- Every other call goes out at once, as ever: uploads, ephemeral messages, updates of
  messages of the past, reactions, whatever `app.client` sends. If a run dies, such a
  call may be made again by the next run.
- A listener that raises is run again with a pause, by the settings, unless the app has
  an error handler of its own (`@app.error`): then that handler decides.
- Commands, buttons, shortcuts and views are not events: Slack wants their answer within
  three seconds, and Bolt handles them as ever. So it does with an event of a `Function`.
- The messages of a lazy listener go out at once.
- One token: apps that many workspaces install (`oauth_settings`, `authorize`) are refused.

`durable` alone is for a web server: it makes an app durable whose server you start
yourself, once the kernel is open. The bridge reaches into a private list of the app, to
stand behind the check of the signature and before the authorization.
"""

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from attrs import define, evolve, field
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.listener.async_listener_error_handler import (
    AsyncDefaultListenerErrorHandler,
    AsyncListenerErrorHandler,
)
from slack_bolt.listener.asyncio_runner import AsyncioListenerRunner
from slack_bolt.middleware.async_middleware import AsyncMiddleware
from slack_bolt.middleware.authorization.async_authorization import AsyncAuthorization
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackRequestError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from turnfold import Kernel, Settings
from turnfold.api.handle import TurnHandle
from turnfold.arguments import Id, Word, checked
from turnfold.enums import BlindPolicy
from turnfold.errors import ChannelError, InvalidInputError
from turnfold.inbound import Inbound
from turnfold.messages import Native
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.slack_inbound import Names, event_of, inbound_of

_POST, _UPDATE, _DELETE = "chat.postMessage", "chat.update", "chat.delete"
_PENDING = "0000000000."
_NOTHING_SENT = "nothing_sent"
_SERVER_ERROR = 500
_OF_ONE_EVENT = ("event_id", "event_time", "event_context")
_FUNCTION = "function_executed"  # its token lives for minutes only

Next = Callable[[], Awaitable[BoltResponse]]


@define(kw_only=True, slots=False)
class NotHandledError(ChannelError):
    """The app could not handle an event: the turn is run again."""

    code = "channel.bolt_not_handled"
    template = "the app did not handle the event: {detail}"
    detail: str


@define
class _Collected:
    """The messages of one run, by the time stamps that the listeners hold."""

    messages: dict[str, dict[str, Any]] = field(factory=dict)
    last: int = 0
    error: BaseException | None = None
    told: bool = False  # the app's own error handler was called
    over: bool = False

    def answer(self, method: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a call; None: the call is not collected."""
        if self.over:
            return None
        if method == _POST:
            return self._post(given)
        mine = str(given.get("ts"))
        if mine not in self.messages:
            return None
        if method == _UPDATE:
            fresh = {k: v for k, v in given.items() if k not in ("channel", "ts")}
            self.messages[mine].update(fresh)
            return self._shown(mine)
        if method == _DELETE:
            del self.messages[mine]
            return {"ok": True, "ts": mine, "channel": given.get("channel")}
        problem = f"{method} of a message that has not left yet"
        raise SlackRequestError(problem)

    def _post(self, given: dict[str, Any]) -> dict[str, Any]:
        if str(given.get("thread_ts", "")).startswith(_PENDING):
            problem = "a message that has not left yet has no thread"
            raise SlackRequestError(problem)
        self.last += 1
        ts = f"{_PENDING}{self.last:06d}"
        self.messages[ts] = given
        return self._shown(ts)

    def _shown(self, ts: str) -> dict[str, Any]:
        given = self.messages[ts]
        message = {"type": "message", "ts": ts, "text": given.get("text", "")}
        channel = given.get("channel")
        return {"ok": True, "channel": channel, "ts": ts, "message": message}


_collected: ContextVar[_Collected | None] = ContextVar("_collected", default=None)


class _CollectingClient(AsyncWebClient):
    """The client of a run. It collects the messages that the listeners post."""

    collected: _Collected

    async def api_call(self, api_method: str, **given: Any) -> AsyncSlackResponse:
        sent = given.get("json") or given.get("data") or given.get("params") or {}
        answer = None
        if isinstance(sent, dict):
            answer = self.collected.answer(api_method, _jsonable(sent))
        if answer is None:
            return await super().api_call(api_method, **given)
        return AsyncSlackResponse(
            client=self,
            http_verb="POST",
            api_url=f"{self.base_url}{api_method}",
            req_args={},
            data=answer,
            headers={},
            status_code=200,
        )


def _collecting(client: AsyncWebClient, collected: _Collected) -> _CollectingClient:
    made = _CollectingClient(
        client.token,
        client.base_url,
        client.timeout,
        client.ssl,
        client.proxy,
        client.session,
        client.trust_env_in_session,
        client.headers,
        logger=client.logger,
        retry_handlers=client.retry_handlers,
    )
    made.proxy, made.default_params = client.proxy, client.default_params
    made.collected = collected
    return made


def _jsonable(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps({k: v for k, v in given.items() if v is not None}, default=str)
    )
    return found


class _Intake(AsyncMiddleware):
    """Accepts an event and acknowledges it. In a turn it passes the event to the
    listeners."""

    def __init__(self, kernel: Kernel, channel: SlackChannel, names: Names) -> None:
        self._kernel, self._channel, self._names = kernel, channel, names

    async def async_process(
        self,
        *,
        req: AsyncBoltRequest,
        resp: BoltResponse,
        next: Next,  # noqa: A002  Bolt's own name
    ) -> BoltResponse:
        del resp
        collected = _collected.get()
        if collected is not None and not collected.over:
            req.context["client"] = _collecting(req.context.client, collected)
            return await next()
        if not _is_event(req.body):
            return await next()
        if not await self._channel.is_ours(req.body):
            await self._kernel.accept(_inbound(req.body, self._names))
        return BoltResponse(status=200, body="")


def _is_event(body: Mapping[str, Any]) -> bool:
    a_function = event_of(body).get("type") == _FUNCTION
    return body.get("type") == "event_callback" and not a_function


def _inbound(body: Mapping[str, Any], names: Names) -> Inbound:
    """The listeners of `message` and of `app_mention` are not the same, so here the
    events of one gesture are two messages, unless they are of one type. Two of one type
    differ in what `_told_apart` puts back."""
    inbound = inbound_of(body, names)
    kind = event_of(body).get("type")
    key = inbound.key if inbound.message_id else None
    edits = inbound.edits and f"{kind}:{inbound.edits}"
    kept = {**body, "text": inbound.text}
    if key is None:
        key = str(body.get("event_id") or "") or inbound.key
        return evolve(inbound, key=key, edits=edits, body=kept)
    event = {k: v for k, v in event_of(body).items() if k not in ("ts", "event_ts")}
    kept = {k: v for k, v in kept.items() if k not in _OF_ONE_EVENT}
    ordered = json.loads(json.dumps({**kept, "event": event}, sort_keys=True))
    return evolve(inbound, key=f"{kind}:{key}", body=ordered)


def _told_apart(inbound: Inbound) -> dict[str, Any]:
    """The payload for the listeners, with the time stamps of the event that came
    first."""
    body = {k: v for k, v in inbound.body.items() if k != "text"}
    ts = inbound.message_id
    if ts is None or "event_id" in body:
        return body
    event = {**event_of(body), "ts": ts, "event_ts": ts}
    when = (inbound.sent_at or 0) // 1000
    return {**body, "event": event, "event_id": inbound.key, "event_time": when}


class _Noting(AsyncListenerErrorHandler):
    """Keeps the error of a listener for the turn, or calls the app's own error
    handler."""

    def __init__(self, real: AsyncListenerErrorHandler, collected: _Collected) -> None:
        self._real, self._collected = real, collected

    async def handle(
        self, error: Exception, request: AsyncBoltRequest, response: BoltResponse | None
    ) -> None:
        if isinstance(self._real, AsyncDefaultListenerErrorHandler):
            self._collected.error = error
            return
        await self._real.handle(error, request, response)
        self._collected.told = True


def _wait_for_listeners(runner: AsyncioListenerRunner) -> None:
    """In a turn, wait for each listener. Elsewhere nothing changes."""
    real = runner.run

    async def run(**given: Any) -> BoltResponse | None:
        collected = _collected.get()
        if collected is None or collected.over:
            return await real(**given)
        waiting = copy.copy(runner)
        waiting.process_before_response = True
        waiting.listener_error_handler = _Noting(
            runner.listener_error_handler, collected
        )
        return await AsyncioListenerRunner.run(waiting, **given)

    runner.run = run  # type: ignore[method-assign, assignment]  # Bolt has no hook for it; it names its arguments


@checked
def durable(
    app: AsyncApp,
    kernel: Kernel,
    *,
    on_unknown: BlindPolicy | str | Mapping[str, BlindPolicy | str] = "resend_marked",
    name: Id = "slack",
    account: Id = "default",
    **options: Any,
) -> SlackChannel:
    """Attach an app to a kernel: its bot as a channel, its listeners as the handler of
    turns. `options`: of SlackChannel. Start the app's server once the kernel is open; an event
    that comes before is answered with an error, and Slack sends it again. Raises
    InvalidInputError for an app without a token of its own."""
    token = app.client.token
    if not token:
        problem = "give it the token of the bot; apps of many workspaces are not served"
        raise InvalidInputError(field="app", problem=problem)
    channel = SlackChannel(
        token, base_url=app.client.base_url, name=name, account=account, **options
    )
    kernel.attach(name, channel, account=account, on_unknown=on_unknown)
    intake = _Intake(kernel, channel, Names(channel=name, account=account))
    chain = app._async_middleware_list  # noqa: SLF001  no other place before the authorization of an app that exists
    first = next(
        i for i, one in enumerate(chain) if isinstance(one, AsyncAuthorization)
    )
    chain.insert(first, intake)
    _wait_for_listeners(app.listener_runner)

    async def handle(turn: TurnHandle) -> None:
        await _run(app, turn)

    kernel.on_turn(handle)

    return channel


async def _run(app: AsyncApp, turn: TurnHandle) -> None:
    """One run of the listeners, and the answer that they posted."""
    payload = _told_apart(turn.inbound)
    request = AsyncBoltRequest(body=payload, mode="socket_mode")
    collected = _Collected()
    token = _collected.set(collected)
    try:
        response = await app.async_dispatch(request)
    finally:
        collected.over = True
        _collected.reset(token)
    if collected.error is not None:
        raise collected.error
    if request.context.authorize_result is None:
        raise NotHandledError(detail="Slack did not authorize it")
    if response.status >= _SERVER_ERROR and not collected.told:
        raise NotHandledError(detail=f"status {response.status}")
    if collected.messages:
        await turn.reply(*(Native(one) for one in collected.messages.values()))
    else:
        await turn.silent(_NOTHING_SENT)


@checked
def socket_mode(
    app: AsyncApp, app_token: Word
) -> Callable[[str | None], AsyncGenerator[None, None]]:
    """A source that listens by Bolt's own Socket Mode, while the kernel works. The app
    accepts the events itself, so the source yields no messages."""

    async def listen(cursor: str | None) -> AsyncGenerator[None, None]:
        del cursor
        handler = AsyncSocketModeHandler(app, app_token)
        try:
            await handler.connect_async()  # type: ignore[no-untyped-call]  # Bolt's
            await asyncio.Event().wait()
            yield
        finally:
            await handler.close_async()  # type: ignore[no-untyped-call]  # Bolt's

    return listen


@checked
async def run(
    app: AsyncApp,
    store: Any,
    *,
    app_token: Word,
    name: Id = "slack",
    account: Id = "default",
    settings: Settings | None = None,
    **options: Any,
) -> None:
    """Serve an app by Socket Mode until SIGINT or SIGTERM, with a kernel on that store."""
    kernel = Kernel(store, settings=settings)
    durable(app, kernel, name=name, account=account, **options)
    kernel.source(name, socket_mode(app, app_token), account=account)
    await kernel.run()
