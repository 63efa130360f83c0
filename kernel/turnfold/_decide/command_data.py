"""The data of commands in the inbox, typed. cattrs writes and reads it.

A command was written by another process, perhaps of another version. So reading is
strict: an unknown field, a missing one or a value of another type is InvalidInputError.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from attrs import frozen
from cattrs import Converter
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from turnfold._log import canonical
from turnfold.enums import BlindPolicy, Kind, PartAct
from turnfold.errors import InvalidInputError
from turnfold.messages import Route

T = TypeVar("T")


@frozen(kw_only=True)
class PieceData:
    """A packed payload. `contents`: the numbers of the bodies that hold its files.
    Without a `head` it holds one number, of the body with the whole payload."""

    kind: str
    head: Mapping[str, Any]
    contents: tuple[int, ...]


@frozen(kw_only=True)
class EnqueueData:
    route: Route
    kind: Kind
    key: str | None
    policy: BlindPolicy | None
    not_before: int | None
    ttl_ms: int
    payloads: tuple[PieceData, ...]
    boot: str = ""  # with `boot_ms`: `Clock.booted` of the caller
    boot_ms: int = 0


@frozen(kw_only=True)
class ImportData:
    """`payloads` as in EnqueueData, the other fields as in Foreign."""

    route: Route
    kind: Kind
    key: str
    origin: str
    enqueued_at: int | None
    tries: int
    detail: str
    dead: bool
    payloads: tuple[PieceData, ...]


@frozen(kw_only=True)
class ReceiptData:
    part: int
    attempt: int
    act: PartAct
    ids: tuple[str, ...]
    thread: str | None


def _strictly(value: Any, kind: type[T]) -> T:
    if issubclass(kind, StrEnum):  # cattrs takes the hook for str here, too
        return kind(value)
    if type(value) is not kind:
        problem = f"expected {kind.__name__}, got {type(value).__name__}"
        raise TypeError(problem)
    return value


def _converter() -> Converter:
    made = Converter(forbid_extra_keys=True, detailed_validation=False)
    for kind in (str, int, bool):
        made.register_structure_hook(kind, _strictly)
    return made


_CONVERTER = _converter()
_ERRORS = (
    BaseValidationError,
    ForbiddenExtraKeysError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


def written(data: object) -> bytes:
    """The data of a command as canonical JSON."""
    return canonical.dumps(_CONVERTER.unstructure(data))


def read(data: Any, kind: type[T]) -> T:
    """The data that `written` has written, once it is decoded. Raises InvalidInputError
    for any other value."""
    try:
        return _CONVERTER.structure(data, kind)
    except _ERRORS as exc:
        problem = f"no {kind.__name__}: {exc!r:.200}"
        raise InvalidInputError(field="command.data", problem=problem) from exc
