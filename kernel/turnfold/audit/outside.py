"""What stands outside of the tables of a store: the mark beside it, and the opinion that
the database has of its own files."""

from turnfold.audit.auditor import Auditor
from turnfold.audit.findings import Rule
from turnfold.errors import StoreError
from turnfold.ports.store import Maintenance, Watermark


async def note_mark(auditor: Auditor, mark: Watermark, does: Maintenance) -> None:
    """Hold the mark against the log that was read. Call after the last record."""
    text = None
    store, log, seen = auditor.store_id, auditor.chain.position, mark.head.position
    if not seen or (seen, mark.head.hash.hex()) in auditor.restored:
        return  # the log itself tells that an older copy was put in place
    if store is None:
        text = f"the mark knows position {seen}, and the log has no beginning: wiped?"
    elif store != mark.store:
        text = f"the mark is of the store {mark.store}, the log of the store {store}"
    elif seen > log:
        text = (
            f"the mark knows position {seen}, and the log ends at {log}: its tail is "
            "gone, or an older copy was put in its place"
        )
    elif not await does.contains_head(mark.head):
        text = f"the log went another way before position {seen}, which the mark knows"
    if text is not None:
        auditor.findings.add(Rule.MARK, text)


async def note_integrity(auditor: Auditor, does: Maintenance) -> None:
    """Ask the database for what is wrong with its files."""
    try:
        for line in await does.integrity():
            auditor.findings.add(Rule.FILE, line)
    except StoreError as exc:
        auditor.findings.add(Rule.FILE, f"its own check ended with: {exc}")
