"""The same misbehaviour as in `test_foreign_code`, in the places that it does not have:
edits, placeholders, retracts, words of notices, lanes of a source, steps, other hooks,
and calls through the portal. `-s` prints the table.
"""

import asyncio
import gc
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from tests.contract.test_foreign_code import (
    ACCEPTED,
    DEAF,
    ERRORS,
    FAST,
    HANGS,
    KINDS,
    LATE,
    QUIET,
    Good,
    inbound,
    later,
    now,
    short,
    until,
)

from turnfold import Clock, FailureClass, Inbound, Route, Settings, Unreadable
from turnfold.api.kernel import Kernel
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, PartAct
from turnfold.ports.channel import Capabilities, PartClass, Rejected, Unknown
from turnfold_adapters.channels.webhook_reception import Reception
from turnfold_adapters.stores.memory import MemoryDisk, MemoryStore
from turnfold_model.testing.gateway import NoJitter

__all__ = ["short"]  # a fixture
EDITABLE = Capabilities(parts={"text": PartClass(classes=(DeliveryClass.EDITABLE,))})
HOOKS = {  # the place -> how its hook is registered
    "parked hook": "on_parked",
    "held hook": "on_held",
    "dead hook": "on_dead",
    "bounced hook": "on_bounced",
    "stalled hook": "on_stalled",
    "restored hook": "on_restored",
}
LATER = ("edit", "placeholder", "retract", "step", *HOOKS)
PLACES = (*LATER, "words", "lane", "stranger's lane", "portal")


class Bad(Good):
    """Misbehaves in one place."""

    def __init__(self, place: str, kind: str) -> None:
        self.place, self.kind = place, kind
        self.met = 0
        if place in ("edit", "placeholder", "retract"):
            self.capabilities = EDITABLE
            self.edit = self._edit
            self.retract = self._retract

    async def later(self, *_: Any) -> Any:
        self.met += 1
        return await later(self.kind)

    def now(self, *_: Any) -> Any:
        self.met += 1
        return now(self.kind)

    async def send(self, part: Any, key: str, attempt: Any) -> Any:
        if self.place == "placeholder" and attempt.act is PartAct.PLACEHOLDER:
            return await self.later()
        if self.place == "parked hook":
            return Unknown(cause="lost")
        if self.place == "words":
            return Rejected(failure=FailureClass.INVALID_PAYLOAD)
        return ACCEPTED

    async def _edit(self, *_: Any) -> Any:
        if self.place == "edit":
            return await self.later()
        if self.place == "retract":  # the placeholder stays, and is to go
            return Rejected(failure=FailureClass.INVALID_PAYLOAD)
        return ACCEPTED

    async def _retract(self, *_: Any) -> Any:
        if self.place == "retract":
            return await self.later()
        return None


def _kernel(store: MemoryStore, bad: Bad) -> Kernel:
    place = bad.place
    words = {"undeliverable": bad.now} if place == "words" else {}
    clock = Clock(synchronised=lambda: True)  # so that the age of a message is known
    kernel = Kernel(store, settings=_settings(words), entropy=NoJitter(), clock=clock)
    kernel.attach("bad", bad, on_unknown="hold")
    kernel.attach("good", Good(), on_unknown="hold")

    @kernel.on_turn
    async def answer(turn: Any) -> Any:
        if turn.inbound.channel == "bad" and place == "step":
            await turn.step("a", bad.later)
        return "x"

    if place in HOOKS:
        getattr(kernel.hooks, HOOKS[place])(bad.later)
    if place == "lane":
        kernel.source("bad", _updates, lane=partial(_lane, bad))
    if place == "stranger's lane":
        kernel.source("bad", _updates, read=_as_it_is, lane=partial(_lane, bad))
    return kernel


def _settings(words: Any) -> Settings:
    facts = {name: getattr(FAST, name) for name in _SHORT}
    return Settings(**facts, notices=words, max_turn_age_ms=60_000, old_turns="ask")  # type: ignore[arg-type]  # the word of the enum


_SHORT = ("backoff_base_ms", "backoff_cap_ms", "max_failures", "max_runs")
_SHORT += ("attempt_deadline_ms", "run_deadline_ms", "hook_deadline_ms", "drain_ms")


async def _updates(_: str | None) -> Any:
    yield inbound("8", channel="bad", conversation="odd"), "1"
    yield inbound("9", channel="good"), "2"
    await asyncio.Event().wait()


def _as_it_is(update: Any) -> Any:
    return update


def _lane(bad: Bad, message: Any) -> Any:
    return bad.now() if message.conversation == "odd" else None


def _call(kernel: Kernel, bad: Bad, ended: threading.Event) -> None:
    with suppress(BaseException):  # the caller gets what its work raised
        kernel.portal().call(bad.now)
    ended.set()


async def _news(kernel: Kernel, place: str) -> None:
    """Bring the news that the hook hears."""
    if place == "held hook":
        old = Inbound("bad", conversation="7", message_id="1", sent_at=1)
        await kernel.accept(old)
    if place == "restored hook":
        await kernel.declare_restored(by="me")
    if place == "dead hook":
        await kernel.accept(Unreadable("bad", raw=b"{", error="no JSON"))
    if place in ("bounced hook", "stalled hook"):
        sent = await kernel.enqueue(Route(channel="bad", conversation="8"), "x")
        assert await kernel.settled(sent.entry_id, 3_000) == "delivered"
        if place == "bounced hook":
            await kernel.bounced(sent.entry_id)
            return
        found = await kernel.look(lambda draft: draft.entry(sent.entry_id))
        kernel.hooks.tell_stalled(found, "a test says so")


async def _met(kernel: Kernel, bad: Bad) -> None:
    await _news(kernel, bad.place)
    if bad.place == "portal":
        ended = threading.Event()
        threading.Thread(target=_call, args=(kernel, bad, ended)).start()
        await until(ended.is_set)
    if "lane" in bad.place:
        await until(lambda: kernel.health()["sources"]["bad/default"]["items"] == 2)
    await until(lambda: bad.met)


async def _one(place: str, kind: str) -> str:
    disk, bad = MemoryDisk(), Bad(place, kind)
    kernel = _kernel(MemoryStore(disk), bad)
    await kernel.open()
    await kernel.accept(inbound("1", channel="bad"))
    try:
        await _met(kernel, bad)
        good = await kernel.accept(inbound("2", channel="good"))
        assert await good.settled(3_000) == "replied"
        assert kernel.health()["working"]
        _tells(kernel, place, kind)
    finally:
        await asyncio.wait_for(kernel.close(), 5)
    await asyncio.gather(*DEAF, return_exceptions=True)
    DEAF.clear()
    gc.collect()
    return await _audited(disk)


def _tells(kernel: Kernel, place: str, kind: str) -> None:
    health = kernel.health()
    if "lane" in place:
        assert health["sources"]["bad/default"]["restarts"] == 0
        assert kind not in ERRORS or health["dead_turns"] == 1
    bugs = health["foreign_bugs"]
    if place == "words" and kind in ERRORS:
        assert bugs["notices"]
    if place in HOOKS and kind in ERRORS:
        assert bugs["hooks"]
    if place == "edit" and kind in ERRORS and kind not in ("OSError", "TimeoutError"):
        assert bugs["bad/default"]


async def _audited(disk: MemoryDisk) -> str:
    store = MemoryStore(disk)
    await store.open()
    report = await audit_store(store)
    await store.close()
    assert report.passed, report.first
    met = [s for s in disk.summaries.values() if s.stream.startswith("entry:")]
    return ", ".join(sorted({s.phase for s in met})) or "nothing sent"


NOT_OURS = ("step", "a coroutine")  # Python tells the handler that nobody awaited it


@pytest.mark.case("U06", "U09", "U12", "V07", "V10")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", PLACES)
async def test_no_kind_of_misbehaviour_in_the_other_places_stops_a_gateway(
    place: str, short: None
) -> None:
    for kind in KINDS:
        if (kind in HANGS and place not in LATER) or (place, kind) == NOT_OURS:
            continue
        async with asyncio.timeout(20):
            fate = await _one(place, kind)
        print(f"{place:15} {kind:22} {fate}")  # noqa: T201  the table, shown by -s
    assert set(QUIET) <= set(KINDS)


# What a parser gives in place of a message, and what the sender is told.
_NO_MESSAGE = dict.fromkeys(QUIET, 200)
_CTRL_C = ("KeyboardInterrupt",)
_BODY = b'{"conversation": "1"}'


@pytest.mark.case("U06", "H03")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("place", ["parse", "async parse", "check", "accept"])
async def test_no_kind_of_misbehaviour_of_a_webhook_is_told_as_a_message(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender must send it again, and the process must live on."""
    for kind in KINDS:
        if kind in (*HANGS, *_CTRL_C, "cancels itself"):
            continue
        if place != "parse" and kind == "a coroutine":
            continue  # nobody awaited it, and Python says so
        caplog.clear()
        answer = await _posted(place, kind)
        expected = _NO_MESSAGE.get(kind, 500) if "parse" in place else 500
        if place == "accept" and kind in ("CancelledError", "error of turnfold"):
            expected = 503
        if kind in ERRORS or "parse" in place:
            assert answer.status == expected, (place, kind)
        if answer.status == 500:
            assert any(r.levelname == "ERROR" for r in caplog.records), (place, kind)
        caplog.text.encode()  # as a handler writes it into a file


async def _posted(place: str, kind: str) -> Any:
    async def late(*_: Any) -> Any:
        return await later(kind)

    def at_once(*_: Any) -> Any:
        return now(kind)

    async def takes(_: Any) -> Any:
        return await later(kind) if place == "accept" else None

    parse = {"parse": at_once, "async parse": late}.get(place)
    check = late if place == "check" else None
    LATE.clear()  # of other tests
    reception = Reception(takes, channel="t", account="a", check=check, parse=parse)
    body = _BODY if place != "accept" else b'{"conversation": "1", "message_id": "2"}'
    answer = await asyncio.create_task(reception.answer("POST", {}, body))
    for late_one in LATE:  # a warning about its end belongs to this test
        if isinstance(late_one, threading.Thread):
            late_one.join()
    await asyncio.gather(
        *[one for one in LATE if isinstance(one, asyncio.Task)], return_exceptions=True
    )
    LATE.clear()
    return answer
