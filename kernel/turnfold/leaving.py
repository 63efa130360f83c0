"""Taking leave of channels: whatever an adapter does, the store gets closed."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from turnfold.attached import Attached

_LOG = logging.getLogger("turnfold")
_CLOSING_S = 5.0  # connections that cannot be given back in this time are let go


async def close_channels(desks: Iterable[Attached]) -> None:
    """Call aclose() of every channel that has it, once. Never raises."""
    by_channel = {id(desk.channel): desk for desk in desks}
    for desk in by_channel.values():
        close = getattr(desk.channel, "aclose", None)
        if close is None:
            continue
        try:
            await _within_time(close())
        except Exception:  # noqa: BLE001  an adapter may raise anything
            where = (desk.name, desk.account)
            _LOG.exception("channel %s/%s could not be closed", *where)


async def _within_time(call: Any) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=_CLOSING_S)
    if not task.done():
        task.cancel()
        raise TimeoutError(f"aclose() has no end after {_CLOSING_S:.0f} s")
    if task.cancelled():
        raise RuntimeError("aclose() cancelled itself")
    task.result()
