"""A message for a busy lane: it joins, supersedes, waits or is dropped.

A lane is busy while one of its turns waits or runs. A decision here shares one commit
with the acceptance, so no answer of an older turn comes in between.
"""

from collections.abc import Collection

from attrs import frozen

from turnfold._decide import rules
from turnfold._decide.operator import Abortion, abort_turn
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import events as t
from turnfold._log.ids import inbound_key
from turnfold._state.turn import Turn
from turnfold.enums import AbortReason, Busy, Kind, TurnOutcome, TurnPhase, Waits
from turnfold.inbound import Inbound

_LONGEST = 10  # a debounced turn waits at most this many pauses


@frozen
class Plan:
    """The plan for a message if its lane is busy. `debounce_ms`: how long a turn waits
    for more messages before it starts."""

    busy: Busy = Busy.QUEUE
    debounce_ms: int = 0

    @property
    def plain(self) -> bool:
        return self.busy is Busy.QUEUE and not self.debounce_ms


QUEUE = Plan()


def waiting(draft: UnitOfWork, lane: str) -> list[Turn]:
    """The turns of a lane that have no answer yet, in order."""
    turns = [draft.turn(stream) for stream in draft.turn_lane(lane)]
    return [turn for turn in turns if rules.not_answered(turn)]


def host_of(draft: UnitOfWork, inbound: Inbound) -> Turn | None:
    """The turn that a message joins: the last of its lane, if no run has begun."""
    turns = waiting(draft, inbound.lane)
    if not turns or inbound_key(inbound) is None:
        return None  # without a key a repeat looks like a new message
    last, limit = turns[-1], draft.settings.max_lane_turns
    return last if rules.may_be_joined(last, limit) else None


def join(draft: UnitOfWork, host: Turn, inbound: Inbound, debounce_ms: int) -> None:
    """The host answers this message, too. It waits for further messages, but not for
    ever."""
    evidence = inbound.evidence
    draft.emit(
        host.stream,
        t.Joined(
            message_id=inbound.message_id or "",
            key=inbound.key,
            body=draft.body(host.stream, evidence.raw, seal=evidence.seal),
            form=evidence.form,
            event=inbound.event,
            sender=inbound.sender,
            sent_at=inbound.sent_at,
            revision=inbound.revision,
            due=_later(draft, host, debounce_ms),
        ),
    )


def _later(draft: UnitOfWork, host: Turn, debounce_ms: int) -> int | None:
    if not debounce_ms or host.due is None:
        return None
    last = host.created + _LONGEST * debounce_ms
    return max(host.due, min(draft.now + debounce_ms, last))


def due_of(draft: UnitOfWork, plan: Plan) -> int | None:
    """When a new turn may start; None for at once."""
    return draft.now + plan.debounce_ms if plan.debounce_ms else None


def supersede(draft: UnitOfWork, inbound: Inbound) -> tuple[str, ...]:
    """Stop the turns that wait or run in the lane, for a newer message. A held turn
    stays held."""
    turns = [t for t in waiting(draft, inbound.lane) if not t.held]
    for turn in turns:
        abort_turn(draft, turn.stream, AbortReason.SUPERSEDED)
    return tuple(turn.stream for turn in turns)


def drop(draft: UnitOfWork, turn: str) -> None:
    """Accepted, known by its key, and never run: the lane was busy."""
    why = draft.text(turn, "dropped: its lane was busy")
    draft.emit(turn, t.TurnAborted(outcome=TurnOutcome.ABORTED, why=why))


# --- A stop of a whole lane ---


@frozen(kw_only=True)
class LaneAbortion:
    """The turns of a lane after a stop, by id. `stopped`: nothing more of the turn is
    sent. `too_late`: the turn is over. `unknown`: a part of its answer is on the wire
    or in doubt. `kept`: the turn goes on, since the stop did not include its kind."""

    stopped: tuple[str, ...] = ()
    too_late: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def sort_of(turn: Turn, now: int) -> Waits:
    """Why a turn is still open."""
    if turn.phase is TurnPhase.RUNNING:
        return Waits.RUNNING
    if turn.phase is TurnPhase.ANSWERED:
        return Waits.ANSWERED
    first = turn.first
    debounced = isinstance(first, t.Accepted) and first.due is not None and not turn.run
    if debounced and turn.due is not None and now < turn.due:
        return Waits.DEBOUNCED
    return Waits.QUEUED


def _answered(draft: UnitOfWork, lane: str) -> list[Turn]:
    """The turns of a lane with an answer in the outbox, which has one lane for each
    conversation and thread."""
    place = "/".join(lane.split("/")[:4])
    names = [entry.turn for entry in draft.lane(place) if entry.kind is Kind.FINAL]
    turns = [draft.turn(name) for name in dict.fromkeys(names) if name is not None]
    return [t for t in turns if t.lane == lane and t.phase is TurnPhase.ANSWERED]


def abort_lane(
    draft: UnitOfWork,
    stream: str,
    scope: Collection[str],
    by: str | None = None,
    why: str = "",
) -> LaneAbortion:
    """Stop the turns of a lane that are of a kind in `scope`. `stream`: the lane."""
    found: dict[str, list[str]] = {}
    for turn in [*waiting(draft, stream), *_answered(draft, stream)]:
        what = "kept"
        if sort_of(turn, draft.now) in scope:
            done: Abortion = abort_turn(draft, turn.stream, AbortReason.USER, by, why)
            what = done.answer
        found.setdefault(what, []).append(turn.stream)
    return LaneAbortion(**{what: tuple(names) for what, names in found.items()})
