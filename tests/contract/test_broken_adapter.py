"""An adapter with a bug holds its channel, and not each message (U15)."""

import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest

from turnfold import Accepted, Inbound, Kernel, Receipt, Rejected
from turnfold.enums import FailureClass, Phase
from turnfold_model.testing.gateway import Gateway, entry, route, spin

pytestmark = pytest.mark.case("U15")


class Buggy:
    """Raises a bug for each message whose text is not `spared`, while it is `broken`."""

    def __init__(self, where: str, error: Exception | None = None) -> None:
        self.where, self.broken, self.spared = where, True, ""
        self.error = error or AttributeError("part.conversation")
        self.calls = 0
        if where == "prepare":
            self.prepare = self._prepare

    async def _prepare(self, part: Any) -> None:
        self._work("prepare", part)

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted:
        self._work("send", part)
        return Accepted(receipt=Receipt(ids=(key,)))

    def _work(self, where: str, part: Any) -> None:
        if where == self.where:
            self.calls += 1
            if self.broken and part.payload.text != self.spared:
                raise self.error


async def _queued(kernel: Kernel, count: int) -> list[str]:
    names = []
    for n in range(count):
        names.append((await kernel.enqueue(route(f"c{n}"), f"{n}")).entry_id)
        await spin()
    return names


def _gates(kernel: Kernel) -> list[tuple[str, str]]:
    return [(g["gate"], g["reason"]) for g in kernel.health()["gates"]]


@pytest.mark.parametrize("where", ["send", "prepare"])
async def test_a_bug_for_everything_closes_the_gate_of_the_account(
    wild: Gateway, where: str
) -> None:
    buggy = Buggy(where)
    wild.channels = {("t", "default"): buggy}
    kernel = await wild.start()
    names = await _queued(kernel, 12)
    assert buggy.calls == 3
    assert _gates(kernel) == [("gate:t/default", "adapter_bug")]
    assert not kernel.is_well()
    waiting = [entry(kernel, n).phase for n in names[3:]]
    assert set(waiting) == {Phase.QUEUED}
    for _ in range(6):  # probes, one for each wait, and the waits grow
        await wild.advance(10_000)
    assert buggy.calls <= 3 + 3
    buggy.broken = False
    await wild.advance(600_000)
    ends = [entry(kernel, n).phase for n in names]
    parked = ends.count(Phase.PARKED)
    assert parked == (
        0 if where == "prepare" else buggy.calls - ends.count(Phase.DELIVERED)
    )
    assert set(ends) <= {Phase.DELIVERED, Phase.PARKED}
    assert not _gates(kernel)


async def test_a_person_may_open_it(wild: Gateway) -> None:
    buggy = Buggy("send")
    wild.channels = {("t", "default"): buggy}
    kernel = await wild.start()
    names = await _queued(kernel, 6)
    buggy.broken = False
    await kernel.let_go("t/default", by="me")
    await spin()
    assert [entry(kernel, n).phase for n in names[3:]] == [Phase.DELIVERED] * 3


async def test_one_message_that_breaks_it_holds_nothing_back(wild: Gateway) -> None:
    buggy = Buggy("prepare")
    wild.channels = {("t", "default"): buggy}
    kernel = await wild.start()
    poison = await kernel.enqueue(route("p"), "poison")
    buggy.spared = "fine"
    for n in range(5):
        await wild.advance(100_000)
        done = await kernel.enqueue(route(f"c{n}"), "fine")
        await kernel.settled(done.entry_id, 1_000)
    assert not _gates(kernel)
    assert entry(kernel, poison.entry_id).failure is FailureClass.CANCELLED


def _from_a_cut() -> Exception:
    error = RuntimeError("the client gave up")
    error.__cause__ = ConnectionResetError(104, "reset")
    return error


def _answered(status: int) -> Exception:
    asked = httpx.Request("POST", "http://platform.example/")
    answer = httpx.Response(status, request=asked)
    return httpx.HTTPStatusError("no", request=asked, response=answer)


NETWORK = [
    _answered(503),
    httpx.ReadTimeout("late"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
    httpx.ConnectError("Name or service not known"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("not completed"),
    socket.gaierror(-2, "Name or service not known"),
    _from_a_cut(),
]


@pytest.mark.parametrize("error", NETWORK, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["send", "prepare"])
async def test_a_broken_connection_is_one_line_and_no_bug(
    wild: Gateway, where: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a channel without `classify`. A page of traceback for each cut hides the bugs."""
    buggy = Buggy(where, error)
    wild.channels = {("t", "default"): buggy}
    kernel = await wild.start()
    await _queued(kernel, 6)
    assert buggy.calls == 6, "no gate of the account is closed"
    assert kernel.health()["foreign_bugs"].get("t/default", 0) == 0
    lines = [r for r in caplog.records if f"{where}() raised" in r.getMessage()]
    assert len(lines) == 6
    assert {(r.levelno, r.exc_info) for r in lines} == {(logging.WARNING, None)}


async def test_a_refusal_that_nobody_reads_is_a_bug(wild: Gateway) -> None:
    wild.channels = {("t", "default"): Buggy("send", _answered(400))}
    kernel = await wild.start()
    await _queued(kernel, 1)
    assert kernel.health()["foreign_bugs"]["t/default"] == 1


async def test_a_bug_while_a_cut_is_handled_is_a_bug(wild: Gateway) -> None:
    error = AttributeError("part.conversation")
    error.__context__ = ConnectionResetError(104, "reset")
    wild.channels = {("t", "default"): Buggy("send", error)}
    kernel = await wild.start()
    await _queued(kernel, 1)
    assert kernel.health()["foreign_bugs"]["t/default"] == 1


async def test_an_error_of_a_source_that_its_channel_knows_has_one_line(
    wild: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong token is the first mistake of a newcomer, and no bug of the source."""

    class Knowing(Buggy):
        def classify(self, error: BaseException) -> Rejected | None:
            known = isinstance(error, LookupError)
            return Rejected(failure=FailureClass.AUTH) if known else None

    async def source(cursor: str | None) -> AsyncIterator[tuple[Inbound | None, str]]:
        problem = "invalid_auth"
        raise LookupError(problem)
        yield None, "1"

    wild.channels = {("t", "default"): Knowing("send")}
    kernel = await wild.start()
    kernel.source("t", source)
    await spin()
    (line,) = [r for r in caplog.records if "source t/default" in r.getMessage()]
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)


async def test_a_source_whose_connection_breaks_has_one_line(
    wild: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def source(cursor: str | None) -> AsyncIterator[tuple[Inbound | None, str]]:
        raise httpx.ReadTimeout("late")
        yield None, "1"

    kernel = await wild.start()
    kernel.source("t", source)
    await spin()
    (line,) = [r for r in caplog.records if "source t/default" in r.getMessage()]
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)
    assert "ReadTimeout: late" in line.getMessage()
