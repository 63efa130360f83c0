"""Everything that a store keeps beside its log - summaries, dedupe keys, bodies -
compared with the log in both directions: nothing missing, nothing left over.

Each side is read once from end to end and ticked off against numbers that the audit
kept. The streams for which something does not fit are then looked at again, with all
that belongs to them in one answer of the store: that tells what is wrong, and passes
over whatever was written while the audit ran.
"""

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Protocol

from turnfold.audit.auditor import Auditor
from turnfold.audit.facts import Facts
from turnfold.audit.findings import Rule
from turnfold.audit.side_bodies import Bodies
from turnfold.audit.side_keys import Keys
from turnfold.audit.side_summaries import Summaries
from turnfold.audit.walk import Wrong
from turnfold.errors import CorruptLogError
from turnfold.ports.store import Store

_AT_ONCE = 100  # streams that are looked at again in one call


class Side(Protocol):
    """One of the things that lie beside a log."""

    async def read(self) -> Collection[str]:
        """Read all of it. The streams for which something does not fit."""

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        """What is wrong with these streams, as they are stored now."""


async def compare(auditor: Auditor, store: Store, facts: Facts) -> None:
    """Note in the auditor's findings what does not fit. Call it after the last record."""
    sides: dict[Rule, Side] = {
        Rule.PROJECTION: Summaries(store, auditor.states),
        Rule.KEY: Keys(store, facts),
    }
    if facts.wants_bodies:
        sides[Rule.BODY] = Bodies(store, facts)
    for rule, side in sides.items():
        try:
            wrong = await _wrong(side, auditor.aside)
        except CorruptLogError as exc:
            auditor.findings.add(rule, f"cannot be compared with the log: {exc}")
            continue
        for one in sorted(wrong):
            auditor.findings.add(rule, one.text, one.position or None, one.stream)


async def _wrong(side: Side, aside: Collection[str]) -> Sequence[Wrong]:
    """Nothing is asked about streams that cannot be read: the audit has named them."""
    suspects = iter([name for name in await side.read() if name not in aside])
    wrong: list[Wrong] = []
    while names := frozenset(islice(suspects, _AT_ONCE)):
        wrong += await side.look(names)
    return wrong
