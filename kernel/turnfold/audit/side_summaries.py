"""Every summary is the projection of its folded stream, and every stream has one
(INV-13)."""

from collections.abc import Collection, Sequence

from turnfold import pages
from turnfold.audit.states import States
from turnfold.audit.walk import Wrong
from turnfold.errors import CorruptLogError
from turnfold.fold import State, fold, summarize
from turnfold.ports.store import Listing, Store, Summary, Wanted
from turnfold.records import Record


class Summaries:
    """See `beside.Side`. A stream that the audit dropped is known by hashes alone."""

    def __init__(self, store: Store, states: States) -> None:
        self._store, self._states = store, states

    async def read(self) -> Collection[str]:
        known, dropped = self._states.known, dict(self._states.dropped)
        unseen, odd = set(known), list[str]()
        async for page in pages.summaries(self._store, Listing(prefix="")):
            for summary in page:
                name = summary.stream
                state = known.get(name)
                unseen.discard(name)
                if state is not None:
                    fits = summarize(state) == summary
                else:
                    fits = dropped.pop(hash(name), None) == hash(summary)
                if not fits:
                    odd.append(name)
        return [*odd, *unseen, *await self._names(dropped)]

    async def _names(self, hashes: Collection[int]) -> set[str]:
        found: set[str] = set()
        if hashes:
            async for page in pages.records(self._store):
                found |= {r.stream for r in page if hash(r.stream) in hashes}
        return found

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        wanted = Wanted(streams=streams, summaries=streams)
        found = await self._store.fetch(wanted)
        wrong = []
        for name in streams:
            text = _difference(found.streams[name], found.summaries[name])
            if text is not None:
                wrong.append(Wrong(0, name, text))
        return wrong


def _difference(records: Sequence[Record], found: Summary | None) -> str | None:
    try:
        state = fold(records)
    except CorruptLogError:
        return None  # its records are damaged, which is another finding
    if found is None:
        return None if state is None else "there is no projection of it"
    if state is None:
        return "there is a projection, but no record of it in the log"
    return _unlike(state, found)


def _unlike(state: State, found: Summary) -> str | None:
    wanted = summarize(state)
    for name in [a.name for a in Summary.__attrs_attrs__]:
        is_, should = getattr(found, name), getattr(wanted, name)
        if is_ != should:
            return f"its projection says {name}={is_!r}, the log says {should!r}"
    return None
