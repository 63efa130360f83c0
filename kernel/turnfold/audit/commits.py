"""Checks between streams, which hold for a commit as a whole.

A record is what one commit says of one stream, so the events of a commit that belong to
different streams have no order among each other: the record of a turn that is over may
stand before the record of the entry that ended it. A check that fails is therefore
asked again after each further record of the commit. A log does not mark where a commit
ends; it has ended where time moves on or a stream comes a second time.
"""

from collections.abc import Callable, Iterable

from attrs import define, field

from turnfold.audit.findings import Findings, Rule
from turnfold.records import Record

Broken = Iterable[tuple[Rule, str]]
Check = Callable[[], Broken]


@define
class _Waiting:
    check: Check
    record: Record
    seen: set[str] = field(factory=set)  # streams that moved since


class Commits:
    """`begin` each record, then `check` whatever its events must agree with."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._waiting: list[_Waiting] = []

    def check(self, record: Record, check: Check) -> None:
        """Ask now, and if something is broken again until the commit has ended."""
        if any(True for _ in check()):
            self._waiting.append(_Waiting(check, record, {record.stream}))

    def begin(self, record: Record) -> None:
        """The next record, before anything is made of it."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._ask_again(one, record)

    def _ask_again(self, one: _Waiting, record: Record) -> None:
        broken = list(one.check())
        if not broken:
            return
        if record.at == one.record.at and record.stream not in one.seen:
            one.seen.add(record.stream)
            self._waiting.append(one)
        else:
            self._findings.add_all(broken, one.record.position, one.record.stream)

    def end(self) -> None:
        """The log is over, and with it its last commit."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._findings.add_all(one.check(), one.record.position, one.record.stream)
