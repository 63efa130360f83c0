"""The audit of a log: does it keep the rules that the contract promises?

Pure and streaming: it takes records from anywhere - a store that is open for reading
only, an export file, a test - and says which rules they break, in order. With a store
it also checks what stands beside the log; with a witness list it checks the log against
what the platform accepted. It knows nothing of settings, channels or clocks.

    report = audit_store(store, witness=read_witness(data))
    if not report.passed:
        print(report.first)
"""

from collections.abc import Callable, Collection, Iterable

from turnfold.audit.auditor import Auditor, run
from turnfold.audit.findings import RULES, Finding, Report, Rule
from turnfold.audit.witness import Acceptance, read_witness
from turnfold.codec import Record
from turnfold.errors import CorruptLogError
from turnfold.ports.store import Head, Store

__all__ = [
    "RULES",
    "Acceptance",
    "Auditor",
    "Finding",
    "Report",
    "Rule",
    "audit_log",
    "audit_store",
    "read_witness",
]
Progress = Callable[[int], None]


def audit_log(
    records: Iterable[Record],
    *,
    marks: Iterable[Head] = (),
    witness: Iterable[Acceptance] | None = None,
    channels: Collection[str] | None = None,
    limit: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Audit records alone. `marks`: heads that the log must contain."""
    auditor = Auditor(marks=marks, witness=witness, channels=channels, limit=limit)
    return run(auditor, records, progress)


def audit_store(
    store: Store,
    *,
    marks: Iterable[Head] = (),
    witness: Iterable[Acceptance] | None = None,
    channels: Collection[str] | None = None,
    bodies: bool = True,
    limit: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Audit an open store: its log, its head, and what it keeps beside them. A store
    that is being written to meanwhile is audited up to where its log then ends."""
    heads, damaged = list(marks), None
    try:
        heads.append(store.head)
    except CorruptLogError as exc:
        damaged = exc
    auditor = Auditor(
        store=store,
        bodies=bodies,
        marks=heads,
        witness=witness,
        channels=channels,
        limit=limit,
    )
    if damaged is not None:
        auditor.findings.add(Rule.HEAD, damaged.problem, damaged.position)
    return run(auditor, store.log(), progress)
