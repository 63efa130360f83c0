"""Taking closed streams out of the log: whole streams, by age and status.

A turn goes with all its entries. A stream stays if it is open, if it moved too lately,
if it waits for a person, or if its dedupe key may still be needed. The log keeps
position and hash of every removed record, and `store.pruned` names all of them by one
digest. So the audit finds a stream that was removed in any other way.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from attrs import frozen

from turnfold._decide import rules
from turnfold._decide.missing import all_of
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._decide.view import View
from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record, pruned_digest
from turnfold._log.events import Event
from turnfold._log.ids import outbound_key
from turnfold._state.entry import Entry
from turnfold._state.fold import STORE, State, summarize
from turnfold._state.turn import Turn
from turnfold.errors import CorruptLogError, RuleBrokenError
from turnfold.messages import escape
from turnfold.ports.store import COUNT_BY, Count, Prune, Summary

_HOUR_MS = 3_600_000
_NOTE = 4096  # characters
Group = Sequence[Entry | Turn]  # a turn with its entries, or an entry without a turn


@frozen(kw_only=True)
class Wish:
    """The streams to prune. `before`: log ms; a stream that moved later stays.
    `phases`: each stream of a group is in one of them; empty means any. `dead`: also
    dead letters that nobody has seen. `sure`: a person says that the clock is right.
    `archived`: the versions that an archive holds, by stream; None where no archive is
    asked for."""

    now: int
    before: int
    dedupe_ms: int
    sure_from: int = 0
    phases: frozenset[str] = frozenset()
    dead: bool = False
    sure: bool = False
    archived: Mapping[str, int] | None = None


def prune(
    draft: UnitOfWork,
    stream: str,
    names: Sequence[Sequence[Any]],
    older_ms: int,
    phases: Sequence[str] = (),
    dead: bool = False,
    by: str | None = None,
    why: str = "",
    archive: str | None = None,
    versions: Sequence[Sequence[Any]] = (),
    sure: bool = False,
) -> dict[str, Any]:
    """Prune the given turns and entries that may go. `names`: each with the version
    that the caller has seen. `archive`: the name of the archive that holds them;
    `versions`: the stream versions in it. Returns how many streams and events went, and
    how many groups stayed, by reason."""
    if draft.prune is not None:
        why = "another prune is in this commit; do it again"
        raise RuleBrokenError(stream=stream, rule="one_prune", why=why)
    if draft.settings.archive_first and archive is None:
        why = "its worker has archive_first: use turnfold archive"
        raise RuleBrokenError(stream=stream, rule="archive_first", why=why)
    now = max(draft.now, draft.wall) if sure else draft.now
    wish = Wish(
        now=now,
        before=now - older_ms,
        phases=frozenset(phases),
        dead=dead,
        sure=sure,
        sure_from=draft.sure_from,
        dedupe_ms=draft.settings.dedupe_ms,
        archived=None if archive is None else dict(map(tuple, versions)),
    )
    groups = all_of(partial(_group, draft, name) for name, _ in names)
    seen: dict[str, int] = dict(map(tuple, names))
    left: Counter[str] = Counter()
    chosen: list[Entry | Turn] = []
    histories = dict(zip(_named(groups), _histories(draft, groups), strict=True))
    for group in groups:
        obstacle = _obstacle(group, histories, wish, seen)
        if obstacle is not None:
            left[obstacle] += 1
        else:
            chosen += group or ()
    said = partial(
        t.Pruned, before=wish.before, by=by, note=why[:_NOTE] or None, archive=archive
    )
    taken = _take_out(draft, chosen, histories, said) if chosen else 0
    return {"streams": len(chosen), "events": taken, "left": dict(left)}


def _named(groups: Sequence[Group | None]) -> list[str]:
    return [state.stream for group in groups for state in group or ()]


def _histories(
    draft: UnitOfWork, groups: Sequence[Group | None]
) -> list[Sequence[Event]]:
    return all_of(partial(draft.history, name) for name in _named(groups))


def _group(draft: UnitOfWork, name: str) -> Group | None:
    """A turn with its entries, or an entry. None if it is not there, or if a stream of
    it cannot be read."""
    try:
        first = draft.state(name)
        if isinstance(first, Entry):
            return [first]
        if not isinstance(first, Turn):
            return None
        entries = all_of(partial(draft.entry, e) for e in draft.entries_of(name))
    except CorruptLogError:
        return None
    return [first, *entries]


def _obstacle(
    group: Group | None,
    histories: Mapping[str, Sequence[Event]],
    wish: Wish,
    seen: Mapping[str, int],
) -> str | None:
    """Why a group stays, in a word."""
    if not group:
        return "unreadable"
    first = group[0]
    if isinstance(first, Entry) and first.turn is not None:
        return "of a turn"
    if first.version != seen[first.stream]:
        return "moved"
    if wish.archived is not None and not _is_in(wish.archived, group):
        return "moved"
    return obstacle(group, histories, wish)


def _is_in(archived: Mapping[str, int], group: Group) -> bool:
    """Does the archive hold every stream of the group at its current version?"""
    return all(archived.get(state.stream) == state.version for state in group)


def obstacle(
    group: Group, histories: Mapping[str, Sequence[Event]], wish: Wish
) -> str | None:
    """Why a group may not go, in a word, judged by its own streams."""
    found = (_part(state, histories[state.stream], wish) for state in group)
    return next(filter(None, found), None)


def _part(state: Entry | Turn, history: Sequence[Event], wish: Wish) -> str | None:
    if state.open:
        return "open"
    if not (wish.sure or rules.age_is_sure(state, wish.sure_from)):
        return "clock"
    if not rules.old_enough(state, wish.before):
        return "young"
    if rules.needs_person(state) and not wish.dead:
        return "needs a person"
    if wish.phases and state.phase not in wish.phases:
        return "other status"
    if not _keys(history):
        return None
    over = rules.key_is_over(state, wish.now, wish.dedupe_ms)
    return None if over else "key"


def _take_out(
    draft: UnitOfWork,
    chosen: Sequence[Entry | Turn],
    histories: dict[str, Sequence[Event]],
    said: Callable[..., t.Pruned],
) -> int:
    names = [state.stream for state in chosen]
    records = [r for name in names for r in draft.below.records(name)]
    records.sort(key=_position)
    counts = _counts([summarize(state) for state in chosen])
    events = sum(record.count for record in records)
    keys = [key for name in names for key in _keys(histories[name])]
    event = said(
        streams=len(names),
        events=events,
        records=len(records),
        digest=pruned_digest(records),
        counts=tuple(map(_told, counts)),
    )
    draft.emit(STORE, event)
    position = next(r.position for r in draft.records() if r.stream == STORE)
    draft.prune = Prune(by=position, streams=names, keys=keys, counts=counts)
    draft.below = cast("View", _Without(draft.below, names, keys))
    return events


def _position(record: Record) -> int:
    return record.position


def _counts(summaries: Sequence[Summary]) -> list[Count]:
    found = Counter(_values(s) for s in summaries if s.lane is not None)
    return [Count(values, count) for values, count in found.items()]


def _values(s: Summary) -> tuple[int | str, ...]:
    place = "/".join(f"{s.lane}//".split("/")[:2])
    known: dict[str, int | str] = {
        "hour": s.created // _HOUR_MS,
        "family": s.stream.partition(":")[0],
        "place": place,
        "kind": s.kind or "",
        "phase": s.phase,
        "reason": s.reason or "",
        "failure": s.failure or "",
    }
    return tuple(known[name] for name in COUNT_BY)


def _told(count: Count) -> t.PrunedCount:
    facts: dict[str, Any] = dict(zip(COUNT_BY, count.values, strict=True))
    words = {name: _plain(value) for name, value in facts.items()}
    return t.PrunedCount(count=count.count, **words)


def _plain(value: Any) -> Any:
    """An empty text becomes the default itself, which is left out of the bytes."""
    return value or "" if isinstance(value, str) else value


def _keys(history: Sequence[Event]) -> list[str]:
    """The dedupe keys that a stream holds."""
    first = history[0]
    match first:
        case t.Accepted() | t.Dead():
            messages = [
                e for e in history if isinstance(e, t.Accepted | t.Dead | t.Joined)
            ]
            return [key for m in messages if (key := _inbound(first, m)) is not None]
        case o.Queued(key=str() as key, turn=None) | o.Imported(key=str() as key):
            return [outbound_key(key)]
        case _:
            return []


def _inbound(
    place: t.Accepted | t.Dead, event: t.Accepted | t.Dead | t.Joined
) -> str | None:
    parts = [place.channel, place.account]
    if event.key is not None:
        parts += ["", event.key]
    elif not event.message_id or not place.conversation:
        return None
    else:
        parts += [place.conversation, event.message_id, event.event]
        parts += [] if event.revision is None else [event.revision]
    tail = f"//{event.copy}" if isinstance(event, t.Dead) and event.copy else ""
    return f"in:{'/'.join(escape(part) for part in parts)}{tail}"


class _Without:
    """The view of a commit after it has pruned: without the pruned streams and keys."""

    def __init__(
        self, below: View, streams: Sequence[str], keys: Sequence[str]
    ) -> None:
        self._below, self._streams, self._keys = below, {*streams}, {*keys}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def state(self, stream: str) -> State | None:
        return None if stream in self._streams else self._below.state(stream)

    def lookup(self, key: str) -> str | None:
        return None if key in self._keys else self._below.lookup(key)
