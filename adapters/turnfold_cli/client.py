"""A kernel for commands that change a store. Commands that only read do not load this
module: the kernel is half of a command's imports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from turnfold import Kernel


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Kernel]:
    """A client kernel, of a store of one shard or of several."""
    async with Kernel(address, work=False) as kernel:
        yield kernel
