"""Logs written event by event, good ones and broken ones, for the tests of the audit."""

from collections.abc import Sequence

from turnfold._log import events as t
from turnfold._log import outbox_events as o
from turnfold._log.canonical import Record
from turnfold._log.codec import encode, record_of
from turnfold._log.events import Event
from turnfold.enums import BlindPolicy, DeliveryClass, Kind

T0 = 1_000_000
Step = tuple[str, Event] | tuple[str, Event, int]
E, F, T, U = "entry:e", "entry:f", "turn:t", "turn:u"
FINAL = "entry:t.final"
LANE = "t/default/42/"
KEYED, LOOKUP = (DeliveryClass.KEYED,), (DeliveryClass.LOOKUP,)
START: list[Step] = [
    ("store", t.StoreCreated(store="s")),
    ("store", t.WorkerStarted(epoch=1, owner="w1")),
]


def records(steps: Sequence[Step]) -> list[Record]:
    """The log of these events, a record for each, in one moment; a step with an offset
    begins a new one."""
    made: list[Record] = []
    versions: dict[str, int] = {}
    at = T0
    for position, (stream, event, *when) in enumerate(steps, 1):
        at = T0 + when[0] if when else at
        versions[stream] = versions.get(stream, 0) + 1
        made.append(record_of([encode(event)], stream, versions[stream], at, position))
    return made


def commits(steps: Sequence[Sequence[Step]]) -> list[Record]:
    """The log of these commits: a record for each stream of a commit, in the order in
    which the streams are first touched."""
    made: list[Record] = []
    versions: dict[str, int] = {}
    at = T0
    for commit in steps:
        at = T0 + commit[0][2] if len(commit[0]) > 2 else at + 1
        events: dict[str, list[bytes]] = {}
        for stream, event, *_ in commit:
            events.setdefault(stream, []).append(encode(event))
        for stream, items in events.items():
            versions[stream] = versions.get(stream, 0) + len(items)
            position = len(made) + 1
            made.append(record_of(items, stream, versions[stream], at, position))
    return made


def queued(**more: object) -> o.Queued:
    facts: dict[str, object] = {
        "kind": Kind.NOTICE,
        "channel": "t",
        "account": "default",
        "conversation": "42",
        "lane": LANE,
        "body": ("b",),
        "expires_at": T0 + 60_000,
    }
    return o.Queued(**(facts | more))  # type: ignore[arg-type]  # a test's shorthand


def planned(
    parts: int = 1,
    classes: tuple[DeliveryClass, ...] = (),
    window: int | None = None,
    budget: int = 8,
    *,
    name: str = "e",
    ids: bool = True,
    policy: BlindPolicy | None = None,
) -> o.Planned:
    made = tuple(
        o.PlannedPart(
            kind="text",
            body="b",
            key=f"{name}{index}",
            classes=classes,
            key_window_ms=window,
            policy=policy,
        )
        for index in range(parts)
    )
    return o.Planned(parts=made, budget=budget, ids=ids)


def attempted(attempt: int = 1, part: int = 0, **more: object) -> o.Attempted:
    facts: dict[str, object] = {
        "part": part,
        "attempt": attempt,
        "owner": "w1",
        "fence": 1,
        "on_wire": True,
    }
    return o.Attempted(**(facts | more))  # type: ignore[arg-type]  # as above


def delivered(attempt: int = 1, part: int = 0, **more: object) -> o.Delivered:
    facts: dict[str, object] = {"part": part, "attempt": attempt, "receipt": ("m",)}
    return o.Delivered(**(facts | more))  # type: ignore[arg-type]  # as above


def part_delivered(attempt: int = 1, part: int = 0) -> o.PartDelivered:
    return o.PartDelivered(part=part, attempt=attempt, receipt=("m",))


def unknown(attempt: int = 1, part: int = 0, cause: str = "cut") -> o.OutcomeUnknown:
    return o.OutcomeUnknown(part=part, attempt=attempt, cause=cause, due=T0)


def accepted(message_id: str = "1", **more: object) -> t.Accepted:
    facts: dict[str, object] = {
        "channel": "t",
        "account": "default",
        "conversation": "42",
        "message_id": message_id,
        "body": "b",
        "lane": LANE,
    }
    return t.Accepted(**(facts | more))  # type: ignore[arg-type]  # as above


def started(run: int = 1, fence: int = 1, owner: str = "w1") -> t.Started:
    return t.Started(run=run, owner=owner, fence=fence)


def in_doubt(
    classes: tuple[DeliveryClass, ...] = (),
    window: int | None = None,
    policy: BlindPolicy | None = None,
) -> list[Step]:
    """An entry with one part whose first attempt nobody knows the outcome of."""
    plan = planned(classes=classes, window=window, policy=policy)
    return [*START, (E, queued()), (E, plan), (E, attempted()), (E, unknown())]


def on_wire(**more: object) -> list[Step]:
    return [*START, (E, queued(**more)), (E, planned()), (E, attempted())]


def answered() -> list[Step]:
    """A turn with its answer queued, planned and attempted."""
    return [
        *START,
        (T, accepted()),
        (T, started()),
        (FINAL, queued(kind=Kind.FINAL, turn=T, run=1)),
        (FINAL, planned(name="t")),
        (FINAL, attempted()),
        (T, t.Answered(run=1, finals=(FINAL,))),
    ]
