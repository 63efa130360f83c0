"""Matrix: exactly once, because homeservers honour a transaction id (the part's key).

Needs the extra `turnfold[matrix]`; this module imports without it.

The adapter relies on these facts, with their sources:

- A PUT with the same transaction id, room and device is answered with the first
  event's id. The specification gives the scope (device and endpoint) but no time;
  Synapse remembers 24 h. Hence `key_window_ms`; give less for a server that forgets
  sooner. The device id is the caller's to pin: a new device is a new scope.
- Each event carries the key in its content (`io.turnfold.part`), so after the window
  it can be looked up in the room's history.
- Event: at most 65,536 bytes in all.

Not done: end-to-end encryption. A room that is encrypted is refused before anything
is sent, unless the caller allows clear text in it.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, TypeVar

from turnfold.arguments import Id, Some, Url, Word, checked
from turnfold.enums import DeliveryClass, FailureClass, Kind
from turnfold.errors import InvalidInputError, MissingExtraError
from turnfold.inbound import Inbound
from turnfold.messages import File, Native, Payload, Route
from turnfold.ports.channel import (
    Attempt,
    Capabilities,
    Outcome,
    Part,
    PartClass,
    PlanContext,
    PlannedPart,
    Rejected,
    Verdict,
)
from turnfold_adapters import text
from turnfold_adapters.channels.matrix_content import (
    ITSELF,
    MESSAGE,
    TEXT_MAX_BYTES,
    Markdown,
    event_for,
)
from turnfold_adapters.channels.matrix_outcomes import refused, sent
from turnfold_adapters.channels.payloads import bytes_of, check_pointed

if TYPE_CHECKING:
    from turnfold_adapters.channels.matrix_client import MatrixClient

V = TypeVar("V")
HOUR_MS = 3600 * 1000
# A room can become encrypted later, never the other way round; so "no" is checked
# again.
_IN_CLEAR_MS = 10 * 60 * 1000
_REMEMBERED = 256  # uploads and rooms held in memory, to spare requests


class MatrixChannel:
    """A Matrix bot as a channel and as a source of messages.

    `device_id` stays the same for the life of the store. Give a `token` of that device,
    or a `password` with which the channel logs in as that device. All times in ms.
    `markdown` turns Markdown into HTML for `Format.MARKDOWN`; without it such text is
    sent unchanged. Raises MissingExtraError when the extra is not installed.
    """

    @checked
    def __init__(
        self,
        homeserver: Url,
        *,
        user_id: Word,
        device_id: Word,
        token: Word | None = None,
        password: str | None = None,
        name: Id = "matrix",
        account: Id = "default",
        key_window_ms: int | None = 23 * HOUR_MS,
        settle_ms: int = 120_000,
        skew_ms: int = HOUR_MS // 4,
        request_timeout_ms: Some = 45_000,
        upload_timeout_ms: Some = 300_000,
        event_types: tuple[Word, ...] = (MESSAGE,),
        auto_join: bool = False,
        clear_text_in_encrypted_rooms: bool = False,
        markdown: Markdown | None = None,
    ) -> None:
        _check(user_id, token, password)
        text.check(TEXT_MAX_BYTES, "bytes")
        self._client = _client_class()(
            homeserver=homeserver,
            user_id=user_id,
            device_id=device_id,
            token=token,
            password=password,
            timeout_ms=request_timeout_ms,
        )
        self.capabilities = _capabilities(key_window_ms, settle_ms, skew_ms)
        self._name = name
        self._account = account
        self._upload_timeout_ms = upload_timeout_ms
        self._event_types = event_types
        self._auto_join = auto_join
        self._encrypted_too = clear_text_in_encrypted_rooms
        self._markdown = markdown
        self._in_clear: OrderedDict[str, float] = OrderedDict()  # room: until when
        self._uploads: OrderedDict[str, str] = OrderedDict()  # key: mxc address

    async def aclose(self) -> None:
        """Close the connections. The channel may be used again afterwards."""
        await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        """Long texts in pieces of their own format, other payloads whole. Raises
        InvalidInputError for a file that the content of an event does not name."""
        del route, kind, context
        check_pointed(payload)
        return text.plan(payload, TEXT_MAX_BYTES, "bytes")

    async def prepare(self, part: Part) -> dict[str, str]:
        """Log in, refuse an encrypted room, upload files (their mxc addresses by name).

        Raises RefusedError, which `classify` reads as its `Rejected`, or a transport
        error. No reader sees an upload until an event names it; the server drops or
        keeps orphans by its own rules.
        """
        await self._client.ready()
        await self._refuse_encrypted(part.route.conversation)
        return {
            name: await self._upload(f"{part.key}/{name}", file)
            for name, file in _files(part.payload).items()
        }

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        """One PUT of one event. Raises transport errors; see `classify`."""
        uris = attempt.prepared if isinstance(attempt.prepared, dict) else {}
        if not uris.keys() >= _files(part.payload).keys():
            detail = "the file was not uploaded: prepare() comes first"
            return Rejected(failure=FailureClass.TRANSIENT, detail=detail)
        event = event_for(
            part, marked=attempt.marked, uris=uris, markdown=self._markdown
        )
        answer = await self._client.put_event(
            part.route.conversation, event.type, event.content, key
        )
        return sent(answer, part.route.thread)

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        """Search the room's history back to `since_ms`."""
        from turnfold_adapters.channels.matrix_history import (  # noqa: PLC0415  needs the extra
            look_up,
        )

        return await look_up(self._client, part, since_ms)

    def classify(self, exception: BaseException) -> Outcome | None:
        """Rejected only if no request can have left; see `matrix_client.classify`."""
        from turnfold_adapters.channels.matrix_client import (  # noqa: PLC0415  needs the extra
            classify,
        )

        return classify(exception)

    def source(
        self, cursor: str | None
    ) -> AsyncGenerator[tuple[Inbound | None, str], None]:
        """Inbound messages since `cursor` (a sync token; None: from now on)."""
        from turnfold_adapters.channels.matrix_source import (  # noqa: PLC0415  needs the extra
            Listening,
            listen,
        )

        how = Listening(
            channel=self._name,
            account=self._account,
            event_types=self._event_types,
            auto_join=self._auto_join,
        )
        return listen(self._client, how, cursor)

    async def _upload(self, key: str, file: File) -> str:
        known = self._uploads.get(key)
        if known is not None:
            return known
        uri = await self._client.upload(
            file.name,
            await _bytes_of(file),
            file.mime,
            timeout_ms=self._upload_timeout_ms,
        )
        _remember(self._uploads, key, uri)
        return uri

    async def _refuse_encrypted(self, room_id: str) -> None:
        now = time.monotonic()
        if self._encrypted_too or self._in_clear.get(room_id, now) > now:
            return
        if not await self._client.is_encrypted(room_id):
            _remember(self._in_clear, room_id, now + _IN_CLEAR_MS / 1000)
            return
        detail = f"{room_id} is encrypted, and this channel cannot encrypt"
        raise refused("send", FailureClass.PERMISSION, detail)


def _capabilities(
    key_window_ms: int | None, settle_ms: int, skew_ms: int
) -> Capabilities:
    both = PartClass(
        classes=(DeliveryClass.KEYED, DeliveryClass.LOOKUP),
        key_window_ms=key_window_ms,
        settle_ms=settle_ms,
    )
    parts = MappingProxyType(dict.fromkeys(("text", "file", "native"), both))
    return Capabilities(
        parts=parts,
        limit=TEXT_MAX_BYTES,
        unit="bytes",
        skew_ms=skew_ms,
        captions=TEXT_MAX_BYTES,
        native_files=True,
    )


def _check(user_id: str, token: str | None, password: str | None) -> None:
    if not user_id.startswith("@") or ":" not in user_id:
        problem = "expected a full Matrix id such as @bot:example.org"
        raise InvalidInputError(field="user_id", problem=problem)
    if bool(token) == bool(password):
        problem = "give either a token or a password"
        raise InvalidInputError(field="token", problem=problem)


def _files(payload: Payload) -> Mapping[str, File]:
    if isinstance(payload, Native):
        return payload.files
    return {ITSELF: payload} if isinstance(payload, File) else {}


async def _bytes_of(file: File) -> bytes:
    try:
        return await bytes_of(file)
    except FileNotFoundError as exc:
        missing = refused("upload", FailureClass.INVALID_PAYLOAD, str(exc))
        raise missing from exc


def _remember(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _client_class() -> "type[MatrixClient]":
    try:
        from turnfold_adapters.channels.matrix_client import (  # noqa: PLC0415  an extra
            MatrixClient,
        )
    except ImportError as exc:
        raise MissingExtraError(extra="matrix", package="matrix-nio") from exc
    return MatrixClient
