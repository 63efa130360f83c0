"""The steps of a living worker on one column: the protocol of specs/design.md 4 to 6.

A worker decides on the log as it stands and on its own job. One that lost the fence
(`current` is false) may only report a success, as evidence.
"""

from collections.abc import Iterator
from typing import NamedTuple

from turnfold_model.protocol_model import facts, platform
from turnfold_model.protocol_model.words import (
    CLOSED,
    DEAD,
    EDIT,
    HUNG,
    PLACEHOLDER,
    PREVIEW,
    SEND,
    Column,
    Config,
    Job,
    Ph,
    Request,
    Stage,
    Step,
    Tp,
)

IDLE = Job()


class Around(NamedTuple):
    """The part of the rest of the world that a decision looks at."""

    slot: int
    current: bool  # holds the fence
    free: bool  # entries ahead in the lane are over, or have yielded
    turn_free: bool  # turns ahead in the lane have their answer
    gate: bool  # the gate is open
    faulty: bool
    hand: bool


def steps(config: Config, column: Column, job: Job, around: Around) -> Iterator[Step]:
    """Everything the worker may do next; each is one commit or one effect."""
    if job.stage == Stage.IDLE:
        if around.current:
            if not column.log.sealed:
                yield from _live_steps(config, column, around)
            yield from _turn_steps(config, column, around)
            yield from _entry_steps(config, column, around)
    elif job.stage == Stage.READY:
        yield _sent(column, job, around.slot)
    elif not around.current:
        yield from _stale(config, column, job)
    elif job.stage in (Stage.RUNNING, Stage.REPLIED):
        yield from _run_steps(config, column, job, around)
    elif job.stage == Stage.PREPARING:
        yield from _prepared(config, column, job, around)
    elif job.stage != Stage.SENT:
        yield _settling(config, column, job)


def _sent(column: Column, job: Job, slot: int) -> Step:
    log = column.log
    request = Request(job.part, job.attempt, slot, job.act, job.target)
    after = column._replace(wire=tuple(sorted([*column.wire, request])))
    announced = log.settled > job.part or log.attempts >= job.attempt
    broken = "" if announced else "INV-3"
    if log.phase == Ph.ABORTED:
        broken = "INV-11"
    return Step("send", after, job._replace(stage=Stage.SENT), broken=broken)


def _stale(config: Config, column: Column, job: Job) -> Iterator[Step]:
    if job.stage == Stage.ACCEPTED:
        after = facts.late_receipt(config, column, job.part)
        yield Step("late receipt", after, IDLE)
    elif job.stage == Stage.PLACED:
        yield _late_placeholder(config, column, job)
    elif job.stage != Stage.SENT:
        yield Step("stale", column, IDLE)


def _settling(config: Config, column: Column, job: Job) -> Step:
    """The outcome is logged if it is of the current attempt (INV-5)."""
    log, stage = column.log, job.stage
    good = stage in (Stage.ACCEPTED, Stage.FOUND)
    asked = stage in (Stage.FOUND, Stage.ABSENT)
    mine = (job.part, job.attempt) == (log.settled, log.attempts)
    if not mine or log.phase not in (
        (Ph.IN_DOUBT, Ph.PARKED) if asked else (Ph.ATTEMPTED, Ph.DISPATCHED)
    ):
        if stage == Stage.PLACED:
            return _late_placeholder(config, column, job)
        if good:
            late = facts.late_receipt(config, column, job.part)
            return Step("late receipt", late, IDLE)
        return Step("conflict", column, IDLE)
    if good or (stage == Stage.LOST and config.without == "proof"):
        return Step("delivered", facts.settled(config, column), IDLE)
    if stage == Stage.PLACED:
        return Step("placed", facts.placed(config, column, job.target), IDLE)
    return _not_accepted(config, column, stage)


def _late_placeholder(config: Config, column: Column, job: Job) -> Step:
    after, taken = facts.late_placeholder(config, column, job.part, job.target)
    return Step("late placeholder" if taken else "stray", after, IDLE)


def _live_steps(config: Config, column: Column, around: Around) -> Iterator[Step]:
    """The run of a live reply: previews that no log tells of, and its seal."""
    log = column.log
    if log.phase in CLOSED or log.abort:
        return
    mine = [r for r in column.wire if (r.act, r.tag) == (PREVIEW, around.slot)]
    if not mine or config.without == "seal":
        sealed = facts.commit(config, column, log._replace(sealed=True))
        yield Step("sealed", sealed, IDLE)
    if log.handle and not mine:
        preview = Request(log.settled, 0, around.slot, PREVIEW, log.handle)
        wire = tuple(sorted([*column.wire, preview]))
        yield Step("preview", column._replace(wire=wire), IDLE)
    if around.faulty:
        yield from platform.lost_previews(column, around.slot)


def _not_accepted(config: Config, column: Column, stage: Stage) -> Step:
    """Refused, proven absent, or nobody knows."""
    if stage == Stage.ABSENT:
        return Step("reconciled", facts.absent(config, column), IDLE)
    if stage == Stage.DEFERRED:
        after = facts.not_sent(config, column, Ph.QUEUED, refund=1)
        return Step("deferred", after, IDLE, gate=True)
    if stage == Stage.VANISHED:
        after = facts.not_sent(config, column, Ph.RETRYABLE)
        if not column.log.doubt:
            log = after.log._replace(handle=0)
            after = after._replace(log=log)
        return Step("handle gone", after, IDLE)
    if stage == Stage.ENDED and not column.log.doubt:
        return Step("failed_terminal", facts.given_up(config, column), IDLE)
    if stage == Stage.BARRED and not column.log.doubt:
        return Step("part_refused", facts.refused(config, column), IDLE)
    as_failure = stage == Stage.LOST and config.without == "timeout"
    if stage == Stage.REFUSED or as_failure:
        after = facts.not_sent(config, column, Ph.RETRYABLE)
        return Step("failed_retryable", after, IDLE)
    return Step("unknown", facts.unknown(config, column), IDLE)


def _prepared(
    config: Config, column: Column, job: Job, around: Around
) -> Iterator[Step]:
    log = column.log
    mine = log.phase == Ph.ATTEMPTED and (job.part, job.attempt) == (
        log.settled,
        log.attempts,
    )
    if not mine:
        yield Step("conflict", column, IDLE)
        return
    if log.abort:  # nothing of it is dispatched any more
        after = facts.not_sent(config, column, Ph.QUEUED, refund=1)
        yield Step("deferred", after, IDLE)
        return
    sent = facts.commit(config, column, log._replace(phase=Ph.DISPATCHED))
    yield Step("dispatched", sent, job._replace(stage=Stage.READY))
    if around.faulty:
        after = facts.not_sent(config, column, Ph.RETRYABLE)
        yield Step("prepare failed", after, IDLE, 1)


def _entry_steps(config: Config, column: Column, around: Around) -> Iterator[Step]:
    log = column.log
    match log.phase:
        case Ph.ATTEMPTED if config.without == "recovery":
            return
        case Ph.QUEUED | Ph.RETRYABLE:
            yield from _open_steps(config, column, around)
        case Ph.ATTEMPTED:  # its owner is dead; the wire was not touched
            after = facts.not_sent(config, column, Ph.RETRYABLE, refund=1)
            yield Step("owner died", after, IDLE)
        case Ph.DISPATCHED if config.without == "orphan":
            after = facts.not_sent(config, column, Ph.RETRYABLE, refund=1)
            yield Step("owner died", after, IDLE)
        case Ph.DISPATCHED:
            yield Step("owner died", facts.unknown(config, column, refund=1), IDLE)
        case Ph.IN_DOUBT:
            yield from _doubt_steps(config, column, around)
        case _:
            pass  # closed, parked or not queued: nothing to do unasked
    if around.hand:
        yield from _hands(config, column)


def _open_steps(config: Config, column: Column, around: Around) -> Iterator[Step]:
    log = column.log
    if log.abort:
        closed = facts.commit(config, column, log._replace(phase=Ph.ABORTED))
        yield Step("aborted", closed, IDLE)
    elif log.used >= config.budget:
        yield Step("exhausted", facts.given_up(config, column), IDLE)
    elif not _may_begin(config, column):
        return
    elif around.gate and (around.free or config.without == "lane"):
        yield _attempt(config, column)


def _attempt(config: Config, column: Column) -> Step:
    log = column.log
    number, act = log.attempts + 1, _next_act(config, column)
    log = log._replace(
        remade=log.remade or (act == PLACEHOLDER and log.doubt),
        whole=config.keyed and config.edits and act == SEND,
        phase=Ph.ATTEMPTED if config.prepare else Ph.DISPATCHED,
        attempts=number,
        used=log.used + 1,
        grant=False,
    )
    stage = Stage.PREPARING if config.prepare else Stage.READY
    target = log.handle if act == EDIT else 0
    job = Job(stage, log.settled, number, act, target)
    if config.without == "write_ahead":
        return Step("attempted", column, job)
    return Step("attempted", facts.commit(config, column, log), job)


def _next_act(config: Config, column: Column) -> int:
    log = column.log
    if not config.edits:
        return SEND
    if config.keyed and not log.handle:
        return PLACEHOLDER if _second_class(config, column) else SEND
    if log.handle and log.phase == Ph.IN_DOUBT and config.without == "edit":
        return SEND
    return EDIT if log.handle else PLACEHOLDER


def _second_class(config: Config, column: Column) -> bool:
    """Keyed, then editable: a placeholder once the key protects no more, but not beside a
    part that may be there whole."""
    log = column.log
    if log.doubt and config.without != "beside":
        return not log.whole
    return log.attempts > 0 and not _in_window(column)


def _may_begin(config: Config, column: Column) -> bool:
    """An edit needs its text, and no preview under way that nobody waits for."""
    log = column.log
    if config.cls != "editable" or not log.handle:
        return True
    unsure = any(r.act == PREVIEW and r.tag == DEAD for r in column.wire)
    return log.sealed and not (unsure and config.assume.quiet)


def _doubt_steps(config: Config, column: Column, around: Around) -> Iterator[Step]:
    log = column.log
    spent = log.used >= config.budget
    if config.cls == "lookup":
        if _may_ask(config, column):
            yield from _asked(config, column, around)
    elif config.without == "blind":
        yield _attempt(config, column)
    elif not (log.abort or spent) and _may_resend(config, column):
        if around.free and around.gate and _may_begin(config, column):
            yield _attempt(config, column)
    else:
        yield _by_policy(config, column, may=not (log.abort or spent))


def _asked(config: Config, column: Column, around: Around) -> Iterator[Step]:
    """A look-up searches from a time on, by the platform's clock. It overlooks a part
    that is older than this time by a clock that is too far ahead."""
    log = column.log
    found = column.taken[log.settled] > 0
    absent = Job(Stage.ABSENT, log.settled, log.attempts)
    if not found:
        yield Step("ask", column, absent)
        return
    yield Step("ask", column, absent._replace(stage=Stage.FOUND))
    if not config.assume.skew:
        yield Step("overlooked", column, absent)
    if config.without == "step" and around.faulty:  # our own clock was set ahead
        yield Step("overlooked", column, absent, 1)


def _may_resend(config: Config, column: Column) -> bool:
    log = column.log
    if config.edits and not (config.keyed and log.whole and config.without != "beside"):
        again = bool(log.handle) or not log.remade or config.without == "remade"
        return log.grant or again
    return log.grant or (config.keyed and _in_window(column))


def _by_policy(config: Config, column: Column, *, may: bool) -> Step:
    """Neither the platform nor the log allows a second send: the route decides."""
    if config.policy == "resend" and may:
        return Step("resolved", facts.granted(config, column), IDLE)
    if config.policy == "hold" and (may or config.cls == "blind"):
        return Step("parked", facts.parked(config, column), IDLE)
    return Step("gave up", facts.given_up(config, column), IDLE)


def _in_window(column: Column) -> bool:
    """After a restart only half of the window is relied on: the clock may be wrong."""
    believed = max(column.age - column.lag, 0)
    return believed < (1 if column.restarted else 2)


def _may_ask(config: Config, column: Column) -> bool:
    """A look-up proves absence only when no older request can still land."""
    tags = {request.tag for request in column.wire}
    late = DEAD in tags and config.assume.settle
    return not late and not (HUNG in tags and config.assume.hung)


def _hands(config: Config, column: Column) -> Iterator[Step]:
    """Expiry by timer, and operators. Each may come at any time: there is no clock."""
    log = column.log
    if log.phase in (Ph.QUEUED, Ph.RETRYABLE, Ph.IN_DOUBT, Ph.PARKED):
        yield Step("expired", facts.given_up(config, column), IDLE, hand=1)
    if _too_old(config, column):
        ended = log._replace(phase=Ph.FAILED, passed=True, grant=False)
        yield Step("too old", facts.commit(config, column, ended), IDLE, hand=1)
    if log.phase == Ph.PARKED:
        excused = column._replace(log=facts.excused(log))
        unsent = facts.absent(config, excused)
        unsent = facts.one_more(config, unsent, unsent.log)
        resent = facts.granted(config, column)
        yield Step("resolved resend", resent, IDLE, hand=1)
        yield Step("resolved not sent", unsent, IDLE, hand=1)
        yield Step("resolved sent", facts.settled(config, excused), IDLE, hand=1)
    if log.phase == Ph.FAILED and log.settled < config.parts:
        careful = config.without != "consent"
        again = facts.excused(log) if log.unknown and careful else log
        yield Step("redriven", facts.redriven(config, column, again), IDLE, hand=1)


def _too_old(config: Config, column: Column) -> bool:
    """A policy for age ends only waiting entries that showed nothing."""
    log = column.log
    if log.settled or log.handle:
        return False
    waits = log.phase in (Ph.QUEUED, Ph.RETRYABLE)
    return waits or (config.without == "age" and log.phase == Ph.IN_DOUBT)


def _turn_steps(config: Config, column: Column, around: Around) -> Iterator[Step]:
    log = column.log
    if log.turn == Tp.ACCEPTED and around.turn_free:
        if log.runs >= config.runs:
            yield Step("failed", facts.queued(config, column, note=True), IDLE)
        else:
            begun = log._replace(turn=Tp.RUNNING, runs=log.runs + 1)
            job = Job(Stage.RUNNING, 0, begun.runs)
            yield Step("started", facts.commit(config, column, begun), job)
    elif log.turn == Tp.RUNNING:  # the run of a dead owner
        after = log._replace(turn=Tp.ACCEPTED)
        yield Step("run_failed", facts.commit(config, column, after), IDLE)


def _run_steps(
    config: Config, column: Column, job: Job, around: Around
) -> Iterator[Step]:
    log = column.log
    stale = log.turn != Tp.RUNNING or job.attempt != log.runs
    if stale and config.without != "stale_run":
        yield Step("stale run", column, IDLE)
    elif job.stage == Stage.REPLIED:
        answered = facts.queued(config, column)
        yield Step("answered", answered, IDLE, broken="INV-9" if stale else "")
    else:
        yield Step("computed", column, job._replace(stage=Stage.REPLIED))
        if around.faulty:
            after = log._replace(turn=Tp.ACCEPTED)
            failed = facts.commit(config, column, after)
            yield Step("run_failed", failed, IDLE, 1)
