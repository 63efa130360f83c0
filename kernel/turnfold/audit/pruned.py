"""Pruned records, compared with the `store.pruned` events.

A pruned record leaves its position and hash, and the position of the record that
removed it. That record names its whole set by one digest. So no record can be removed,
or replaced after a prune, without an event that fits.
"""

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from turnfold._log.canonical import Record
from turnfold._log.events import Pruned
from turnfold.audit.findings import Findings, Rule
from turnfold.ports.store import COUNT_BY, Count


class _Set:
    def __init__(self) -> None:
        self.digest, self.records, self.first = sha256(), 0, 0

    def add(self, record: Record) -> None:
        self.digest.update(record.position.to_bytes(8, "big") + record.hash)
        self.records += 1
        self.first = self.first or record.position


class PrunedRecords:
    """Call `gone` for each pruned record and `said` for each event, then `end`.
    `counts`: the numbers in the events."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._sets: dict[int, _Set] = {}  # by the position of their event
        self._said: dict[int, Pruned] = {}
        self.counts: Counter[tuple[int | str, ...]] = Counter()

    @property
    def any(self) -> bool:
        """Was any stream pruned?"""
        return bool(self._said)

    def gone(self, record: Record) -> None:
        self._sets.setdefault(record.version, _Set()).add(record)

    def said(self, position: int, event: Pruned) -> None:
        if position in self._said:
            text = "two events of one record prune; each needs a record of its own"
            self._findings.add(Rule.PRUNED, text, position, "store")
        self._said[position] = event
        for row in event.counts:
            values = tuple(getattr(row, name) for name in COUNT_BY)
            self.counts[values] += row.count

    def end(self) -> None:
        for position, found in self._sets.items():
            if position not in self._said:
                text = (
                    f"{found.records} records are gone by {position}, which pruned none"
                )
                self._findings.add(Rule.PRUNED, text, found.first)
        for position, event in self._said.items():
            wrong = _wrong(event, self._sets.get(position) or _Set())
            if wrong is not None:
                self._findings.add(Rule.PRUNED, wrong, position, "store")

    def compare(self, kept: Iterable[Count]) -> None:
        """Compare the counts of a store with those of its log."""
        left: Any = Counter(self.counts)
        left.subtract({count.values: count.count for count in kept})
        odd = [values for values, count in left.items() if count]
        if odd:
            shown = dict(zip(COUNT_BY, odd[0], strict=True))
            text = f"the counts of pruned streams are not those of the log: {shown}"
            self._findings.add(Rule.PROJECTION, text)


def _wrong(event: Pruned, found: _Set) -> str | None:
    if found.records != event.records:
        return f"it pruned {event.records} records, and {found.records} are gone by it"
    if found.digest.hexdigest() != event.digest:
        return "the records that are gone by it are not those that it pruned"
    return None
