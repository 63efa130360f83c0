"""The steps of one entry's life, as its worker and a healthy platform take them.

Each step is a list of events and what it does to the platform. It is written from the
design, and knows nothing of the kernel's decisions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from turnfold_model.reference_judge import legal
from turnfold_model.reference_kinds import Violation
from turnfold_model.reference_shapes import Entry

TTL = 100


@dataclass(frozen=True, slots=True)
class Setting:
    """`kind`: keyed, lookup, editable or blind. `policy`: hold or resend, of blind parts.
    `live`: a placeholder goes out before the plan."""

    kind: str
    parts: int = 1
    policy: str = "hold"
    prepares: bool = False
    live: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What the user sees of one part, and how often the log has allowed it again."""

    shown: int = 0
    empty: int = 0  # placeholders
    allowed: int = 0
    keys: frozenset[str] = frozenset()  # under which the platform has taken it


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose answer was lost. `lands`: it has not reached the platform yet."""

    part: int
    attempt: int
    act: str
    key: str
    lands: bool


@dataclass(frozen=True, slots=True)
class World:
    entry: Entry
    parts: tuple[Shown, ...]
    calls: frozenset[Call] = frozenset()
    at: int = 1
    faults: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """`told`: events by name, with their data. `world`: as it is but for the entry."""

    name: str
    told: tuple[tuple[str, dict[str, Any]], ...]
    world: World


class Gap(Exception):  # noqa: N818  a finding of the search, not an error
    """No row of the table, or a rule, lets an event be told that is true."""


def taken(world: World, step: Step, rows: set[tuple[str, str, str]]) -> World:
    """The world after a step. Raises Gap. `rows` takes the edges."""
    entry = world.entry
    for kind, data in step.told:
        event = {"kind": f"outbox.{kind}", "at": step.world.at, "data": data}
        after = legal(entry, event)
        if isinstance(after, Violation):
            text = f"{kind} in {entry.phase}: {after}"
            raise Gap(text)
        assert isinstance(after, Entry)  # noqa: S101  `legal` keeps the family
        rows.add((kind, entry.phase, after.phase))
        entry = after
    return replace(step.world, entry=entry)


def born(setting: Setting) -> World:
    """An entry that is queued, and planned unless it is live."""
    data = {"kind": "final", "lane": "l", "body": ["b"], "expires_at": TTL}
    place = {"channel": "c", "account": "a", "conversation": "1"}
    entry = legal(None, {"kind": "outbox.queued", "at": 0, "data": {**data, **place}})
    assert isinstance(entry, Entry)  # noqa: S101  these data are right
    world = World(entry, (Shown(),) * setting.parts)
    return world if setting.live else taken(world, _plan(setting, world), set())


def _plan(setting: Setting, world: World) -> Step:
    classes = [] if setting.kind == "blind" else [setting.kind]
    parts = [{"key": f"k{n}", "classes": classes} for n in range(setting.parts)]
    return Step("planned", (("planned", {"parts": parts, "budget": 9}),), world)


# --- the worker ----------------------------------------------------------------------


def own_steps(setting: Setting, world: World) -> Iterator[Step]:
    """What the worker and a healthy platform do next; the first one comes first."""
    entry = world.entry
    match entry.phase:
        case "queued" | "retryable":
            yield from _ready(setting, world)
        case "attempted" if entry.abort or expired(world):
            yield outcome(world, "deferred", failure="stopped")
        case "attempted":
            now = {"part": entry.at, "attempt": entry.attempts}
            yield Step("dispatched", (("dispatched", now),), world)
        case "dispatched":
            yield _accepted(world)
        case "in_doubt":
            yield from _in_doubt(setting, world)
        case "parked" if expired(world) or entry.abort:
            yield _unknown_end(world)
        case _:
            return


def expired(world: World) -> bool:
    return world.at >= world.entry.expires_at


def _ready(setting: Setting, world: World) -> Iterator[Step]:
    entry = world.entry
    if entry.over:
        reason = "partial" if entry.delivered else "refused"
        yield Step(reason, (("failed_terminal", {"reason": reason}),), world)
    elif entry.abort:
        yield Step("aborted", (("aborted", {"reason": "user"}),), world)
    elif expired(world):
        yield Step("expired", (("failed_terminal", {"reason": "expired"}),), world)
    elif not entry.planned and entry.part.placed:
        yield _plan(setting, world)
    else:
        yield _attempt(setting, world)


def _attempt(setting: Setting, world: World) -> Step:
    """The next attempt of the part that is next."""
    entry, part = world.entry, world.entry.part
    act = "send"
    if setting.kind == "editable":
        act = "edit" if part.placed else "placeholder"
    data = {"part": entry.at, "attempt": part.attempts + 1, "owner": "o", "fence": 1}
    more = {"act": act, "on_wire": not setting.prepares, "classes": [setting.kind]}
    return Step(f"attempted {act}", (("attempted", {**data, **more}),), world)


def _in_doubt(setting: Setting, world: World) -> Iterator[Step]:
    entry = world.entry
    if entry.abort or expired(world):
        yield _unknown_end(world)
    elif not entry.planned and entry.part.placed:
        yield _plan(setting, world)
    elif entry.grant or setting.kind == "keyed":
        yield _attempt(setting, world)
    elif setting.kind == "editable":
        again = entry.part.placed or not entry.part.remade
        yield _attempt(setting, world) if again else _park(world)
    elif setting.kind == "lookup":
        yield from _looked_up(world)
    elif setting.policy == "resend" and not world.parts[entry.at].allowed:
        yield resend(world, "policy:resend")
    else:
        yield _park(world)


def _unknown_end(world: World) -> Step:
    data = {"reason": "outcome_unknown"}
    return Step("outcome_unknown", (("failed_terminal", data),), world)


def _park(world: World) -> Step:
    return Step("parked", (("parked", {"reason": "hold"}),), world)


def _looked_up(world: World) -> Iterator[Step]:
    """Absence is proven when no older request can land any more."""
    entry = world.entry
    if world.parts[entry.at].shown:
        yield settled("found", world, entry.at, entry.attempts, looked_up=True)
    elif not may_land(world, entry.at):
        data = {"part": entry.at, "absent": True, "due": 1}
        yield Step("absent", (("reconciled", data),), world)
    else:
        landed = next(c for c in world.calls if c.part == entry.at and c.lands)
        yield Step("lands at last", (), land(world, landed))


def may_land(world: World, part: int) -> bool:
    return any(call.part == part and call.lands for call in world.calls)


def resend(world: World, by: str) -> Step:
    entry = world.entry
    data = {"part": entry.at, "resend": True, "by": by}
    expiry = {} if by.startswith("policy") else {"expires_at": world.at + TTL}
    return Step(
        f"resend by {by}",
        (("resolved", {**data, **expiry}),),
        allow(world, [entry.at]),
    )


def allow(world: World, parts: Iterable[int]) -> World:
    """The log has a word now that takes the blame for one more of these parts."""
    shown = list(world.parts)
    for part in parts:
        shown[part] = replace(shown[part], allowed=shown[part].allowed + 1)
    return replace(world, parts=tuple(shown))


# --- the platform --------------------------------------------------------------------


def on_wire(world: World, *, lands: bool = False) -> Call:
    """The request that is on the wire."""
    entry = world.entry
    key = entry.part.key or "live"
    return Call(entry.at, entry.attempts, entry.act, key, lands)


def land(world: World, call: Call) -> World:
    """The request reaches the platform, and the user sees what it shows."""
    seen = world.parts[call.part]
    keyed = call.act == "send" and "keyed" in world.entry.parts[call.part].classes
    if call.act == "placeholder":
        seen = replace(seen, empty=seen.empty + 1)
    elif not (keyed and call.key in seen.keys) and not (
        call.act == "edit" and seen.shown
    ):
        seen = replace(seen, shown=seen.shown + 1, keys=seen.keys | {call.key})
    parts = (*world.parts[: call.part], seen, *world.parts[call.part + 1 :])
    calls = world.calls - {call}
    if call.lands:
        calls |= {replace(call, lands=False)}
    return replace(world, parts=parts, calls=calls)


def _accepted(world: World) -> Step:
    call, entry = on_wire(world), world.entry
    after = land(world, call)
    if call.act == "placeholder":
        data = {"part": call.part, "attempt": call.attempt, "handle": ["h"]}
        return Step("placed", (("placed", data),), after)
    return settled("accepted", after, entry.at, entry.attempts)


def settled(name: str, world: World, part: int, attempt: int, **more: Any) -> Step:
    """`delivered` if all parts are then, else `part_delivered`."""
    others = [p for n, p in enumerate(world.entry.parts) if n != part]
    whole = all(p.end == "delivered" for p in others)
    data = {"part": part, "attempt": attempt, "receipt": [f"m{part}"], **more}
    kind = "delivered" if whole else "part_delivered"
    return Step(f"{name} {part}", ((kind, data),), world)


def outcome(world: World, kind: str, **data: Any) -> Step:
    now = {"part": world.entry.at, "attempt": world.entry.attempts}
    return Step(f"{kind} {data}", ((kind, {**now, **data}),), world)
