"""The kernel's view of a store for the state of plugins (specs/plugin-state.md).

It is a file of its own beside the store: the state of plugins is not part of the log,
and a damaged cache must not stop a gateway. The calls are synchronous and short, since
a handler makes them in the middle of its work. Each call is one transaction, atomic
across processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from attrs import field, frozen
from msgspec import Struct

from turnfold.ports.store import factory_at


class Space(NamedTuple):
    """One namespace of one plugin. Limits and evictions apply to it alone."""

    plugin: str
    namespace: str


class Row(Struct, frozen=True):
    """A stored value. `version`: unique in the store, and larger for a later value.
    `schema`: of the value, by its plugin. `expires`: wall ms; from then on the row
    counts as missing."""

    key: str
    data: bytes
    version: int
    schema: int = 1
    expires: int | None = None

    def lives(self, now: int) -> bool:
        return self.expires is None or now < self.expires


@frozen(kw_only=True)
class Write:
    """`expect`: None: write over any row; 0: only if there is no row; else only over
    that version. `most`: live keys of the namespace. `evict`: remove the oldest when it
    is full; else the write is refused."""

    key: str
    data: bytes
    schema: int
    expires: int | None
    now: int
    most: int
    evict: bool
    expect: int | None = None


@frozen
class Wrote:
    """`row`: the current row, or None. `stored`: the row was written. `full`: the write
    was refused, because the namespace is full. `count`: rows of the namespace; some may
    be expired."""

    row: Row | None
    stored: bool = field(kw_only=True)
    count: int = field(kw_only=True)
    full: bool = field(default=False, kw_only=True)


@frozen
class Everything:
    """`last`: the last version that was given out. `rows`: expired ones, too, the
    oldest first."""

    last: int = 0
    rows: Sequence[tuple[Space, Row]] = ()


class PluginStore(Protocol):
    """Raises StoreError if it fails. Then the call stored nothing, or that is not
    known, and the kernel stops using it."""

    @property
    def address(self) -> str:
        """The name of this plugin store for people."""

    def write(self, space: Space, write: Write) -> Wrote:
        """Compare and store. An expired row counts as none (O04)."""

    def get(self, space: Space, keys: Sequence[str], now: int) -> list[Row | None]:
        """The live rows of these keys, in their order."""

    def take(self, space: Space, key: str, now: int, schema: int) -> Row | None:
        """Remove a live row and return it: of all callers in all processes one gets it.
        Durable when this returns. A row of a newer schema stays."""

    def drop(self, space: Space, key: str | None, now: int) -> int:
        """Remove a key, or all; returns how many live rows went."""

    def rows(self, space: Space, now: int) -> list[Row]:
        """All live rows, the oldest first."""

    def every(self) -> "Everything":
        """All that it holds, for a copy. Creates and changes nothing."""

    def bring(self, everything: "Everything") -> None:
        """Fill this store, which is empty, in one transaction. Durable when this
        returns."""

    def changed(self) -> int:
        """A number that changes with writes of other processes; cheap."""

    def faults(self) -> list[str]:
        """The faults of its file, a line each. Creates and changes nothing."""

    def close(self) -> None:
        """Close the file. A later call opens it again."""


def plugin_store_at(address: str | Path) -> PluginStore | None:
    """The plugin store for a store with this address; None if stores of its kind have
    none. The class of the store makes it (`plugin_store(address)`), so the same entry
    point finds it. No file is created before the first write."""
    factory, rest = factory_at(address)
    make = getattr(factory, "plugin_store", None)
    return None if make is None else cast("PluginStore", make(rest))
