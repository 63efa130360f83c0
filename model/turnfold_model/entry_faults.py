"""What may go wrong in an entry's life, and what people do to it; see `entry_steps`."""

from collections.abc import Iterator
from dataclasses import replace

from turnfold_model.entry_steps import (
    TTL,
    Call,
    Step,
    World,
    allow,
    expired,
    land,
    may_land,
    on_wire,
    outcome,
    resend,
    settled,
)
from turnfold_model.reference_shapes import Part

_BY = {"by": "me"}


def faults_of(world: World) -> list[Step]:
    """What may go wrong, and what people do, each for one fault."""
    steps = [*_on_the_wire(world), *_by_people(world), *_by_platform(world)]
    if world.entry.open and not expired(world):
        later = replace(world, at=world.entry.expires_at)
        steps.append(Step("time passes", (), later))
    if world.entry.phase in ("queued", "retryable") and not world.entry.over:
        steps += _restored(world)
    counted = world.faults + 1
    return [replace(s, world=replace(s.world, faults=counted)) for s in steps]


def _on_the_wire(world: World) -> Iterator[Step]:
    entry = world.entry
    if entry.phase not in ("attempted", "dispatched"):
        return
    lost = {"cause": "lost", "due": 1}
    if entry.phase == "dispatched":
        call = on_wire(world)
        yield outcome(world, "unknown", **lost)
        yield outcome(land(world, call), "unknown", **lost)
        for lands in (True, False):
            late = replace(call, lands=lands)
            landed = world if lands else land(world, call)
            calls = landed.calls | {late}
            yield outcome(replace(landed, calls=calls), "unknown", **lost)
    older = entry.doubt
    yield outcome(world, "deferred", failure="rate_limited")
    if older or entry.phase == "dispatched":
        died = {"cause": "owner_died", "due": 1}
        yield outcome(world, "unknown", **died)
    else:
        yield outcome(world, "failed_retryable", failure="owner_died", due=1)
    if older:
        yield outcome(world, "unknown", cause="transient", due=1)
        return
    yield outcome(world, "failed_retryable", failure="transient", due=1)
    yield outcome(world, "part_refused", failure="too_long")
    if entry.planned and entry.act == "send":
        yield _amended(world)


def _amended(world: World) -> Step:
    entry = world.entry
    failed = outcome(world, "failed_retryable", failure="decoration", due=1)
    key = f"{entry.part.key}'"
    data = {"part": entry.at, "body": "b", "key": key, "dropped": "format"}
    return Step("decoration", (*failed.told, ("amended_part", data)), world)


def _by_people(world: World) -> Iterator[Step]:
    entry = world.entry
    if entry.open and not entry.abort:
        yield Step("abort", (("abort_requested", {"reason": "user"}),), world)
    if entry.phase in ("in_doubt", "parked"):
        yield from _resolved(world)
    if entry.phase == "failed":
        yield _redriven(world)


def _resolved(world: World) -> Iterator[Step]:
    """A person tells the truth, or takes the risk."""
    entry, seen = world.entry, world.parts[world.entry.at]
    if not entry.abort:
        yield resend(world, "me")
    if not seen.shown and not may_land(world, entry.at):
        data = {"part": entry.at, "resend": False, "expires_at": world.at + TTL}
        yield Step("not sent", (("resolved", {**data, **_BY}),), world)
    if seen.shown:
        yield settled("declared", world, entry.at, entry.attempts, **_BY)


def _redriven(world: World) -> Step:
    """Parts that were refused or bounced get new keys; what is in doubt goes again."""
    entry = world.entry
    spoiled = [n for n, p in enumerate(entry.parts) if p.end in ("refused", "bounced")]
    again = [n for n, p in enumerate(entry.parts) if p.doubt or n in spoiled]
    keys = [f"{entry.parts[n].key}+" for n in spoiled]
    data = {"budget": 9, "expires_at": world.at + TTL, "accept_duplicate": True}
    told = (("redriven", {**data, **_BY, "keys": keys}),)
    return Step("redriven", told, allow(world, again))


def _by_platform(world: World) -> Iterator[Step]:
    for number, part in enumerate(world.entry.parts):
        if part.end == "delivered":
            yield Step(f"bounced {number}", (("bounced", {"part": number}),), world)


def _restored(world: World) -> list[Step]:
    """The store is an older copy: in the history that is gone all of it was sent, or
    nothing."""
    told = (("doubted", {"reason": "restored"}),)
    sent = world
    for number, part in enumerate(world.entry.parts):
        if part.end is None:
            act = "edit" if _editable(part) else "send"
            call = Call(number, part.attempts, act, part.key or "live", lands=False)
            sent = land(sent, call)
    return [Step("restored", told, world), Step("restored, sent", told, sent)]


def _editable(part: Part) -> bool:
    return "editable" in part.classes or part.key is None


def late_answers(world: World) -> Iterator[Step]:
    """The answers of requests that nobody waits for: the end of an older fault."""
    for call in world.calls:
        after = land(world, call) if call.lands else world
        after = replace(after, calls=after.calls - {replace(call, lands=False), call})
        where = {"part": call.part, "attempt": call.attempt}
        if call.act == "placeholder":
            stray = not _wanted(world, call)
            data = {**where, "handle": ["h"], "stray": stray}
            yield Step("late placeholder", (("placed", data),), after)
        elif _news(world, call):
            data = {**where, "receipt": [f"m{call.part}"]}
            yield Step("late receipt", (("late_receipt", data),), after)
        else:
            yield Step("late, and nothing new", (), after)


def _wanted(world: World, call: Call) -> bool:
    entry, part = world.entry, world.entry.parts[call.part]
    return entry.phase == "in_doubt" and part.end is None and not part.placed


def _news(world: World, call: Call) -> bool:
    """A part that has its receipt, or that bounced, learns nothing."""
    part = world.entry.parts[call.part]
    known = part.end in ("delivered", "bounced") or bool(part.void)
    return world.entry.planned and not known
