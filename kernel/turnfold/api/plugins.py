"""State of plugins: small values by key, without an `await` in a handler.

    asked = kernel.state("approvals").open("asked", max_entries=1_000, ttl_ms=DAY)
    asked.register(message_id, {"tool": "deploy"})
    one = asked.consume(message_id)      # of all processes one gets it

Reads use memory first, and the store of plugins is best effort. The store decides the
two operations that need it, `consume` and `compare_and_set`. specs/plugin-state.md has
the promises.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from attrs import evolve, frozen

from turnfold.clock import Clock
from turnfold.enums import Overflow
from turnfold.errors import BackPressureError, InvalidInputError, StoreError
from turnfold.logs import lines
from turnfold.messages import check_enum, check_id, check_ms, check_span
from turnfold.ports.plugins import (
    PluginStore,
    Row,
    Space,
    Write,
    Wrote,
    plugin_store_at,
)
from turnfold.ports.store import Store

_LOG = lines()
_LARGEST = 65_536  # bytes of a value
_NEARLY = 0.9  # of its limit: from here on a warning is logged
T = TypeVar("T")


@frozen(kw_only=True)
class Item:
    """A value that is stored, or was. `version`: grows with each value and never
    repeats. `expires`: wall ms. `new`: this call stored it. `durable`: the store has
    decided; False: only this process knows the value."""

    key: str
    value: Any
    version: int
    expires: int | None
    durable: bool
    new: bool = False


@frozen(kw_only=True)
class Unreadable:
    """A stored value that cannot be read: damaged, or of a newer schema."""

    key: str
    version: int
    problem: str


@frozen(kw_only=True)
class _Limits:
    max_entries: int
    ttl_ms: int | None
    overflow: Overflow
    schema: int


# --- The rows of one namespace in this process. Reads ask them first, and they go on
# serving when the store of plugins fails ---


class Memory:
    """A PluginStore for one namespace, in memory. `next_version`: gives versions while
    the store of plugins is not used, each larger than all before it."""

    def __init__(self, next_version: Callable[[], int]) -> None:
        self._rows: dict[str, Row] = {}
        self._next = next_version

    def keep(self, row: Row, most: int) -> None:
        """Remember a row of the store; only the `most` recent rows are kept."""
        self._rows.pop(row.key, None)
        self._rows[row.key] = row
        if len(self._rows) > most:
            del self._rows[next(iter(self._rows))]

    def forget(self, key: str | None = None) -> None:
        if key is None:
            self._rows.clear()
        else:
            self._rows.pop(key, None)

    def get(self, keys: Sequence[str], now: int) -> list[Row | None]:
        return [self._live(key, now) for key in keys]

    def _live(self, key: str, now: int) -> Row | None:
        row = self._rows.get(key)
        return row if row is not None and row.lives(now) else None

    def write(self, w: Write) -> Wrote:
        there = self._live(w.key, w.now)
        version = 0 if there is None else there.version
        if w.expect is not None and w.expect != version:
            return Wrote(there, stored=False, count=len(self._rows))
        if there is None and not self._room(w):
            return Wrote(None, stored=False, count=len(self._rows), full=True)
        row = Row(w.key, w.data, self._next(), w.schema, w.expires)
        self.keep(row, w.most)
        return Wrote(row, stored=True, count=len(self._rows))

    def _room(self, w: Write) -> bool:
        if len(self._rows) < w.most:
            return True
        for row in self.rows(0):
            if not row.lives(w.now):
                self.forget(row.key)
        while w.evict and len(self._rows) >= w.most:
            self.forget(self.rows(w.now)[0].key)
        return len(self._rows) < w.most

    def take(self, key: str, now: int, schema: int) -> Row | None:
        row = self._live(key, now)
        if row is None or row.schema > schema:
            return None
        self.forget(key)
        return row

    def drop(self, key: str | None, now: int) -> int:
        names = list(self._rows) if key is None else [key]
        live = [name for name in names if self._live(name, now)]
        self.forget(key)
        return len(live)

    def rows(self, now: int) -> list[Row]:
        found = [row for row in self._rows.values() if row.lives(now)]
        return sorted(found, key=lambda row: row.version)


# --- one store for all plugins of a kernel ---


class Shared:
    """Shared by all namespaces of a kernel: the store, and whether it has failed."""

    def __init__(self, address: str | Path, clock: Clock) -> None:
        self.clock, self.lock = clock, RLock()
        self.store: PluginStore | None = plugin_store_at(address)
        self.failing: str | None = None
        self.open: dict[Space, Namespace] = {}
        self.unreadable = 0
        self._seen = -1  # the last change mark of the store
        self._last = 0  # version

    def next_version(self) -> int:
        self._last += 1
        return self._last

    def saw(self, row: Row | None) -> None:
        if row is not None:
            self._last = max(self._last, row.version)

    def ask(self, call: Callable[[PluginStore], T]) -> tuple[T] | None:
        """The store's answer; None if the store is not used. Its first failure is
        logged, and from then on this process uses only memory (O06)."""
        if self.store is None or self.failing is not None:
            return None
        try:
            self._look(self.store)
            return (call(self.store),)
        except StoreError as exc:
            self.failing = str(exc)
            text = "plugin state goes on in memory alone until this process ends: %s"
            _LOG.warning(text, exc)
            return None

    def _look(self, store: PluginStore) -> None:
        """Forget the memory if another process has written."""
        seen = store.changed()
        if seen != self._seen:
            self._seen = seen
            for namespace in self.open.values():
                namespace.forget()

    def close(self) -> None:
        with self.lock:
            if self.store is not None:
                self.store.close()

    def facts(self) -> dict[str, Any]:
        full = [n.name for n in self.open.values() if n.nearly_full]
        return {
            "store": None if self.store is None else self.store.address,
            "failing": self.failing,
            "nearly_full": sorted(full),
            "unreadable": self.unreadable,
        }


class PluginState:
    """The namespaces of one plugin."""

    def __init__(self, plugin: str, shared: Shared) -> None:
        self._plugin, self._shared = plugin, shared

    def open(
        self,
        namespace: str,
        *,
        max_entries: int = 1_000,
        ttl_ms: int | None = None,
        overflow: Overflow | str = Overflow.EVICT_OLDEST,
        schema: int = 1,
    ) -> "Namespace":
        """A namespace, the same object for the same name. `max_entries`: of this
        namespace. `overflow`: the plan for one more: `evict_oldest`, or `reject`, which
        raises BackPressureError. `ttl_ms`: how long a value lives, unless it is
        registered with its own. `schema`: of the values; values of a newer schema are
        not read.

        Raises InvalidInputError if it is open with other limits."""
        limits = _Limits(
            max_entries=check_ms("max_entries", max_entries, least=1),
            ttl_ms=None if ttl_ms is None else check_span("ttl_ms", ttl_ms, least=1),
            overflow=check_enum("overflow", overflow, Overflow),
            schema=check_ms("schema", schema, least=1),
        )
        space = Space(self._plugin, check_id("namespace", namespace))
        with self._shared.lock:
            known = self._shared.open.get(space)
            if known is None:
                known = Namespace(space, limits, self._shared)
                self._shared.open[space] = known
        if known.limits != limits:
            problem = f"{known.name} is open with {known.limits}"
            raise InvalidInputError(field="namespace", problem=problem)
        return known


class Namespace:
    """Values by key. Every call is synchronous and may come from any thread. A failing
    store raises no error: the call goes on in memory, and the Item says so
    (`durable`)."""

    def __init__(self, space: Space, limits: _Limits, shared: Shared) -> None:
        self.space, self.limits, self._shared = space, limits, shared
        self._memory = Memory(shared.next_version)
        self._told = False
        self.nearly_full = False

    @property
    def name(self) -> str:
        return "/".join(self.space)

    def forget(self) -> None:
        """Forget the rows in memory."""
        self._memory.forget()

    # --- writing ---

    def register(self, key: str, value: Any, *, ttl_ms: int | None = None) -> Item:
        """Store a value, in the place of any earlier one."""
        made = self._write(key, value, ttl_ms, None)
        assert made is not None  # noqa: S101  nothing was expected
        return made

    def register_if_absent(
        self, key: str, value: Any, *, ttl_ms: int | None = None
    ) -> Item:
        """Store a value if there is none. Else return the stored one, with `new`
        False."""
        made = None
        while made is None:  # None: it went between the two reads, or it is unreadable
            made = self._write(key, value, ttl_ms, 0)
            if made is None:
                there = self._rows((key,))[0]
                read = None if there is None else self._read(*there)
                if isinstance(read, Unreadable):
                    made = self._write(key, value, ttl_ms, read.version)
                else:
                    made = read
        return made

    def compare_and_set(
        self, key: str, value: Any, version: int, *, ttl_ms: int | None = None
    ) -> Item | None:
        """Store a value if the stored one has this version; 0: if there is none.
        Returns None if that does not hold. The store decides."""
        return self._write(key, value, ttl_ms, check_ms("version", version))

    def _write(
        self, key: str, value: Any, ttl_ms: int | None, expect: int | None
    ) -> Item | None:
        ttl = (
            self.limits.ttl_ms
            if ttl_ms is None
            else check_span("ttl_ms", ttl_ms, least=1)
        )
        now = self._shared.clock.wall_now()
        write = Write(
            key=check_id("key", key),
            data=_encoded(value),
            schema=self.limits.schema,
            expires=None if ttl is None else now + ttl,
            now=now,
            most=self.limits.max_entries,
            evict=self.limits.overflow is Overflow.EVICT_OLDEST,
            expect=expect,
        )
        wrote, durable = self._do(
            lambda store: store.write(self.space, write),
            lambda memory: memory.write(write),
        )
        self._watch(wrote.count)
        if wrote.full:
            what, most = f"entries of {self.name}", self.limits.max_entries
            raise BackPressureError(what=what, waiting=wrote.count, limit=most)
        if durable:
            self._keep(key, wrote.row)
        if not wrote.stored or wrote.row is None:
            return None
        item = self._read(wrote.row, durable)
        return evolve(item, new=True) if isinstance(item, Item) else None

    def _watch(self, count: int) -> None:
        """Warn before the namespace is full (O02)."""
        self.nearly_full = count >= self.limits.max_entries * _NEARLY
        if self.nearly_full and not self._told:
            most, then = self.limits.max_entries, self.limits.overflow
            text = "plugin state %s has %s of %s entries; then: %s"
            _LOG.warning(text, self.name, count, most, then)
        self._told = self.nearly_full

    # --- taking ---

    def consume(self, key: str) -> Item | None:
        """Take a value out. Of all callers in all processes one gets it: the store
        decides. While the store is not used, this process alone decides, and the Item
        says `durable=False`."""
        key = check_id("key", key)
        now, schema = self._shared.clock.wall_now(), self.limits.schema
        row, durable = self._do(
            lambda store: store.take(self.space, key, now, schema),
            lambda memory: memory.take(key, now, schema),
        )
        if durable:
            self._memory.forget(key)
        item = None if row is None else self._read(row, durable)
        return item if isinstance(item, Item) else None

    def delete(self, key: str) -> bool:
        """True if a value was there."""
        return self._drop(check_id("key", key)) > 0

    def clear(self) -> int:
        """Remove all values and return their number."""
        return self._drop(None)

    def _drop(self, key: str | None) -> int:
        now = self._shared.clock.wall_now()
        count, durable = self._do(
            lambda store: store.drop(self.space, key, now),
            lambda memory: memory.drop(key, now),
        )
        if durable:
            self._memory.forget(key)
        return count

    # --- reading ---

    def lookup(self, key: str) -> Any | None:
        """The value, or None. None also for an unreadable value; `lookup_many` shows
        the difference."""
        item = self.lookup_item(key)
        return None if item is None else item.value

    def lookup_item(self, key: str) -> Item | None:
        """The value with its version and expiry, or None."""
        item = self.lookup_many((key,))[0]
        return item if isinstance(item, Item) else None

    def lookup_many(self, keys: Sequence[str]) -> list[Item | Unreadable | None]:
        """An answer for each key, in their order. A value that cannot be read is
        Unreadable and does not affect the others (O08)."""
        rows = self._rows(tuple(check_id("key", key) for key in keys))
        return [None if found is None else self._read(*found) for found in rows]

    def entries(self) -> list[Item]:
        """All values that can be read, the oldest first."""
        now = self._shared.clock.wall_now()
        rows, durable = self._do(
            lambda store: store.rows(self.space, now), lambda memory: memory.rows(now)
        )
        items = [self._read(row, durable) for row in rows]
        return [item for item in items if isinstance(item, Item)]

    def _rows(self, keys: tuple[str, ...]) -> list[tuple[Row, bool] | None]:
        """Memory first; the rest is one read of the store (O07)."""
        now, shared = self._shared.clock.wall_now(), self._shared
        with shared.lock:
            filled = shared.ask(lambda store: self._fill(store, keys, now))
            found = self._memory.get(keys, now)
        durable = filled is not None
        return [None if row is None else (row, durable) for row in found]

    def _fill(self, store: PluginStore, keys: tuple[str, ...], now: int) -> None:
        known = self._memory.get(keys, now)
        lacking = [key for key, row in zip(keys, known, strict=True) if row is None]
        if lacking:
            for row in store.get(self.space, lacking, now):
                if row is not None:
                    self._keep(row.key, row, at_least=len(keys))

    # --- both ---

    def _keep(self, key: str, row: Row | None, at_least: int = 0) -> None:
        self._shared.saw(row)
        if row is None:
            self._memory.forget(key)
        else:
            self._memory.keep(row, max(self.limits.max_entries, at_least))

    def _do(
        self, ask: Callable[[PluginStore], T], alone: Callable[[Memory], T]
    ) -> tuple[T, bool]:
        """The store's answer and True, or the answer of memory and False."""
        with self._shared.lock:
            asked = self._shared.ask(ask)
            if asked is not None:
                return asked[0], True
            return alone(self._memory), False

    def _read(self, row: Row, durable: bool) -> Item | Unreadable:
        problem = ""
        if row.schema > self.limits.schema:
            problem = f"schema {row.schema}, this plugin knows {self.limits.schema}"
        try:
            value = json.loads(row.data)
        except (ValueError, RecursionError) as exc:
            problem = problem or f"no JSON: {exc}"
            value = None
        if problem:
            self._shared.unreadable += 1
            return Unreadable(key=row.key, version=row.version, problem=problem)
        return Item(
            key=row.key,
            value=value,
            version=row.version,
            expires=row.expires,
            durable=durable,
        )


def _encoded(value: Any) -> bytes:
    try:
        data = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInputError(field="value", problem=f"no JSON: {exc}") from exc
    if len(data) > _LARGEST:
        problem = f"{len(data)} bytes, at most {_LARGEST}"
        raise InvalidInputError(field="value", problem=problem)
    return data


class PluginStates:
    """The part of a Kernel for the state of plugins. It may be used before the kernel
    is open, and from any thread."""

    _address: str | Path | Store
    _clock: Clock
    _shared: Shared | None = None

    def state(self, plugin: str) -> PluginState:
        """The state of a plugin, in a file beside the store (`<store>.plugins`). Raises
        InvalidInputError for a name that is no id."""
        if self._shared is None:
            at = self._address
            name = at if isinstance(at, str | Path) else at.address
            self._shared = Shared(name, self._clock)
        return PluginState(check_id("plugin", plugin), self._shared)

    def _plugin_facts(self) -> dict[str, Any] | None:
        return None if self._shared is None else self._shared.facts()

    def _close_plugins(self) -> None:
        if self._shared is not None:
            self._shared.close()
