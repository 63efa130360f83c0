"""Slack bots, by the Web API and slack_sdk.

Needs the extra `turnfold[slack]`; this module imports without it.

Slack documents no idempotency key. But a message carries metadata, and the history of
its conversation can be read. So a text and a native message are of class `lookup`: the
part's key is in `metadata.event_payload`, and a part in doubt is looked up by it. A
file is looked up by its name, which ends with a piece of the key; readers see its
title. A text is of class `editable` as well, for live replies: a placeholder, then
edits.

    text      chat.postMessage               file   files.getUploadURLExternal, the
    edit      chat.update                           upload, files.completeUploadExternal
    retract   chat.delete                    native {"method": ..., arguments}

Scopes: `chat:write`, `files:write` for files, and for look-ups `channels:history`,
`groups:history`, `im:history`, `mpim:history` as far as the bot is in such
conversations (and `im:write` where a route names a user). Without them a look-up cannot
tell, and the policy of the entry decides; `lookup=False` makes texts `editable` and
makes no look-ups. `slack_errors` has the table of errors.

When is a message acknowledged? A source of Socket Mode answers the envelope once the
message is durable; `receive` of the Events API does so with its 200. See
`slack_source` and `slack_events`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

from attrs import evolve

from turnfold.arguments import Id, Some, Url, Word, checked
from turnfold.enums import DeliveryClass, FailureClass, GateScope, Kind, PartAct
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.inbound import Inbound
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    Capabilities,
    Outcome,
    Part,
    PartClass,
    PlanContext,
    PlannedPart,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)
from turnfold_adapters.channels.payloads import bytes_of

OFFICIAL = "https://slack.com/api/"


class SlackChannel:
    """A Slack bot as a channel and as a source of messages.

    `token`: of the bot (xoxb-). `app_token`: of the app (xapp-), for Socket Mode.
    `base_url`: of the Web API. `name` and `account`: as the kernel knows this bot.
    `lookup`: see the module. `reply_in_thread`: an answer goes to the thread of its
    message. `rate_scope`: the scope that a 429 of a send holds back; Slack counts
    chat.postMessage per conversation. `proxy`: of HTTP; the environment's is not used.
    All times in ms. `preview_ms`: chat.update may be called 50 times a minute. After a
    death of the process a look-up counts as "not there" only once `settle_ms` has
    passed. Raises MissingExtraError when the extra is not installed, InvalidInputError
    for a token that cannot be one."""

    @checked
    def __init__(
        self,
        token: Word,
        *,
        app_token: Word | None = None,
        base_url: Url = OFFICIAL,
        name: Id = "slack",
        account: Id = "default",
        lookup: bool = True,
        reply_in_thread: bool = False,
        rate_scope: GateScope = GateScope.CONVERSATION,
        preview_ms: Some = 1_200,
        settle_ms: int = 60_000,
        skew_ms: int = 15 * 60_000,
        connect_timeout_ms: Some = 10_000,
        request_timeout_ms: Some = 30_000,
        upload_timeout_ms: Some = 300_000,
        proxy: Url | None = None,
    ) -> None:
        _check_token("token", token)
        if app_token is not None:
            _check_token("app_token", app_token)
        self._m = _modules()
        times = self._m.client.Times(
            connect=connect_timeout_ms / 1000,
            request=request_timeout_ms / 1000,
            upload=upload_timeout_ms / 1000,
        )
        self._client = self._m.client.SlackClient(token, base_url, times, proxy)
        self._app_token, self._proxy = app_token, proxy
        self._name, self._account = name, account
        self._in_thread, self._scope = reply_in_thread, rate_scope
        self.capabilities = Capabilities(
            parts=_offers(lookup=lookup, settle_ms=settle_ms),
            limit=self._m.content.TEXT_LIMIT,
            unit="utf16",
            prepares=("file",),
            captions=self._m.content.TEXT_LIMIT
            // 5,  # with an escape for each character
            native_files=True,
            skew_ms=skew_ms,
            marks=True,
            preview_ms=preview_ms,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Texts of at most 3979 UTF-16 units on the wire, other payloads whole. Raises
        InvalidInputError for a native message with files that Slack cannot show."""
        del route, kind, context
        self._m.content.check(payload)
        planned: Sequence[PlannedPart] = self._m.content.plan(payload)
        return planned

    async def prepare(self, part: Part) -> str:
        """Upload a file and return its id. Readers see it only after `send` shares it.
        Raises RefusedError, which `classify` reads."""
        assert isinstance(part.payload, File)  # noqa: S101  only files are prepared
        return await self._upload(part.payload, part.key)

    async def _upload(self, file: File, key: str) -> str:
        try:
            data = await bytes_of(file)
        except OSError as exc:  # its bytes are lost for good
            failure = Rejected(
                failure=FailureClass.INVALID_PAYLOAD, detail=str(exc)[:300]
            )
            raise self._m.errors.invisible(failure, "read") from exc
        given = {"filename": self._m.content.file_name(file, key), "length": len(data)}
        place = await self._client.ask("files.getUploadURLExternal", given)
        await self._client.upload(str(place.get("upload_url")), data)
        return str(place.get("file_id"))

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """One call of a sending method."""
        content = self._m.content
        if isinstance(part.payload, File):
            shared = [{"id": attempt.prepared, "title": part.payload.name or "file"}]
            words = content.comment(part.payload.caption, marked=attempt.marked)
            return await self._share(part, shared, words)
        if isinstance(part.payload, Native) and part.payload.files:
            return await self._share_native(part, part.payload, attempt)
        if isinstance(part.payload, Native):
            method, given = content.native_call(
                part.payload,
                part,
                marked=attempt.marked,
                reply_in_thread=self._in_thread,
            )
            return await self._sent(part, method, given)
        text, field = part.payload, content.KEY_FIELD
        if attempt.act is PartAct.PLACEHOLDER:
            text, field = Text(text.text), content.PLACEHOLDER_FIELD
        given = {
            **content.where(part, reply_in_thread=self._in_thread),
            **content.words_of(text, marked=attempt.marked),
            "metadata": content.metadata(key, field),
        }
        return await self._sent(part, content.POST, given)

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        """Edit the message of `handle` so that it shows the text of the part. A
        repeated edit changes nothing."""
        if not isinstance(part.payload, Text) or not handle.ids:
            detail = "only a text message can be edited"
            return Rejected(failure=FailureClass.HANDLE_GONE, detail=detail)
        words = self._m.content.words_of(part.payload, marked=attempt.marked)
        given = {
            **_message(handle, part.route),
            "text": words["text"],
            "metadata": self._m.content.metadata(key),
        }
        answer = await self._client.call("chat.update", given)
        if not answer.ok:
            outcome: Outcome = self._m.errors.refused(answer, GateScope.ACCOUNT)
            return outcome
        return Accepted(receipt=handle)

    async def retract(self, handle: Receipt, route: Route) -> None:
        """Delete a placeholder. Raises RefusedError."""
        await self._client.ask("chat.delete", _message(handle, route))

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        """Search the history of the conversation, or of the thread, since then."""
        verdict: Verdict = await self._m.history.look_up(
            self._client, part, since_ms, reply_in_thread=self._in_thread
        )
        return verdict

    def classify(self, exception: BaseException) -> Outcome | None:
        """See `slack_errors.classify`."""
        found: Outcome | None = self._m.errors.classify(exception)
        return found

    async def is_ours(self, body: Mapping[str, Any]) -> bool:
        """Did this bot cause the event in a payload of Slack? Raises RefusedError if
        Slack does not return the bot's identity."""
        who = await self._client.identity()
        return bool(self._m.inbound.is_ours(body, who.ids))

    def source(self, cursor: str | None) -> AsyncGenerator[Inbound, None]:
        """Inbound messages by Socket Mode; see `slack_source`. Slack keeps no cursor:
        it sends unanswered ones again."""
        del cursor
        if self._app_token is None:
            problem = "Socket Mode needs the token of the app (xapp-)"
            raise InvalidInputError(field="app_token", problem=problem)
        messages: AsyncGenerator[Inbound, None] = self._m.source.listen(
            self._client, self._app_token, self._names(), self._proxy
        )
        return messages

    def receiver(self, signing_secret: str) -> Any:
        """Inbound messages by the Events API: see `slack_events.EventsReceiver`."""
        return self._m.events.EventsReceiver(
            signing_secret, self._client, self._names()
        )

    def _names(self) -> Any:
        return self._m.inbound.Names(channel=self._name, account=self._account)

    async def _share_native(
        self, part: Part, native: Native, attempt: Attempt
    ) -> Outcome:
        """Share a native message with files. The uploads come first and are invisible;
        one call shares all of them."""
        files = sorted(native.files.items())
        shared = [
            {"id": await self._upload(file, part.key), "title": file.name or name}
            for name, file in files
        ]
        words = self._m.content.beside_files(native, marked=attempt.marked)
        return await self._share(part, shared, words)

    async def _share(
        self, part: Part, shared: Sequence[Mapping[str, Any]], words: Mapping[str, Any]
    ) -> Outcome:
        place = self._m.content.where(part, reply_in_thread=self._in_thread)
        given = {
            "channel_id": place.pop("channel"),
            **place,
            "files": [*shared],
            **words,
        }
        return await self._sent(part, "files.completeUploadExternal", given)

    async def _sent(self, part: Part, method: str, given: Mapping[str, Any]) -> Outcome:
        """One call, and the outcome for the part."""
        answer = await self._client.call(method, given)
        if not answer.ok:
            outcome: Outcome = self._m.errors.refused(answer, self._scope)
            return outcome
        ids = _ids(answer.body, part, self._m.history.receipt_ids)
        if not ids and part.kind != "native":
            return Unknown(cause="no_message_id", detail=f"{answer.body!r:.200}")
        receipt = Receipt(ids=ids or (method,), thread=given.get("thread_ts"))
        return Accepted(receipt=receipt)


def _ids(body: Mapping[str, Any], part: Part, made: Any) -> tuple[str, ...]:
    channel = str(body.get("channel") or part.route.conversation)
    files = body.get("files")
    if isinstance(files, list) and files and isinstance(files[0], dict):
        file = files[0].get("id")
        ids: tuple[str, ...] = made(None, file, channel, part)
        return ids if isinstance(file, str) else ()
    ts = body.get("ts")
    ids = made(ts, None, channel, part)
    return ids if isinstance(ts, str) else ()


def _message(handle: Receipt, route: Route) -> dict[str, str]:
    channel = handle.ids[1] if len(handle.ids) > 1 else route.conversation
    return {"channel": channel, "ts": handle.ids[0]}


def _offers(*, lookup: bool, settle_ms: int) -> Mapping[str, PartClass]:
    blind = PartClass(settle_ms=settle_ms)
    found = evolve(blind, classes=(DeliveryClass.LOOKUP,)) if lookup else blind
    both = (*found.classes, DeliveryClass.EDITABLE)
    return {"text": evolve(blind, classes=both), "file": found, "native": found}


def _check_token(field: str, token: str) -> None:
    if not token.isascii():
        raise InvalidInputError(field=field, problem="not a token of Slack")


class _Modules:
    """The modules that need the extra."""

    def __init__(self) -> None:
        from turnfold_adapters.channels import (  # noqa: PLC0415  an extra
            slack_client,
            slack_content,
            slack_errors,
            slack_events,
            slack_history,
            slack_inbound,
            slack_source,
        )

        self.client, self.content = slack_client, slack_content
        self.errors, self.history = slack_errors, slack_history
        self.events, self.source = slack_events, slack_source
        self.inbound = slack_inbound


def _modules() -> _Modules:
    try:
        return _Modules()
    except ImportError as exc:
        raise MissingExtraError(extra="slack", package=exc.name or "slack-sdk") from exc
