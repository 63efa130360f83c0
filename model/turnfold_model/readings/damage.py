"""Logs with one piece of damage each, for every judge of logs.

A log is a list of events as an export has them. Each way of damage yields every log that
it makes of one log, with positions and versions counted anew: so only the rules of
`specs/rules.md` can speak, and neither the chain nor the versions give the damage away.
Every damaged event still has the types that the log format asks for.
"""

import types
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

import msgspec

from turnfold._log.events import CLASSES

Event = Mapping[str, Any]
Log = Sequence[Event]
Damaged = Iterator[tuple[str, list[Event]]]  # the damage, and the log

_HOUR_MS: Final = 3_600_000
_OTHER: Final = "something else"
_DELAYS_MS: Final = (1, 30_000, 24 * _HOUR_MS, 40 * 24 * _HOUR_MS)


def counted(events: Log) -> list[Event]:
    """The events with positions and versions as a store would give them."""
    versions: Counter[str] = Counter()
    out: list[Event] = []
    for position, event in enumerate(events, 1):
        stream = event["stream"]
        versions[stream] += 1
        out.append({**event, "position": position, "version": versions[stream]})
    return out


def without(log: Log) -> Damaged:
    """One event is missing."""
    for place, event in enumerate(log):
        yield f"no {place} {event['kind']}", counted([*log[:place], *log[place + 1 :]])


def doubled(log: Log) -> Damaged:
    """One event stands there twice."""
    for place, event in enumerate(log):
        end = place + 1
        yield f"twice {place} {event['kind']}", counted([*log[:end], event, *log[end:]])


def swapped(log: Log) -> Damaged:
    """Two neighbours change places, and keep the times of the places."""
    for place in range(len(log) - 1):
        one, two = log[place], log[place + 1]
        pair = [{**two, "at": one["at"]}, {**one, "at": two["at"]}]
        yield f"swapped {place}", counted([*log[:place], *pair, *log[place + 2 :]])


def cut(log: Log) -> Damaged:
    """The log ends early."""
    for place in range(1, len(log)):
        yield f"cut {place}", counted(log[:place])


def later(log: Log) -> Damaged:
    """From one event on, everything is later."""
    for place in range(len(log)):
        for ms in _DELAYS_MS:
            moved = [{**event, "at": event["at"] + ms} for event in log[place:]]
            yield f"later {place} {ms}", counted([*log[:place], *moved])


def changed(log: Log) -> Damaged:
    """One field of one event has another value that its type allows."""
    for place, event in enumerate(log):
        for path, data in _other(CLASSES[event["kind"]], event["data"]):
            new = {**event, "data": data}
            name = f"{place} {event['kind']} {path}"
            yield name, counted([*log[:place], new, *log[place + 1 :]])


def inserted(log: Log) -> Damaged:
    """An event of another kind stands in a stream that the log has."""
    for place in range(1, len(log) + 1):
        before = log[place - 1]
        for kind in sorted(CLASSES):
            for data in _made(kind, log, before):
                new = {**before, "kind": kind, "data": data}
                name = f"after {place - 1}: {kind} in {before['stream']}"
                yield name, counted([*log[:place], new, *log[place:]])


def replaced(log: Log) -> Damaged:
    """An event is of another kind."""
    for place, event in enumerate(log):
        for kind in sorted(CLASSES):
            if kind == event["kind"]:
                continue
            for data in _made(kind, log, event):
                new = {**event, "kind": kind, "data": data}
                name = f"{place} {event['kind']} is {kind}"
                yield name, counted([*log[:place], new, *log[place + 1 :]])


WAYS: Final[tuple[Callable[[Log], Damaged], ...]] = (
    without,
    doubled,
    swapped,
    cut,
    later,
    changed,
    inserted,
    replaced,
)


def damaged(log: Log) -> Damaged:
    """Every log that one piece of damage makes of this one."""
    for way in WAYS:
        for name, events in way(log):
            yield f"{way.__name__}: {name}", events


# --- other values for a field, by its type ----------------------------------------


@cache
def _fields(cls: Any) -> dict[str, tuple[Any, Any]]:
    """The type and the default of each field (`...`: it has none)."""
    hints = get_type_hints(cls)
    return {
        a.name: (hints[a.name], ... if a.required else a.default)
        for a in msgspec.structs.fields(cls)
    }


def _other(cls: Any, data: Event) -> Iterator[tuple[str, Event]]:
    """Every change of one field; a field at its default is left out, as it is stored."""
    for name, (hint, default) in _fields(cls).items():
        old = data.get(name, default)
        for path, value in _values(hint, old):
            others = {key: data[key] for key in data if key != name}
            yield (
                f"{name}{path}",
                others if value == default else others | {name: value},
            )


def _values(hint: Any, old: Any) -> Iterator[tuple[str, Any]]:
    """Other values of this type than `old`, each with words for it."""
    if isinstance(hint, types.UnionType):  # the one union of an event is with None
        inner = get_args(hint)[0]
        if old is None:
            yield "=some", _some(inner)
        else:
            yield "=none", None
            yield from _values(inner, old)
    elif get_origin(hint) is tuple:
        yield from _lists(get_args(hint)[0], list(old))
    else:
        for value in _plain(hint, old):
            if value != old:
                yield f"={value}", value


def _plain(hint: Any, old: Any) -> Sequence[Any]:
    if hint is bool:
        return [not old]
    if hint is int:
        near = {0, 1, 2, old - 1, old + 1, old + _HOUR_MS}
        return sorted(value for value in near if value >= 0)
    return [str(word) for word in hint] if _is_enum(hint) else [_OTHER]


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _lists(inner: Any, old: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    yield "+1", [*old, old[-1] if old else _some(inner)]
    if old:
        yield "=()", []
    for place, item in enumerate(old):
        nested = isinstance(item, dict)
        values = _other(inner, item) if nested else _values(inner, item)
        for path, value in values:
            yield f"[{place}]{path}", [*old[:place], value, *old[place + 1 :]]


def _some(hint: Any) -> Any:
    """A value of this type."""
    if isinstance(hint, types.UnionType):
        return None
    if get_origin(hint) is tuple:
        return []
    if hint in (bool, int):
        return hint(hint is int)
    if hint is str:
        return _OTHER
    if _is_enum(hint):
        return str(next(iter(hint)))
    fields = _fields(hint).items()
    return {name: _some(of) for name, (of, default) in fields if default is ...}


# --- whole events -----------------------------------------------------------------


def _made(kind: str, log: Log, here: Event) -> Iterator[Event]:
    """Data for an event of this kind in the stream of `here`: as the log has such an
    event first, and made of the facts of that stream."""
    seen = [event["data"] for event in log if event["kind"] == kind]
    yield from seen[:1]
    facts, cls = _facts(log, here), cast("Hashable", CLASSES[kind])
    yield {
        name: facts.get(name, _some(hint))
        for name, (hint, default) in _fields(cls).items()
        if default is ... or (name in facts and name in ("receipt", "finals"))
    }


def _facts(log: Log, here: Event) -> dict[str, Any]:
    """The fields of the events of a stream up to `here`, the latest value of each."""
    facts: dict[str, Any] = {"receipt": ["m"], "expires_at": 10**15, "budget": 8}
    for event in log:
        if event["stream"] == here["stream"]:
            facts |= event["data"]
        if event is here:
            break
    return facts
