"""From what a person has at hand - an id, a piece of one, a message id - to a stream,
and from filters to rows."""

from collections.abc import AsyncIterator, Callable, Iterator
from json.encoder import encode_basestring

from attrs import field, frozen

from turnfold import canonical, pages
from turnfold.codec import decode
from turnfold.errors import CorruptLogError, InvalidInputError, NotFoundError
from turnfold.events import turn as t
from turnfold.fold import family
from turnfold.inspect.views import Row
from turnfold.names import CURSOR, ENTRY, GATE, TURN
from turnfold.ports.store import Command, Listing, Store, Summary, Wanted
from turnfold.words import Phase

_PREFIXES = (TURN, ENTRY, GATE, CURSOR)
_PAGE = 500
_SHOWN = 5  # ids named when a piece of one fits several
INBOX = 10_000  # commands that are looked through


async def resolve(store: Store, wanted: str) -> str:
    """The stream that `wanted` means: a whole name, an id without its prefix, the
    beginning of exactly one id, or the id of an inbound message. The stream may be one
    that a command in the inbox will make.

    Raises NotFoundError, or InvalidInputError if several fit.
    """
    if not wanted:
        raise InvalidInputError(field="id", problem="it is empty")
    names = (wanted, *(prefix + wanted for prefix in _PREFIXES))
    known = (await store.fetch(Wanted(summaries=frozenset(names)))).summaries
    for name in names:
        if known[name] is not None:
            return name
    found = await _beginning(store, wanted)
    if len(found) != 1:
        found = [name async for name in by_message(store, wanted)] or found
    if not found:
        found = [c.stream for c in await store.inbox(INBOX) if _means(c, wanted)]
    if not found:
        raise NotFoundError(what="turn, entry or message", id=wanted)
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        problem = f"{wanted!r} fits several: {shown}"
        raise InvalidInputError(field="id", problem=problem)
    return found[0]


async def _beginning(store: Store, wanted: str) -> list[str]:
    """Streams whose id begins so. Entries of a turn begin with its id: where they are
    all that fits besides the turn, the turn is meant."""
    prefixes = (wanted,) if ":" in wanted else tuple(p + wanted for p in _PREFIXES)
    found: list[str] = []
    for prefix in prefixes:
        rows = await store.list(Listing(prefix=prefix, limit=_PAGE))
        found += [row.stream for row in rows]
    turns = [name for name in found if family(name) == "turn"]
    if len(turns) == 1:
        base = turns[0].removeprefix(TURN)
        others = (n.partition(":")[2] for n in found if n != turns[0])
        if all(name.startswith(f"{base}.") for name in others):
            return turns
    return found


async def by_message(store: Store, message_id: str) -> AsyncIterator[str]:
    """The turns that a message id belongs to, in any conversation. Reads the log."""
    # Few records name it, and only those are decoded.
    text = f'"message_id":{encode_basestring(message_id)}'.encode()
    async for page in pages.records(store):
        for record in page:
            if text not in record.events:
                continue
            try:
                events = decode(record)
            except CorruptLogError:
                continue  # the audit speaks of it
            taken = [e for e in events if isinstance(e, t.Accepted | t.Joined)]
            if any(event.message_id == message_id for event in taken):
                yield record.stream


def makes(command: Command) -> bool:
    """The command makes its stream: until it is logged there is no other trace of it."""
    return command.kind in ("accept", "enqueue")


def _means(command: Command, wanted: str) -> bool:
    if not makes(command):
        return False
    name = command.stream
    whole = wanted if ":" in wanted else f"{name.partition(':')[0]}:{wanted}"
    return name.startswith(whole) or message_of(command) == wanted


def message_of(command: Command) -> str | None:
    """The id of the message that a command brings."""
    if command.kind != "accept":
        return None
    try:
        value = canonical.loads(command.data)
    except InvalidInputError:
        return None  # the owner will say so
    found = value.get("message_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


@frozen(kw_only=True)
class Filter:
    """Which turns and entries to list; newest first. `status`: of entries a Status or
    a phase ("P" for parked), of turns a phase. Times are log milliseconds."""

    what: str | None = None  # "turn" or "entry"; none: both
    status: tuple[str, ...] = ()
    channel: str | None = None
    account: str | None = None
    conversation: str | None = None
    lane: str | None = None
    kind: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    open: bool | None = None
    since: int | None = None
    until: int | None = None
    turn: str | None = None
    limit: int = field(default=50)


async def rows(store: Store, want: Filter) -> list[Row]:
    """At most `limit` rows that pass the filter."""
    found: list[Row] = []
    tests = _tests(want)
    async for page in pages.summaries(store, _listing(want), _PAGE):
        known = (s for s in page if family(s.stream) in ("turn", "entry"))
        found += [r for r in map(_row, known) if all(test(r) for test in tests)]
        if len(found) >= want.limit:
            break
    return found[: max(0, want.limit)]


def _listing(want: Filter) -> Listing:
    """The store narrows down by what it knows itself."""
    return Listing(
        prefix={"turn": TURN, "entry": ENTRY}.get(want.what or "", ""),
        phases=tuple({p for status in want.status for p in _phases(status)}),
        open=want.open,
        lane=want.lane,
        parent=want.turn,
        since=want.since,
        until=want.until,
    )


def _phases(status: str) -> Iterator[str]:
    """The phases that a word for a status stands for."""
    if status == "parked":
        yield Phase.PARKED
        return
    known: list[str] = [phase for phase in Phase if phase.status == status]
    yield from known or [status]


def _tests(want: Filter) -> list[Callable[[Row], bool]]:
    tests: list[Callable[[Row], bool]] = []
    if want.channel is not None:
        tests.append(lambda row: row.channel == want.channel)
    if want.account is not None:
        tests.append(lambda row: row.account == want.account)
    if want.conversation is not None:
        tests.append(lambda row: row.conversation == want.conversation)
    if want.kind:
        tests.append(lambda row: row.kind in want.kind)
    if want.reason:
        tests.append(lambda row: row.reason in want.reason)
    return tests


def _row(s: Summary) -> Row:
    entry = family(s.stream) == "entry"
    channel, account, conversation, thread = place_of(s.lane or "///")
    return Row(
        id=s.stream,
        what="entry" if entry else "turn",
        kind=s.kind,
        status=_status(s.phase) if entry else s.phase,
        open=s.open,
        channel=channel,
        account=account,
        conversation=conversation,
        thread=thread or None,
        reason=s.reason,
        created=s.created,
        updated=s.updated,
        due=s.due,
        expires=s.expires,
        turn=s.parent,
    )


def _status(phase: str) -> str:
    """As people say it: a parked entry is `attempted`, and that would hide it."""
    if phase == Phase.PARKED:
        return "parked"
    return Phase(phase).status


def place_of(lane: str) -> tuple[str, str, str, str]:
    """Channel, account, conversation and thread out of the name of a lane."""
    parts = [p.replace("%2F", "/").replace("%25", "%") for p in lane.split("/")]
    channel, account, conversation, thread = (*parts, "", "", "", "")[:4]
    return channel, account, conversation, thread
