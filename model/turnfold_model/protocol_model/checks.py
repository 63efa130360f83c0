"""The invariants of specs/design.md 2 that a state of one column can break.

They compare the log with the messages that the platform showed: the log must be true.
INV-2, INV-3, INV-8 and INV-11 are broken by a step, and are told by the step.
"""

from turnfold_model.protocol_model.words import (
    EDIT,
    GONE,
    SEND,
    TURN_OVER,
    Column,
    Config,
    Facts,
    Ph,
    Tp,
)

_SHOWS = (SEND, EDIT)  # requests that show the part itself
_NO_DOUBT = frozenset({Ph.QUEUED, Ph.RETRYABLE, Ph.ABORTED})


def wrong(config: Config, column: Column) -> str:
    """The first invariant that this column breaks, or nothing."""
    log = column.log
    if log.phase == Ph.NONE:
        return ""
    for name, broken in (
        ("INV-4", _unproven(column)),
        ("INV-1", log.phase == Ph.DELIVERED and log.settled < config.parts),
        ("INV-6", log.used > config.budget or log.used > log.attempts),
        ("INV-10", _owed(column)),
        ("INV-11", log.phase == Ph.ABORTED and log.doubt),
        ("INV-12", _denied(config, column)),
        ("INV-1", _lost(column)),
        ("INV-2", _strays(column)),
        ("INV-12", _taken_though_refused(column)),
    ):
        if broken:
            return name
    return ""


def _unproven(column: Column) -> bool:
    """A part counts as settled, yet the user never saw it."""
    log = column.log
    unseen = [part for part in range(log.settled) if not _was_seen(column, part)]
    return any(not log.excused[part] and not _refused(log, part) for part in unseen)


def _was_seen(column: Column, part: int) -> bool:
    """Somebody may have removed the message since."""
    removed = bool(column.screen) and GONE in column.screen[part]
    return removed or column.taken[part] > 0


def _refused(log: Facts, part: int) -> bool:
    return bool(log.refused) and log.refused[part]


def _lost(column: Column) -> bool:
    """Called delivered, though a part was refused."""
    return column.log.phase == Ph.DELIVERED and any(column.log.refused)


def _taken_though_refused(column: Column) -> bool:
    """A part counts as refused, and the user sees it, or still may."""
    log = column.log
    seen = {part for part, times in enumerate(column.taken) if times}
    seen |= {request.part for request in column.wire if request.act in _SHOWS}
    return any(_refused(log, part) and not log.excused[part] for part in seen)


def _owed(column: Column) -> bool:
    """A turn is over while its reply is still under way."""
    log = column.log
    open_entry = log.phase not in (Ph.DELIVERED, Ph.FAILED, Ph.ABORTED)
    over = log.turn in TURN_OVER and log.turn != Tp.BARE
    return over and open_entry and not log.note


def _denied(config: Config, column: Column) -> bool:
    """The log says "not delivered" of a part that was, or still may be."""
    log = column.log
    says_no = log.phase in _NO_DOUBT or (log.phase == Ph.FAILED and not log.unknown)
    if not says_no or log.settled >= config.parts or log.excused[log.settled]:
        return False
    arrived = column.taken[log.settled] > 0
    return arrived or any(r.part == log.settled for r in column.wire if r.act in _SHOWS)


def _strays(column: Column) -> bool:
    """More placeholders of a part than two, though no message was removed and no person
    asked for one."""
    asked = column.log.excused
    return any(
        len(messages) > 2 and GONE not in messages and not asked[part]
        for part, messages in enumerate(column.screen)
    )
