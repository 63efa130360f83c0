"""Payloads as a client library takes them. Pure, but for the bytes of a file."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnfold.messages import File


async def bytes_of(file: File) -> bytes:
    """The bytes of a file, read in a thread if they lie on the disk. Raises OSError."""
    if file.data is not None:
        return file.data
    assert file.path is not None  # noqa: S101  File has one of the two
    return await asyncio.to_thread(Path(file.path).read_bytes)


def thawed(value: Any) -> Any:
    """A plain deep copy of a frozen payload body."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thawed(item) for item in value]
    return value
