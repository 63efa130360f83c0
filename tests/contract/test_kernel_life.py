"""The life of a kernel: its loop and thread, the portal, and one closing for all."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from turnfold.api.kernel import Kernel
from turnfold.errors import InvalidInputError, NotOpenError, WrongThreadError
from turnfold.inbound import Inbound
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.testing.gateway import (
    Gateway,
    crash,
    driver_of,
    inbound,
    route,
    until,
)


class Slow:
    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds, self.begun = seconds, 0

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted:
        self.begun += 1
        await asyncio.sleep(self.seconds)
        return Accepted(receipt=Receipt(ids=(key,)))


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run a function in another thread; what it returned or raised."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as exc:  # noqa: BLE001  it is raised here instead
            done.set_exception(exc)

    threading.Thread(target=run).start()
    return done


# --- the loop and the thread ---

CALLS: dict[str, Callable[[Kernel], Any]] = {
    "accept": lambda k: k.accept(inbound("1")),
    "enqueue": lambda k: k.enqueue(route(), "x"),
    "abort": lambda k: k.abort("turn:x"),
    "supersede": lambda k: k.supersede("turn:x"),
    "connected": lambda k: k.connected("t"),
    "disconnected": lambda k: k.disconnected("t"),
    "bounced": lambda k: k.bounced("entry:x"),
    "settled": lambda k: k.settled("turn:x"),
    "drain": lambda k: k.drain(),
    "open": lambda k: k.open(),
    "close": lambda k: k.close(),
    "health": lambda k: k.health(),
    "inspect": lambda k: k.inspect,
    "attach": lambda k: k.attach("other", Slow(), on_unknown="hold"),
    "source": lambda k: k.source("other", lambda cursor: None),
    "on_turn": lambda k: k.on_turn(lambda turn: None),
}


@pytest.mark.case("Y01")
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_from_another_thread_names_the_portal(
    lone: Gateway, name: str
) -> None:
    kernel = await lone.start()
    before = kernel.health()["position"]

    def call() -> Any:
        made = CALLS[name](kernel)
        if inspect.isawaitable(made):
            return asyncio.run(_awaited(made))
        return made

    with pytest.raises(WrongThreadError, match=r"kernel\.portal\(\)"):
        await asyncio.wrap_future(elsewhere(call))
    assert kernel.health()["position"] == before


async def test_a_plain_question_of_another_thread_is_refused(lone: Gateway) -> None:
    kernel = await lone.start()
    with pytest.raises(WrongThreadError):
        await asyncio.wrap_future(elsewhere(kernel.health))


async def _awaited(made: Any) -> Any:
    return await made


@pytest.mark.case("Y01")
async def test_the_portal_brings_a_call_of_any_thread(lone: Gateway) -> None:
    kernel = await lone.start()
    portal = kernel.portal()
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    def work() -> Any:
        tenant.set("the thread")
        done = portal.call(kernel.enqueue, route(), "x", key="k")
        again = portal.submit(kernel.enqueue, route(), "x", key="k").result()
        health = kernel.portal().call(kernel.health)
        return done, again, health, portal.call(tenant.get)

    done, again, health, seen = await asyncio.wrap_future(elsewhere(work))
    await kernel.settled(done.entry_id, 1_000)
    assert (done.new, again.new) == (True, False)
    assert (health["working"], seen) == (True, "the thread")


async def test_the_portal_passes_errors_on_and_a_stop_of_the_process_is_one(
    lone: Gateway,
) -> None:
    kernel = await lone.start()
    portal = kernel.portal()

    def exits() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await asyncio.wrap_future(elsewhere(lambda: portal.call(exits)))
    with pytest.raises(InvalidInputError):
        await asyncio.wrap_future(elsewhere(lambda: portal.call(7)))  # type: ignore[arg-type]  # that is the fault
    with pytest.raises(InvalidInputError, match="would wait for its own thread"):
        portal.call(kernel.health)


async def test_a_portal_call_ends_with_the_kernel(wild: Gateway) -> None:
    kernel = await wild.start()
    portal = kernel.portal()
    waits = elsewhere(lambda: portal.call(asyncio.Event().wait))
    await asyncio.sleep(0.02)
    wild.alive.remove(kernel)
    await kernel.close()
    with pytest.raises(NotOpenError):
        await asyncio.wrap_future(waits)
    with pytest.raises(NotOpenError):
        portal.submit(kernel.health)


async def test_a_handle_goes_through_the_portal_with_its_run(lone: Gateway) -> None:
    async def answer(turn: Any) -> None:
        portal = kernel.portal()
        await asyncio.to_thread(portal.call, turn.reply, "from a thread")

    lone.handler = answer
    kernel = await lone.start()
    accepted = await kernel.accept(inbound("1"))
    assert await accepted.settled(2_000) == "replied"
    assert lone.platform.contents == ["from a thread"]


# --- closing ---


@pytest.mark.case("U13")
async def test_a_closing_that_is_cancelled_goes_on(tmp_path: Path) -> None:
    kernel, slow = Kernel(tmp_path / "g.db"), Slow()
    kernel.attach("t", slow, on_unknown="hold")
    await kernel.open()
    await kernel.enqueue(route(), "x")
    await until(lambda: slow.begun)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await kernel.close()
    assert kernel.health()["state"] == "draining"
    await kernel.close()
    with pytest.raises(NotOpenError):
        kernel.health()
    async with Kernel(tmp_path / "g.db") as again:
        assert again.working
        assert again.health()["open_entries"] == 0


@pytest.mark.case("U13")
async def test_many_callers_wait_for_one_closing(tmp_path: Path) -> None:
    kernel, slow = Kernel(tmp_path / "g.db"), Slow()
    kernel.attach("t", slow, on_unknown="hold")
    await kernel.open()
    await kernel.enqueue(route(), "x")
    await until(lambda: slow.begun)
    calls = [asyncio.create_task(kernel.close()) for _ in range(3)]
    await asyncio.sleep(0)
    await kernel.open()  # waits for the closing, and opens again
    assert all(call.done() for call in calls)
    assert kernel.working
    await kernel.close()
    await kernel.close()


@pytest.mark.case("U13")
@pytest.mark.parametrize("place", ["handler", "hook", "source", "send"])
async def test_foreign_code_may_close_its_kernel(place: str, tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "g.db")
    returned: list[str] = []

    async def close() -> None:
        async with asyncio.timeout(2):
            await kernel.close()
        returned.append(place)

    class Closes:
        async def send(self, part: Any, key: str, attempt: Any) -> Any:
            if place == "send":
                await close()
            return Accepted(receipt=Receipt(ids=(key,))) if place != "hook" else None

    async def feed(cursor: str | None) -> Any:
        await close()
        yield None, "1"

    async def hook(entry: Any) -> None:
        await close()

    @kernel.on_turn
    async def answer(turn: Any) -> None:
        if place == "handler":
            await close()
        await turn.reply("x")

    kernel.attach("t", Closes(), on_unknown="hold")
    kernel.hooks.on_parked(hook)
    await kernel.open()
    if place == "source":
        kernel.source("t", feed)
    else:
        await kernel.accept(Inbound("t", conversation="42", message_id="1", body={}))
    async with asyncio.timeout(5):
        await until(lambda: kernel._state == "closed")
        await kernel.close()
    assert returned == [place]
    async with Kernel(tmp_path / "g.db") as again:
        assert again.working


async def test_closing_while_it_opens_waits_for_the_opening(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "g.db")
    opening = asyncio.create_task(kernel.open())
    await asyncio.sleep(0)
    await kernel.close()
    await opening
    assert kernel._state == "closed"


async def test_an_opening_that_is_cancelled_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    for turns in range(12):
        kernel = Kernel(tmp_path / "g.db")
        opening = asyncio.create_task(kernel.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await kernel.close()
        async with Kernel(tmp_path / "g.db") as again:
            assert again.working


def test_a_loop_that_ends_during_a_closing_lets_the_store_go(tmp_path: Path) -> None:
    async def main() -> None:
        kernel, slow = Kernel(tmp_path / "g.db"), Slow(30)
        kernel.attach("t", slow, on_unknown="hold")
        await kernel.open()
        await kernel.enqueue(route(), "x")
        await until(lambda: slow.begun)
        closing = asyncio.create_task(kernel.close())
        await asyncio.sleep(0.01)
        closing.cancel()

    asyncio.run(main())

    async def again() -> None:
        async with Kernel(tmp_path / "g.db") as kernel:
            assert kernel.working

    asyncio.run(again())


async def test_a_kernel_may_be_opened_on_another_loop_after_it_was_closed(
    tmp_path: Path,
) -> None:
    kernel = Kernel(tmp_path / "g.db")
    async with kernel:
        assert kernel.working

    async def again() -> bool:
        async with kernel:
            return kernel.working

    assert await asyncio.to_thread(lambda: asyncio.run(again()))


async def test_a_kernel_that_was_cut_off_leaves_no_program_behind() -> None:
    """Its run ends, and the end of the run can never be stored."""
    runs = asyncio.Event()

    async def answer(turn: Any) -> None:
        runs.set()
        await asyncio.sleep(60)

    kernel = await Gateway(handler=answer).start()
    await kernel.accept(inbound())
    await runs.wait()
    driver = driver_of(kernel)
    await crash(kernel)
    await until(lambda: not driver.live, 2)


def test_run_in_a_thread_that_hears_no_signals_says_so(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "g.db")
    with pytest.raises(InvalidInputError, match="use `async with kernel`") as told:
        elsewhere(lambda: asyncio.run(kernel.run())).result(5)
    assert told.value.field == "run"
