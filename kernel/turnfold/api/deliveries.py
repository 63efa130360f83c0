"""The JSON delivery files of another gateway's queue, read (specs/import.md).

A field that only records the past is read leniently. A field that names a payload or
its place is read strictly, and an unreadable one leaves only its own file out.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import evolve, field, frozen

from turnfold.enums import Kind
from turnfold.errors import InvalidInputError
from turnfold.messages import File, Native, Payload, Route, Text, check_enum, check_id

FOLDER = "delivery-queue"
FAILED = "failed"
ARCHIVE = "imported"
_LIMIT_MS = 2**53
_MEDIA = ("mediaUrl", "mediaUrls")
_PLAIN = {"text", *_MEDIA}


@frozen(kw_only=True)
class Delivery:
    """One file of the queue. `key` is the same for the same delivery, for ever."""

    path: Path
    raw: bytes = field(repr=False)
    key: str
    route: Route
    kind: Kind
    payloads: tuple[Payload, ...]
    enqueued_at: int | None
    tries: int
    error: str
    dead: bool


@frozen(kw_only=True)
class Queue:
    """The deliveries of a queue. `problems`: files that cannot be read, with the reason.
    `others`: files that are no deliveries."""

    folder: Path
    deliveries: tuple[Delivery, ...]
    problems: tuple[tuple[Path, str], ...]
    others: tuple[Path, ...]


def read_queue(directory: Path) -> Queue:
    """All deliveries in the folder and in its `failed/`, the oldest first. Raises
    InvalidInputError if this is no folder, or cannot be read."""
    folder = directory / FOLDER if (directory / FOLDER).is_dir() else directory
    found: list[Delivery] = []
    problems: list[tuple[Path, str]] = []
    others: list[Path] = []
    for path, dead in _files(folder):
        if path.suffix != ".json":
            others.append(path)
            continue
        try:
            found.append(read_delivery(path, path.read_bytes(), dead=dead))
        except InvalidInputError as exc:
            problems.append((path, exc.facts["field"] + ": " + exc.facts["problem"]))
        except OSError as exc:
            problems.append((path, exc.strerror or str(exc)))
    found.sort(key=lambda one: (one.enqueued_at or _LIMIT_MS, one.key))
    return Queue(
        folder=folder,
        deliveries=tuple(found),
        problems=tuple(problems),
        others=tuple(others),
    )


def _files(folder: Path) -> Iterable[tuple[Path, bool]]:
    try:
        for place, dead in ((folder, False), (folder / FAILED, True)):
            if dead and not place.is_dir():
                continue
            yield from ((p, dead) for p in sorted(place.iterdir()) if p.is_file())
    except OSError as exc:
        problem = f"{str(folder)[:120]}: {exc.strerror}"
        raise InvalidInputError(field="directory", problem=problem) from exc


def read_delivery(path: Path, raw: bytes, *, dead: bool = False) -> Delivery:
    """Raises InvalidInputError with the field that cannot be read."""
    value = _object(raw)
    name = _id("id", value.get("id"), path.stem)
    return Delivery(
        path=path,
        raw=raw,
        key=f"import:{name}" if len(name) < 400 else f"import:{_hash(name)}",
        route=_route(value),
        kind=check_enum("kind", value.get("kind") or Kind.FINAL, Kind),
        payloads=_payloads(value.get("payloads"), path.parent),
        enqueued_at=_count(value.get("enqueuedAt")),
        tries=_count(value.get("retryCount")) or 0,
        error=_words(value.get("lastError")),
        dead=dead,
    )


def _object(raw: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        problem = f"no JSON: {exc!s:.120}"
        raise InvalidInputError(field="file", problem=problem) from exc
    if not isinstance(value, dict):
        raise InvalidInputError(field="file", problem="no JSON object")
    return value


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _id(name: str, value: object, otherwise: str | None = None) -> str:
    """Many queues have numbers for ids."""
    if value is None or value == "":
        value = otherwise
    if type(value) is int:
        value = str(value)
    return check_id(name, value)


def _route(value: Mapping[str, Any]) -> Route:
    def maybe(name: str) -> str | None:
        given = value.get(name)
        return None if given is None or given == "" else _id(name, given)

    return Route(
        channel=_id("channel", value.get("channel")),
        account=_id("accountId", value.get("accountId"), "default"),
        conversation=_id("to", value.get("to")),
        thread=maybe("threadId"),
        reply_to=maybe("replyToId"),
    )


def _count(value: object) -> int | None:
    """A time or a number that only records the past. A senseless value becomes None,
    and a missing time does not count as an old one (E02, D07)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < _LIMIT_MS:  # false for NaN, too
        return None
    return int(value)


def _words(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _payloads(value: object, folder: Path) -> tuple[Payload, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidInputError(field="payloads", problem="no list with a payload")
    return tuple([part for one in value for part in _parts(one, folder)])


def _parts(one: object, folder: Path) -> list[Payload]:
    """The text and the existing files of one payload become a Text and Files, and the
    queue owns a copy. Any other payload stays a Native, for a channel that understands
    it."""
    if isinstance(one, str):
        one = {"text": one}
    if not isinstance(one, dict):
        raise InvalidInputError(field="payloads", problem="a payload is no object")
    used = {name: item for name, item in one.items() if item not in (None, "", [])}
    text, media = used.get("text", ""), _media(used)
    files = [_file(name, folder) for name in media]
    known = set(used) <= _PLAIN and isinstance(text, str)
    here = [file for file in files if file is not None]
    if not used:
        raise InvalidInputError(field="payloads", problem="an empty payload")
    if not known or len(here) < len(media):
        return [Native(one)]
    if text and here:  # the caption of the first file
        return [evolve(here[0], caption=text), *here[1:]]
    return [*([Text(text)] if text else []), *here]


def _media(used: Mapping[str, Any]) -> list[object]:
    """Each file once: many queues name the first one twice."""
    several = used.get("mediaUrls", [])
    found = [*([used["mediaUrl"]] if "mediaUrl" in used else [])]
    found += several if isinstance(several, list) else [several]
    return [name for n, name in enumerate(found) if name not in found[:n]]


def _file(name: object, folder: Path) -> File | None:
    """A file of this machine that can be read."""
    if not isinstance(name, str) or "\0" in name:
        return None
    try:
        url = urlsplit(name)
        if url.scheme not in ("", "file"):
            return None
        path = folder / (unquote(url.path) if url.scheme else name)
        return File(path) if path.is_file() else None
    except (ValueError, OSError):  # no address, no path: the payload keeps its word
        return None
