"""A rate limit that names a conversation, where the account's limit is meant."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from attrs import define, evolve, field

from turnfold import Accepted, FailureClass, GateScope, Kernel, Receipt, Rejected
from turnfold._runtime.limits import TOGETHER_MS, Limits
from turnfold._state.entry import Entry
from turnfold.clock import Clock
from turnfold.enums import Kind, Phase
from turnfold_model.testing.gateway import Gateway, route, spin
from turnfold_model.testing.platform import Act, accept, reject

LIMITED = FailureClass.RATE_LIMITED
_OWN = ["gate:t/default/a", "gate:t/default/b"]


@pytest.fixture
def limited(lone: Gateway) -> Gateway:
    lone.platform.plays(*[_refused(9_000)] * 500)
    return lone


def _refused(ms: int, scope: GateScope = GateScope.CONVERSATION) -> Act:
    return reject(LIMITED, retry_after_ms=ms, scope=scope)


def _gates(kernel: Kernel) -> dict[str, int]:
    return {g["gate"]: g["until"] for g in kernel.health()["gates"]}


async def _send(kernel: Kernel, *names: str) -> None:
    for name in names:
        await kernel.enqueue(route(name), name)
        await spin()


async def test_two_busy_conversations_hold_back_only_themselves(
    limited: Gateway,
) -> None:
    kernel = await limited.start()
    await _send(kernel, "a", "b")
    for _ in range(6):  # each again and again
        await limited.advance(9_000)
    assert sorted(_gates(kernel)) == _OWN


async def test_the_third_conversation_in_a_row_is_the_account(limited: Gateway) -> None:
    kernel = await limited.start()
    await _send(kernel, "a", "b", "c", "d", "e")
    gates, now = _gates(kernel), limited.clock.now()
    assert gates["gate:t/default"] == now + 1_000  # a guess is tried soon
    assert gates["gate:t/default/c"] == now + 9_000  # as the platform said
    assert len(limited.platform.calls) == 3  # d and e wait behind the account


async def test_a_wait_that_the_account_keeps_needs_no_second_gate(
    lone: Gateway,
) -> None:
    lone.platform.plays(*[_refused(9_000)] * 2, *[_refused(700)] * 10)
    kernel = await lone.start()
    await _send(kernel, "a", "b", "c")
    gates = _gates(kernel)
    assert sorted(gates) == ["gate:t/default", *_OWN]
    assert gates["gate:t/default"] == lone.clock.now() + 700


async def test_the_wait_of_a_limited_account_grows_up_to_the_platforms(
    limited: Gateway,
) -> None:
    kernel = await limited.start()
    await _send(kernel, *[f"c{n}" for n in range(12)])
    waits = []
    for _ in range(5):
        wait = _gates(kernel)["gate:t/default"] - limited.clock.now()
        waits.append((wait, len(limited.platform.calls)))
        await limited.advance(wait)
    # The last probe may be one of the conversations whose own wait is over by now.
    assert waits == [(1000, 3), (2000, 4), (4000, 5), (8000, 6), (9000, 7)]


async def test_a_wrong_guess_holds_the_others_for_a_second(lone: Gateway) -> None:
    lone.platform.plays(*[_refused(40_000)] * 3)
    kernel = await lone.start()
    await _send(kernel, "a", "b", "c")
    calm = await kernel.enqueue(route("calm"), "hi")
    await lone.advance(1_000)
    await kernel.settled(calm.entry_id, 1_000)
    assert sorted(_gates(kernel)) == [*_OWN, "gate:t/default/c"]


async def test_a_delivery_between_them_ends_the_row(lone: Gateway) -> None:
    lone.platform.plays(*[_refused(60_000), _refused(60_000), accept()] * 3)
    kernel = await lone.start()
    await _send(kernel, *"abcdefghi")
    assert "gate:t/default" not in _gates(kernel)


async def test_refusals_far_from_each_other_are_no_row(lone: Gateway) -> None:
    lone.platform.plays(*[_refused(90_000)] * 5)
    kernel = await lone.start()
    for name in "abc":
        await _send(kernel, name)
        await lone.advance(TOGETHER_MS // 2 + 1)
    assert "gate:t/default" not in _gates(kernel)


async def _known_to_be_limited(lone: Gateway) -> Kernel:
    """Three conversations were refused in a row, and then delivered."""
    lone.platform.plays(*[_refused(500)] * 3)
    kernel = await lone.start()
    await _send(kernel, *"abc")
    for _ in range(40):
        await lone.advance(50)
    return kernel


async def test_when_the_account_is_known_to_be_limited_one_refusal_is_enough(
    lone: Gateway,
) -> None:
    kernel = await _known_to_be_limited(lone)
    assert len(lone.platform.calls) == 6  # all three are delivered
    lone.platform.plays(_refused(500))
    await _send(kernel, "d")
    assert sorted(_gates(kernel)) == ["gate:t/default"]


async def test_the_last_two_that_were_refused_speak_for_themselves(
    lone: Gateway,
) -> None:
    kernel = await _known_to_be_limited(lone)
    lone.platform.plays(_refused(500))
    await _send(kernel, "c")
    assert sorted(_gates(kernel)) == ["gate:t/default/c"]


def test_the_probe_speaks_for_the_account() -> None:
    """Even if it is one of the last two that were refused."""
    limits = Limits()
    assert not limits.refused(_entry("a"), 0, probe=True)  # of another gate
    for name in "bc":
        limits.refused(_entry(name), 0, probe=False)
    assert limits.refused(_entry("c", attempt=2), 0, probe=True)


async def test_refusals_of_calls_under_way_do_not_prolong_it() -> None:
    out: list[asyncio.Future[Rejected]] = []

    class Slow:
        async def send(self, part: Any, key: str, attempt: Any) -> Rejected:
            out.append(asyncio.get_running_loop().create_future())
            return await out[-1]

    lone = Gateway(channels={("t", "default"): Slow()})
    kernel = await lone.start()
    await _send(kernel, *[f"c{n}" for n in range(20)])
    began = lone.clock.now()
    for n, call in enumerate(out):
        lone.clock.pass_ms(5)
        call.set_result(Rejected(failure=LIMITED, retry_after_ms=900 + n))
        await spin()
    assert _gates(kernel)["gate:t/default"] == began + 3 * 5 + 902
    await lone.end()


def _entry(name: str, attempt: int = 1) -> Entry:
    entry = Entry(
        stream=f"entry:{name}",
        version=1,
        phase=Phase.DISPATCHED,
        order=1,
        created=0,
        updated=0,
        kind=Kind.FINAL,
        channel="t",
        account="a",
        conversation=name,
        lane=f"t/a/{name}/",
        body=("d",),
        expires_at=1_000,
    )
    return evolve(entry, attempt=attempt)


def test_a_decision_that_is_made_again_gets_the_same_answer() -> None:
    limits = Limits()
    for name in "ab":
        assert not limits.refused(_entry(name), 0, probe=False)
    for _ in range(3):
        assert limits.refused(_entry("c"), 0, probe=False)
    assert not limits.refused(_entry("c", attempt=2), 0, probe=False)


def test_an_account_is_known_to_be_limited_until_nothing_slows_it_any_more() -> None:
    limits = Limits()
    for name in "abc":
        limits.refused(_entry(name), 0, probe=False)
    limits.delivered("gate:t/a")
    assert limits
    limits.over("gate:t/a")
    assert not limits


async def test_a_person_keeps_the_account(limited: Gateway) -> None:
    kernel = await limited.start()
    await _send(kernel, "a", "b")
    await kernel.hold_back("t/default", by="me")
    await _send(kernel, "c")
    assert len(limited.platform.calls) == 2


async def test_an_account_that_is_named_closes_at_once_and_alone(lone: Gateway) -> None:
    lone.platform.plays(_refused(3_000, GateScope.ACCOUNT))
    kernel = await lone.start()
    await _send(kernel, "a")
    assert sorted(_gates(kernel)) == ["gate:t/default"]


# --- figures, in virtual time ---


@define
class Bucket:
    """A platform that takes `a_second` messages of all conversations, and of the busy
    ones one in each `apart_ms`. It never names the account."""

    clock: Clock
    a_second: int
    busy: frozenset[str] = frozenset()
    apart_ms: int = 0
    full: float = 0.0
    until: dict[str, int] = field(factory=dict)
    taken: Counter[str] = field(factory=Counter)
    refused: Counter[str] = field(factory=Counter)

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted | Rejected:
        name, now = part.payload.text, self.clock.now()
        wait = self.until.get(name, now) - now
        if wait <= 0:
            self.full = max(self.full, float(now - 1_000))
            wait = int(self.full - now) + (self.full > now)
        if wait > 0:
            self.refused[name] += 1
            return Rejected(failure=LIMITED, retry_after_ms=wait)
        self.taken[name] += 1
        self.full += 1_000 / self.a_second
        if name in self.busy:
            self.until[name] = now + self.apart_ms
        return Accepted(receipt=Receipt(ids=(key,)))


def _behind(bucket_rate: int, **limits: Any) -> tuple[Gateway, Bucket]:
    gateway = Gateway()
    bucket = Bucket(gateway.clock, bucket_rate, **limits)
    gateway.channels = {("t", "default"): bucket}
    return gateway, bucket


@pytest.mark.case("S01")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("lanes", [4, 12, 150])
async def test_refusals_that_do_not_name_the_account_are_few(lanes: int) -> None:
    """`python -m turnfold_model flow` plays it in real time."""
    gateway, bucket = _behind(10)
    kernel = await gateway.start()
    for n in range(600):
        await kernel.enqueue(route(f"c{n % lanes}"), f"c{n % lanes}")
    for _ in range(3_000):
        await gateway.advance(25)
        if bucket.taken.total() == 600:
            break
    await gateway.end()
    assert bucket.taken.total() == 600  # in 75 s; the bucket needs 60 s
    assert bucket.refused.total() <= 0.1 * 600 + 10


@pytest.mark.case("S01")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("rate", [30, 50])
async def test_a_burst_that_a_platform_allows_is_not_its_rate(rate: int) -> None:
    """A bucket that is full takes `rate` messages at once, and so at each pause."""
    gateway, bucket = _behind(rate)
    kernel = await gateway.start()
    for n in range(600):
        await kernel.enqueue(route(f"c{n % 150}"), f"c{n % 150}")
    ms, most = 0, 1_250 * 600 // rate
    while bucket.taken.total() < 600 and ms <= most:
        await gateway.advance(10)
        ms += 10
    await gateway.end()
    assert bucket.taken.total() == 600
    assert bucket.refused.total() <= 0.1 * 600 + 10


@pytest.mark.case("S01")
async def test_busy_conversations_leave_the_others_alone() -> None:
    """Two groups with a limit of their own, twenty calm ones, none for the account."""
    busy = frozenset({"c0", "c1"})
    gateway, bucket = _behind(10_000, busy=busy, apart_ms=3_000)
    kernel = await gateway.start()
    for n in range(30):
        await kernel.enqueue(route(f"c{n % 2}"), f"c{n % 2}")
    for n in range(100):
        name = f"c{2 + n % 20}"
        await kernel.enqueue(route(name), name)
        await gateway.advance(100)
        assert bucket.taken.total() - sum(bucket.taken[b] for b in busy) == n + 1
    assert sum(bucket.refused[b] for b in busy) <= 10
    await gateway.end()
