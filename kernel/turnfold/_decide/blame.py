"""Blame for the death of a process.

A death does not show its cause: any turn or entry that was under way may have caused
it. So none of them counts a failure. All of them are suspects: half of them go at a
time, then half of those that a second death met, and in the end one alone. A turn or an
entry is blamed only if it was alone when its process died. After several such deaths it
waits for a person.
"""

from functools import partial

from turnfold._decide import outcomes, rules, trials, turns
from turnfold._decide.failures import backoff_ms
from turnfold._decide.missing import all_of
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import events as t
from turnfold._state.entry import Entry
from turnfold._state.turn import DIED, Turn
from turnfold.errors import CorruptLogError, NotFoundError


def has_orphans(draft: UnitOfWork) -> bool:
    return any(state is not None for state in _under_way(draft))


def bury(draft: UnitOfWork) -> None:
    """Record the death for every turn and entry of the dead process, in one commit: a
    second death in the middle would make the rest of them look alone."""
    group = _under_way(draft)
    dead = [state for state in group if isinstance(state, Turn)]
    for turn in dead:
        own = sum(isinstance(s, Entry) and s.turn == turn.stream for s in group)
        suspects = sum(other.deaths >= turn.deaths for other in dead)
        orphaned(draft, turn.stream, len(group) - 1 - own, suspects)
    sent = [state for state in group if isinstance(state, Entry)]
    for entry in sent:
        deaths = entry.blame.deaths
        suspects = sum(other.blame.deaths >= deaths for other in sent)
        mine, beside = draft.entry(entry.stream), len(group) - 1
        dig = trials.bury if mine.trying else outcomes.bury
        dig(draft, mine, beside, suspects)


def _under_way(draft: UnitOfWork) -> list[Entry | Turn | None]:
    """The turns and entries that a dead process was running or sending; None for each
    that cannot be read."""
    fence = draft.context.fence
    if fence is None:
        return []
    found = all_of(partial(_read, draft, name) for name in draft.below.left_under_way)
    return [state for state in found if state is None or _is_dead(state, fence.epoch)]


def _read(draft: UnitOfWork, stream: str) -> Entry | Turn | None:
    try:
        state = draft.state(stream)
    except CorruptLogError:
        return None  # shown by health
    if not isinstance(state, Entry | Turn):
        raise NotFoundError(what="stream", id=stream)
    return state


def _is_dead(state: Entry | Turn, epoch: int) -> bool:
    if isinstance(state, Turn):
        return rules.runner_is_dead(state, epoch)
    return rules.sender_is_dead(state, epoch) or rules.trial_is_dead(state, epoch)


def orphaned(
    draft: UnitOfWork, stream: str, beside: int | None = None, suspects: int = 0
) -> None:
    """End a run whose process has died; the next worker calls this. `beside`: how many
    others were under way; None: not known."""
    turn = draft.turn(stream)
    if not rules.runner_is_dead(turn, draft.fence().epoch):
        return
    if not turns.goes_on(draft, turn):
        return
    wait = 0
    if turn.deaths:
        wait = backoff_ms(draft.settings, turn.deaths, draft.context.jitter())
    event = t.Released(
        run=turn.run,
        reason=DIED,
        due=draft.now + wait if wait else None,
        beside=beside,
        suspects=suspects,
    )
    draft.emit(stream, event)
    if not rules.not_blamed(draft.turn(stream), draft.settings.max_deaths_alone):
        draft.emit(stream, t.Held(reason="quarantined"))
