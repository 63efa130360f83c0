"""Both readings of the rules, asked about one log: the kernel's audit and the reference."""

from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

from turnfold._log import canonical
from turnfold._log.canonical import Record
from turnfold._log.codec import decode, encode, record_of
from turnfold.audit import audit_log
from turnfold.errors import CorruptLogError
from turnfold_model import reference
from turnfold_model.readings.damage import Log, counted


@frozen
class Verdicts:
    """The first broken rule by each reading, None where the log keeps every rule."""

    kernel: str | None
    reference: str | None

    @property
    def equal(self) -> bool:
        return (self.kernel is None) == (self.reference is None)

    @property
    def legal(self) -> bool:
        return self.kernel is None


def judged(log: Log) -> Verdicts | None:
    """Both verdicts on a log without hashes; None if the log format allows no such
    events, so that there is nothing to judge."""
    log = counted(log)  # each event in a record of its own
    try:
        records = sealed(log)
    except CorruptLogError:
        return None
    broken = audit_log(records, limit=1).first
    violation = next(reference.audit(log), None)
    return Verdicts(
        None if broken is None else str(broken),
        None if violation is None else str(violation),
    )


def sealed(log: Log) -> Sequence[Record]:
    """The records of a log, with hashes that fit. Raises CorruptLogError."""
    return [
        record_of(
            [_item(event["kind"], event["schema"], canonical.dumps(event["data"]))],
            event["stream"],
            event["version"],
            event["at"],
            event["position"],
        )
        for event in log
    ]


@lru_cache(maxsize=100_000)
def _item(kind: str, schema: int, data: bytes) -> bytes:
    """An event as an item of a record, if the log format allows it."""
    raw = b'[["%b",%d,%b]]' % (kind.encode(), schema, data)
    (event,) = decode(Record(1, "?", 1, 1, 0, raw, bytes(32)))
    return encode(event)
