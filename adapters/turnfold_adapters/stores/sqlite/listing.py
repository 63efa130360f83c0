"""Listing and counting summaries by a filter, without reading all of them.

`created` never falls from stream to stream, so a time is a position, found by
bisection. Open streams and those that wait for a person have an index each. For the
rest the `digest` shows the blocks with matching streams, or the streams of a
conversation.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from turnfold.ports.store import Count, Listing, Summary
from turnfold_adapters.stores.sqlite.connection import typed
from turnfold_adapters.stores.sqlite.digest import (
    BLOCK_BITS,
    FIELDS,
    HOUR_MS,
    blocks_of,
    ended,
)
from turnfold_adapters.stores.sqlite.reads import SUMMARY, Reads

_END = 1 << 62  # behind every position
_SIZE = 1 << BLOCK_BITS
_MANY = 200  # streams of a conversation in one query
_AFTER = """
    SELECT id, created FROM stream WHERE id >= ? AND created IS NOT NULL
    ORDER BY id LIMIT 1
"""
_IN_LANES = """
    WITH RECURSIVE block (n) AS (
        SELECT :top WHERE :top >= :bottom
        UNION ALL SELECT n - 1 FROM block WHERE n > :bottom
    )
    SELECT n, m.stream FROM block CROSS JOIN lane_stream AS m
    ON m.block = n AND m.lane IN (SELECT value FROM json_each(:lanes))
"""
_HITS = 32  # blocks that one query for an end looks into
_WITH_END = """
    SELECT id FROM stream
    WHERE id >= ?1 AND id < ?2 AND substr(name, -length(?3)) = ?3
"""
_NEW_PLACES = f"""
    SELECT DISTINCT {FIELDS["place"]} FROM stream AS s
    WHERE s.id >= ? AND s.lane IS NOT NULL
"""
_NEXT_LANE = "SELECT name FROM lane WHERE name > ? ORDER BY name LIMIT 1"
_LAST = "\U0010ffff"
_Bindings = dict[str, Any]


class Listings:
    """The two queries of the port, on one connection."""

    def __init__(self, reads: Reads) -> None:
        self._reads, self.path, self.wait = reads, reads.path, reads.wait

    @typed
    def find(self, want: Listing) -> Sequence[Summary]:
        if want.limit <= 0:
            return []
        with self._reads.snapshot():
            low, high = self._range(want)
            if want.before is not None:
                high = min(high, want.before)
            if _has_index(want) or want.oldest:
                ids = self._ended(want.ending)
                return self._rows(want, low, high, want.limit, ids)
            if _lanes(want):
                return self._of_lanes(want, low, high)
            if want.phases or want.kinds or want.reasons or want.lanes:
                return self._of_blocks(want, low, high)
            return self._rows(want, low, high, want.limit)

    @typed
    def count(self, want: Listing, by: Sequence[str]) -> Sequence[Count]:
        found: Counter[tuple[Any, ...]] = Counter()
        with self._reads.snapshot():
            low, high = self._range(want)
            for sql, bindings in self._counts(want, by, low, high):
                for *values, count in self._reads.named(sql, bindings):
                    found[tuple(values)] += count or 0
        return [Count(values, count) for values, count in found.items() if count]

    @typed
    def places(self) -> Sequence[str]:
        """The places, by one access to the index of lanes for each, and from the end
        that is not digested."""
        with self._reads.snapshot():
            edge = blocks_of(self._reads.conn) * _SIZE
            found = {row[0] for row in self._reads.rows(_NEW_PLACES, edge)}
            row = self._reads.row(_NEXT_LANE, "")
            while row is not None:
                place = "/".join(f"{row[0]}//".split("/")[:2])
                found.add(place)
                row = self._reads.row(_NEXT_LANE, f"{place}/{_LAST}")
        return sorted(found)

    # --- times and blocks ------------------------------------------------------------

    def _range(self, want: Listing) -> tuple[int, int]:
        """The first id whose time fits, and the first id behind."""
        low = 0 if want.since is None else self._from(want.since)
        return low, _END if want.until is None else self._from(want.until)

    def _from(self, created: int) -> int:
        """The first id of a stream that was created at this time or later."""
        last = self._reads.row("SELECT max(id) FROM stream")[0]
        low, high = 0, (last or 0) + 1
        while low < high:
            middle = (low + high) // 2
            row = self._reads.row(_AFTER, middle)
            if row is None or row[1] >= created:
                high = middle
            else:
                low = row[0] + 1
        return low

    def _spans(self, want: Listing, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Ranges of ids that may hold matching streams, newest first."""
        digested = blocks_of(self._reads.conn)
        edge = digested * _SIZE
        if high > edge:
            yield max(low, edge), high
        for block in self._blocks(want, low, min(high, edge)):
            start = block * _SIZE
            yield max(low, start), min(high, start + _SIZE)

    def _blocks(self, want: Listing, low: int, high: int) -> Sequence[int]:
        tests, bindings = _tally_tests(want)
        bindings |= {"low": low // _SIZE, "high": (high - 1) // _SIZE}
        tests += ["block >= :low", "block <= :high"]
        sql = f"""SELECT block FROM tally WHERE {" AND ".join(tests)}
                  GROUP BY block HAVING sum(count) > 0"""
        found = {row[0] for row in self._reads.named(sql, bindings)}
        if want.open is None:
            tests, bindings = _tests(want)
            sql = f"""SELECT DISTINCT s.id / {_SIZE} FROM stream AS s
                      WHERE s.open = 1 AND {" AND ".join(tests)}"""
            rows = self._reads.named(sql, bindings)
            found |= {row[0] for row in rows if low <= row[0] * _SIZE + _SIZE}
        return sorted((b for b in found if b * _SIZE < high), reverse=True)

    # --- lists -----------------------------------------------------------------------

    def _rows(
        self,
        want: Listing,
        low: int,
        high: int,
        limit: int,
        ids: Sequence[int] | None = None,
    ) -> list[Summary]:
        tests, bindings = _tests(want)
        bindings |= {"low": low, "high": high, "limit": limit}
        tests += [*_span(want), *_among(ids, bindings)]
        way = "ASC" if want.oldest else "DESC"
        sql = f"{SUMMARY} WHERE {' AND '.join(tests)} ORDER BY s.id {way} LIMIT :limit"
        return [*self._reads.summary_rows(sql, bindings)]

    def _ended(self, ending: str) -> Sequence[int] | None:
        """The ids of the streams whose name has this end; None: look at all names."""
        if not ending:
            return None
        blocks = ended(self._reads.conn, ending, _HITS)
        if len(blocks) == _HITS:
            return None
        edge = blocks_of(self._reads.conn) * _SIZE
        spans = [(block * _SIZE, (block + 1) * _SIZE) for block in blocks]
        return [
            row[0]
            for low, high in [*spans, (edge, _END)]
            for row in self._reads.rows(_WITH_END, low, high, ending)
        ]

    def _of_blocks(self, want: Listing, low: int, high: int) -> Sequence[Summary]:
        found: list[Summary] = []
        for first, end in self._spans(want, low, high):
            found += self._rows(want, first, end, want.limit - len(found))
            if len(found) >= want.limit:
                break
        return found

    def _of_lanes(self, want: Listing, low: int, high: int) -> Sequence[Summary]:
        edge = blocks_of(self._reads.conn) * _SIZE
        found = (
            self._rows(want, max(low, edge), high, want.limit) if high > edge else []
        )
        tests, bindings = _tests(want)
        ids = self._lane_streams(want, low, min(high, edge))
        while len(found) < want.limit and (some := [*islice(ids, _MANY)]):
            bindings["limit"] = want.limit - len(found)
            fits = " AND ".join([*tests, *_among(some, bindings)])
            sql = f"{SUMMARY} WHERE {fits} ORDER BY s.id DESC LIMIT :limit"
            found += self._reads.summary_rows(sql, bindings)
        return found

    def _lane_streams(self, want: Listing, low: int, high: int) -> Iterator[int]:
        """The ids of the streams of some lanes in digested blocks, newest first."""
        lanes = [row[0] for sql, b in _lanes(want) for row in self._reads.rows(sql, b)]
        if not lanes or low >= high:
            return
        bindings: _Bindings = {"lanes": json.dumps(lanes)}
        bindings |= {"top": (high - 1) // _SIZE, "bottom": low // _SIZE}
        rows = self._reads.conn.cursor().execute(_IN_LANES, bindings)
        for _, same in groupby(rows, itemgetter(0)):
            ids = sorted((row[1] for row in same), reverse=True)
            yield from (one for one in ids if low <= one < high)

    # --- counts ----------------------------------------------------------------------

    def _counts(
        self, want: Listing, by: Sequence[str], low: int, high: int
    ) -> Iterator[tuple[str, _Bindings]]:
        """Statements whose counts are to be added."""
        edge = blocks_of(self._reads.conn) * _SIZE
        if _has_index(want) or want.person is False:  # not in the tally
            yield _counted(want, by, low, high, self._ended(want.ending))
        elif _lanes(want):
            yield _counted(want, by, max(low, edge), high)
            ids = [*self._lane_streams(want, low, min(high, edge))]
            yield _counted(want, by, 0, _END, ids)
        else:
            yield from _split(want, by, (low, high), edge)
            if want.open is not True:
                yield _pruned(want, by)


def _split(
    want: Listing, by: Sequence[str], span: tuple[int, int], edge: int
) -> Iterator[tuple[str, _Bindings]]:
    """Closed streams of whole blocks from the tally, the rest row by row."""
    low, high = span
    first = min(-(-low // _SIZE), edge // _SIZE)
    last = max(first, min(high, edge) // _SIZE)
    closed = [(low, min(high, first * _SIZE)), (max(low, last * _SIZE), high)]
    if want.open is not False:
        yield _counted(want, by, low, high, tests=("s.open = 1",))
    if want.open is not True:
        for start, end in closed:
            if start < end:
                yield _counted(want, by, start, end, tests=("s.open = 0",))
        yield _tallied(want, by, first, last)


def _counted(
    want: Listing,
    by: Sequence[str],
    low: int,
    high: int,
    ids: Sequence[int] | None = None,
    tests: Sequence[str] = (),
) -> tuple[str, _Bindings]:
    own, bindings = _tests(want)
    bindings |= {"low": low, "high": high}
    every = [*own, "s.lane IS NOT NULL", *tests]
    every += _span(want, open_=bool({"s.open = 1"} & {*every}))
    every += _among(ids, bindings)
    return _grouped("stream AS s", [FIELDS[name] for name in by], "*", every), bindings


def _tallied(
    want: Listing, by: Sequence[str], first: int, last: int
) -> tuple[str, _Bindings]:
    tests, bindings = _tally_tests(want)
    tests += ["block >= :first", "block < :last"]
    bindings |= {"first": first, "last": last}
    return _grouped("tally", [*by], "count", tests), bindings


def _pruned(want: Listing, by: Sequence[str]) -> tuple[str, _Bindings]:
    """The counts of pruned streams, by whole hours."""
    tests, bindings = _tally_tests(want)
    if want.since is not None:
        tests.append("hour >= :since")
        bindings["since"] = want.since // HOUR_MS
    if want.until is not None:
        tests.append("hour < :until")
        bindings["until"] = -(-want.until // HOUR_MS)
    return _grouped("pruned_tally", [*by], "count", tests), bindings


def _grouped(table: str, by: Sequence[str], what: str, tests: Sequence[str]) -> str:
    amount = "count(*)" if what == "*" else f"sum({what})"
    columns = "".join(f"{column}, " for column in by)
    group = f"GROUP BY {', '.join(by)}" if by else ""
    where = " AND ".join(tests)
    return f"SELECT {columns}{amount} FROM {table} WHERE {where} {group}"


# --- filters as SQL ------------------------------------------------------------------


def _has_index(want: Listing) -> bool:
    """True if an index finds the matching streams."""
    whole = want.prefix.endswith(":") or not want.prefix
    return bool(want.person or want.open or want.parent or want.ending) or not whole


def _among(ids: Sequence[int] | None, bindings: _Bindings) -> list[str]:
    if ids is None:
        return []
    bindings["ids"] = json.dumps(ids)
    return ["s.id IN (SELECT value FROM json_each(:ids))"]


def _span(want: Listing, *, open_: bool = False) -> list[str]:
    # A plus keeps SQLite from going through all ids where another index has few.
    plus = "+" if _has_index(want) or open_ else ""
    return [f"{plus}s.id >= :low", f"{plus}s.id < :high"]


def _lanes(want: Listing) -> list[tuple[str, str]]:
    """Statements for the lanes of whole conversations; none if whole accounts fit."""
    if want.lane is not None:
        return [("SELECT id FROM lane WHERE name = ?", want.lane)]
    if not want.lanes or any(lane.count("/") < 3 for lane in want.lanes):
        return []
    sql = "SELECT id FROM lane WHERE name >= ?1 AND name < substr(?1, 1, length(?1) - 1) || '0'"
    return [(sql, lane) for lane in want.lanes]


def _tests(want: Listing) -> tuple[list[str], _Bindings]:
    """The conditions for the row `s` of a stream, without its id."""
    tests, bindings = ["s.phase IS NOT NULL"], _Bindings()
    if want.ending:
        tests.append("substr(s.name, -length(:ending)) = :ending")
        bindings["ending"] = want.ending
    if want.prefix:
        tests.append(_begins("s.name", "prefix", whole=want.prefix.endswith(":")))
        bindings["prefix"] = want.prefix
    tests += _words("s.phase", "phase", want.phases, bindings)
    tests += _words("s.kind", "kind", want.kinds, bindings)
    tests += _reasons(want, bindings, "s.")
    flags = (("s.open", want.open), ("s.person", want.person))
    tests += [f"{name} = {int(flag)}" for name, flag in flags if flag is not None]
    if want.lane is not None:
        tests.append("s.lane = :lane")
        bindings["lane"] = want.lane
    if want.parent is not None:
        tests.append("s.parent = (SELECT id FROM stream WHERE name = :parent)")
        bindings["parent"] = want.parent
    if want.lanes:
        marks = {f"lane{i}": lane for i, lane in enumerate(want.lanes)}
        begins = [f"substr(s.lane, 1, length(:{m})) = :{m}" for m in marks]
        tests.append(f"({' OR '.join(begins)})")
        bindings |= marks
    return tests, bindings


def _tally_tests(want: Listing) -> tuple[list[str], _Bindings]:
    """The same for a row of `tally`; lanes are whole accounts."""
    tests, bindings = ["1"], _Bindings()
    if want.prefix:
        tests.append("family = :family")
        bindings["family"] = want.prefix[:-1]
    tests += _words("phase", "phase", want.phases, bindings)
    tests += _words("kind", "kind", want.kinds, bindings)
    tests += _reasons(want, bindings, "")
    places = tuple(lane.removesuffix("/") for lane in want.lanes)
    tests += _words("place", "place", places, bindings)
    return tests, bindings


def _reasons(want: Listing, bindings: _Bindings, row: str) -> list[str]:
    if not want.reasons:
        return []
    (one,) = _words(f"{row}reason", "reason", want.reasons, bindings)
    (other,) = _words(f"{row}failure", "reason", want.reasons, bindings)
    return [f"({one} OR {other})"]


def _words(
    column: str, name: str, words: Sequence[str], bindings: _Bindings
) -> list[str]:
    marks = {f"{name}{i}": word for i, word in enumerate(words)}
    bindings |= marks
    return [f"{column} IN ({', '.join(f':{mark}' for mark in marks)})"] if marks else []


def _begins(column: str, mark: str, *, whole: bool) -> str:
    """The condition for a prefix. A longer prefix uses the index of names."""
    same = f"substr({column}, 1, length(:{mark})) = :{mark}"
    if whole:
        return same
    return f"{same} AND {column} >= :{mark} AND {column} < :{mark} || char(1114111)"
