"""Plans and look-ups outside of a run, written ahead.

Each is one call into a channel that may take the process down, and that no attempt
announces. So the log says that it begins. The next event of the entry ends it. A worker
that finds one without an end knows that its process died in it, and counts the death as
it counts one in an attempt.
"""

from turnfold._decide import rules
from turnfold._decide.failures import backoff_ms
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry
from turnfold.enums import Phase, Trial, TrialEnd


def begin(draft: UnitOfWork, stream: str, act: Trial) -> tuple[int, int] | None:
    """Announce a call. Returns the part and the attempt that it is about; None if the
    entry does not need it any more."""
    entry, fence = draft.entry(stream), draft.fence()
    if not rules.trial_needed(entry, act):
        return None
    if entry.phase is not Phase.RETRYABLE:
        event = o.Tried(act=act, owner=fence.owner, fence=fence.epoch)
        draft.emit(stream, event)
    return entry.part, entry.attempt


def stopped(draft: UnitOfWork, entry: Entry, act: Trial) -> None:
    """The call has ended, and no other event tells how."""
    if entry.trying:
        fence = draft.fence()
        end = TrialEnd.STOPPED
        event = o.Tried(act=act, owner=fence.owner, fence=fence.epoch, end=end)
        draft.emit(entry.stream, event)


def bury(draft: UnitOfWork, entry: Entry, beside: int, suspects: int) -> None:
    """The process died in the call. As after an attempt, the first death costs no
    wait."""
    fence, earlier = draft.fence(), entry.blame.deaths
    wait = backoff_ms(draft.settings, earlier, draft.context.jitter()) if earlier else 0
    event = o.Tried(
        act=Trial.LOOK_UP if entry.planned else Trial.PLAN,
        owner=fence.owner,
        fence=fence.epoch,
        end=TrialEnd.DIED,
        due=draft.now + wait,
        beside=beside,
        suspects=suspects,
    )
    draft.emit(entry.stream, event)
