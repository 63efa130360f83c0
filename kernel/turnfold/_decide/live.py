"""A live reply: a final that readers see while it grows (specs/design.md 4, Live
replies).

It is queued without a body, and its placeholder goes out at once. The run edits the
placeholder outside the log. The seal is `planned`, in one commit with `answered`; the
sealed text goes in by edits that are logged attempts. A later run of the same turn goes
on with the same entry, so no reader sees two beginnings.
"""

from turnfold._decide import rules
from turnfold._decide.outbox import Enqueued, Intent, after_close, freeze, queue
from turnfold._decide.schedule import attempt_if_free
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.enums import DeliveryClass
from turnfold.errors import InvalidInputError, RuleBrokenError


def begin(draft: UnitOfWork, turn: Turn, intent: Intent) -> str:
    """Queue the empty final of a turn, unless an earlier run has done so."""
    known = draft.find_entry(intent.entry)
    if known is None:
        queue(draft, intent)
        attempt_if_free(draft, intent.route.lane)
    elif not rules.is_live(known):
        raise RuleBrokenError(
            stream=turn.stream,
            rule="not_answered",
            why="the turn has its reply already",
        )
    return intent.entry


def seal(draft: UnitOfWork, entry: Entry, intent: Intent) -> Enqueued:
    """Freeze the text. It goes into the placeholder by the next attempts."""
    if intent.plan is None:
        raise RuleBrokenError(
            stream=entry.stream, rule="sealed", why="its channel is not attached"
        )
    parts = intent.plan.parts
    if parts and DeliveryClass.EDITABLE not in parts[0].offer.classes:
        problem = "a live reply begins with a part of class editable, a text"
        raise InvalidInputError(field="payloads", problem=problem)
    after = freeze(draft, entry, intent)
    if not after.open:
        after_close(draft, after)
    attempt_if_free(draft, entry.lane)
    status = draft.latest(after).phase.status
    return Enqueued(entry_id=entry.stream, status=status, new=True)
