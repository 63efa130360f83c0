"""Work on large bodies in a thread, so that the event loop goes on meanwhile.

Python code in a thread lets the loop run every few milliseconds; one long call into C
may not. So JSON of many small values is written and read there by Python code, and a
long text is read in pieces. Small bodies take the quick way, on the loop.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from json import scanner
from typing import Any, NamedTuple, TypeVar

import msgspec

from turnfold._log import canonical
from turnfold.messages import LARGE

T = TypeVar("T")
_PIECE = 256 * 1024  # bytes of a text for one call


class Seal(NamedTuple):
    """The salt and the digest of a large body, computed before its decision."""

    salt: bytes
    digest: str


def seal(salt: Callable[[], bytes], data: bytes) -> Seal | None:
    """The seal of large bytes; None for small ones, which the commit digests."""
    if len(data) <= LARGE:
        return None
    made = salt()
    return Seal(made, canonical.body_digest(made, data))


_POOLS: dict[int, ThreadPoolExecutor] = {}  # by process: a fork copies no thread


def _pool() -> ThreadPoolExecutor:
    """A pool of the kernel's own: the default one may be full of plain handlers that
    wait for the kernel."""
    pid = os.getpid()
    if pid not in _POOLS:
        _POOLS.clear()
        _POOLS[pid] = ThreadPoolExecutor(2, "turnfold-large")
    return _POOLS[pid]


async def beside(work: Callable[[], T]) -> T:
    """Run work of the kernel in a thread; without an event loop in this one. The work
    must end."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return work()
    return await loop.run_in_executor(_pool(), work)


# --- JSON without one long call ---


_written = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).iterencode


def dumps(value: Any) -> bytes:
    """The same bytes as `canonical.dumps`, token by token."""
    return "".join(_written(value)).encode()


class _Patient(json.JSONDecoder):
    """Reads value by value, in Python."""

    def __init__(self) -> None:
        super().__init__(parse_float=canonical.no_float)
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]  # no stub


def loads(data: bytes) -> Any:
    """The same as `canonical.loads`. Raises InvalidInputError."""
    return canonical.loads(data, dumps, _Patient().decode)


def json_text(data: bytes) -> str:
    """The text in a JSON string without its quotation marks, read in pieces."""
    return "".join([_read(b'"%b"' % piece) for piece in _pieces(data)])


_read = msgspec.json.Decoder(str).decode


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = _cut(data, start + _PIECE)
        yield data[start:end]
        start = end


def _cut(data: bytes, end: int) -> int:
    """A place from `end` on that cuts no escape and no character: an escape has at most
    six bytes. The end of the data if a stretch holds only escapes."""
    for place in range(end, min(end + 4 * _PIECE, len(data))):
        whole = data[place] & 0xC0 != 0x80  # the first byte of a character
        if whole and b"\\" not in data[place - 6 : place]:
            return place
    return len(data)
