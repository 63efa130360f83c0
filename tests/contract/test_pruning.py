"""Closed streams leave the log whole; what is left replays, audits and counts as before."""

import asyncio
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from turnfold import Kernel, Never, Rejected, RuleBrokenError, Settings, Text
from turnfold._decide import pruning
from turnfold._log.events import Pruned
from turnfold.api import keeping
from turnfold.api.keeping import Archived
from turnfold.enums import FailureClass, Phase
from turnfold.errors import InvalidInputError, NotFoundError
from turnfold.ports.store import Listing
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    entry,
    events,
    inbound,
    peek,
    route,
    spin,
    turn,
)
from turnfold_model.testing.platform import answers

DAY = 24 * 3_600_000
SHORT = Settings(dedupe_ms=DAY)


async def _echo(handle: Any) -> None:
    await handle.block("a block")
    await handle.reply(f"re: {handle.inbound.body['text']}")


async def _with_turns(gateway: Gateway, count: int = 3, first: int = 0) -> list[str]:
    gateway.settings, gateway.handler = SHORT, _echo
    kernel = gateway.alive[0] if gateway.alive else await gateway.start()
    made = []
    for number in range(first, first + count):
        made.append((await kernel.accept(inbound(str(number)))).turn_id)
        await spin()
    return made


def _states(kernel: Kernel) -> dict[str, Any]:
    names = {record.stream for record in peek(kernel).log() if not record.pruned}
    return {name: peek(kernel).state(name) for name in names if name != "store"}


@pytest.mark.case("N02", "W13", "X19")
async def test_old_turns_go_with_their_entries_bodies_and_keys(
    gateway: Gateway,
) -> None:
    old = await _with_turns(gateway)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    young = await _with_turns(gateway, 2, first=10)
    head = peek(kernel).head
    done = await kernel.prune(older_ms=DAY, by="ann", why="room")
    assert (done.streams, done.left) == (9, {})
    for name in old:
        assert not peek(kernel).read(name)
        assert not peek(kernel).children(name)
        assert peek(kernel).summary(name) is None
    assert all(peek(kernel).read(name) for name in young)
    (said,) = [e for e in events(kernel, "store") if isinstance(e, Pruned)]
    assert (said.by, said.note, said.streams) == ("ann", "room", 9)
    does = kernel.store.maintenance
    assert does is not None
    assert await does.contains_head(head)
    again = await kernel.accept(inbound("0"))
    assert again.new


@pytest.mark.case("N04", "H19")
async def test_a_key_inside_its_horizon_keeps_its_turn(gateway: Gateway) -> None:
    (old, *_) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    key = (await kernel.enqueue(route(), "x", key="k")).entry_id
    await spin()
    await gateway.advance(DAY - 1)
    done = await kernel.prune(older_ms=1_000, by="ann")
    assert (done.streams, done.left) == (0, {"key": 2})
    assert (await kernel.accept(inbound("0"))).turn_id == old
    assert (await kernel.enqueue(route(), "x", key="k")).entry_id == key
    await gateway.advance(1)
    assert (await kernel.prune(older_ms=1_000, by="ann")).streams == 4


@pytest.mark.case("N05")
async def test_what_is_open_stays_however_old(gateway: Gateway) -> None:
    gateway.settings = evolve(SHORT, final_ttl_ms=90 * DAY)
    kernel = await gateway.start()
    waiting = (await kernel.accept(inbound("1"))).turn_id  # nobody handles it
    await kernel.hold_back("t/default", by="ann")
    held = (await kernel.enqueue(route(), "x")).entry_id
    await spin()
    await gateway.advance(30 * DAY)
    assert (await kernel.prune(older_ms=0, by="ann", dead=True)).streams == 0
    done = await _prune_by_name(kernel, waiting, held, dead=True)
    assert done["left"] == {"open": 2}
    assert peek(kernel).read(waiting)
    assert peek(kernel).read(held)


async def _prune_by_name(kernel: Kernel, *names: str, **more: Any) -> dict[str, Any]:
    """As somebody who knows nothing of candidates."""
    rows = [[name, peek(kernel).read(name)[-1].version] for name in names]
    wish = {"older_ms": 1, "by": "ann", **more}
    return await kernel._prune(rows, wish)


@pytest.mark.case("N05")
async def test_an_open_entry_keeps_its_closed_turn(gateway: Gateway) -> None:
    """The turn has failed, and its notice waits for the account."""

    async def fails(_: Any) -> None:
        raise Never("no use")

    gateway.handler = fails
    gateway.settings = evolve(SHORT, final_ttl_ms=90 * DAY)
    kernel = await gateway.start()
    await kernel.hold_back("t/default", by="ann")
    name = (await kernel.accept(inbound("1"))).turn_id
    await spin()
    assert not turn(kernel, name).open
    (notice,) = peek(kernel).children(name)
    assert entry(kernel, notice).open
    await gateway.advance(2 * DAY)
    assert (await _prune_by_name(kernel, name))["left"] == {"open": 1}


async def test_what_has_moved_lately_stays(gateway: Gateway) -> None:
    (name,) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    (block, final) = peek(kernel).children(name)
    del block
    await kernel.bounced(final)
    await spin()
    assert (await _prune_by_name(kernel, name, older_ms=DAY))["left"] == {"young": 1}
    assert peek(kernel).read(final)


@pytest.mark.case("N02")
async def test_a_dead_letter_stays_until_somebody_has_seen_it(
    gateway: Gateway,
) -> None:
    gateway.settings = SHORT
    gateway.platform.plays(
        answers(Rejected(failure=FailureClass.PERMISSION, detail="no"))
    )
    kernel = await gateway.start()
    dead = (await kernel.enqueue(route(), "x")).entry_id
    await spin()
    assert entry(kernel, dead).phase is Phase.FAILED
    await gateway.advance(2 * DAY)
    done = await kernel.prune(older_ms=DAY, by="ann")
    assert done.left == {"needs a person": 1}
    await kernel.discard(dead, by="ann")
    await gateway.advance(2 * DAY)
    assert (await kernel.prune(older_ms=DAY, by="ann")).streams == 1


async def test_dead_letters_go_where_the_caller_says_so(gateway: Gateway) -> None:
    gateway.settings = SHORT
    gateway.platform.plays(
        answers(Rejected(failure=FailureClass.PERMISSION, detail="no"))
    )
    kernel = await gateway.start()
    await kernel.enqueue(route(), "x")
    await spin()
    await gateway.advance(2 * DAY)
    assert (await kernel.prune(older_ms=DAY, by="ann", dead=True)).streams == 1


async def test_only_the_phases_that_were_asked_for_go(gateway: Gateway) -> None:
    gateway.settings = SHORT
    kernel = await gateway.start()
    sent = (await kernel.enqueue(route(), "x")).entry_id
    await spin()
    await kernel.disconnected("t")
    stopped = (await kernel.enqueue(route(), "y")).entry_id
    await kernel.abort(stopped)
    await gateway.advance(2 * DAY)
    done = await kernel.prune(older_ms=DAY, by="ann", statuses=["aborted"])
    assert (done.streams, done.left) == (1, {"other status": 1})
    assert peek(kernel).read(sent)


@pytest.mark.case("N06")
async def test_what_has_changed_since_it_was_seen_stays(gateway: Gateway) -> None:
    (name,) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    version = peek(kernel).read(name)[-1].version
    wish = {"older_ms": DAY, "by": "ann"}
    done = await kernel._prune([[name, version - 1]], wish)
    assert done["left"] == {"moved": 1}
    group = {n: peek(kernel).read(n)[-1].version for n in _group(kernel, name)}
    for moved in group:
        archive = Archived("0" * 64, {name: group | {moved: 99}})
        assert not (await kernel.prune(older_ms=DAY, by="a", archived=archive)).streams
    archive = Archived("0" * 64, {name: group})
    assert (await kernel.prune(older_ms=DAY, by="a", archived=archive)).streams == 3


def _group(kernel: Kernel, turn_id: str) -> list[str]:
    return [turn_id, *peek(kernel).children(turn_id)]


async def test_an_entry_never_goes_without_its_turn(gateway: Gateway) -> None:
    (name,) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    child = peek(kernel).children(name)[0]
    assert (await _prune_by_name(kernel, child))["left"] == {"of a turn": 1}


async def test_no_age_counts_while_the_clock_is_not_trusted(lone: Gateway) -> None:
    (name,) = await _with_turns(lone, 1)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)

    def decide(draft: Any) -> Any:
        draft.sure_from = draft.now
        row = [name, draft.turn(name).version]
        return pruning.prune(draft, "store", [row], DAY)

    done = await kernel.append(decide)
    assert done["left"] == {"clock": 1}


async def test_a_setting_asks_for_an_archive_first(gateway: Gateway) -> None:
    (name,) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    await gateway.end()
    gateway.settings = evolve(SHORT, archive_first=True)
    kernel = await gateway.start()
    await gateway.advance(2 * DAY)
    with pytest.raises(RuleBrokenError, match="archive"):
        await kernel.prune(older_ms=DAY, by="ann")
    group = {n: peek(kernel).read(n)[-1].version for n in _group(kernel, name)}
    archive = Archived("a" * 64, {name: group})
    await kernel.prune(older_ms=DAY, by="ann", archived=archive)
    (said,) = [e for e in events(kernel, "store") if isinstance(e, Pruned)]
    assert said.archive == "a" * 64


async def test_two_prunes_are_never_in_one_commit(lone: Gateway) -> None:
    names = await _with_turns(lone, 2)
    (kernel,) = lone.alive
    await lone.advance(2 * DAY)
    both = [_prune_by_name(kernel, name) for name in names]
    done = await asyncio.gather(*both, return_exceptions=True)
    assert [type(d) for d in done] == [dict, RuleBrokenError]


async def test_an_act_in_the_same_commit_finds_nothing(gateway: Gateway) -> None:
    (name,) = await _with_turns(gateway, 1)
    (kernel,) = gateway.alive
    await gateway.advance(2 * DAY)
    final = peek(kernel).children(name)[1]
    pruned, late, again = await asyncio.gather(
        _prune_by_name(kernel, name),
        kernel.bounced(final),
        kernel.accept(inbound("0")),
        return_exceptions=True,
    )
    assert isinstance(pruned, dict)
    assert pruned["streams"] == 3
    assert isinstance(late, NotFoundError)
    assert again.new
    await spin()
    assert peek(kernel).read(again.turn_id)


async def test_a_client_prunes_through_the_worker(filed: Gateway) -> None:
    await _with_turns(filed)
    await filed.advance(2 * DAY)
    client = await filed.start(work=False)
    assert (await client.prune(older_ms=DAY, by="ann", batch=2)).streams == 9
    (worker, _) = filed.alive
    assert commits(worker)["store.pruned"] == 2


async def test_the_worker_prunes_by_its_settings(
    filed: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_FIRST_S", 0.0)
    await _with_turns(filed)
    await filed.end()
    filed.settings = evolve(SHORT, prune_after_ms=DAY)
    filed.clock.pass_ms(2 * DAY)
    kernel = await filed.start()
    async with asyncio.timeout(5):
        while not commits(kernel)["store.pruned"]:
            await asyncio.sleep(0.01)


@pytest.mark.case("N08", "X02")
async def test_counts_by_channel_and_day_survive(gateway: Gateway) -> None:
    await _with_turns(gateway)
    (kernel,) = gateway.alive
    by = ("hour", "family", "place", "kind", "phase")
    before = {
        c.values: c.count for c in await kernel.store.count(Listing(prefix=""), by)
    }
    tally = await kernel.inspect.stats(("channel", "day"))
    await gateway.advance(2 * DAY)
    await kernel.prune(older_ms=DAY, by="ann")
    after = {
        c.values: c.count for c in await kernel.store.count(Listing(prefix=""), by)
    }
    assert after == before
    assert await kernel.inspect.stats(("channel", "day")) == tally
    fits = Listing(prefix="entry:", phases=("delivered",), lanes=("t/default/",))
    assert sum(c.count for c in await kernel.store.count(fits)) == 6
    for odd in (
        evolve(fits, lanes=("u/default/",)),
        evolve(fits, open=True),
        evolve(fits, phases=("failed",)),
        evolve(fits, since=1 << 50),
        evolve(fits, until=5),
        evolve(fits, person=True),
    ):
        assert sum(c.count for c in await kernel.store.count(odd)) == 0


async def test_wrong_words_are_refused(lone: Gateway) -> None:
    kernel = await lone.start()
    for wrong in ({"older_ms": -1}, {"statuses": ["odd"]}, {"batch": 0}, {"by": ""}):
        with pytest.raises(InvalidInputError):
            await kernel.prune(**{"older_ms": 1, "by": "ann", **wrong})


@pytest.mark.case("N09")
@settings(max_examples=40, deadline=None)
@given(
    ages=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    cut=st.integers(1, 4),
    batch=st.integers(1, 4),
    bad=st.sets(st.integers(0, 7)),
    crash=st.booleans(),
)
def test_every_stream_that_is_left_replays_as_before(
    ages: list[int], cut: int, batch: int, bad: set[int], crash: bool
) -> None:
    asyncio.run(_replays(ages, cut, batch, bad, crash=crash))


async def _replays(
    ages: list[int], cut: int, batch: int, bad: set[int], *, crash: bool
) -> None:
    from tests.conftest import audited

    gateway = Gateway(settings=SHORT, handler=_echo)
    try:
        kernel = await gateway.start()
        for number, age in enumerate(ages):
            if number in bad:
                no = Rejected(failure=FailureClass.PERMISSION, detail="no")
                gateway.platform.plays(answers(no))
            await kernel.accept(inbound(str(number), conversation=str(number % 3)))
            await kernel.enqueue(route(str(number % 2)), Text("x"))
            await spin()
            await gateway.advance(age * DAY)
        before = _states(kernel)
        await kernel.prune(older_ms=cut * DAY, by="ann", batch=batch)
        after = _states(kernel)
        assert after == {name: before[name] for name in after}
        gone = before.keys() - after.keys()
        assert all(not before[name].open for name in gone)
        for name in after:
            parent = getattr(before[name], "turn", None)
            assert parent is None or parent in after
        if crash:
            kernel = await gateway.restart(kernel)
            assert _states(kernel) == after
        await kernel.accept(inbound("later"))
        await spin()
    finally:
        await gateway.end()
    await audited(gateway)
