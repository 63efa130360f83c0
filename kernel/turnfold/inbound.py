"""Inbound messages. Their bodies are evidence, which is kept unchanged."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from attrs import Attribute, field, frozen

from turnfold.enums import Form
from turnfold.errors import InvalidInputError
from turnfold.messages import (
    Route,
    check_ms,
    check_text,
    escape,
    flag,
    identifier,
    is_a,
    lane_of,
    optional_identifier,
    optional_token,
    own_lane_of,
    unreadable,
)
from turnfold.wrong_calls import explained

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    kind = type(value).__name__
    msg = f"Object of type {kind} is not JSON serializable"
    raise TypeError(msg)


_how: dict[str, Any] = {"separators": (",", ":"), "default": _plain}
_encode = json.JSONEncoder(ensure_ascii=False, **_how).encode
_encode_ascii = json.JSONEncoder(**_how).encode
_REMEDY = "pass the bytes or the text that came, or json.dumps(body, default=str)"


@frozen
class Evidence:
    """A body as it is stored: bytes unchanged, text as UTF-8, any other value as JSON
    that was written once. `seal`: of a large body, made before it is stored."""

    form: Form
    raw: bytes
    seal: Any = field(default=None, eq=False, repr=False)

    @property
    def value(self) -> Any:
        """The original value. JSON is read again at each call, so callers share no
        object."""
        match self.form:
            case Form.BYTES:
                return self.raw
            case Form.TEXT:
                return self.raw.decode("utf-8", "surrogatepass")
            case Form.JSON:
                return json.loads(self.raw)


NO_BODY = Evidence(Form.JSON, b"{}")


def evidence_of(body: Any) -> Evidence:
    if type(body) is Evidence:
        return body
    if issubclass(type(body), bytes | bytearray | memoryview):
        return Evidence(Form.BYTES, bytes(memoryview(body)))
    if issubclass(type(body), str):
        return Evidence(Form.TEXT, str.encode(body, "utf-8", "surrogatepass"))
    return Evidence(Form.JSON, _json(body))


def _json(body: Any) -> bytes:
    """Floats, NaN and integers of any size, as Python's own JSON writes them."""
    try:
        text = _encode(body)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(field="body", problem=f"{exc}; {_REMEDY}") from exc
    except Exception as exc:  # a value inside may be of a class of its own
        raise unreadable("body", exc) from exc
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can escape it
        return _encode_ascii(body).encode()


def _ms_of(date: datetime) -> int:
    try:
        if date.tzinfo is not None:
            return (date - _EPOCH) // timedelta(milliseconds=1)
    except Exception as exc:  # a time zone of foreign code may raise anything
        raise unreadable("sent_at", exc) from exc
    problem = "a datetime without a time zone; pass sent_at.replace(tzinfo=UTC)"
    raise InvalidInputError(field="sent_at", problem=problem)


def wall_ms(value: Any) -> int | None:
    """Wall time in ms, given in ms or as a datetime with a time zone."""
    if value is None:
        return None
    if is_a(value, datetime):
        value = _ms_of(value)
    if type(value) is not int:
        kind = type(value).__name__
        problem = f"expected ms UTC or an aware datetime, got {kind}"
        if is_a(value, float):
            problem += "; seconds become int(sent_at * 1000)"
        raise InvalidInputError(field="sent_at", problem=problem)
    return check_ms("sent_at", value)


def _own_lane(owner: object, attribute: "Attribute[Any]", value: object) -> None:
    try:
        optional_identifier(owner, attribute, value)
    except InvalidInputError as exc:
        raise InvalidInputError(field="lane", problem=exc.problem) from None


def _raw(value: Any) -> Evidence:
    try:
        return evidence_of(value)
    except InvalidInputError as exc:
        raise InvalidInputError(field="raw", problem=exc.problem) from exc


def _error(value: Any) -> str:
    """The text of an error, given as an exception or as text."""
    if is_a(value, BaseException):
        value = told(value)
    return printable(check_text("error", value))


def told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  an error of foreign code may raise anything
        return type(error).__name__


def printable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


@explained
@frozen
class Inbound:
    """An inbound message.

    Its dedupe key is (channel, account, conversation, message_id, event) and the
    `revision`, if there is one: an equal key means the same message. Where the platform
    gives no id, `message_id` is None. Then `key`, a dedupe key of the caller within
    channel and account, finds a repeat; without it each message is a new one. Ids may
    be given as integers; they become text.

    `body`: the received bytes, text, or any JSON, which is encoded here: give a large
    body as bytes. `sender`: the platform's name for the author. `sent_at`: wall time in
    ms UTC, or a datetime with a time zone. `locale`: the language of its author, for
    the kernel's own notices. `revision`: the number or name of an edit. `edits`: the
    `key` of the message that an edit or deletion changes, if it was accepted with one;
    without a key its `message_id` is enough to find its turn. `lane`: the
    name of a lane inside of its conversation and thread; the turns of one lane run one
    after the other. Pass the sender for a lane per author, the message id for a lane
    per message; all messages share one lane by default.
    """

    channel: str = field(validator=identifier)
    account: str = field(default="default", validator=identifier, kw_only=True)
    conversation: str = field(validator=identifier, kw_only=True)
    message_id: str | None = field(validator=optional_identifier, kw_only=True)
    event: str = field(default="message", validator=identifier, kw_only=True)
    revision: str | None = field(
        default=None, validator=optional_identifier, kw_only=True
    )
    key: str | None = field(default=None, validator=optional_identifier, kw_only=True)
    thread: str | None = field(
        default=None, validator=optional_identifier, kw_only=True
    )
    sender: str | None = field(default=None, validator=optional_token, kw_only=True)
    sent_at: int | None = field(default=None, converter=wall_ms, kw_only=True)
    locale: str | None = field(default=None, validator=optional_token, kw_only=True)
    evidence: Evidence = field(
        default=NO_BODY, converter=evidence_of, alias="body", kw_only=True
    )
    control: bool = field(default=False, validator=flag, kw_only=True)
    edits: str | None = field(default=None, validator=optional_identifier, kw_only=True)
    own_lane: str | None = field(
        default=None, validator=_own_lane, alias="lane", kw_only=True
    )

    if TYPE_CHECKING:  # the arguments, beside the stored fields

        def __init__(
            self,
            channel: str,
            *,
            account: str | int = ...,
            conversation: str | int,
            message_id: str | int | None,
            event: str = ...,
            revision: str | int | None = ...,
            key: str | int | None = ...,
            thread: str | int | None = ...,
            sender: str | int | None = ...,
            sent_at: int | datetime | None = ...,
            locale: str | None = ...,
            body: Any = ...,
            control: bool = ...,
            edits: str | int | None = ...,
            lane: str | int | None = ...,
        ) -> None: ...

    @property
    def body(self) -> Any:
        """The original body: bytes, text, or JSON that is read again at each call.
        `evidence.raw` has the stored bytes."""
        return self.evidence.value

    @property
    def text(self) -> str:
        """The body if it is text, else its field `text`; empty if the message has none.
        A lone surrogate, which could not be sent back, is replaced."""
        value = self.body
        if isinstance(value, dict):
            value = value.get("text", "")
        return printable(value) if isinstance(value, str) else ""

    @property
    def route(self) -> Route:
        """The route of an answer to this message."""
        return Route(
            channel=self.channel,
            account=self.account,
            conversation=self.conversation,
            thread=self.thread,
            reply_to=self.message_id,
        )

    @property
    def lane(self) -> str:
        """The name of the ordered queue of turns that this message belongs to."""
        lane = lane_of(self.channel, self.account, self.conversation, self.thread)
        return lane if self.own_lane is None else own_lane_of(lane, self.own_lane)

    @property
    def dedupe_key(self) -> str | None:
        """None: a repeat of this message cannot be recognised."""
        return _dedupe_key(self, self.revision)


@explained
@frozen
class Unreadable:
    """An update that could not be read as a message. It becomes a dead turn: its bytes
    are kept and shown, and it runs if a person says so after a repair.

    `raw`: the received bytes, text, or any JSON. `error`: why it could not be read. The
    other fields as in Inbound, as far as they are known.
    """

    channel: str = field(validator=identifier)
    account: str = field(default="default", validator=identifier, kw_only=True)
    conversation: str | None = field(
        default=None, validator=optional_identifier, kw_only=True
    )
    message_id: str | None = field(
        default=None, validator=optional_identifier, kw_only=True
    )
    event: str = field(default="message", validator=identifier, kw_only=True)
    key: str | None = field(default=None, validator=optional_identifier, kw_only=True)
    thread: str | None = field(
        default=None, validator=optional_identifier, kw_only=True
    )
    evidence: Evidence = field(converter=_raw, alias="raw", kw_only=True)
    error: str = field(converter=_error, kw_only=True)

    @property
    def raw(self) -> Any:
        """The original update."""
        return self.evidence.value

    @property
    def lane(self) -> str:
        """The lane of the update; without a conversation, a lane of the account."""
        return lane_of(self.channel, self.account, self.conversation or "", self.thread)

    @property
    def dedupe_key(self) -> str | None:
        """None: a repeat of this update cannot be recognised."""
        return _dedupe_key(self, None)


def _dedupe_key(of: "Inbound | Unreadable", revision: str | None) -> str | None:
    place = f"{escape(of.channel)}/{escape(of.account)}"
    if of.key is not None:
        return f"{place}//{escape(of.key)}"
    if of.message_id is None or of.conversation is None:
        return None
    name = (
        f"{place}/{escape(of.conversation)}/{escape(of.message_id)}/{escape(of.event)}"
    )
    return name if revision is None else f"{name}/{escape(revision)}"
