"""Large payloads: the event loop goes on while they are encoded, digested and split (V15).

What is measured is the time of the processor that the loop's own thread spends between
two looks of a watcher. A busy machine does not change it.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from turnfold import File, Inbound, Kernel, Native, Settings, Text
from turnfold._log import canonical, large
from turnfold._log.bodies import pack, unpack
from turnfold.enums import Format
from turnfold.errors import InvalidInputError
from turnfold.messages import LARGE, Payload
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    Capabilities,
    Outcome,
    Part,
    Receipt,
)
from turnfold_model.testing.gateway import Gateway, entry, in_file, peek, route, until

_MIB = 1024 * 1024
_BOUND_S = 0.020
_WORDS = "some words of a long text, and now and then \u4e2d\u6587 ones \u2014\n"
TEXT = Text(_WORDS * (3 * _MIB // len(_WORDS.encode())))
FILE = File(data=random.Random(1).randbytes(4 * _MIB), name="a.bin")
NATIVE = Native({"rows": [{"id": n, "text": "x" * 100} for n in range(10_000)]})


class Busy:
    """The longest time that the loop's thread has worked without a look of ours."""

    def __init__(self) -> None:
        self.longest_s, self.looks = 0.0, 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.0005)
            self.longest_s = max(self.longest_s, time.thread_time() - before)
            self.looks += 1


class Taking:
    """Takes everything, in parts of any size."""

    def __init__(self, **capabilities: Any) -> None:
        self.capabilities = Capabilities(**capabilities)
        self.got: list[Part] = []

    async def send(self, part: Part, key: str, attempt: Attempt) -> Outcome:
        del attempt
        self.got.append(part)
        return Accepted(receipt=Receipt(ids=(key,)))


class Planning(Taking):
    """Its own plan says in which thread it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    def plan(self, payload: Any, *_: object) -> Any:
        self.threads.append(threading.current_thread().name)
        raise ValueError(str(len(payload.text)))


@pytest.fixture(autouse=True)
def digests(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No large body is digested in the thread of the loop."""
    here: list[int] = []
    digest = canonical.body_digest

    def watched(salt: bytes, data: bytes) -> str:
        if len(data) > LARGE and threading.current_thread() is threading.main_thread():
            here.append(len(data))
        return digest(salt, data)

    monkeypatch.setattr(canonical, "body_digest", watched)
    yield
    assert here == []


@pytest.fixture
async def channel() -> Taking:
    return Taking()


@pytest.fixture
async def files(tmp_path: Path, channel: Taking) -> AsyncIterator[Gateway]:
    gateway = Gateway(store=in_file(tmp_path / "s.db"))
    gateway.channels = {("t", "default"): channel}
    yield gateway
    await gateway.end()


async def _busy(work: Callable[[], Awaitable[Any]]) -> Any:
    """Three tries: what the collector does in this thread is not ours."""
    for _ in range(3):
        async with Busy() as busy:
            done = await work()
        assert busy.looks > 3
        if busy.longest_s < _BOUND_S:
            return done
    raise AssertionError(f"the loop worked {busy.longest_s * 1000:.0f} ms at a stretch")


@pytest.mark.case("V15")
@pytest.mark.parametrize(
    "payload", [TEXT, FILE, NATIVE], ids=["text", "file", "native"]
)
async def test_a_large_payload_does_not_stop_the_loop(
    files: Gateway, channel: Taking, payload: Payload
) -> None:
    kernel = await files.start()

    async def send() -> None:
        sent = await kernel.enqueue(route("1"), payload)
        await sent.receipt()

    await _busy(send)
    got = channel.got[-1].payload
    same = got.data == payload.data if isinstance(payload, File) else got == payload  # type: ignore[union-attr]  # a file, too
    assert same


@pytest.mark.case("V15")
async def test_a_large_message_does_not_stop_the_loop(files: Gateway) -> None:
    """Nor the same one again, nor another one under its key."""
    kernel = await files.start()
    raw, number = random.Random(2).randbytes(4 * _MIB), iter(range(9))

    async def take() -> None:
        message = str(next(number))
        for body in (raw, raw, raw[:-1] + b"x"):
            inbound = Inbound("t", conversation="1", message_id=message, body=body)
            told.append((await kernel.accept(inbound)).differs)

    told: list[bool] = []
    await _busy(take)
    assert told[-3:] == [False, False, True]


@pytest.mark.case("V15")
async def test_large_commands_of_another_process_do_not_stop_the_owner(
    files: Gateway, channel: Taking
) -> None:
    kernel = await files.start()
    client = await files.start(work=False)

    async def post() -> None:
        await client.enqueue(route("1"), FILE)
        sent = await client.enqueue(route("1"), TEXT)
        await until(lambda: len(channel.got) >= wanted, 20)
        assert entry(kernel, sent.entry_id).planned

    wanted = 0

    async def again() -> None:
        nonlocal wanted
        wanted += 2
        await post()

    await _busy(again)
    assert channel.got[-1].payload == TEXT


@pytest.mark.case("V15")
async def test_a_large_text_is_planned_in_a_thread(lone: Gateway) -> None:
    """A plan that raises there is the same error as on the loop."""
    channel = Planning()
    lone.channels = {("t", "default"): channel}
    kernel = await lone.start()
    for text in ("short", "x" * (LARGE + 1)):
        with pytest.raises(Exception, match=f"ValueError.*{len(text)}"):
            await kernel.enqueue(route("1"), text)
    assert channel.threads[0] == "MainThread"
    assert channel.threads[1] != "MainThread"


class Hanging(Taking):
    """Its own plan ends when the test says so."""

    def __init__(self, gone: threading.Event) -> None:
        super().__init__()
        self._gone = gone

    def plan(self, payload: Any, *_: object) -> Any:
        self._gone.wait(20)
        raise ValueError(str(len(payload.text)))


@pytest.fixture
def gone() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.case("V15", "U13")
async def test_a_plan_that_never_ends_is_told_of_and_keeps_no_kernel_from_closing(
    lone: Gateway,
    gone: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("turnfold._runtime.channel.PLAN_S", 0.01)
    lone.settings = Settings(drain_ms=0)
    lone.channels = {("another", "default"): Taking()}
    kernel = await lone.start()
    await kernel.enqueue(route("1"), "x" * (LARGE + 1))  # its channel is not here
    lone.channels = {("t", "default"): Hanging(gone)}
    kernel = await lone.restart(kernel)
    await until(lambda: kernel.health()["hung_calls"] == 1)
    assert "t/default: plan() hangs in a thread" in caplog.text
    lone.alive.remove(kernel)
    async with asyncio.timeout(5):
        await kernel.close()


@pytest.mark.case("V15")
@pytest.mark.parametrize(
    ("most", "payloads"),
    [
        (1_000_000, ["x" * 2_000_000]),
        (1_000_000, [File(data=bytes(2_000_000))]),
        (1_000, ["x" * 600, "y" * 600]),  # none of them is large
    ],
)
async def test_the_bytes_of_one_call_have_a_limit(
    lone: Gateway, most: int, payloads: list[str | File]
) -> None:
    lone.settings = Settings(max_payload_bytes=most)
    kernel = await lone.start()
    before = kernel.health()["position"]
    with pytest.raises(InvalidInputError, match=f"max_payload_bytes={most:,}"):
        await kernel.enqueue(route("1"), *payloads)
    assert kernel.health()["position"] == before


@pytest.mark.case("V15")
@pytest.mark.parametrize(
    "payload",
    [
        Text("\u4e2d" * 2_000_000 + "\udc00"),
        Native({"rows": [*range(5_000), 1.5]}),
        Native({"rows": [*range(5_000), "\udc00"]}),
        File(data=b"", caption="\u4e2d" * 2_000_000 + "\udc00"),
    ],
)
async def test_what_is_checked_later_is_refused_all_the_same(
    lone: Gateway, payload: Payload
) -> None:
    kernel = await lone.start()
    before = kernel.health()["position"]
    with pytest.raises(InvalidInputError):
        await kernel.enqueue(route("1"), payload)
    assert kernel.health()["position"] == before


_ODD = ["\\", '"', "\n", "\x00", "\x7f", "\u4e2d", "\U0001f600", "a", "/", "\u2028"]


@pytest.mark.case("V15")
@pytest.mark.parametrize("seed", range(4))
def test_a_long_text_reads_as_a_short_one_does(seed: int) -> None:
    dice = random.Random(seed)
    odd = "".join(dice.choices(_ODD, k=dice.choice((3, 5_000)))) * 400
    payload = Text(odd + "a" * dice.randrange(700_000), format=Format.MARKDOWN)
    data = pack(payload).encoded
    assert data == canonical.dumps(dict(pack(payload).head))
    start, end = data.index(b'"text":"') + 8, data.rindex(b'","type"')
    assert large.json_text(data[start:end]) == canonical.loads(data)["text"]
    assert unpack(data, {}.__getitem__) == payload


@pytest.mark.case("V15")
def test_large_json_is_the_same_json() -> None:
    value = {"b": [1, True, None, "\u2028\x01"], "a": {"c": "x" * 9, "": []}}
    assert large.dumps(value) == canonical.dumps(value)
    assert large.loads(canonical.dumps(value)) == value
    for wrong in (b'{"a":1.5}', b'{"a": 1}', b'{"a":1,"a":1}', b"\xff", b"[" * 99_999):
        with pytest.raises(InvalidInputError):
            large.loads(wrong)


@pytest.mark.case("V15")
async def test_plain_handlers_that_all_wait_do_not_keep_large_work_waiting(
    lone: Gateway, tmp_path: Path
) -> None:
    """More handlers than the default pool has threads hand a file over at once."""
    (tmp_path / "f").write_bytes(bytes(LARGE * 2))
    count = 40
    arrived = threading.Barrier(6)  # fewer than any pool has

    def handler(turn: Any) -> None:
        if int(turn.inbound.conversation) < 6:
            arrived.wait(5)
        kernel.portal().call(turn.reply, File(tmp_path / "f"))

    lone.handler = handler
    kernel: Kernel = await lone.start()
    for number in range(count):
        inbound = Inbound("t", conversation=str(number), message_id="1", body=b"")
        await kernel.accept(inbound)
    await until(lambda: peek(kernel).names().count("turn.completed") == count, 20)
