"""Commands of processes that do not own the store: durable when posted, logged once,
answered, and done without a worker where none lives."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from turnfold import Kernel, Native, Settings
from turnfold._decide.busy import QUEUE
from turnfold._decide.inbox import accept_command, receipt_command
from turnfold._decide.unit_of_work import AttemptRef
from turnfold.enums import (
    AbortReason,
    Kind,
    Phase,
    Reason,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import NotFoundError, RequestedError, RuleBrokenError
from turnfold.ports.channel import Receipt
from turnfold.ports.store import Command, Refused, Store, Stored, Wanted, Write
from turnfold_model.testing.faulty_store import FaultyStore
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    driver_of,
    entry,
    in_file,
    inbound,
    peek,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import wait_for

SENT = ("attempted", "dispatched", "delivered")


async def _answer(handle: Any) -> None:
    await handle.reply(f"re: {handle.inbound.text}")


@pytest.fixture
def impatient_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller waits 50 ms for the answer of a worker."""
    monkeypatch.setattr("turnfold.api.client.PATIENCE_S", 0.05)


# --- logged once ---------------------------------------------------------------------


class Stuck:
    """A store of an owner that stops for ever at its next commit of commands: before
    the store has it, or after."""

    def __init__(self, store: Store, *, stored: bool) -> None:
        self._store, self._stored = store, stored
        self.stuck = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, writes: Sequence[Write]) -> Sequence[Stored | Refused]:
        if not any(write.done for write in writes):
            return await self._store.commit(writes)
        if self._stored:
            await self._store.commit(writes)
        self.stuck.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.case("F01", "S14")
async def test_a_command_waits_while_somebody_has_taken_the_rights_to_the_store(
    gateway: Gateway,
) -> None:
    """Its commit fails for a reason that is not its own: the next reading does it."""
    faulty: list[FaultyStore] = []
    worker = await gateway.start(
        wrap=lambda store: faulty.append(FaultyStore(store)) or faulty[0]
    )
    client = await gateway.start(work=False)
    faulty[0].fails("no access", "no access")
    sent = await client.enqueue(route("7"), "a notice", key="k")
    await client.settled(sent.entry_id, 5_000)
    assert not worker.health()["inbox_refused"]


async def _stuck(gateway: Gateway, *, stored: bool) -> tuple[Kernel, Stuck]:
    found: list[Stuck] = []

    def wrap(store: Store) -> Any:
        found.append(Stuck(store, stored=stored))
        return found[0]

    return await gateway.start(wrap=wrap), found[0]


@pytest.mark.case("F01")
@pytest.mark.parametrize("stored", [False, True])
async def test_a_command_is_logged_once_though_its_owner_dies_with_it(
    gateway: Gateway, stored: bool
) -> None:
    """The owner has read it, and dies before its COMMIT, or after it and before it
    knows. Either the command still lies in the inbox, or it is in the log: never both
    and never neither."""
    gateway.handler = _answer
    owner, store = await _stuck(gateway, stored=stored)
    client = await gateway.start(work=False)
    asked = await client.accept(inbound(text="hello"))
    sent = await client.enqueue(route("7"), "a notice", key="k")
    await store.stuck.wait()
    await gateway.crash(owner)
    waiting = {c.stream for c in peek(client).inbox()}
    logged = {s for s in (asked.turn_id, sent.entry_id) if peek(client).read(s)}
    assert waiting | logged == {asked.turn_id, sent.entry_id}
    assert waiting & logged == set()
    assert bool(logged) == stored
    kernel = await gateway.start()
    assert await client.settled(asked.turn_id, 5_000) is TurnOutcome.REPLIED
    await client.settled(sent.entry_id, 5_000)
    assert not peek(kernel).inbox()
    assert commits(kernel)["turn.accepted"] == 1
    assert commits(kernel)["outbox.queued"] == 2
    assert sorted(gateway.platform.contents) == ["a notice", "re: hello"]


async def test_a_command_that_is_posted_again_is_one_command(gateway: Gateway) -> None:
    client = await gateway.start(work=False)
    first = await client.accept(inbound())
    again = await client.accept(inbound())
    assert (first.new, again.new) == (True, False)
    assert first.turn_id == again.turn_id
    sent = [await client.enqueue(route(), "x", key="k") for _ in range(2)]
    assert [done.new for done in sent] == [True, False]
    assert sent[0].entry_id == sent[1].entry_id
    assert len(peek(client).inbox()) == 2
    kernel = await gateway.start()
    await kernel.settled(sent[0].entry_id, 5_000)
    known = await client.accept(inbound())
    assert (known.turn_id, known.new) == (first.turn_id, False)
    assert commits(kernel)["turn.accepted"] == 1
    assert gateway.platform.contents == ["x"]


async def test_many_payloads_of_a_client_are_posted_together_and_not_read_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store pays a sync for each post, and a round trip for each question."""
    worker = await gateway.start()
    client = await gateway.start(work=False)
    posts, bodies = [], []
    post, fetch = client.store.post, worker.store.fetch

    async def posting(commands: Sequence[Command]) -> Any:
        posts.append(len(commands))
        return await post(commands)

    async def fetching(wanted: Wanted) -> Any:
        bodies.extend(wanted.bodies)
        return await fetch(wanted)

    monkeypatch.setattr(client.store, "post", posting)
    monkeypatch.setattr(worker.store, "fetch", fetching)
    made = [
        client.enqueue(route(str(n)), "x" if n % 2 else Native(body={"n": n}))
        for n in range(40)
    ]
    sent = await asyncio.gather(*made)
    ends = await asyncio.gather(*(client.settled(s.entry_id, 10_000) for s in sent))
    assert set(ends) == {"delivered"}
    assert sum(posts) == 40
    assert len(posts) < 5
    assert bodies == []


async def test_a_message_that_was_posted_keeps_its_turn_when_the_owner_gets_it_too(
    gateway: Gateway,
) -> None:
    """The posted one is the same message: the owner's caller gets that turn."""
    gateway.handler = _answer
    owner, store = await _stuck(gateway, stored=False)
    client = await gateway.start(work=False)
    posted = await client.accept(inbound(text="hello"))
    waiting = asyncio.ensure_future(posted.settled())
    await store.stuck.wait()
    await gateway.crash(owner)
    kernel = await gateway.start(wrap=_deaf)
    mine = await kernel.accept(inbound(text="hello"))
    assert (mine.new, mine.turn_id) == (False, posted.turn_id)
    await gateway.restart(kernel)
    async with asyncio.timeout(5):
        assert await waiting is TurnOutcome.REPLIED
    assert commits(client)["turn.accepted"] == 1
    assert gateway.platform.contents == ["re: hello"]


async def test_a_message_that_is_posted_while_the_owner_decides_keeps_its_turn(
    gateway: Gateway,
) -> None:
    """The owner has looked, nobody had the key; then a client is quicker."""
    raced: list[str] = []

    class Raced:
        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def inbox(self, limit: int = 100) -> Sequence[Command]:
            del limit
            return ()

        async def fetch(self, wanted: Wanted) -> Any:
            found = await self._store.fetch(wanted)
            if wanted.keys and not raced:
                command = accept_command("turn:posted", inbound(), None, 0, QUEUE)
                raced.extend(p.stream for p in await self._store.post([command]))
            return found

    kernel = await gateway.start(wrap=Raced)
    mine = await kernel.accept(inbound())
    assert raced == ["turn:posted"]
    assert (mine.new, mine.turn_id) == (False, "turn:posted")


def _deaf(store: Store) -> Any:
    """The store of an owner that reads no commands yet."""

    class Deaf:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def inbox(self, limit: int = 100) -> Sequence[Command]:
            del limit
            return ()

    return Deaf()


async def test_a_standby_waits_for_its_message_beyond_its_own_takeover(
    gateway: Gateway,
) -> None:
    """It was posted to the owner, who died with it; the standby logs it itself."""
    gateway.handler = _answer
    owner, store = await _stuck(gateway, stored=False)
    standby = await gateway.start()
    posted = await standby.accept(inbound(text="hello"))
    waiting = asyncio.ensure_future(posted.settled())
    await store.stuck.wait()
    await gateway.crash(owner)
    async with asyncio.timeout(5):
        assert await waiting is TurnOutcome.REPLIED
    assert standby.working
    assert gateway.platform.contents == ["re: hello"]


async def test_waiting_for_a_stream_that_nobody_knows_is_an_error(
    gateway: Gateway,
) -> None:
    for kernel in (await gateway.start(), await gateway.start(work=False)):
        for name in ("entry:unknown", "turn:unknown", "store", "gate:t/default"):
            with pytest.raises(NotFoundError):
                await kernel.settled(name, 1_000)


# --- answered ------------------------------------------------------------------------


@pytest.mark.case("F01")
async def test_an_abort_that_a_client_posts_is_answered(gateway: Gateway) -> None:
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    await client.disconnected("t")
    waiting = await kernel.enqueue(route(), "x")
    accepted = await kernel.accept(inbound())
    stopped = await client.abort(waiting.entry_id, by="you")
    assert (stopped.aborted, stopped.status) == (True, "aborted")
    ended = await client.abort(accepted.turn_id, by="you")
    assert (ended.aborted, ended.status) == (True, TurnPhase.ABORTED)
    found = entry(kernel, waiting.entry_id)
    assert (found.phase, found.reason) == (Phase.ABORTED, AbortReason.USER)
    assert turn(kernel, accepted.turn_id).phase is TurnPhase.ABORTED
    await client.connected("t")
    sent = await client.enqueue(route(), "y")
    await client.settled(sent.entry_id, 5_000)
    late = await client.abort(sent.entry_id)
    assert (late.aborted, late.status) == (False, "delivered")
    assert gateway.platform.contents == ["y"]


async def test_an_error_that_the_owner_meets_is_the_callers(gateway: Gateway) -> None:
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    sent = await kernel.enqueue(route(), "x")
    await kernel.settled(sent.entry_id, 5_000)
    head = peek(kernel).head
    with pytest.raises(NotFoundError) as unknown:
        await client.abort("entry:unknown")
    assert unknown.value.id == "entry:unknown"
    with pytest.raises(RuleBrokenError) as broken:
        await client.resolve(sent.entry_id, "delivered", by="you")
    assert broken.value.rule == "in_doubt"
    assert peek(kernel).head == head
    assert not peek(kernel).inbox()


@pytest.mark.usefixtures("impatient_caller")
async def test_a_worker_that_does_not_answer_is_an_error_and_the_command_stays(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    sent = await kernel.enqueue(route(), "x")
    await gateway.end()
    mute = gateway.store()  # it owns the store and does nothing
    await mute.open()
    assert await mute.ownership().take() is not None
    client = await gateway.start(work=False)
    with pytest.raises(RequestedError) as caught:
        await client.connected("t")
    assert (caught.value.command, caught.value.waited_ms) == ("gate", 50)
    assert caught.value.path == client.store.address
    asked = await client.abort(sent.entry_id)
    assert (asked.aborted, asked.status) == (False, "requested")
    assert [c.kind for c in peek(client).inbox()] == ["gate", "abort"]
    assert entry(client, sent.entry_id).phase is Phase.QUEUED
    await mute.close()
    kernel = await gateway.start()
    await until(lambda: not peek(kernel).inbox())
    assert not peek(kernel).inbox()
    assert not peek(kernel).state("gate:t/default").closed  # type: ignore[union-attr]


@pytest.mark.case("X20")
@pytest.mark.parametrize("mended", [False, True])
async def test_an_act_that_only_a_worker_can_do_is_not_called_unstored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mended: bool
) -> None:
    """The file of the lock is not for this user (a link here: the same error)."""
    monkeypatch.setattr("turnfold.api.client.PATIENCE_S", 5 if mended else 0.05)
    gateway = Gateway(store=in_file(tmp_path / "gateway.db"))
    kernel = await gateway.start()
    await kernel.disconnected("t")
    await gateway.end()
    lock = tmp_path / "gateway.db.worker"
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    client = await gateway.start(work=False)
    asked = asyncio.ensure_future(client.connected("t"))
    await until(lambda: peek(client).inbox())
    if mended:  # a worker begins while the act waits
        lock.unlink()
        kernel = await gateway.start()
        await asked
    else:
        with pytest.raises(RequestedError, match=r"gateway\.db\.worker") as caught:
            await asked
        assert "will do it" in str(caught.value)
        assert "nothing of this call" not in str(caught.value)
        assert [c.kind for c in peek(client).inbox()] == ["gate"]
    await gateway.end()


# --- without a worker ----------------------------------------------------------------


@pytest.mark.case("F01")
async def test_a_client_alone_applies_its_abort_and_sends_nothing(
    gateway: Gateway,
) -> None:
    gateway.handler = _answer
    kernel = await gateway.start()
    await kernel.disconnected("t")
    waiting = await kernel.enqueue(route(), "waiting")
    await gateway.end()
    client = await gateway.start(work=False)
    asked = await client.accept(inbound(text="hello"))
    posted = await client.enqueue(route("7"), "posted")
    await client.connected("t")
    stopped = await client.abort(waiting.entry_id, by="you")
    assert (stopped.aborted, client.working) == (True, False)
    assert not peek(client).inbox()
    assert entry(client, posted.entry_id).phase is Phase.QUEUED
    assert turn(client, asked.turn_id).phase is TurnPhase.ACCEPTED
    assert "store.worker_started" not in peek(client).names()
    assert set(story(client, posted.entry_id)).isdisjoint(SENT)
    await spin()
    await gateway.advance(60_000)
    assert gateway.platform.calls == []
    kernel = await gateway.start()
    assert kernel.working, "the client has given the store back"
    await kernel.settled(posted.entry_id, 5_000)
    await kernel.settled(asked.turn_id, 5_000)
    assert sorted(gateway.platform.contents) == ["posted", "re: hello"]


async def test_a_client_alone_begins_a_new_store_as_a_worker_does(
    gateway: Gateway,
) -> None:
    client = await gateway.start(work=False)
    posted = await client.enqueue(route(), "x")
    assert (await client.abort(posted.entry_id)).aborted
    assert peek(client).names()[:2] == ["store.created", "outbox.queued"]
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "y")
    await kernel.settled(done.entry_id, 5_000)
    assert kernel.working
    assert gateway.platform.contents == ["y"]
    await gateway.end()
    client = await gateway.start(work=False)
    mark = peek(client).watermark()
    assert mark is not None
    assert mark.head == peek(client).head


async def test_the_time_of_the_log_does_not_go_back_with_the_clock_of_a_client(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    await kernel.disconnected("t")
    sent = await kernel.enqueue(route(), "x")
    await gateway.crash(kernel)
    gateway.clock.jump_ms(-3_600_000)
    gateway.clock = gateway.clock.after_boot()
    client = await gateway.start(work=False)
    assert (await client.abort(sent.entry_id)).aborted
    times = [record.at for record in peek(client).log()]
    assert times == sorted(times)


async def test_a_worker_that_lost_the_store_applies_its_commands_without_rights(
    lone: Gateway,
) -> None:
    """It may take the store for a moment, like any client. Its old right would let it
    announce an attempt that nobody makes and start a run that nobody runs."""
    lone.handler = _answer
    kernel = await lone.start()
    landed = asyncio.Event()
    lone.platform.plays(wait_for(landed))
    done = await kernel.enqueue(route(), "before")
    await until(lambda: lone.platform.calls)
    lone.store().disk.room.holder = None  # type: ignore[attr-defined]
    await until(lambda: not kernel.working)
    landed.set()
    await until(lambda: peek(kernel).inbox())
    asked = await kernel.accept(inbound(text="hello"))
    posted = await kernel.enqueue(route("7"), "posted")
    stopped = await kernel.enqueue(route("8"), "stopped")
    assert (await kernel.abort(stopped.entry_id)).aborted
    assert story(kernel, done.entry_id)[-1] == "late_receipt"
    assert set(story(kernel, posted.entry_id)).isdisjoint(SENT)
    assert turn(kernel, asked.turn_id).phase is TurnPhase.ACCEPTED
    assert lone.platform.contents == ["before"]
    await lone.crash(kernel)
    kernel = await lone.start()
    await kernel.settled(posted.entry_id, 5_000)
    await kernel.settled(asked.turn_id, 5_000)
    assert sorted(lone.platform.contents) == ["before", "posted", "re: hello"]


async def test_a_receipt_of_an_entry_that_was_lost_leaves_the_inbox(
    gateway: Gateway,
) -> None:
    """A failover lost the entry, and the host that had sent it posts what the platform
    answered. Each later worker would tell of it as of a command that it cannot do."""
    kernel = await gateway.start()
    attempt = AttemptRef(entry="entry:lost", part=0, number=1, lane="t/default/1/")
    await kernel.store.post([receipt_command(attempt, Receipt(ids=("m1",)))])
    await driver_of(kernel).intake.read()
    assert not peek(kernel).inbox()
    assert kernel.is_well()


@pytest.mark.parametrize("ticks", [0, 1, 2, 3, 5, 8])
async def test_a_client_that_is_cancelled_gives_the_store_back(
    gateway: Gateway, ticks: int
) -> None:
    client = await gateway.start(work=False)
    posted = await client.enqueue(route(), "x")
    asking = asyncio.ensure_future(client.abort(posted.entry_id))
    alone = client._alone
    assert alone is not None
    await until(lambda: alone._task is not None)
    for _ in range(ticks):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    kernel = await gateway.start()
    await until(lambda: kernel.working)
    await until(lambda: not peek(kernel).inbox())
    await kernel.settled(posted.entry_id, 5_000)


async def test_two_clients_without_a_worker_do_not_get_in_each_others_way(
    gateway: Gateway,
) -> None:
    clients = [await gateway.start(work=False) for _ in range(2)]
    sent = [await clients[n % 2].enqueue(route(str(n)), "x") for n in range(8)]
    stopped = await asyncio.gather(
        *(clients[n % 2].abort(done.entry_id) for n, done in enumerate(sent))
    )
    assert all(one.aborted for one in stopped)
    assert commits(clients[0])["outbox.aborted"] == 8
    assert commits(clients[0])["store.created"] == 1


# --- what a posted payload keeps -----------------------------------------------------


@pytest.mark.parametrize("ttl_ms", [None, 2_000])
async def test_a_posted_payload_expires_by_the_time_of_posting(
    gateway: Gateway, ttl_ms: int | None
) -> None:
    """It counts from the moment when the caller had it durable, not from when a worker
    came to log it."""
    gateway.settings = Settings(final_ttl_ms=2_000)
    client = await gateway.start(work=False)
    at = client._clock.now()
    early = await client.enqueue(route("1"), "early", ttl_ms=ttl_ms)
    gateway.clock.pass_ms(1_500)
    late = await client.enqueue(route("2"), "late", ttl_ms=ttl_ms)
    gateway.clock.pass_ms(1_000)
    kernel = await gateway.start()
    await client.settled(early.entry_id, 5_000)
    await client.settled(late.entry_id, 5_000)
    found = entry(kernel, early.entry_id)
    assert (found.phase, found.reason) == (Phase.FAILED, Reason.EXPIRED)
    assert found.expires_at == at + 2_000
    assert entry(kernel, late.entry_id).expires_at == at + 3_500
    assert gateway.platform.contents == ["late"]


async def test_a_posted_payload_keeps_its_kind_its_route_and_its_time(
    gateway: Gateway,
) -> None:
    client = await gateway.start(work=False)
    due = client._clock.now() + 60_000
    posted = await client.enqueue(
        route("7", thread="t1", reply_to="m9"),
        "x",
        kind=Kind.TOOL,
        not_before=due,
        ttl_ms=90_000,
    )
    kernel = await gateway.start()
    await until(lambda: not peek(kernel).inbox())
    found = entry(kernel, posted.entry_id)
    assert (found.kind, found.thread, found.reply_to) == (Kind.TOOL, "t1", "m9")
    assert gateway.platform.contents == []
    await gateway.advance(60_000)
    await kernel.settled(posted.entry_id, 5_000)
    assert gateway.platform.contents == ["x"]
    assert driver_of(kernel).live == {}
