"""What waited in the inbox is read before anything is decided that it would change: all
of it at the take-over of a store, and again before a part in doubt is sent again."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from turnfold import Kernel, Settings
from turnfold._decide.inbox import act_command, enqueue_command, receipt_command
from turnfold._decide.outbox import Intent
from turnfold._decide.unit_of_work import AttemptRef
from turnfold._log.bodies import pack
from turnfold._log.ids import ENTRY
from turnfold._runtime import worker
from turnfold.enums import AbortReason, BlindPolicy, FailureClass, Kind, Phase
from turnfold.errors import BusyError
from turnfold.messages import Text
from turnfold.ports.channel import Receipt
from turnfold.ports.store import Command, Store
from turnfold_model.testing.gateway import (
    Gateway,
    driver_of,
    entry,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import (
    PlatformChannel,
    hang,
    reject,
    unknown,
    wait_for,
)

RESEND = BlindPolicy.RESEND


async def post(kernel: Kernel, *commands: Command) -> None:
    """As another process does whose ring nobody hears."""
    await kernel.store.post(commands)


def receipt_of(name: str, number: int = 1) -> Command:
    """Of a worker that had lost the store when its call succeeded."""
    lane = "t/default/42/"
    return receipt_command(AttemptRef(name, 0, number, lane), Receipt(ids=("m1",)))


def abort_of(name: str) -> Command:
    words = {"reason": AbortReason.USER, "by": None, "why": ""}
    return act_command("abort", name, name, 0, answer=False, **words)


def later(number: int) -> Command:
    """A payload that is not due for a long time."""
    intent = Intent(
        entry=f"{ENTRY}later{number}",
        route=route("7"),
        kind=Kind.NOTICE,
        packed=(pack(Text("later")),),
        not_before=4_000_000_000_000,
    )
    return enqueue_command(intent, 0, 60_000)


async def answer(handle: Any) -> None:
    await handle.reply("answer")


async def on_the_wire(gateway: Gateway) -> tuple[Kernel, str]:
    """A worker whose only send is under way, for ever."""
    kernel = await gateway.start()
    gateway.platform.plays(hang(lands=True))
    sent = await kernel.enqueue(route(), "x", policy=RESEND)
    await until(lambda: gateway.platform.calls)
    return kernel, sent.entry_id


async def in_doubt(
    gateway: Gateway, *, lands: bool = True, **more: Any
) -> tuple[Kernel, str]:
    """A worker with a part in doubt that its policy sends again in a second."""
    kernel = await gateway.start(**more)
    gateway.platform.plays(unknown(lands=lands))
    sent = await kernel.enqueue(route(), "x", policy=RESEND)
    await until(lambda: entry(kernel, sent.entry_id).phase is Phase.IN_DOUBT)
    return kernel, sent.entry_id


# --- at the take-over ----------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 250])
async def test_a_receipt_that_waits_is_logged_before_the_attempt_is_sent_again(
    gateway: Gateway, before: int
) -> None:
    """However many commands wait in front of it."""
    kernel, name = await on_the_wire(gateway)
    await post(kernel, *map(later, range(before)), receipt_of(name))
    kernel = await gateway.restart(kernel)
    await spin()
    assert story(kernel, name)[-1] == "late_receipt"
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert len(gateway.platform.calls) == 1
    assert not peek(kernel).inbox()


@pytest.mark.parametrize("before", [0, 250])
async def test_what_is_due_is_not_sent_if_its_abort_waits(
    gateway: Gateway, before: int
) -> None:
    kernel = await gateway.start()
    gateway.platform.plays(reject(FailureClass.CANCELLED))
    sent = await kernel.enqueue(route(), "x")
    name = sent.entry_id
    await until(lambda: entry(kernel, name).phase is Phase.RETRYABLE)
    await gateway.crash(kernel)
    client = await gateway.start(work=False)
    await post(client, *map(later, range(before)), abort_of(name))
    gateway.clock.pass_ms(60_000)
    kernel = await gateway.start()
    await spin()
    assert len(gateway.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.ABORTED


async def test_nothing_is_sent_whose_abort_waits(gateway: Gateway) -> None:
    """The first command opens the gate that held all of it back."""
    gateway.handler = answer
    kernel = await gateway.start()
    await kernel.disconnected("t")
    sent = [await kernel.enqueue(route(), text) for text in ("a", "b", "c")]
    accepted = await kernel.accept(inbound(conversation="7"))
    await until(lambda: turn(kernel, accepted.turn_id).finals)
    names = [*(one.entry_id for one in sent), accepted.turn_id]
    arguments = {"connected": True, "channel": "t", "account": "default"}
    opened = act_command("gate", "gate", "gate:t/default", 0, answer=False, **arguments)
    await post(kernel, opened, *map(abort_of, names))
    kernel = await gateway.restart(kernel)
    await spin()
    assert gateway.platform.calls == []
    assert all(entry(kernel, name).phase is Phase.ABORTED for name in names[:3])
    assert not turn(kernel, accepted.turn_id).open


async def test_a_person_who_said_delivered_is_heard_before_the_policy(
    gateway: Gateway,
) -> None:
    kernel, name = await on_the_wire(gateway)
    words = {"verdict": "delivered", "by": "you"}
    fate = act_command("resolve", "r", name, 0, answer=False, **words)
    await gateway.crash(kernel)
    client = await gateway.start(work=False)
    await post(client, fate)
    kernel = await gateway.start()
    await spin()
    assert len(gateway.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.DELIVERED


class Unread:
    """A store whose inbox cannot be read while `shut`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shut = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def inbox(self, limit: int = 100) -> Sequence[Command]:
        if self.shut:
            raise BusyError(path=self._store.address, waited_ms=0)
        return await self._store.inbox(limit)


def unread() -> tuple[list[Unread], Callable[[Store], Any]]:
    made: list[Unread] = []

    def wrap(store: Store) -> Any:
        made.append(Unread(store))
        return made[0]

    return made, wrap


async def test_a_store_whose_inbox_cannot_be_read_delays_the_take_over(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Accepting goes on. The log and `health` say what is waited for."""
    gateway.handler = answer
    kernel, name = await on_the_wire(gateway)
    await post(kernel, receipt_of(name))
    await gateway.crash(kernel)
    made, wrap = unread()
    kernel = await gateway.start(wrap=wrap)
    accepted = await kernel.accept(inbound(conversation="7"))
    sent = await kernel.enqueue(route("8"), "y")
    await kernel.enqueue(route(), "z")
    await gateway.advance(60_000)
    assert kernel.working
    assert kernel.health()["taking_over_ms"] >= 60_000
    assert "taking over" in caplog.text
    assert story(kernel, accepted.turn_id) == ["accepted"]
    assert entry(kernel, sent.entry_id).phase is Phase.QUEUED
    assert entry(kernel, name).phase is Phase.DISPATCHED
    assert len(gateway.platform.calls) == 1
    made[0].shut = False
    await kernel.settled(sent.entry_id, 5_000)
    await kernel.settled(accepted.turn_id, 5_000)
    assert kernel.health()["taking_over_ms"] is None
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert sorted(gateway.platform.contents) == ["answer", "x", "y", "z"]


async def test_a_command_that_nobody_can_do_does_not_stop_the_take_over(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    kernel, name = await on_the_wire(gateway)
    odd = act_command("dance", "odd", name, 0, answer=False)
    await post(kernel, odd, receipt_of(name))
    kernel = await gateway.restart(kernel)
    assert entry(kernel, name).phase is Phase.DELIVERED
    assert kernel.health()["inbox_refused"] == ["odd"]
    assert "dance" in caplog.text


async def test_opening_that_is_cancelled_meanwhile_leaves_nobody_at_work(
    lone: Gateway,
) -> None:
    kernel, name = await on_the_wire(lone)
    await lone.crash(kernel)
    shut = asyncio.Event()

    class Slow(Unread):
        async def inbox(self, limit: int = 100) -> Sequence[Command]:
            await shut.wait()
            return await self._store.inbox(limit)

    opening = asyncio.ensure_future(lone.start(wrap=Slow))  # type: ignore[arg-type,return-value]  # a store by its attributes
    await asyncio.sleep(0.02)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    shut.set()
    await spin()
    assert not [t for t in asyncio.all_tasks() if "Driver._run" in repr(t)]
    assert len(lone.platform.calls) == 1
    kernel = await lone.start()
    assert kernel.working
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)


# --- while the worker works ----------------------------------------------------------


async def test_a_receipt_that_came_in_the_meantime_is_read_before_the_resend(
    gateway: Gateway,
) -> None:
    kernel, name = await in_doubt(gateway)
    await post(kernel, receipt_of(name))
    await gateway.advance(60_000)
    assert len(gateway.platform.calls) == 1
    assert story(kernel, name)[-1] == "late_receipt"


async def test_a_persons_word_to_send_again_waits_for_the_inbox_too(
    gateway: Gateway,
) -> None:
    kernel, name = await in_doubt(gateway)
    await post(kernel, receipt_of(name))
    await kernel.resolve(name, "resend", by="you")
    await spin()
    assert len(gateway.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_a_reading_that_began_before_the_question_is_not_its_answer(
    gateway: Gateway,
) -> None:
    """The poll has read the inbox, and the receipt comes while it still works."""

    class Slow(Unread):
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def inbox(self, limit: int = 100) -> Sequence[Command]:
            found = await self._store.inbox(limit)
            if not self.shut:
                self.shut = True
                self.begun.set()
                await self.go_on.wait()
            return found

    made: list[Slow] = []

    def wrap(store: Store) -> Any:
        made.append(Slow(store))
        return made[0]

    kernel, name = await in_doubt(gateway, wrap=wrap)
    made[0].shut = False
    await made[0].begun.wait()
    await post(kernel, receipt_of(name))
    await gateway.advance(60_000)
    made[0].go_on.set()
    await spin()
    assert len(gateway.platform.calls) == 1
    await until(lambda: entry(kernel, name).phase is Phase.DELIVERED)


async def test_a_resend_that_was_granted_waits_for_the_inbox_too(
    gateway: Gateway,
) -> None:
    """Its gate was closed when the policy spoke."""
    kernel, name = await in_doubt(gateway)
    await kernel.disconnected("t")
    await gateway.advance(60_000)
    assert story(kernel, name)[-1] == "resolved"
    await post(kernel, receipt_of(name))
    await kernel.connected("t")
    await spin()
    assert len(gateway.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_what_was_prepared_to_go_again_is_not_sent_after_its_receipt(
    gateway: Gateway,
) -> None:
    gateway.channels = {
        ("t", "default"): PlatformChannel(gateway.platform, prepares=True)
    }
    kernel, name = await in_doubt(gateway)
    ready = asyncio.Event()
    gateway.platform.preparing.append(wait_for(ready))
    await gateway.advance(60_000)
    await until(lambda: len(gateway.platform.prepared) == 2)
    await post(kernel, receipt_of(name))
    ready.set()
    await until(lambda: not driver_of(kernel).live)
    assert len(gateway.platform.calls) == 1
    assert entry(kernel, name).phase is Phase.DELIVERED


async def test_an_inbox_that_cannot_be_read_is_told_once(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each of the polls, which are four in a second."""
    monkeypatch.setattr(worker, "POLL_S", 0.005)
    made, wrap = unread()
    opening = asyncio.ensure_future(gateway.start(wrap=wrap))
    await until(lambda: made)
    made[0].shut = False
    await opening
    for times in (1, 2):
        made[0].shut = True
        await asyncio.sleep(0.05)
        assert caplog.text.count("cannot read") == times
        made[0].shut = False
        await asyncio.sleep(0.05)


async def test_a_resend_waits_while_the_inbox_cannot_be_read(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    made, wrap = unread()
    made_open = asyncio.ensure_future(in_doubt(gateway, lands=False, wrap=wrap))
    await until(lambda: made)
    made[0].shut = False
    kernel, name = await made_open
    made[0].shut = True
    await gateway.advance(60_000)
    assert len(gateway.platform.calls) == 1
    assert "trying again" in caplog.text
    made[0].shut = False
    await kernel.settled(name, 5_000)
    assert len(gateway.platform.calls) == 2


async def test_an_abort_frees_no_lane_for_what_the_next_one_aborts(
    gateway: Gateway,
) -> None:
    """Both were durable before the worker decided about either."""
    gateway.settings = Settings(yield_retryable=False)
    kernel = await gateway.start()
    gateway.platform.plays(reject(FailureClass.CANCELLED))
    sent = [await kernel.enqueue(route(), text) for text in ("a", "b")]
    names = [one.entry_id for one in sent]
    await until(lambda: entry(kernel, names[0]).phase is Phase.RETRYABLE)
    await post(kernel, *map(abort_of, names))
    await until(lambda: not peek(kernel).inbox())
    await spin()
    assert len(gateway.platform.calls) == 1
    assert all(entry(kernel, name).phase is Phase.ABORTED for name in names)
