"""Log time, as the wall time that people read (specs/design.md 2).

A record holds the wall time of its moment where that differs from log time. A future
time is log time, and is converted with the present distance of the two times.
"""

from turnfold.clock import Clock
from turnfold.errors import StoreError
from turnfold.ports.store import Record, Store


def seen_at(record: Record) -> int:
    """The wall time at which a record was made."""
    return record.at if record.wall is None else record.wall


async def clock_of(store: Store) -> Clock:
    """The clock that a worker of this store would have now, without taking the store
    over."""
    clock = Clock()
    try:
        does = store.maintenance
        mark = None if does is None else await does.watermark()
        last = () if mark is None else await store.log(mark.head.position - 1, 1)
        if last and last[-1].pruned:
            last = [record for record in (await store.last(),) if record is not None]
    except StoreError:
        return clock  # a damaged store is still shown as far as it can be read
    if mark is not None and last:
        clock.begin(last[-1].at, mark.lived)
    return clock


def to_come(at: int | None, shift: int) -> int | None:
    """The wall date of a log time; `shift`: log time minus wall time."""
    return None if at is None else at - shift
