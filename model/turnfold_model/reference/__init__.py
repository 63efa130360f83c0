"""The reference: is this event legal here? Written from specs/design.md alone.

`legal` judges one event against the state of its own stream. `Log` judges a whole
store's log, with the rules that need several streams: lanes, gates, fences, finals,
notices, dedupe keys. Both work on plain dicts as they stand in an exported log, need
nothing but the standard library and import nothing of the kernel, so a log written by
a gateway in any language can be checked:

>>> queued = {"kind": "final", "channel": "c", "account": "a", "conversation": "1",
...           "lane": "l", "body": ["b"], "expires_at": 10}
>>> entry = legal(None, {"kind": "outbox.queued", "at": 1, "data": queued})
>>> entry.phase
'queued'
>>> str(legal(entry, {"kind": "outbox.dispatched", "at": 1, "data": {}}))
'table: outbox.dispatched cannot follow queued'

A log shows only its own records: a send that nobody logged, a cut tail, and whether the
platform really took a part cannot be seen here (see specs/guarantees.md).
"""

from turnfold_model.machines.transition_table import ENTRY, TURN
from turnfold_model.reference.judge import legal
from turnfold_model.reference.kinds import Record, Violation
from turnfold_model.reference.log import Log, as_events, audit, read_ndjson
from turnfold_model.reference.shapes import Entry, Ledger, State, Turn

__all__ = [
    "ENTRY",
    "TURN",
    "Entry",
    "Ledger",
    "Log",
    "Record",
    "State",
    "Turn",
    "Violation",
    "as_events",
    "audit",
    "legal",
    "read_ndjson",
]
