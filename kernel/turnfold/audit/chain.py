"""The chain: hashes, positions, versions and heads. Needs no idea of what events mean.

A chain alone cannot show a tail that was cut off, nor a log that was rewritten whole;
heads noted outside the log can, so an audit takes any number of them.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from turnfold.audit.findings import Findings, Rule
from turnfold.records import BLANK, Head, Record, hash_of, hashes_of, head_after


class Chain:
    """Fed with every record in order. `marks`: heads that the log must contain."""

    def __init__(self, findings: Findings, marks: Iterable[Head] = ()) -> None:
        self._findings = findings
        self._marks: dict[int, list[bytes]] = {}
        for mark in marks:
            self._marks.setdefault(mark.position, []).append(mark.hash)
        self.head, self.events, self.at = BLANK, 0, 0
        self._check_marks()

    @property
    def position(self) -> int:
        return self.head.position

    def feed(self, record: Record) -> None:
        if record.position != self.position + 1:
            self._gap(record)
        if hash_of(record) != record.hash:
            text = "its hash is not the hash of what is stored"
            self._findings.add(Rule.HASH, text, record.position, record.stream)
        if record.at < self.at:
            text = f"time goes back from {self.at} to {record.at}"
            self._findings.add(Rule.TIME, text, record.position, record.stream)
        self.at = max(self.at, record.at)
        self.events += record.count
        self.head = head_after(self.head, (record,))
        if self.position in self._marks:
            self._check_marks()

    def follows(self, records: Sequence[Record]) -> bool:
        """True, and gone on to their end, if nothing at all is wrong with these; else
        nothing is done, and each has to be fed. All of them at each step, since most
        of what a log without fault costs here would be calls."""
        before = self.position
        last = before + len(records)
        times = [self.at, *[r.at for r in records]]
        if (
            hashes_of(records) != [r.hash for r in records]
            or [r.position for r in records] != [*range(before + 1, last + 1)]
            or times != sorted(times)
        ):
            return False
        ends = sorted(mark - before for mark in self._marks if before < mark < last)
        for start, end in pairwise([0, *ends, len(records)]):
            self.head = head_after(self.head, records[start:end])
            self._check_marks()
        self.at = times[-1]
        self.events += sum([r.count for r in records])
        return True

    def _gap(self, record: Record) -> None:
        expected, found = self.position + 1, record.position
        if found <= self.position:
            text = f"position {found} comes after {self.position}"
        elif found == expected + 1:
            text = f"the record at {expected} is missing"
        else:
            text = f"the records from {expected} to {found - 1} are missing"
        self._findings.add(Rule.POSITION, text, found, record.stream)

    def _check_marks(self) -> None:
        mine = self.head.hash
        for digest in self._marks.pop(self.position, ()):
            if digest != mine:
                text = (
                    f"the head noted for position {self.position} is "
                    f"{digest.hex()[:12]}.., the log gives {mine.hex()[:12]}..: "
                    "a record up to here was changed, lost or moved"
                )
                self._findings.add(Rule.HEAD, text, self.position)

    def end(self) -> None:
        """The log is over: a head beyond it was noted for records that are gone."""
        for position in sorted(self._marks):
            text = f"a head was noted for position {position}, "
            if position > self.position:
                text += f"but the log ends at {self.position}: its tail is gone"
            else:
                text += "but there is no record at it"
            self._findings.add(Rule.HEAD, text, self.position)
        self._marks.clear()
