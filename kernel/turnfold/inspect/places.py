"""Places in the form that people write - a channel, an account, a conversation - and
their lanes. An unknown name is an error that lists the existing names."""

from collections.abc import Sequence

from attrs import evolve, frozen

from turnfold._log.ids import account_scope
from turnfold.arguments import check_fields
from turnfold.errors import InvalidInputError
from turnfold.messages import escape
from turnfold.ports.store import Listing, Store
from turnfold.wrong_calls import explained

_NAMED = 12  # names in an error
_LATEST = 1_000  # turns and entries whose conversations are compared with a wrong name
_NEAR = 5


@explained
@frozen(kw_only=True)
class Place:
    channel: str | None = None
    account: str | None = None
    conversation: str | None = None

    def __attrs_post_init__(self) -> None:
        check_fields(self)


def route_of_lane(lane: str) -> tuple[str, str, str, str]:
    """Channel, account, conversation and thread of a lane, from its name."""
    parts = [p.replace("%2F", "/").replace("%25", "%") for p in lane.split("/")]
    channel, account, conversation, thread = (*parts, "", "", "", "")[:4]
    return channel, account, conversation, thread


async def accounts(store: Store) -> Sequence[tuple[str, str]]:
    """All (channel, account) pairs with a turn or an entry."""
    return sorted(route_of_lane(place)[:2] for place in await store.places())


async def lanes_of(store: Store, place: Place) -> tuple[str, ...]:
    """The prefixes of the lanes at a place; none for all places.

    Raises InvalidInputError for a channel or an account that does not exist.
    """
    if place == Place():
        return ()
    known = await accounts(store)
    named = (("channel", place.channel, 0), ("account", place.account, 1))
    for field, name, index in named:
        there = {account[index] for account in known}
        if name is not None and name not in there:
            raise InvalidInputError(field=field, problem=_none_such(field, name, there))
    tail = "" if place.conversation is None else f"{escape(place.conversation)}/"
    found = tuple(
        f"{account_scope(channel, account)}/{tail}"
        for channel, account in known
        if place.channel in (None, channel) and place.account in (None, account)
    )
    if not found:
        text = f"{place.channel} has no account {place.account}"
        raise InvalidInputError(field="account", problem=text)
    return found


async def lanes_kept(store: Store, place: Place) -> tuple[str, ...]:
    """As `lanes_of`. Raises InvalidInputError for a conversation without any turn or
    entry, too."""
    lanes = await lanes_of(store, place)
    if place.conversation is None:
        return lanes
    if lanes and await store.list(Listing(prefix="", lanes=lanes, limit=1)):
        return lanes
    wide = await lanes_of(store, evolve(place, conversation=None))
    rows = await store.list(Listing(prefix="", lanes=wide, limit=_LATEST))
    there = dict.fromkeys(route_of_lane(row.lane or "")[2] for row in rows)
    problem = _nearest(place.conversation, [name for name in there if name])
    raise InvalidInputError(field="conversation", problem=problem)


def _nearest(name: str, latest: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  for this error only

    if not latest:
        return f"no conversation {name!r:.80}; the store has no messages there"
    like = get_close_matches(name, latest, _NEAR, 0.5)
    shown = ", ".join(like or latest[:_NEAR])
    what = "like it" if like else "the latest"
    return f"no conversation {name!r:.80}; {what}: {shown}"


def _none_such(field: str, name: str, there: set[str]) -> str:
    if not there:
        return f"no {field} {name!r}; the store has no messages"
    shown = ", ".join(sorted(there)[:_NAMED]) + (", ..." if len(there) > _NAMED else "")
    return f"no {field} {name!r}; there are: {shown}"


async def place_of(store: Store, text: str) -> Place:
    """`channel`, `channel/conversation`, `channel/account` or
    `channel/account/conversation`; an account takes precedence over a conversation of
    the same name."""
    channel, *rest = text.split("/")
    known = {account for name, account in await accounts(store) if name == channel}
    if not rest:
        return Place(channel=channel)
    if rest[0] in known:
        tail = "/".join(rest[1:]) or None
        return Place(channel=channel, account=rest[0], conversation=tail)
    return Place(channel=channel, conversation="/".join(rest))
