"""The rules of parts that have a placeholder, or that end one by one (specs/rules.md).

As in `entries`, nothing of `guards` or `decide` is used here.
"""

from collections.abc import Callable

from turnfold.audit.findings import Rule
from turnfold.events import outbox as o
from turnfold.machines import parts
from turnfold.machines.entry import Entry
from turnfold.words import DeliveryClass, FailureClass, PartAct, PartEnd, Phase

Say = Callable[[Rule, str], None]
_NEVER = (
    FailureClass.PERMISSION,
    FailureClass.TARGET_GONE,
    FailureClass.TOO_LONG,
    FailureClass.INVALID_PAYLOAD,
)
_IN_FLIGHT = (Phase.ATTEMPTED, Phase.DISPATCHED)


def act(before: Entry, event: o.Attempted, say: Say) -> None:
    """What the call of an attempt breaks: a send, a placeholder, or an edit of it."""
    kind = event.act
    if not before.planned and kind is not PartAct.PLACEHOLDER:
        say(Rule.FROZEN_PLAN, "attempted before its parts were frozen")
        return
    if event.part != before.part or before.part >= before.count:
        return  # another rule speaks
    classes = before.classes if before.planned else event.classes
    if kind is not PartAct.SEND and DeliveryClass.EDITABLE not in classes:
        say(Rule.NO_DOUBLE, f"{kind} of a part that cannot be edited")
    if bool(before.handle) != (kind is PartAct.EDIT):
        stands = "stands" if before.handle else "does not stand"
        say(Rule.NO_DOUBLE, f"{kind}, though its placeholder {stands}")
    third = before.doubt and before.remade and not before.resend
    if kind is PartAct.PLACEHOLDER and third:
        say(Rule.NO_DOUBLE, "an empty placeholder was made again a second time")


def placed(before: Entry, event: o.Placed, _at: int, say: Say) -> None:
    if not event.handle or not all(event.handle):
        say(Rule.NO_LOSS, "called placed without a handle")
    if not 1 <= event.attempt <= before.made(event.part):
        text = f"placed by attempt {event.attempt} of part {event.part}"
        say(Rule.FENCE, f"{text}, which never began")
    if event.stray or event.part >= before.count:
        return
    state = parts.known(before.others, event.part)
    handle = before.handle if event.part == before.part else state and state.handle
    if before.ended(event.part) or handle:
        say(Rule.EVIDENCE, f"part {event.part} placed, though it needs no placeholder")
    if (
        before.planned
        and DeliveryClass.EDITABLE not in before.parts[event.part].classes
    ):
        say(Rule.NO_DOUBLE, f"part {event.part} placed, but it cannot be edited")
    if before.phase not in (Phase.DISPATCHED, Phase.IN_DOUBT):
        say(Rule.FENCE, f"placed in phase {before.phase}, when no placeholder was out")
    last = (before.part, before.attempt, PartAct.PLACEHOLDER)
    current = (event.part, event.attempt, before.act) == last
    if before.phase is Phase.DISPATCHED and not current:
        text = f"placed by attempt {event.attempt} of part {event.part}"
        say(Rule.FENCE, f"{text}, which is not the placeholder under way")


def refused(before: Entry, event: o.PartRefused, _at: int, say: Say) -> None:
    if event.part >= before.count or before.ended(event.part):
        say(Rule.EVIDENCE, f"part {event.part} refused, and it is not open")
    if event.failure not in _NEVER:
        say(Rule.NO_LOSS, f"refused for {event.failure}, which may pass")
    if before.doubtful:
        say(Rule.NO_DOUBLE, "called refused while an older attempt is in doubt")
    last = (before.part, before.attempt)
    if before.phase in _IN_FLIGHT and (event.part, event.attempt) != last:
        text = f"attempt {event.attempt} of part {event.part} is called refused"
        say(Rule.FENCE, f"{text}; the last one is {last[1]} of part {last[0]}")


def amended(before: Entry, event: o.AmendedPart, _at: int, say: Say) -> None:
    open_part = event.part < before.count and not before.ended(event.part)
    if not before.planned or not open_part:
        say(Rule.FROZEN_PLAN, f"part {event.part} was changed, and it is not open")
    if any(part.key == event.key for part in before.parts):
        say(Rule.NO_DOUBLE, "a new body goes out under a key that was used")


def resolved(before: Entry, event: o.Resolved, _at: int, say: Say) -> None:
    state = parts.known(before.others, event.part)
    here = event.part == before.part and before.doubt
    if not here and not (state is not None and state.doubt):
        say(Rule.NO_DOUBLE, f"part {event.part} resolved, and it is not in doubt")


def doubted(before: Entry, _event: o.Doubted, _at: int, say: Say) -> None:
    here = len(before.parts) if before.planned else before.count
    if before.part >= here:  # a plan without parts has none that could be in doubt
        say(Rule.NO_DOUBLE, "called in doubt, though each part has ended")


def bounced(before: Entry, event: o.Bounced, _at: int, say: Say) -> None:
    state = parts.known(before.others, event.part)
    if state is None or state.end is not PartEnd.DELIVERED:
        say(Rule.EVIDENCE, f"part {event.part} bounced and was never accepted")
