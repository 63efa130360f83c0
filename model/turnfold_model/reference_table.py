"""The `from -> to` columns of design 4 and 5, written by hand from the design.

Phases and event names are bare text, exactly as they stand in a log. The rule columns
are in `reference_entry` and `reference_turn`.
"""

from collections.abc import Mapping
from typing import Final

Table = Mapping[str | None, Mapping[str, tuple[str, ...]]]

CLOSED: Final = frozenset({"OK", "F", "X"})
TURN_CLOSED: Final = frozenset({"completed", "failed", "aborted"})


def _table(rows: list[tuple[str, str, str]], names: str, area: str) -> Table:
    """Rows are (event, from, to); `same` keeps the phase, `-` is no stream yet."""
    table: dict[str | None, dict[str, tuple[str, ...]]] = {None: {}}
    table.update({name: {} for name in names.split()})
    for event, sources, targets in rows:
        for source in sources.split():
            to = tuple(source if t == "same" else t for t in targets.split())
            row = table[None if source == "-" else source]
            kind = f"{area}.{event}"
            row[kind] = tuple(sorted(set(row.get(kind, ()) + to)))
    return table


ENTRY: Final = _table(
    [
        ("queued", "-", "Q"),
        ("planned", "Q", "Q"),
        ("attempted", "Q R U", "A D"),
        ("dispatched", "A", "D"),
        ("part_delivered", "A D U P", "Q"),
        ("delivered", "A D U P", "OK"),
        ("deferred", "A D", "Q"),
        ("failed_retryable", "A D", "R"),
        ("unknown", "A D U", "U"),
        ("reconciled", "U P", "R same"),
        ("parked", "U", "P"),
        ("resolved", "U P", "R U"),
        ("failed_terminal", "Q R A D U P", "F"),
        ("abort_requested", "Q R A D U P", "same"),
        ("aborted", "Q R", "X"),
        # "same, Q or OK": an entry that is closed stays closed or is made whole; in an
        # open one the evidence settles the part at hand, or one that was settled before
        ("late_receipt", "Q R A D U P", "same Q OK"),
        ("late_receipt", "F X", "same OK"),
        ("late_receipt", "OK", "same"),
        ("rescheduled", "Q R U", "same"),
        ("redriven", "F", "Q"),
        ("acknowledged", "F", "same"),
        ("bounced", "OK", "same"),
        ("imported", "-", "Q P F"),
        ("doubted", "Q R", "P"),
        ("lane_yielded", "Q P R F", "same"),
        ("redacted", "OK F X", "same"),
    ],
    "Q A D U P R OK F X",
    "outbox",
)

TURN: Final = _table(
    [
        ("accepted", "-", "accepted"),
        ("joined", "accepted", "same"),
        ("started", "accepted", "running"),
        ("step_started", "running", "same"),
        ("step_done", "running", "same"),
        ("released", "running", "accepted"),
        ("run_failed", "running", "accepted"),
        ("answered", "running", "answered"),
        ("completed", "answered", "completed"),
        ("failed", "accepted running answered", "failed"),
        ("abort_requested", "accepted running answered", "same"),
        ("aborted", "accepted running answered", "aborted"),
        ("amended", "completed failed aborted", "completed failed"),
        ("held", "accepted running", "accepted"),
        ("unheld", "accepted", "same"),
        ("resubmitted", "failed", "accepted"),
        ("redacted", "completed failed aborted", "same"),
    ],
    "accepted running answered completed failed aborted",
    "turn",
)
