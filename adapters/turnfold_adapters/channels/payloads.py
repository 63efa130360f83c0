"""Payloads for client libraries. Pure, except for reading files."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnfold.errors import InvalidInputError
from turnfold.messages import ATTACHED, File, Native, Payload, pointed


async def bytes_of(file: File) -> bytes:
    """The bytes of a file, read in a thread if the file is on disk. Raises OSError."""
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


async def files_of(native: Native) -> dict[str, bytes]:
    """The bytes of the files of a native payload, by name. Raises OSError."""
    return {name: await bytes_of(file) for name, file in sorted(native.files.items())}


def addressed(value: Any, addresses: Mapping[str, str]) -> Any:
    """A native body with the platform's own references to its files."""
    if isinstance(value, str) and value.startswith(ATTACHED):
        return addresses.get(value.removeprefix(ATTACHED), value)
    if isinstance(value, Mapping):
        return {key: addressed(item, addresses) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [addressed(item, addresses) for item in value]
    return value


def check_pointed(payload: Payload) -> None:
    """Raises InvalidInputError for a file that the body does not name, for a platform
    that shows only named files."""
    if not isinstance(payload, Native) or not payload.files:
        return
    unseen = sorted(set(payload.files) - pointed(payload.body))
    if unseen:
        problem = f'the body does not point to {unseen} by "{ATTACHED}<name>"'
        raise InvalidInputError(field="files", problem=problem)
