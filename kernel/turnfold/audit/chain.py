"""The chain: hashes, positions, versions and heads. Needs no idea of what events mean.

A chain alone cannot show a tail that was cut off, nor a log that was rewritten whole;
heads noted outside the log can, so an audit takes any number of them.
"""

from collections.abc import Iterable, Sequence

from turnfold.audit.findings import Findings, Rule
from turnfold.canonical import EMPTY_HEAD, event_hashes, head_after, next_head
from turnfold.codec import Record, envelopes, verify
from turnfold.ports.store import Head


class Chain:
    """Fed with every record in order. `marks`: heads that the log must contain."""

    def __init__(self, findings: Findings, marks: Iterable[Head] = ()) -> None:
        self._findings = findings
        self._marks: dict[int, list[bytes]] = {}
        for mark in marks:
            self._marks.setdefault(mark.position, []).append(mark.hash)
        self.position, self.digest, self.events, self.at = 0, EMPTY_HEAD, 0, 0
        self._check_marks()

    @property
    def head(self) -> Head:
        return Head(self.position, self.digest)

    def feed(self, record: Record) -> None:
        if record.position != self.position + 1:
            self._gap(record)
        if not verify(record):
            text = "its hash is not the hash of what is stored"
            self._findings.add(Rule.HASH, text, record.position, record.stream)
        if record.at < self.at:
            text = f"time goes back from {self.at} to {record.at}"
            self._findings.add(Rule.TIME, text, record.position, record.stream)
        self.at = max(self.at, record.at)
        self.events += 1
        self.position = record.position
        self.digest = next_head(self.digest, record.hash)
        if self.position in self._marks:
            self._check_marks()

    def follows(self, records: Sequence[Record]) -> bool:
        """True, and gone on to their end, if nothing at all is wrong with these; else
        nothing is done, and each has to be fed. All of them at each step, since most
        of what a log without fault costs here would be calls."""
        hashes = event_hashes(envelopes(records))
        last = self.position + len(records)
        times = [self.at, *[r.at for r in records]]
        if (
            hashes != [r.hash for r in records]
            or [r.position for r in records] != [*range(self.position + 1, last + 1)]
            or times != sorted(times)
            or any(self.position < mark <= last for mark in self._marks)
        ):
            return False
        self.digest = head_after(self.digest, hashes)
        self.position, self.at = last, times[-1]
        self.events += len(records)
        return True

    def _gap(self, record: Record) -> None:
        expected, found = self.position + 1, record.position
        if found <= self.position:
            text = f"position {found} comes after {self.position}"
        elif found == expected + 1:
            text = f"the event at {expected} is missing"
        else:
            text = f"the events from {expected} to {found - 1} are missing"
        self._findings.add(Rule.POSITION, text, found, record.stream)

    def _check_marks(self) -> None:
        for digest in self._marks.pop(self.position, ()):
            if digest != self.digest:
                text = (
                    f"the head noted for position {self.position} is "
                    f"{digest.hex()[:12]}.., the log gives {self.digest.hex()[:12]}..: "
                    "an event up to here was changed, lost or moved"
                )
                self._findings.add(Rule.HEAD, text, self.position)

    def end(self) -> None:
        """The log is over: a head beyond it was noted for events that are gone."""
        for position in sorted(self._marks):
            text = f"a head was noted for position {position}, "
            if position > self.position:
                text += f"but the log ends at {self.position}: its tail is gone"
            else:
                text += "but there is no event at it"
            self._findings.add(Rule.HEAD, text, self.position)
        self._marks.clear()
