"""How events name bodies: by number in their stream and by salted digest.

The number finds a body, the digest proves it. Here is also which bodies an event names:
what an audit looks for and what erasing erases.
"""

from collections.abc import Callable, Iterable, Iterator

from turnfold import canonical
from turnfold.errors import DamagedError, InvalidInputError, MissingBodyError
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.ports.store import Body, BodyRef, Store, Wanted

FILE = b'{"content":'  # how the payload of a file begins
PAYLOADS = (
    o.Queued,
    o.Planned,
    o.Imported,
    o.AmendedPart,
)  # events that name payloads of an entry


def body_ref(body: Body) -> str:
    """The text that names a body in an event: `<number>.<salted digest>`."""
    return f"{body.number}.{canonical.body_digest(body.salt, body.data)}"


def place_of(stream: str, ref: str) -> BodyRef:
    """Where a store keeps the body that an event of `stream` names.

    Raises InvalidInputError for a text that names no body.
    """
    return stream, number_of(ref)


def number_of(ref: str) -> int:
    """The number in the text that names a body. Raises InvalidInputError."""
    number, dot, _ = ref.partition(".")
    if not dot or not number.isascii() or not number.isdigit():
        raise InvalidInputError(field="body", problem=f"{ref!r:.60} names no body")
    return int(number)


def checked(ref: str, body: Body | None, address: str = "the store") -> bytes:
    """The bytes of a body as it came from a store.

    Raises MissingBodyError if it is not there, DamagedError if the bytes are not those
    that the digest in `ref` proves.
    """
    if body is None:
        raise MissingBodyError(digest=ref)
    if body_ref(body) != ref:
        problem = f"the bytes of body {ref} are not those that its digest names"
        raise DamagedError(path=address, problem=problem)
    return body.data


async def read_body(store: Store, stream: str, ref: str) -> bytes:
    """The bytes of a body that an event of `stream` names.

    Raises MissingBodyError, DamagedError, InvalidInputError, and what `fetch` raises.
    """
    place = place_of(stream, ref)
    found = await store.fetch(Wanted(bodies=frozenset((place,))))
    return checked(ref, found.bodies[place], store.address)


def digests_of(event: Event) -> Iterator[str]:
    """The bodies that an event names."""
    match event:
        case o.Queued() | o.Imported():
            yield from event.body
        case o.Planned():
            yield from (part.body for part in event.parts)
        case t.Accepted() | t.Joined():
            yield event.body
        case t.Dead():
            yield from (d for d in (event.body, event.detail) if d is not None)
        case o.AmendedPart():
            yield event.body
        case t.StepDone():
            yield event.result
        case o.Resolved() if event.why is not None:
            yield event.why
        case _:
            detail = getattr(event, "detail", None)
            if detail is not None:
                yield detail


def content_of(event: Event, data: bytes) -> str | None:
    """The body that holds the content of a file, where this one is a file's payload.
    Only an entry's payload is: what a message or a handler brings may look like one,
    and name a body that is not its own."""
    return content_in(data) if isinstance(event, PAYLOADS) else None


def content_in(data: bytes) -> str | None:
    """The name of the body that holds a file's content, in the bytes of its payload;
    None for another payload."""
    if not data.startswith(FILE):
        return None
    try:
        value = canonical.loads(data)
    except InvalidInputError:
        return None
    return value["content"] if isinstance(value["content"], str) else None


def left_of(events: Iterable[Event], stored: Callable[[str], bytes]) -> list[str]:
    """The bodies of these events that are still there, each once."""
    found: dict[str, None] = {}
    for event in events:
        for digest in digests_of(event):
            try:
                data = stored(digest)
            except MissingBodyError:
                continue
            except DamagedError:
                data = b""  # no longer readable, but there
            found[digest] = None
            content = content_of(event, data)
            if content is not None:
                found[content] = None
    return list(found)
