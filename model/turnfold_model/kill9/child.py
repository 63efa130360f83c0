"""The code of the processes that are killed: a gateway, or a client beside one."""

import asyncio
import logging
import os
import socket
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from attrs import frozen

from turnfold.api.handle import TurnHandle
from turnfold.api.kernel import Kernel
from turnfold.enums import DeliveryClass, Flush, Kind, PartAct, Status
from turnfold.inbound import Inbound
from turnfold.messages import File, Route, Text
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    Receipt,
    Unknown,
    Verdict,
)
from turnfold.settings import Settings
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.kill9.link import Link
from turnfold_model.testing.failpoints import Failpoints, Stop
from turnfold_model.testing.peek import at_rest
from turnfold_model.testing.platform import Platform, PlatformChannel

CHANNEL = "wire"
# Many deaths in a row are the point here, so none of the limits may be reached.
SETTINGS = Settings(
    max_runs=1_000,
    max_deaths_alone=1_000,
    max_failures=1_000,
    max_lookups=1_000,
    backoff_base_ms=1,
    backoff_cap_ms=5,
    drain_ms=2_000,
)
_POLL_S = 0.002
_WAL_BYTES = 256 * 1024  # filled up at the start of every store, and there are many


@frozen(kw_only=True)
class Command:
    """A request to the gateway, repeated until it is confirmed."""

    what: str  # "accept", "enqueue" or "abort"
    name: (
        str  # message id, idempotency key, or the message of the turn that has to stop
    )
    conversation: str = "42"


@frozen(kw_only=True)
class Role:
    """The task of a child. `die`: at which of its points, 0 = never."""

    store: str
    delivery: DeliveryClass
    commands: Sequence[Command] = ()
    works: bool = True
    die: int = 0
    flush: Flush = Flush.LOOP


def child(sock: socket.socket, role: Role) -> NoReturn:
    """The whole life of a forked child. Nothing of the parent's may run at its end."""
    status = 1
    try:
        logging.getLogger("turnfold").setLevel(logging.ERROR)
        asyncio.run(_live(sock, role))
        status = 0
    except BaseException:  # noqa: BLE001  no caller is left to get the error
        traceback.print_exc()
    finally:
        os._exit(status)


async def warm_up() -> None:
    """Call before forking: children need not load and compile this again."""
    kernel = Kernel(MemoryStore(), settings=SETTINGS)
    kernel.attach(CHANNEL, PlatformChannel(Platform()), on_unknown="hold")
    kernel.on_turn(resume=True)(answer)
    async with kernel:
        message = Inbound(CHANNEL, conversation="42", message_id="m0")
        turn = await kernel.accept(message)
        await turn.settled(timeout_ms=10_000)


async def _live(sock: socket.socket, role: Role) -> None:
    link = Link(sock)
    stop = Stop(role.die) if role.die else None
    points = Failpoints(stop, told=lambda name: link.say("stopped", point=name))
    disk = SqliteStore(role.store, wal_bytes=_WAL_BYTES, flush=role.flush)
    store = points.watch(disk)
    kernel = Kernel(store, settings=SETTINGS, work=role.works, probe=points.probe)
    kernel.attach(CHANNEL, WireChannel(link, role.delivery), on_unknown="hold")
    if role.works:
        kernel.on_turn(resume=True)(answer)
    async with kernel:
        link.say("opened")
        for number, command in enumerate(role.commands):
            done = await _carry_out(kernel, command)
            link.say("confirmed", number=number, **done)
        if role.works:
            await link.finish.wait()
            while not await _rests(kernel):  # noqa: ASYNC110  others write the store, too
                await asyncio.sleep(_POLL_S)
        troubles = kernel.health()["troubles"]
    link.say("done", troubles=troubles)


async def _rests(kernel: Kernel) -> bool:
    """Nothing is left to do, neither in the log nor in the inbox."""
    store = kernel.store
    waits = await store.inbox(1)
    return kernel.working and not waits and at_rest((await store.load()).open)


async def _carry_out(kernel: Kernel, command: Command) -> dict[str, Any]:
    message = Inbound(
        CHANNEL, conversation=command.conversation, message_id=command.name
    )
    match command.what:
        case "accept":
            turn = await kernel.accept(message)
            return {"turn": turn.turn_id, "new": turn.new}
        case "enqueue":
            route = Route(channel=CHANNEL, conversation=command.conversation)
            done = await kernel.enqueue(
                route, f"{command.name}: note", key=command.name
            )
            return {"entry": done.entry_id, "new": done.new}
        case _:
            # Taken in once more to learn its turn, as a client would that was killed.
            turn = await kernel.accept(message)
            ended = await kernel.abort(turn.turn_id, by="somebody")
            return {"turn": turn.turn_id, "aborted": ended.aborted}


async def answer(turn: TurnHandle) -> None:
    """A block, then a reply in three parts, which grows where the channel can edit; goes
    on behind the messages of an earlier run."""
    name = turn.inbound.message_id
    said = [s for s in await turn.previous() if s.kind is Kind.BLOCK]
    if all(s.status is Status.ABORTED for s in said):
        await turn.block(f"{name}: thinking")
    await asyncio.sleep(0)
    plot = File(data=b"." * 100, name=f"{name}.txt")
    async with turn.live() as live:
        live.append(f"{name}: on")
        await asyncio.sleep(0.004)
        await live.seal(Text(f"{name}: one"), Text(f"{name}: two"), plot)


def texts_of(name: str) -> list[str]:
    """The parts of the answer to a message that the platform has to see, in order."""
    return [f"{name}: thinking", f"{name}: one", f"{name}: two", f"[{name}.txt]"]


class WireChannel:
    """A channel to the parent, which plays the platform."""

    def __init__(self, link: Link, delivery: DeliveryClass) -> None:
        self._link = link
        blind = delivery is DeliveryClass.BLIND
        edits = delivery is DeliveryClass.EDITABLE
        # The parent reads the output of a dead child before it starts another one,
        # so an old request has landed when the next process asks.
        offer = PartClass(classes=() if blind else (delivery,), settle_ms=0)
        keyed = PartClass(classes=(DeliveryClass.KEYED,))  # no file can be edited
        self.capabilities = Capabilities(
            parts={"text": offer, "file": keyed if edits else offer},
            prepares=("file",),
            preview_ms=1,
        )
        if delivery is DeliveryClass.LOOKUP:
            self.reconcile = self._reconcile
        if edits:
            self.edit, self.retract = self._edit, self._retract

    async def prepare(self, part: Part) -> str:
        return str((await self._link.ask("upload", key=part.key))["id"])

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        empty = attempt.act is PartAct.PLACEHOLDER
        return await self._ask("send", part, key=key, empty=empty)

    async def _edit(
        self, handle: Receipt, part: Part, key: str, attempt: Attempt
    ) -> Outcome:
        del attempt
        return await self._ask("edit", part, key=key, id=handle.ids[0])

    async def _retract(self, handle: Receipt, route: Route) -> None:
        del route
        await self._link.ask("retract", id=handle.ids[0])

    async def _ask(self, what: str, part: Part, **facts: Any) -> Outcome:
        where = part.route.conversation
        answer = await self._link.ask(
            what, text=_text(part.payload), conversation=where, **facts
        )
        if answer["lost"]:
            return Unknown(cause="cut")
        return Accepted(receipt=Receipt(ids=(answer["id"],)))

    async def _reconcile(self, part: Part, since_ms: int) -> Verdict:  # noqa: ARG002  the contract's signature
        found = (await self._link.ask("find", key=part.key))["id"]
        return Found(receipt=Receipt(ids=(found,))) if found else Absent()


def _text(payload: object) -> str:
    if isinstance(payload, Text):
        return payload.text
    return f"[{payload.name if isinstance(payload, File) else '?'}]"
