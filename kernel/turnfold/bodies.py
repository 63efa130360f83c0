"""Which bodies events name: what an audit looks for and what erasing erases."""

from collections.abc import Callable, Iterable, Iterator

from turnfold import canonical
from turnfold.errors import DamagedError, InvalidInputError, MissingBodyError
from turnfold.events import Event
from turnfold.events import outbox as o
from turnfold.events import turn as t

FILE = b'{"content":'  # how the payload of a file begins


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
    payload = isinstance(event, o.Queued | o.Planned | o.Imported | o.AmendedPart)
    if not payload or not data.startswith(FILE):
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
