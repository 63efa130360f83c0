"""A kernel for commands that change a store. Commands that only read do not load this
module: the kernel is half of what a command imports."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from turnfold import Kernel, ShardedKernel
from turnfold.errors import ShardedStoreError


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Kernel | ShardedKernel]:
    """A client kernel, of a store of one shard or of several."""
    kernel: Kernel | ShardedKernel = Kernel(address, work=False)
    try:
        await kernel.open()
    except ShardedStoreError:
        kernel = ShardedKernel(address, work=False)
        await kernel.open()
    async with kernel:
        yield kernel
