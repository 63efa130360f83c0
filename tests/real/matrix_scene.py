"""What the tests of the Matrix channel share: parts, attempts and one send."""

import itertools
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from turnfold.inbound import Inbound
from turnfold.messages import Native, Payload, Route, Text
from turnfold.ports.channel import Accepted, Attempt, Outcome, Part
from turnfold_adapters.channels.matrix import MatrixChannel

MakeChannel = Callable[..., MatrixChannel]
Pair = tuple[Inbound | None, str]

_numbers = itertools.count()


def new_key() -> str:
    return f"k{os.getpid()}x{next(_numbers)}"


def a_part(room_id: str, payload: Payload | str = "hello", **more: Any) -> Part:
    """A part on its way to a room. `more`: key, index, thread, reply_to."""
    payload = Text(payload) if isinstance(payload, str) else payload
    kind = {Text: "text", Native: "native"}.get(type(payload), "file")
    route = Route(
        channel="matrix",
        conversation=room_id,
        thread=more.get("thread"),
        reply_to=more.get("reply_to"),
    )
    return Part(
        entry_id="e1",
        index=more.get("index", 0),
        count=1,
        kind=kind,
        payload=payload,
        key=more.get("key") or new_key(),
        route=route,
    )


async def deliver(
    channel: MatrixChannel, part: Part, *, marked: bool = False
) -> Outcome:
    """What the kernel does with a part: prepare, send, classify."""
    try:
        prepared = await channel.prepare(part)
        attempt = Attempt(number=1, at_ms=0, marked=marked, prepared=prepared)
        return await channel.send(part, part.key, attempt)
    except Exception as exc:
        outcome = channel.classify(exc)
        if outcome is None:
            raise
        return outcome


def id_of(outcome: Outcome) -> str:
    """The event id of an accepted part."""
    assert isinstance(outcome, Accepted), outcome
    (event_id,) = outcome.receipt.ids
    return event_id


async def pairs(
    source: AsyncGenerator[Pair, None], until: Callable[[list[Pair]], bool]
) -> list[Pair]:
    """Read a source until what came is enough, then close it."""
    seen: list[Pair] = []
    async with aclosing(source):
        async for pair in source:
            seen.append(pair)
            if until(seen):
                break
    return seen


def texts(seen: list[Pair]) -> list[str]:
    return [message.text for message, _ in seen if message is not None]
