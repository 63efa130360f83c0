"""Arguments of public methods, checked at the call."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from attrs import Attribute, field, frozen

from turnfold.enums import Format
from turnfold.errors import InvalidInputError
from turnfold.wrong_calls import explained

Word = TypeVar("Word", bound=StrEnum)
_ID_BITS = 4_000  # an integer of more has no text in Python
LONGEST_MS = 2**51  # 70,000 years
_WHY_MAX = 4_000  # characters
_LIMIT_MS = 2**53  # the limit of the log's integers
# Bytes or characters. A larger body is handled in a thread. A value with more than
# `_AT_ONCE` values or `_LONG` characters is checked there, too.
LARGE = 128 * 1024
_AT_ONCE = 2_000  # values of a Native
_LONG = 8 * LARGE  # characters


def check_text(field: str, value: Any) -> str:
    """A str that can be encoded as UTF-8. Text of a class of its own becomes plain:
    its methods are foreign code."""
    if type(value) is not str:
        if not issubclass(type(value), str):
            raise _wrong(field, "str", value)
        value = str.__str__(value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as exc:
        problem = "lone surrogate in text"
        raise InvalidInputError(field=field, problem=problem) from exc
    text: str = value
    return text


def check_why(value: Any) -> str:
    """The reason of a person, for the log, which keeps it for good."""
    why = check_text("why", value)
    if len(why) > _WHY_MAX:
        problem = f"has {len(why):,} characters; at most {_WHY_MAX:,} are kept"
        raise InvalidInputError(field="why", problem=problem)
    return why


def identifier_problem(value: str) -> str:
    """Why a text cannot be an id; empty if it can. Control characters (NUL, DEL and the
    C1 block, too) are in no platform's ids, and some databases and most terminals do
    not accept them."""
    if not value:
        return "expected 1 to 512 characters, got 0"
    if len(value) > 512:
        return f"expected 1 to 512 characters, got {len(value)}; pass a hash of a longer id"
    return control_problem(value)


def control_problem(value: str) -> str:
    if value.isascii() and value.isprintable():  # nearly all, at once
        return ""
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        return "control character"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "lone surrogate in text"
    return ""


def check_id(field: str, value: Any) -> str:
    """A text that `identifier_problem` accepts as an id."""
    name = check_text(field, value)
    problem = identifier_problem(name)
    if problem:
        raise InvalidInputError(field=field, problem=problem)
    return name


def check_optional_id(field: str, value: Any) -> str | None:
    return None if value is None else check_id(field, value)


def check_ms(field: str, value: Any, *, least: int = 0) -> int:
    """Milliseconds, as a plain int; a bool is refused."""
    if type(value) is not int:
        raise _wrong(field, "int", value)
    if not least <= value < _LIMIT_MS:
        raise InvalidInputError(field=field, problem=f"{value} is not in range")
    return value


def check_span(field: str, value: Any, *, least: int = 0) -> int:
    """A length of time, in ms. A date and two of them have room in the log."""
    span = check_ms(field, value, least=least)
    if span > LONGEST_MS:
        problem = f"{value} is not in range; at most {LONGEST_MS:,}"
        raise InvalidInputError(field=field, problem=problem)
    return span


def check_timeout(value: Any) -> int | None:
    """How long to wait, in ms; None: for ever."""
    return None if value is None else check_ms("timeout_ms", value)


def check_kind(field: str, value: Any, *kinds: type) -> None:
    """Raises InvalidInputError for a value of another type."""
    if not is_a(value, kinds):
        raise _wrong(field, " or ".join(kind.__name__ for kind in kinds), value)


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """`isinstance`; False for a value that raises when it is asked for its class."""
    try:
        return isinstance(value, kinds)
    except Exception:  # noqa: BLE001  a property of foreign code may raise anything
        return False


def shown(value: object) -> str:
    """A short text of any value, for an error."""
    try:
        return f"{value!r:.80}"
    except Exception:  # noqa: BLE001  a repr of foreign code may raise anything
        return object.__repr__(value)[:80]


def items(field: str, value: Any) -> list[Any]:
    """All items of a collection of the caller."""
    try:
        return list(value)
    except Exception as exc:  # a collection of foreign code may raise anything
        raise unreadable(field, exc) from exc


def check_path(field: str, value: Any) -> Path:
    """The path that the caller names. A path or a text of a class of its own may raise
    only when it is used, so its text is read here."""
    check_kind(field, value, str, Path)
    try:
        return Path(str.__str__(value) if isinstance(value, str) else str(value))
    except Exception as exc:  # a class of foreign code may raise anything
        raise unreadable(field, exc) from exc


def unreadable(field: str, error: Exception) -> InvalidInputError:
    """The error for a value whose own methods raise."""
    problem = f"cannot be read: {type(error).__name__} from the value itself"
    return InvalidInputError(field=field, problem=problem)


def check_flag(field: str, value: Any) -> bool:
    """True or False, and nothing that only counts as one of them."""
    if type(value) is not bool:
        raise _wrong(field, "True or False", value)
    return value


def check_function(field: str, value: Any) -> None:
    """Raises InvalidInputError for what cannot be called."""
    if not callable(value):
        raise _wrong(field, "a function", value)


def check_enum(field: str, value: Any, words: type[Word]) -> Word:
    """A member of an enum, given as itself or as its text."""
    if type(value) is words:
        return value
    try:
        return words(str.__str__(value) if issubclass(type(value), str) else "")
    except ValueError as exc:
        problem = f"{shown(value)} is none of {', '.join(words)}"
        raise InvalidInputError(field=field, problem=problem) from exc


def _wrong(field: str, wanted: str, value: object) -> InvalidInputError:
    problem = f"expected {wanted}, got {type(value).__name__}"
    return InvalidInputError(field=field, problem=problem)


# --- Inbound messages, routes and payloads ---


def _utf8(value: str, name: str) -> str:
    """Check that a text can be encoded. A long text is checked later, when a thread
    encodes it."""
    try:
        if not value.isascii() and len(value) <= _LONG:
            value.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidInputError(field=name, problem="lone surrogate in text") from exc
    return value


def text(_: object, attribute: "Attribute[str]", value: object) -> None:
    """attrs validator: a str, no subclass, that can be encoded as UTF-8."""
    if type(value) is not str:
        raise _wrong(attribute.name, "str", value)
    _utf8(value, attribute.name)


def identifier(owner: object, attribute: "Attribute[str]", value: object) -> None:
    """attrs validator: a non-empty id of at most 512 characters, no control ones. An
    integer becomes its text."""
    if (
        type(value) is str
        and 0 < len(value) <= 512
        and value.isascii()
        and value.isprintable()
    ):
        return  # nearly all
    problem = identifier_problem(_id_text(owner, attribute, value))
    if problem:
        raise InvalidInputError(field=attribute.name, problem=problem)


def _id_text(owner: object, attribute: "Attribute[Any]", value: object) -> str:
    """An id as text; many platforms have integers for ids. A validator sets the text: a
    converter does not know the name of its field, and its error must name it."""
    if type(value) is int:
        if value.bit_length() > _ID_BITS:
            problem = "an integer that is too long for an id"
            raise InvalidInputError(field=attribute.name, problem=problem)
        value = str(value)
        object.__setattr__(owner, attribute.name, value)
    elif is_a(value, str) and type(value) is not str and not is_a(value, Enum):
        value = str.__str__(value)  # of no class of its own: the log takes plain text
        object.__setattr__(owner, attribute.name, value)
    if is_a(value, str):
        return _utf8(cast("str", value), attribute.name)
    kind = type(value).__name__
    problem = f"an id is text or an integer, got {kind}; pass str({attribute.name})"
    raise InvalidInputError(field=attribute.name, problem=problem)


def token(owner: object, attribute: "Attribute[str]", value: object) -> None:
    """attrs validator: a token of a platform that it expects back, at most 4096
    characters; it may be empty. An integer becomes its text."""
    name = _id_text(owner, attribute, value)
    problem = control_problem(name)
    if len(name) > 4096:
        problem = f"expected at most 4096 characters, got {len(name)}"
    if problem:
        raise InvalidInputError(field=attribute.name, problem=problem)


def optional_identifier(
    owner: object, attribute: "Attribute[str | None]", value: object
) -> None:
    if value is not None:
        identifier(owner, attribute, value)  # type: ignore[arg-type]  # same attribute name


def optional_token(
    owner: object, attribute: "Attribute[str | None]", value: object
) -> None:
    if value is not None:
        token(owner, attribute, value)  # type: ignore[arg-type]  # same attribute name


_DEEPEST = 64  # Python's json fails at about a thousand


class _LargeError(Exception):
    """A value is too large to be checked on the loop."""


class _Room:
    """The budget of values that are checked on the loop."""

    def __init__(self) -> None:
        self.values, self.characters = _AT_ONCE, LARGE

    def take(self, value: object) -> None:
        self.values -= 1
        if isinstance(value, str):
            self.characters -= len(value)
        if self.values < 0 or self.characters < 0:
            raise _LargeError


def json_value(
    value: object, name: str, depth: int = 0, room: _Room | None = None
) -> None:
    """Refuse values outside canonical JSON: floats, huge integers, odd keys."""
    if room is not None:
        room.take(value)
    if depth > _DEEPEST:
        problem = f"nested deeper than {_DEEPEST}"
        raise InvalidInputError(field=name[:80], problem=problem)
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _utf8(value, name)
    elif isinstance(value, int):
        if abs(value) >= 2**53:
            raise InvalidInputError(field=name, problem="integer of 2^53 or more")
    elif isinstance(value, Mapping | list | tuple):
        _json_items(value, name, depth + 1, room)
    else:
        problem = f"{type(value).__name__} has no place in canonical JSON"
        raise InvalidInputError(field=name, problem=problem)


def _json_items(value: object, name: str, depth: int, room: _Room | None) -> None:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            json_value(item, f"{name}[{index}]", depth, room)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidInputError(field=name, problem="object key is not text")
            json_value(key, name)
            json_value(item, f"{name}.{key}", depth, room)


def _body(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if not is_a(value, Mapping):
        problem = f"expected a mapping, got {type(value).__name__}"
        raise InvalidInputError(field=attribute.name, problem=problem)


def flag(_: object, attribute: "Attribute[bool]", value: object) -> None:
    check_flag(attribute.name, value)


def _format(value: Any) -> Format:
    return check_enum("format", value, Format)


def _freeze(name: str, value: Any) -> Any:
    """A copy of a mapping that cannot be changed."""
    try:
        return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value
    except Exception as exc:  # a mapping of foreign code may raise anything
        raise unreadable(name, exc) from exc


def _frozen_body(value: Any) -> Any:
    return _freeze("body", value)


def _frozen_files(value: Any) -> Any:
    return _freeze("files", value)


@explained
@frozen(kw_only=True)
class Route:
    """The place of a payload. `thread=None` means the root of the conversation."""

    channel: str = field(validator=identifier)
    account: str = field(default="default", validator=identifier)
    conversation: str = field(validator=identifier)
    thread: str | None = field(default=None, validator=optional_identifier)
    reply_to: str | None = field(default=None, validator=optional_identifier)

    @property
    def lane(self) -> str:
        """The name of the ordered queue that this route belongs to."""
        return lane_of(self.channel, self.account, self.conversation, self.thread)


@lru_cache(maxsize=4096)  # conversations repeat
def lane_of(*parts: str | None) -> str:
    return "/".join("" if p is None else escape(p) for p in parts)


def own_lane_of(lane: str, name: str) -> str:
    """A named lane of turns inside of a conversation and thread."""
    return f"{lane}/{escape(name)}"


def own_name(lane: str) -> str | None:
    """The own name of a lane; None for the shared lane of a conversation and thread."""
    name = (*lane.split("/"), "", "", "", "", "")[4]
    return name.replace("%2F", "/").replace("%25", "%") or None


def escape(part: str) -> str:
    """An id escaped for a name with parts between slashes."""
    return part.replace("%", "%25").replace("/", "%2F")


@frozen
class Text:
    """Text, split into parts by the channel if it is too long for one."""

    text: str = field(validator=text)
    format: Format = field(default=Format.PLAIN, converter=_format, kw_only=True)


_LONGEST_NAME = 255  # bytes, as most file systems have it
_BYTES = "application/octet-stream"
_MIME = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[ -~]*)?", re.ASCII)


def _file_name(_: object, attribute: "Attribute[str]", value: object) -> None:
    """A file name without a path and without control characters; it may be empty."""
    text(_, attribute, value)
    assert isinstance(value, str)  # noqa: S101  narrowed by text() above
    problem = control_problem(value)
    if "/" in value or "\\" in value or value in (".", ".."):
        problem = "a name, not a path"
    elif len(value.encode()) > _LONGEST_NAME:
        problem = f"longer than {_LONGEST_NAME} bytes"
    if problem:
        raise InvalidInputError(field=attribute.name, problem=problem)


def _mime(_: object, attribute: "Attribute[str]", value: object) -> None:
    """A type and a subtype, as in a header."""
    text(_, attribute, value)
    assert isinstance(value, str)  # noqa: S101  narrowed by text() above
    if len(value) > _LONGEST_NAME or not _MIME.fullmatch(value):
        problem = f"no type/subtype: {value!r:.80}"
        raise InvalidInputError(field=attribute.name, problem=problem)


@explained
@frozen
class File:
    """A file. Its bytes are copied when it is enqueued; the path may then be deleted.
    `caption`: plain text for the file. Where the channel has no captions, or shorter
    ones, the caption goes out as a text before the file."""

    path: str | Path | None = None
    data: bytes | None = field(default=None, kw_only=True, repr=False)
    name: str = field(default="", validator=_file_name, kw_only=True)
    mime: str = field(default=_BYTES, validator=_mime, kw_only=True)
    caption: str = field(default="", validator=text, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise InvalidInputError(field="path", problem="give a path or data")
        if self.path is not None and not is_a(self.path, (str, Path)):
            raise InvalidInputError(field="path", problem="expected str or Path")
        if self.data is not None and type(self.data) is not bytes:
            raise InvalidInputError(field="data", problem="expected bytes")


ATTACHED = "attach://"  # and a name: a native body refers to a file so
_ATTACHED_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_MOST_ATTACHED = 32  # more than any platform takes with one message


def _attached(native: "Native", attribute: "Attribute[Any]", value: object) -> None:
    """attrs validator: files by short plain names, without captions. Each file that the
    body names is there."""
    if not isinstance(value, Mapping):
        raise _wrong(attribute.name, "a mapping of names to files", value)
    if len(value) > _MOST_ATTACHED:
        problem = f"expected at most {_MOST_ATTACHED} files, got {len(value)}"
        raise InvalidInputError(field=attribute.name, problem=problem)
    for name, file in value.items():
        problem = _attached_problem(name, file)
        if problem:
            field = f"{attribute.name}.{name!r:.64}"
            raise InvalidInputError(field=field, problem=problem)
    missing: Iterable[str] = ()
    if value:
        json_value(native.body, "body", room=None)  # before it is gone through
        missing = pointed(native.body) - set(value)
    if missing:
        problem = f"the body points to {sorted(missing)}, which is not there"
        raise InvalidInputError(field=attribute.name, problem=problem)


def pointed(value: object) -> frozenset[str]:
    """The names of the files in a native body."""
    if isinstance(value, str):
        name = value.removeprefix(ATTACHED)
        return frozenset() if name == value else frozenset((name,))
    inner: Iterable[object] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    return frozenset(name for item in inner for name in pointed(item))


def _attached_problem(name: object, file: Any) -> str:
    if type(name) is not str or not _ATTACHED_NAME.fullmatch(name):
        return "a name has 1 to 64 letters, digits, _, - and . (none first but _)"
    if not is_a(file, File):
        return f"expected File, got {type(file).__name__}"
    return "a caption belongs into the body" if file.caption else ""


@explained
@frozen
class Native:
    """A payload for one platform only, kept unchanged (buttons, cards, blocks).

    `files`: files that go in the same message, by name; the body names one as
    `"attach://<name>"`. `specs/channels.md` says how each channel treats a file that
    the body does not name. A channel that sends no such files refuses the payload.
    `large`: the body is checked when it is sent or enqueued, since the check takes
    long."""

    body: Mapping[str, Any] = field(validator=_body, converter=_frozen_body)
    files: Mapping[str, File] = field(
        factory=dict, validator=_attached, converter=_frozen_files
    )
    large: bool = field(init=False, default=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        try:
            json_value(self.body, "body", room=_Room())
        except _LargeError:
            object.__setattr__(self, "large", True)
        except InvalidInputError:
            raise
        except Exception as exc:  # a value inside may be of a class of its own
            raise unreadable("body", exc) from exc

    def __reduce__(self) -> tuple[type["Native"], tuple[dict[str, Any], ...]]:
        return Native, (dict(self.body), dict(self.files))


Payload = Text | File | Native


def files_of(payload: Payload) -> tuple[File, ...]:
    """The files of a payload."""
    if isinstance(payload, Native):
        return tuple(payload.files.values())
    return (payload,) if isinstance(payload, File) else ()
