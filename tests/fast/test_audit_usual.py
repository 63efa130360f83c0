"""What the audit takes for usual at one look breaks none of its rules, and what it does
not look at for the sake of speed cannot matter."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from attrs import evolve

from turnfold.audit import entries
from turnfold.audit.among import STAYING
from turnfold.audit.entries import Moment, broken_by
from turnfold.audit.lanes import Lanes
from turnfold.events import outbox as o
from turnfold.machines.entry import TRANSITIONS, Entry
from turnfold.machines.entry import evolve as fold
from turnfold.words import CLOSED, AbortReason, DeliveryClass, Phase

from .audit_logs import E, planned, queued

NOW = Moment(at=5, epoch=1, owner="w1")
READY = evolve(
    fold(fold(None, queued(), E, 1, 1), planned(2), E, 1, 2),
    expires_at=10,
    part=1,
    attempt=1,
    used=1,
    fence=1,
    first_at=1,
    owner="w1",
    phase=Phase.DISPATCHED,
)
KEYED = evolve(READY.parts[0], classes=(DeliveryClass.KEYED,), key_window_ms=4)
ATTEMPTED = o.Attempted(part=1, attempt=2, owner="w1", fence=1)
EVENTS: dict[str, tuple[o.OutboxEvent, Entry]] = {
    "planned": (planned(), evolve(READY, planned=False, parts=())),
    "attempted": (ATTEMPTED, READY),
    "part_delivered": (o.PartDelivered(part=1, attempt=1, receipt=("m",)), READY),
    "delivered": (o.Delivered(part=1, attempt=1, receipt=("m",)), READY),
}
OF_ENTRY: dict[str, tuple[Any, ...]] = {
    "phase": tuple(Phase),
    "planned": (True, False),
    "parts": ((), (KEYED, KEYED)),
    "expires_at": (4, 5, 6),
    "first_at": (None, 2, 4),
    "owner": (None, "w2"),
    "abort": (AbortReason.USER,),
    "budget": (0, 1, 2),
    **dict.fromkeys(("used", "part", "attempt", "fence"), (0, 1, 2, 3)),
    **dict.fromkeys(("ids", "doubt", "resend", "marked"), (True, False)),
}
OF_EVENT: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("part", "attempt", "fence"), (0, 1, 2, 3)),
    **dict.fromkeys(("on_wire", "marked", "looked_up"), (True, False)),
    "owner": ("w2",),
    "receipt": ((), ("",), ("m", "")),
    "suppressed": ("x",),
    "by": ("me",),
}
OF_NOW: dict[str, tuple[Any, ...]] = {"at": (9, 10), "epoch": (0, 2), "owner": (None,)}
Change = tuple[int, str, Any]


def changes(event: o.OutboxEvent) -> list[Change]:
    return [
        (which, name, value)
        for which, fields in enumerate((OF_ENTRY, OF_EVENT, OF_NOW))
        for name, values in fields.items()
        for value in values
        if which != 1 or hasattr(event, name)
    ]


def cases(name: str) -> Iterator[tuple[Any, ...]]:
    """All is as usual, but for up to two fields."""
    event, before = EVENTS[name]
    every = changes(event)
    for some in [(), *combinations(every, 1), *combinations(every, 2)]:
        made: list[Any] = [before, event, NOW]
        for which, field, value in some:
            made[which] = evolve(made[which], **{field: value})
        yield tuple(made)


@pytest.mark.parametrize("name", EVENTS)
def test_what_is_usual_breaks_no_rule(name: str) -> None:
    usual = 0
    for before, event, now in cases(name):
        if entries.USUAL[type(event)](before, event, now):
            usual += 1
            assert not list(broken_by(before, event, now))
    assert usual > 1


def test_all_quick_looks_are_tested() -> None:
    assert {type(event) for event, _ in EVENTS.values()} == set(entries.USUAL)


def test_no_lane_is_told_of_what_cannot_concern_it() -> None:
    for phase, row in TRANSITIONS.items():
        for event in STAYING & row.keys():
            assert phase is not None
            assert not {phase, *row[event]} & CLOSED


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_the_first_of_a_lane_is_whoever_has_not_left(order: tuple[int, ...]) -> None:
    lanes, here = Lanes(), [0, 1, 2]
    for number in here:
        lanes.join(f"e{number}", "lane", number)
    for number in order:
        lanes.leave(f"e{number}", "lane")
        here.remove(number)
        first = f"e{here[0]}" if here else None
        assert lanes.ahead_of("e9", "lane", 9) == first
        assert lanes.ahead_of("e9", "lane", -1) is None
    lanes.join("e9", "lane", 9)
    assert lanes.ahead_of("e9", "lane", 9) is None
