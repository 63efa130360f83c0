"""Commits: how an event changes the log's view of a column."""

from turnfold_model.protocol_model.words import (
    CLOSED,
    GONE,
    TEXT,
    TURN_OVER,
    Column,
    Config,
    Facts,
    Ph,
    Tp,
)


def commit(config: Config, column: Column, log: Facts) -> Column:
    """The column after an append. A turn ends in the commit that closes its final."""
    early = config.without == "owed" and log.turn == Tp.ANSWERED
    if early:
        log = log._replace(turn=Tp.COMPLETED)
    if log.phase in CLOSED and not log.note and log.turn != Tp.BARE:
        over = {
            Ph.DELIVERED: Tp.COMPLETED,
            Ph.FAILED: Tp.FAILED,
            Ph.ABORTED: Tp.ABORTED,
        }
        log = log._replace(turn=over[log.phase])
    if config.assume.fsync:
        return column._replace(log=log)
    return column._replace(log=log, before=column.log)


def settled(config: Config, column: Column) -> Column:
    """The part at hand is over: part_delivered, or delivered for the last one, which fails
    the entry if a part was refused."""
    log = column.log
    end = Ph.FAILED if any(log.refused) else Ph.DELIVERED
    last = log.settled + 1 == config.parts or config.without == "parts"
    closed = log.phase in CLOSED
    phase = end if last else (log.phase if closed else Ph.QUEUED)
    log = log._replace(
        phase=phase,
        settled=log.settled + 1,
        attempts=0,
        used=0,
        doubt=False,
        grant=False,
        passed=log.passed or (last and end == Ph.FAILED),
        unknown=log.unknown and not last,
        handle=0,
        remade=False,
        whole=False,
    )
    fresh = column._replace(age=0, lag=0, restarted=False)
    return commit(config, fresh, log)


def refused(config: Config, column: Column) -> Column:
    """part_refused: the part at hand will never be accepted; the others still go."""
    marks = list(column.log.refused or (False,) * config.parts)
    marks[column.log.settled] = True
    return settled(
        config, column._replace(log=column.log._replace(refused=tuple(marks)))
    )


def late_receipt(config: Config, column: Column, part: int) -> Column:
    """Evidence, not authority: it settles the part at hand or changes nothing."""
    if part < column.log.settled:
        return column
    return settled(config, column)


def placed(config: Config, column: Column, message: int) -> Column:
    """A placeholder stands, which is no receipt: its part is still to be shown."""
    log = column.log._replace(
        phase=Ph.QUEUED,
        handle=message,
        doubt=False,
        used=max(column.log.used - 1, 0),
        grant=False,
        passed=column.log.passed or not column.log.sealed,
    )
    return commit(config, column, log)


def late_placeholder(
    config: Config, column: Column, part: int, message: int
) -> tuple[Column, bool]:
    """The answer to a placeholder that was given up: a part in doubt takes it, else it
    is one too many. The second is whether it was taken."""
    log = column.log
    needed = log.phase == Ph.IN_DOUBT and part == log.settled
    if needed and (not log.handle or config.without == "handle"):
        return placed(config, column, message), True
    return column, False


def shows(column: Column, part: int, message: int, content: int) -> Column:
    """The platform changes a message, or makes one. One that is gone stays gone."""
    screen = list(column.screen)
    messages = list(screen[part])
    if message > len(messages):
        messages.append(content)
    elif messages[message - 1] != GONE:
        messages[message - 1] = content
    screen[part] = tuple(messages)
    taken = list(column.taken)
    taken[part] = min(messages.count(TEXT), 2)
    return column._replace(screen=tuple(screen), taken=tuple(taken))


def not_sent(config: Config, column: Column, phase: Ph, *, refund: int = 0) -> Column:
    """Proven not accepted; that proves nothing of an older attempt in doubt."""
    log = column.log
    to = Ph.IN_DOUBT if log.doubt and config.without != "doubt" else phase
    return commit(config, column, log._replace(phase=to, used=log.used - refund))


def unknown(config: Config, column: Column, *, refund: int = 0) -> Column:
    log = column.log
    log = log._replace(phase=Ph.IN_DOUBT, doubt=True, used=log.used - refund)
    return commit(config, column, log)


def given_up(config: Config, column: Column) -> Column:
    """failed_terminal; it yields its lane at once."""
    log = column.log
    in_doubt = log.phase in (Ph.IN_DOUBT, Ph.PARKED) or log.doubt
    in_doubt = in_doubt and config.without != "honesty"
    log = log._replace(phase=Ph.FAILED, passed=True, unknown=in_doubt, grant=False)
    return commit(config, column, log)


def parked(config: Config, column: Column) -> Column:
    log = column.log._replace(phase=Ph.PARKED, passed=True, grant=False)
    return commit(config, column, log)


def absent(config: Config, column: Column) -> Column:
    log = column.log._replace(phase=Ph.RETRYABLE, doubt=False, grant=False)
    return commit(config, column, log)


def excused(log: Facts) -> Facts:
    """A policy event allows, or takes the blame for, a second send of this part."""
    marks = list(log.excused)
    marks[log.settled] = True
    return log._replace(excused=tuple(marks))


def one_more(config: Config, column: Column, log: Facts) -> Column:
    """A person's verdict on a doubt allows at least one attempt."""
    return commit(config, column, log._replace(used=min(log.used, config.budget - 1)))


def granted(config: Config, column: Column) -> Column:
    """resolved(resend)."""
    log = excused(column.log)._replace(phase=Ph.IN_DOUBT, grant=True)
    return one_more(config, column, log)


def abort(config: Config, column: Column) -> Column:
    """abort_requested for the entry and the turn; work that has not begun ends at once."""
    log = column.log
    if log.turn in (Tp.ACCEPTED, Tp.RUNNING):
        return commit(config, column, log._replace(turn=Tp.ABORTED))
    if config.without == "abort":  # a request on the wire is called aborted, too
        return commit(config, column, log._replace(phase=Ph.ABORTED))
    return commit(config, column, log._replace(abort=True))


def abortable(log: Facts) -> bool:
    if log.turn in (Tp.ACCEPTED, Tp.RUNNING):
        return True
    open_entry = log.phase not in CLOSED and log.phase != Ph.NONE
    return open_entry and not log.abort and not log.note


def redriven(config: Config, column: Column, log: Facts) -> Column:
    """A dead letter is sent again: one commit takes back the end of its turn, and an
    abort."""
    over = log.turn in TURN_OVER and not log.note
    turn = Tp.ANSWERED if over and config.without != "reopen" else log.turn
    log = log._replace(
        turn=turn, phase=Ph.QUEUED, used=0, doubt=False, unknown=False, abort=False
    )
    return commit(config, column, log)


def queued(config: Config, column: Column, *, note: bool = False) -> Column:
    """The reply and `answered`, or the notice and `failed`: one commit."""
    turn = column.log.turn
    if turn != Tp.BARE:
        turn = Tp.FAILED if note else Tp.ANSWERED
    log = column.log._replace(turn=turn, note=note)
    if config.without == "one_commit" and turn == Tp.ANSWERED:
        return commit(config, column, log)
    log = log._replace(
        phase=Ph.QUEUED, excused=(False,) * config.parts, sealed=not config.live
    )
    screen = ((),) * config.parts if config.edits else ()
    fresh = commit(config, column, log)
    return fresh._replace(taken=(0,) * config.parts, screen=screen)


def at_rest(log: Facts) -> bool:
    """INV-14: nothing is owed: closed, visibly parked, or never came."""
    if log.phase == Ph.NONE:
        return log.turn in TURN_OVER or log.turn == Tp.NONE
    return log.phase in CLOSED or log.phase == Ph.PARKED
