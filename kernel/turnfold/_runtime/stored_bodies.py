"""The bodies of a store: read and checked, or taken from memory right after the commit
that stored them."""

from collections.abc import Sequence

from turnfold._log.bodies import checked, digested, fetch_payload, place_of
from turnfold.messages import Payload, Text
from turnfold.ports.store import Body, BodyRef, Store, Wanted

_ROOM = 4 * 1024 * 1024  # bytes of bodies that are kept in memory


async def read_body(store: Store, stream: str, ref: str) -> bytes:
    """The bytes of a body that an event of `stream` names.

    Raises MissingBodyError, DamagedError, InvalidInputError, and the errors of `fetch`.
    """
    place = place_of(stream, ref)
    found = await store.fetch(Wanted(bodies=frozenset((place,))))
    bodies = await digested(found.bodies)
    return checked(ref, bodies[place], store.address)


class BodiesAtHand:
    """Bodies in memory: a body that was just stored is mostly sent at once, and need
    not be read back."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[BodyRef, Body] = {}
        self._room = _ROOM

    def keep(self, bodies: Sequence[Body]) -> None:
        for body in bodies:
            self._kept[body.stream, body.number] = body
            self._room -= len(body.data)
        if self._room < 0:
            self._kept.clear()
            self._room = _ROOM

    def at_hand(self, stream: str, ref: str) -> Payload | None:
        """The payload that an event of `stream` names, if it was just stored."""
        place = place_of(stream, ref)
        own = self._kept.get(place)
        if own is None or not isinstance(own.origin, Text):
            return None
        self._take(place)
        return own.origin

    async def payload(self, stream: str, ref: str) -> Payload:
        """The same, read from the store if necessary. Raises MissingBodyError if its
        bytes are gone, DamagedError if they are altered."""
        own = self.at_hand(stream, ref)
        return own or await fetch_payload(self.read_once, stream, ref)

    async def for_plan(self, stream: str, ref: str) -> Payload:
        """As `payload`; what is in memory stays there for the send."""
        own = self._kept.get(place_of(stream, ref))
        if own is not None and isinstance(own.origin, Text):
            return own.origin
        return await fetch_payload(self._seen, stream, ref)

    async def _seen(self, stream: str, ref: str) -> bytes:
        own = self._kept.get(place_of(stream, ref))
        return await read_body(self._store, stream, ref) if own is None else own.data

    async def read_once(self, stream: str, ref: str) -> bytes:
        """The bytes of a body, which leave memory: a second call reads the store."""
        data = await self._seen(stream, ref)
        self._take(place_of(stream, ref))
        return data

    def _take(self, place: BodyRef) -> None:
        """Take a body out of memory: it is sent once."""
        own = self._kept.pop(place, None)
        if own is not None:
            self._room += len(own.data)
