"""Discord bots, by the HTTP API, the gateway and discord.py.

Needs the extra `turnfold[discord]`; this module imports without it.

A message is sent with a `nonce` (our key, hashed) and `enforce_nonce`. Discord says of
it: "checked for uniqueness in the past few minutes"; a message of the same author with
the same nonce "will be returned and no new message will be created". Discord does not
say how many minutes: this channel relies on two, and the kernel uses a key again for
half of its window. So each part is of class `keyed` inside that time. Later
`attach(..., on_unknown=)` decides about a part in doubt. Texts are of class `editable`,
too, for live replies. `editable=True` sends each text by a placeholder and an edit,
whose promise has no window.

    text, file, native   POST   /channels/{channel}/messages, a file in the same request
    edit, preview        PATCH  /channels/{channel}/messages/{id}
    retract              DELETE /channels/{channel}/messages/{id}

The conversation is the id of a channel; a thread is a channel of its own, whether it is
named as `thread` or as the conversation. A private chat is one, too: Discord names it in
the first message. Texts ping nobody, unless `mentions` allows it. `discord_errors` has the
table of exceptions.

When is a message acknowledged? Discord waits for no acknowledgement. The history of the
channels is the record, and it is read from the durable cursor; see `discord_source`.
"""

import io
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Self

from turnfold.arguments import Id, Some, Url, Word, Words, checked
from turnfold.enums import DeliveryClass, FailureClass, Kind
from turnfold.errors import MissingExtraError
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
)
from turnfold_adapters.channels.payloads import bytes_of, files_of

OFFICIAL = "https://discord.com/api/v10"
KEY_WINDOW_MS = 120_000
_Upload = tuple[str, str, bytes]  # file name, type, bytes


class DiscordChannel:
    """A Discord bot as a channel and as a source of messages.

    `token`: of the bot. `name` and `account`: as the kernel knows this bot. `editable`:
    see the module. `mentions`: the groups that may be pinged ("users", "roles",
    "everyone"). `bots`: take messages of other bots, too. `base_url` and `gateway`: of
    a server that is not Discord's. `intents`: a `discord.Intents`; by default messages
    of servers and private chats with their content, which must be switched on for the
    bot. `ready_ms`: how long Discord may be silent before the list of servers counts as
    complete. A send takes at most connect plus request time. Raises MissingExtraError
    when the extra is not installed, InvalidInputError for a token that cannot be one.
    """

    @checked
    def __init__(
        self,
        token: Word,
        *,
        name: Id = "discord",
        account: Id = "default",
        editable: bool = False,
        mentions: Words = (),
        bots: bool = False,
        base_url: Url = OFFICIAL,
        gateway: Url | None = None,
        intents: Any = None,
        key_window_ms: int = KEY_WINDOW_MS,
        settle_ms: int = 60_000,
        connect_timeout_ms: Some = 10_000,
        request_timeout_ms: Some = 20_000,
        upload_timeout_ms: Some = 50_000,
        ready_ms: int = 2_000,
    ) -> None:
        self._content, self._errors, self._sources, http = _modules()
        self._sources.check_intents(intents)
        self._http = http.OneRequest(
            token,
            base_url,
            connect=connect_timeout_ms / 1000,
            wait=request_timeout_ms / 1000,
            upload=upload_timeout_ms / 1000,
        )
        self._mentions = tuple(mentions)
        self._listening = self._sources.Listening(
            channel=name,
            account=account,
            token=token,
            base_url=base_url,
            gateway=gateway or "",
            intents=intents,
            bots=bots,
            ready_s=ready_ms / 1000,
        )
        self.capabilities = Capabilities(
            parts=_parts(editable, key_window_ms, settle_ms),
            limit=self._content.TEXT_LIMIT,
            unit="utf16",
            captions=self._content.CAPTION_LIMIT,
            native_files=True,
            marks=True,
            preview_ms=1_200,  # seen: five edits in five seconds
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Texts in pieces of Discord's Markdown, other payloads whole."""
        del route, kind, context
        planned: Sequence[PlannedPart] = self._content.plan(payload)
        return planned

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """One POST. Raises the errors of the connection; see `classify`."""
        from discord.http import MultipartParameters  # noqa: PLC0415  an extra

        message = self._content.message_of(part, key, attempt, self._mentions)
        params = MultipartParameters(payload=message, multipart=None, files=None)
        try:
            uploads = await self._uploads(part.payload)
        except FileNotFoundError as exc:  # its bytes are lost for good
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=str(exc))
        if uploads:
            params = _form(message, uploads)
        where = self._content.channel_of(part.route)
        return _receipt_of(await self._http.send_message(where, params=params))

    async def _uploads(self, payload: Payload) -> Sequence[_Upload]:
        """Raises OSError."""
        if isinstance(payload, File):
            return [(payload.name or "file", payload.mime, await bytes_of(payload))]
        if not isinstance(payload, Native) or not payload.files:
            return ()
        names, contents = self._content.file_names(payload), await files_of(payload)
        return [
            (names[name], payload.files[name].mime, data)
            for name, data in contents.items()
        ]

    async def edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        """Edit the message of `handle` so that it shows the text of the part. A
        repeated edit changes nothing."""
        from discord.http import MultipartParameters  # noqa: PLC0415  an extra

        del key
        if not isinstance(part.payload, Text) or len(handle.ids) != 1:
            detail = "only one text message can be edited"
            return Rejected(failure=FailureClass.HANDLE_GONE, detail=detail)
        message = self._content.content_of(part.payload, attempt, self._mentions)
        params = MultipartParameters(payload=message, multipart=None, files=None)
        where = self._content.channel_of(part.route)
        answer = await self._http.edit_message(where, handle.ids[0], params=params)
        return _receipt_of(answer)

    async def retract(self, handle: Receipt, route: Route) -> None:
        """Delete a placeholder. Raises the errors of the client library."""
        where = self._content.channel_of(route)
        for message_id in handle.ids:
            await self._http.delete_message(where, message_id)

    def classify(self, exception: BaseException) -> Outcome | None:
        """See `discord_errors.classify`."""
        found: Outcome | None = self._errors.classify(exception)
        return found

    def source(
        self, cursor: str | None
    ) -> AsyncGenerator[tuple[Inbound | None, str], None]:
        """Inbound messages since `cursor`; see `discord_source`."""
        messages: AsyncGenerator[tuple[Inbound | None, str], None]
        messages = self._sources.listen(self._listening, cursor)
        return messages


def _parts(editable: bool, key_window_ms: int, settle_ms: int) -> dict[str, PartClass]:
    keyed = PartClass(
        classes=(DeliveryClass.KEYED,), key_window_ms=key_window_ms, settle_ms=settle_ms
    )
    order = (DeliveryClass.KEYED, DeliveryClass.EDITABLE)
    text = PartClass(
        classes=order[1:] if editable else order,
        key_window_ms=key_window_ms,
        settle_ms=settle_ms,
    )
    return {"text": text, "file": keyed, "native": keyed}


def _form(message: dict[str, Any], uploads: Sequence[_Upload]) -> Any:
    """The message and its files in one request: all arrive, or none."""
    import discord  # noqa: PLC0415  an extra
    from discord.http import MultipartParameters  # noqa: PLC0415  an extra
    from discord.utils import _to_json  # noqa: PLC0415  an extra

    fields: list[dict[str, Any]]
    fields = [{"name": "payload_json", "value": _to_json(message)}]
    for number, (name, mime, data) in enumerate(uploads):
        file = {"name": f"files[{number}]", "value": data}
        fields.append({**file, "filename": name, "content_type": mime})
    files = [discord.File(io.BytesIO(data), filename=name) for name, _, data in uploads]
    return MultipartParameters(payload=None, multipart=fields, files=files)


def _receipt_of(answer: Any) -> Outcome:
    found = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(found, str) or not found:
        return Unknown(cause="no_message_id", detail=f"{answer!r:.200}")
    return Accepted(receipt=Receipt(ids=(found,)))


def _modules() -> tuple[Any, Any, Any, Any]:
    try:
        from turnfold_adapters.channels import (  # noqa: PLC0415  an extra
            discord_content,
            discord_errors,
            discord_http,
            discord_source,
        )
    except ImportError as exc:
        package = exc.name or "discord.py"
        raise MissingExtraError(extra="discord", package=package) from exc
    return discord_content, discord_errors, discord_source, discord_http
