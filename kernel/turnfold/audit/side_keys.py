"""Every dedupe key that the log gave out is kept, at its stream, and there is no other
one."""

from collections.abc import Collection, Sequence

from turnfold import pages
from turnfold.audit.facts import Facts, keys_of
from turnfold.audit.walk import Wrong, streams_at, told
from turnfold.errors import CorruptLogError
from turnfold.ports.store import Store, Wanted
from turnfold.records import Record


class Keys:
    """See `beside.Side`."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store, self._given = store, facts.keys
        self._odd: dict[str, list[str]] = {}  # kept for a stream that did not give it

    async def read(self) -> Collection[str]:
        left = dict(self._given)
        async for page in pages.keys(self._store):
            for key, stream in page:
                if left.pop(hash((key, stream)), None) is None:
                    self._odd.setdefault(stream, []).append(key)
        return {*self._odd, *await streams_at(self._store, left.values())}

    async def look(self, streams: frozenset[str]) -> Sequence[Wrong]:
        records = (await self._store.fetch(Wanted(streams=streams))).streams
        given = {name: _given(records[name]) for name in streams}
        keys = frozenset(key for row in given.values() if row for key in row)
        holders = (await self._store.fetch(Wanted(keys=keys))).keys
        wrong: list[Wrong] = []
        for name, row in given.items():
            if row is None:
                continue  # its records are damaged, which is another finding
            for key, position in row.items():
                if holders[key] != name:
                    where = f"belongs to {holders[key]}" if holders[key] else "is gone"
                    wrong.append(Wrong(position, name, f"the key {key} {where}"))
            for key in self._odd.get(name, ()):
                if key not in row:
                    text = f"the key {key} is kept for it, which it never gave out"
                    wrong.append(Wrong(0, name, text))
        return wrong


def _given(records: Sequence[Record]) -> dict[str, int] | None:
    """The keys that a stream gave out, with positions; None if it cannot be read."""
    try:
        return dict(keys_of(told(records)))
    except CorruptLogError:
        return None
