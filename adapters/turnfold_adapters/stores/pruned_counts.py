"""Counts of pruned streams by a filter, for stores that filter in Python."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from turnfold.ports.store import COUNT_BY, Count, Listing


def of_pruned(
    want: Listing, by: Sequence[str], counts: Iterable[Count]
) -> Counter[tuple[int | str, ...]]:
    """The counts of pruned streams; empty if the filter uses a field that was not
    kept."""
    found: Counter[tuple[int | str, ...]] = Counter()
    whole = want.prefix.endswith(":") or not want.prefix
    wide = all(lane.count("/") < 3 for lane in want.lanes)
    more = want.person is not None or want.open or want.parent or want.ending
    if more or want.lane is not None or not (whole and wide):
        return found
    for count in counts:
        facts = dict(zip(COUNT_BY, count.values, strict=True))
        if _fits(want, facts):
            found[tuple(facts[name] for name in by)] += count.count
    return found


def _fits(want: Listing, facts: Mapping[str, int | str]) -> bool:
    hour = int(facts["hour"])
    return (
        (not want.prefix or facts["family"] == want.prefix[:-1])
        and (not want.phases or facts["phase"] in want.phases)
        and (not want.kinds or facts["kind"] in want.kinds)
        and (
            not want.reasons
            or bool({facts["reason"], facts["failure"]} & {*want.reasons})
        )
        and (not want.lanes or f"{facts['place']}/" in want.lanes)
        and (want.since is None or hour >= want.since // 3_600_000)
        and (want.until is None or hour * 3_600_000 < want.until)
    )
