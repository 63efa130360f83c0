"""Finding a store by its address, through entry points: the kernel imports no adapter.

`gateway.db` and `sqlite:gateway.db` are SQLite files; `memory:` is for tests. Others
come from packages that declare an entry point in the group `turnfold.stores`.
"""

from pathlib import Path
from typing import cast

from turnfold.errors import InvalidInputError
from turnfold.ports.store import Store

GROUP = "turnfold.stores"


def store_at(address: str | Path) -> Store:
    """The store at an address, not open yet. InvalidInputError if nothing knows it."""
    from importlib.metadata import entry_points  # noqa: PLC0415  26 ms, only at open

    scheme, colon, rest = str(address).partition(":")
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not colon or len(scheme) == 1 or scheme not in known:
        scheme, rest = "sqlite", str(address)
    if scheme not in known:
        problem = "no store is installed for it; install turnfold as a package"
        raise InvalidInputError(field="address", problem=problem)
    factory = known[scheme].load()
    try:
        return cast("Store", factory(rest) if rest else factory())
    except TypeError as exc:
        problem = f"not an address of a {scheme} store: {address}"
        raise InvalidInputError(field="address", problem=problem) from exc
