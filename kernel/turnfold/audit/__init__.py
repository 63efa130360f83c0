"""The audit of a log: does the log keep the rules of the contract?

Streaming: it takes records from any source - a read-only store, an export file, a test
- and reports the rules that they break, in order. With a store it also compares the
side tables with the log, in both directions. With a witness list it compares the log
with the messages that the platform accepted. It uses no settings, channels or clocks.

    report = await audit_store(store, witness=read_witness(data))
    if not report.passed:
        print(report.first)
"""

from collections.abc import Callable, Collection, Iterable
from itertools import islice

from attrs import evolve

from turnfold._log.canonical import Head, Record
from turnfold.audit.auditor import Auditor, walk
from turnfold.audit.facts import Facts
from turnfold.audit.findings import RULES, Finding, Made, Report, Rule, unchecked
from turnfold.audit.side_checks import (
    compare,
    note_database,
    note_mark,
    note_plugins,
    note_taken,
    note_text,
)
from turnfold.audit.witness import Acceptance, Witness, read_witness
from turnfold.errors import CorruptLogError
from turnfold.ports.plugins import PluginStore
from turnfold.ports.store import Store

__all__ = [
    "RULES",
    "Acceptance",
    "Auditor",
    "Finding",
    "Report",
    "Rule",
    "Witness",
    "audit_archive",
    "audit_log",
    "audit_store",
    "read_witness",
]
Progress = Callable[[int], None]
_PAGE = 1_000


def audit_log(
    records: Iterable[Record],
    *,
    marks: Iterable[Head] = (),
    witness: Iterable[Acceptance] | None = None,
    channels: Collection[str] | None = None,
    settled_at: int | None = None,
    limit: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Audit records alone. `marks`: heads that the log must contain. `settled_at`: also
    find streams that should have moved by this time (log ms) and did not. `progress`
    gets the position after each page."""
    kept = list(marks)
    auditor = Auditor(marks=kept, witness=witness, channels=channels, limit=limit)
    following = iter(records)
    while page := list(islice(following, _PAGE)):
        auditor.feed(page)
        if progress is not None:
            progress(page[-1].position)
    auditor.end(settled_at)
    return _told(auditor, Made(), witness, kept, settled_at)


# Rules that need records of other streams, which an archive does not have.
_OF_OTHERS = frozenset({Rule.POSITION, Rule.FENCE})
_UNCHECKED = (
    "which worker said what, and the order among streams that are not in this archive",
    "that the store has pruned just these records: give the store (--of)",
    "bodies: this archive was made without them",
)


async def audit_archive(
    archive: Store,
    *,
    text: bool = True,
    of: Store | None = None,
    limit: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Audit an archive that is open as a store: each stream from its first record to
    its last, all rules that these streams can break, and their bodies if it has the
    `text`. `of`: the store that it was taken from; each record must be in the log of
    that store, there or pruned."""
    facts = Facts(bodies=text)
    auditor = Auditor(facts=facts, limit=limit, without=_OF_OTHERS)
    await walk(auditor, archive, progress)
    auditor.end()
    await compare(auditor, archive, facts)
    if of is not None:
        await note_taken(auditor, archive, of)
    made = (False, of is not None, text)
    unchecked = [say for say, done in zip(_UNCHECKED, made, strict=True) if not done]
    return evolve(auditor.report(), unchecked=tuple(unchecked))


async def _head(store: Store) -> tuple[list[Head], CorruptLogError | None]:
    """The head of the log by the store, or the error if the store cannot give it."""
    try:
        return [(await store.load()).head], None
    except CorruptLogError as exc:
        return [], exc


async def audit_store(
    store: Store,
    *,
    marks: Iterable[Head] = (),
    witness: Iterable[Acceptance] | Witness | None = None,
    channels: Collection[str] | None = None,
    beside: bool = True,
    bodies: bool = True,
    integrity: bool = True,
    settled_at: int | None = None,
    plugins: PluginStore | None = None,
    limit: int = 100,
    progress: Progress | None = None,
) -> Report:
    """Audit an open store: its log, its head, and its side tables. If the store is
    written to meanwhile, it is audited up to the end of the log at that time.

    `witness`: a platform's list, or the one Witness of all shards. `beside`: False
    audits only the log. `bodies`: False leaves out only the bodies. `integrity`: False
    leaves out the database's own check. `settled_at`: also find streams that should have
    moved by this time (log ms). The report's `unchecked` says which checks were not made.
    """
    kept = list(marks)
    text = store.facts().get("text") is not False
    bodies = bodies and text
    does = store.maintenance if beside else None
    mark = None if does is None else await does.watermark()  # never ahead of the log
    head, damaged = await _head(store)
    facts = Facts(bodies=bodies) if beside else None
    auditor = Auditor(
        facts=facts, marks=kept + head, witness=witness, channels=channels, limit=limit
    )
    if damaged is not None:
        auditor.findings.add(Rule.HEAD, damaged.problem, damaged.position)
    await walk(auditor, store, progress)
    auditor.end(settled_at)
    if does is not None and mark is not None:
        await note_mark(auditor, mark, does)
    await _beside(auditor, store, facts, plugins, text=text)
    if does is not None:
        await note_database(auditor, does, whole=integrity)
    made = Made(
        store=beside,
        bodies=bodies,
        text=text,
        plugins=plugins is not None,
        mark=mark is not None,
        integrity=does is not None and integrity,
    )
    return _told(auditor, made, witness, kept, settled_at)


def _told(
    auditor: Auditor,
    made: Made,
    witness: object,
    kept: Collection[Head],
    settled_at: int | None,
) -> Report:
    whole = evolve(
        made,
        witness=witness is not None,
        heads=bool(kept),
        settled=settled_at is not None,
        pruned=auditor.pruned.any,
    )
    return evolve(auditor.report(), unchecked=unchecked(whole))


async def _beside(
    auditor: Auditor,
    store: Store,
    facts: Facts | None,
    plugins: PluginStore | None,
    *,
    text: bool,
) -> None:
    """Audit the side tables of the log."""
    if facts is not None:
        await compare(auditor, store, facts)
    if facts is not None and not text:
        await note_text(auditor, store)
    if plugins is not None:
        note_plugins(auditor, plugins)
