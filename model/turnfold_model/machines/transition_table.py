"""The transition tables of an entry and a turn: the model's, written by hand.

The rows are the `from -> to` columns of specs/design.md, as plain data with the
names that stand in a log. The reference judges logs by them, and `statechart` gives them to
`transitions`. They are the second of two sources: the kernel's tables in
`turnfold._state` are the first. Never derive a row from the kernel's table, or the
test that compares both proves nothing.

The rules beside the columns are in `reference.entry` and `reference.turn`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

Edge = tuple[str, str, str]  # event, phase, next phase
Rows = Sequence[tuple[str, str, str]]  # event, from, to; several phases with spaces
Table = Mapping[str | None, Mapping[str, tuple[str, ...]]]

NONE: Final = "none"  # in a row: no stream yet
SAME: Final = "same"  # in a row: the phase stays

ENTRY_PHASES: Final = (
    "queued",
    "attempted",
    "dispatched",
    "in_doubt",
    "parked",
    "retryable",
    "delivered",
    "failed",
    "aborted",
)
CLOSED: Final = frozenset({"delivered", "failed", "aborted"})
TURN_PHASES: Final = (
    "accepted",
    "running",
    "answered",
    "completed",
    "failed",
    "aborted",
)
TURN_CLOSED: Final = frozenset({"completed", "failed", "aborted"})

ENTRY_ROWS: Final[Rows] = (
    ("queued", "none", "queued"),
    ("planned", "queued attempted dispatched in_doubt parked retryable", "same"),
    ("attempted", "queued retryable in_doubt", "attempted dispatched"),
    ("dispatched", "attempted", "dispatched"),
    # A placeholder that a part can use ends the doubt about it. Any other placeholder is
    # a stray one: it is noted, and the entry stays as it is.
    ("placed", "dispatched in_doubt", "queued parked"),
    (
        "placed",
        "queued attempted dispatched in_doubt parked retryable delivered failed aborted",
        "same",
    ),
    ("tried", "queued in_doubt parked", "same"),
    ("part_refused", "queued attempted dispatched retryable", "queued"),
    ("amended_part", "queued retryable in_doubt", "same"),
    ("part_delivered", "attempted dispatched in_doubt parked", "queued parked"),
    ("delivered", "attempted dispatched in_doubt parked", "delivered"),
    ("deferred", "attempted dispatched", "queued in_doubt"),
    ("failed_retryable", "attempted dispatched", "retryable"),
    ("unknown", "attempted dispatched in_doubt", "in_doubt"),
    ("reconciled", "in_doubt parked", "retryable parked same"),
    ("parked", "in_doubt", "parked"),
    ("resolved", "in_doubt parked", "retryable in_doubt parked"),
    (
        "failed_terminal",
        "queued retryable attempted dispatched in_doubt parked",
        "failed",
    ),
    (
        "abort_requested",
        "queued retryable attempted dispatched in_doubt parked",
        "same",
    ),
    ("aborted", "queued retryable", "aborted"),
    # Evidence for a part of a closed entry leaves the entry closed or completes it. In an
    # open entry evidence settles its part; while another part is being attempted, that
    # attempt goes on.
    ("late_receipt", "queued retryable", "delivered failed queued"),
    (
        "late_receipt",
        "attempted dispatched in_doubt parked",
        "delivered failed parked queued",
    ),
    ("late_receipt", "attempted dispatched", "same"),
    ("late_receipt", "failed aborted", "same delivered"),
    ("late_receipt", "delivered", "same"),
    ("rescheduled", "queued retryable in_doubt", "same"),
    ("redriven", "failed", "queued in_doubt"),
    ("acknowledged", "failed", "same"),
    ("bounced", "delivered", "failed"),
    (
        "bounced",
        "queued attempted dispatched in_doubt parked retryable failed aborted",
        "same",
    ),
    ("imported", "none", "parked"),
    ("doubted", "queued retryable", "parked"),
    ("lane_yielded", "queued parked retryable failed", "same"),
    ("redacted", "delivered failed aborted", "same"),
)

TURN_ROWS: Final[Rows] = (
    ("accepted", "none", "accepted"),
    ("dead", "none", "failed"),
    ("joined", "accepted", "same"),
    ("started", "accepted", "running"),
    ("step_started", "running", "same"),
    ("step_done", "running", "same"),
    ("left_open", "running", "same"),
    ("released", "running", "accepted"),
    ("run_failed", "running", "accepted"),
    ("answered", "running", "answered"),
    ("completed", "answered", "completed"),
    ("failed", "accepted running answered", "failed"),
    ("abort_requested", "accepted running answered", "same"),
    ("aborted", "accepted running answered", "aborted"),
    ("amended", "completed failed aborted", "completed failed answered"),
    ("held", "accepted running", "accepted"),
    ("unheld", "accepted", "same"),
    ("resubmitted", "failed", "accepted"),
    ("redacted", "completed failed aborted", "same"),
)


def edges(rows: Rows) -> list[Edge]:
    """Each edge of the rows once, in their order."""
    found = [
        (event, source, source if target == SAME else target)
        for event, sources, targets in rows
        for source in sources.split()
        for target in targets.split()
    ]
    return list(dict.fromkeys(found))


def _table(rows: Rows, phases: Sequence[str], area: str) -> Table:
    """By phase and stored name of the event: the phases that may follow."""
    table: dict[str | None, dict[str, tuple[str, ...]]] = {None: {}}
    table.update({phase: {} for phase in phases})
    for event, source, target in edges(rows):
        row = table[None if source == NONE else source]
        kind = f"{area}.{event}"
        row[kind] = (*row.get(kind, ()), target)
    return table


ENTRY: Final = _table(ENTRY_ROWS, ENTRY_PHASES, "outbox")
TURN: Final = _table(TURN_ROWS, TURN_PHASES, "turn")
