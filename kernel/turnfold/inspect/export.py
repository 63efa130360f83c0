"""A log as lines of text: one canonical JSON object per record (specs/log-format.md).

A line holds the envelope that the record's hash covers, with `position` and `hash`, and
`bodies` on request. Hidden characters are escaped, so that a line can be looked at.
`events` in another form than the codec's are exported under `raw` with their `count`,
so that a damaged row does not stop an export.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from turnfold._log import canonical
from turnfold._log.bodies import PAYLOADS, contents_in, digests_of, place_of
from turnfold._log.canonical import Record
from turnfold._log.codec import decode
from turnfold.errors import CorruptLogError, InvalidInputError
from turnfold.ports.store import Body, BodyRef, Store, Wanted, record_pages, tombstone
from turnfold.visible import shown_json

_PRUNED = {"hash", "position", "pruned"}
_ALWAYS = {"at", "hash", "position", "shard", "stream", "version"}
_FORMS = ({"events"}, {"count", "raw"})  # a line has the fields of one set
_TYPES = {"hash": str, "stream": str, "events": list, "raw": str}  # others: integers


async def lines(
    store: Store, after: int = 0, *, bodies: bool = False
) -> AsyncIterator[bytes]:
    """The log after a position, a line for each record. `bodies`: also the bodies that
    its events name. Raises StoreError if the store cannot be read."""
    async for page in record_pages(store, after):
        if bodies:
            for record, named in zip(page, await bodies_of(store, page), strict=True):
                yield dump(record, named)
        else:
            for record in page:
                yield dump(record)


async def bodies_of(
    store: Store, page: Sequence[Record]
) -> Sequence[Mapping[int, Body | None]]:
    """For each record the bodies that its events name, by number."""
    named = [_named(record) for record in page]
    found = await _fetch(store, (place for places in named for place in places))
    contents = [_contents(places, found) for places in named]
    found |= await _fetch(store, (place for places in contents for place in places))
    return [
        {place[1]: found[place] for place in (*places, *more)}
        for places, more in zip(named, contents, strict=True)
    ]


def _named(record: Record) -> dict[BodyRef, bool]:
    """The bodies that a record names; True for a payload."""
    try:
        return {
            place_of(record.stream, ref): isinstance(event, PAYLOADS)
            for event in decode(record)
            for ref in digests_of(event)
        }
    except (CorruptLogError, InvalidInputError):
        return {}


def _contents(
    named: Mapping[BodyRef, bool], found: Mapping[BodyRef, Body | None]
) -> list[BodyRef]:
    """The bodies with contents of files: only the files' payloads name them."""
    contents = []
    for place, payload in named.items():
        body = found[place] if payload else None
        for ref in () if body is None else contents_in(body.data):
            with suppress(InvalidInputError):
                contents.append(place_of(place[0], ref))
    return contents


async def _fetch(store: Store, places: Iterable[BodyRef]) -> dict[BodyRef, Body | None]:
    wanted = Wanted(bodies=frozenset(places))
    return dict((await store.fetch(wanted)).bodies) if wanted.bodies else {}


def dump(record: Record, bodies: Mapping[int, Body | None] | None = None) -> bytes:
    """One line, without its line end. `bodies`: the bodies that the events name, by
    number; None for an erased one."""
    if record.pruned:
        facts = {"position": record.position, "pruned": record.version}
        return _line(facts | {"hash": record.hash.hex()})
    value: dict[str, Any] = {
        "at": record.at,
        "hash": record.hash.hex(),
        "position": record.position,
        "shard": record.shard,
        "stream": record.stream,
        "version": record.version,
        **_events(record),
    }
    if record.wall is not None:
        value["wall"] = record.wall
    if bodies is not None:
        value["bodies"] = {str(number): _body(b) for number, b in bodies.items()}
    return _line(value)


def _line(value: Any) -> bytes:
    return shown_json(canonical.dumps(value).decode()).encode()


def _events(record: Record) -> dict[str, Any]:
    """The events as JSON, if a reader can count them and write the same bytes again;
    else `raw`."""
    try:
        events = canonical.loads(record.events)
    except InvalidInputError:
        events = None
    if isinstance(events, list) and len(events) == record.count:
        return {"events": events}
    return {"count": record.count, "raw": text_of(record.events)}


def _body(body: Body | None) -> dict[str, str] | None:
    if body is None:
        return None
    return {"data": text_of(body.data), "salt": text_of(body.salt)}


def load(line: bytes) -> Record:
    """The record in a line. Raises InvalidInputError. The codec checks the events, and
    the audit checks the hash."""
    value = _object(canonical.loads(line, _line))
    if "pruned" in value:
        return tombstone(value["position"], _hash(value["hash"]), value["pruned"])
    if "raw" in value:
        count, events = value["count"], bytes_of(value["raw"])
    else:
        count, events = len(value["events"]), canonical.dumps(value["events"])
    return Record(
        position=value["position"],
        stream=value["stream"],
        version=value["version"],
        count=count,
        at=value["at"],
        events=events,
        hash=_hash(value["hash"]),
        wall=value.get("wall"),
        shard=value["shard"],
    )


def bodies_in(line: bytes) -> Iterator[Body]:
    """The bodies in a line, beside its record. Raises InvalidInputError."""
    value = canonical.loads(line, _line)
    for number, body in value.get("bodies", {}).items():
        if body is not None:
            try:
                data, salt, place = body["data"], body["salt"], int(number)
            except (KeyError, TypeError, ValueError) as exc:
                raise InvalidInputError(field="bodies", problem=repr(exc)) from exc
            yield Body(
                stream=value["stream"],
                number=place,
                salt=bytes_of(salt),
                data=bytes_of(data),
            )


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(field="line", problem="not an object")
    names = set(value) - {"bodies", "wall"}
    whole = value.keys() == _PRUNED or names in [_ALWAYS | form for form in _FORMS]
    if not whole:
        odd = ", ".join(sorted(names ^ (_ALWAYS | _FORMS[0])))
        problem = f"fields missing or unknown: {odd}"
        raise InvalidInputError(field="line", problem=problem)
    for name in set(value) - {"bodies"}:
        wanted = _TYPES.get(name, int)
        if type(value[name]) is not wanted:
            problem = f"expected {wanted.__name__}"
            raise InvalidInputError(field=name, problem=problem)
    return value


def _hash(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError as exc:
        raise InvalidInputError(field="hash", problem=str(exc)) from exc
    if len(digest) != 32 or digest.hex() != text:
        problem = "not 32 bytes in lower-case hexadecimal"
        raise InvalidInputError(field="hash", problem=problem)
    return digest


def read(lines: Iterable[bytes]) -> Iterator[Record]:
    """The records of an export. A malformed line becomes a record that no codec can
    read, so that the audit names it and reads on."""
    last = Record(0, "?", 0, 0, 0, b"", bytes(32))
    for line in lines:
        try:
            last = load(line.rstrip(b"\r\n"))
        except InvalidInputError:
            position = last.position + 1
            last = replace(
                last, position=position, stream="?", version=1, count=1, events=line
            )
        yield last


def text_of(data: bytes) -> str:
    """Base64 with `-` and `_`, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def bytes_of(text: object) -> bytes:
    """The bytes of a text by `text_of`. Raises InvalidInputError."""
    if not isinstance(text, str):
        raise InvalidInputError(field="base64", problem="expected str")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as exc:
        raise InvalidInputError(field="base64", problem=str(exc)) from exc
