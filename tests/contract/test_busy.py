"""Messages that come while their lane is busy, lanes by author, and a stop of a lane."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from turnfold import Inbound, InvalidInputError, TurnHandle
from turnfold._decide.inbox import accept_command
from turnfold.audit import audit_store
from turnfold.enums import FailureClass, TurnOutcome, TurnPhase
from turnfold.inspect import TurnView
from turnfold.ports.store import Command, Posted, Store
from turnfold.settings import Settings
from turnfold_model.testing.gateway import (
    Gateway,
    inbound,
    route,
    spin,
    story,
    turn,
    until,
)
from turnfold_model.testing.platform import hang, reject, unknown

LANE = inbound().lane


class Slow:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.runs: list[TurnHandle] = []
        self.go = asyncio.Event()

    async def __call__(self, handle: TurnHandle) -> str:
        self.runs.append(handle)
        await self.go.wait()
        texts = [handle.inbound.text, *(more.text for more in handle.joined)]
        return " ".join(texts)


@pytest.fixture
def slow(gateway: Gateway) -> Slow:
    gateway.handler = handler = Slow()
    return handler


@pytest.mark.case("Y06", "H21")
async def test_messages_join_the_turn_that_waits(gateway: Gateway, slow: Slow) -> None:
    kernel = await gateway.start()
    first = await kernel.accept(inbound("1", text="a"), busy="join")
    rest = [
        await kernel.accept(inbound(str(n), text=text), busy="join")
        for n, text in ((2, "b"), (3, "c"), (4, "d"))
    ]
    host = rest[0].turn_id
    assert [done.turn_id for done in rest] == [host] * 3 != [first.turn_id] * 3
    assert [(done.new, done.joined) for done in rest] == [
        (True, False),
        (True, True),
        (True, True),
    ]
    slow.go.set()
    assert await rest[2].settled(2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["a", "b c d"]
    last = slow.runs[1].joined[1]
    assert (last.message_id, last.sender, last.lane) == ("4", None, LANE)
    for number in (2, 3, 4):
        view = await kernel.inspect.inbound(
            "t", conversation="42", message_id=str(number)
        )
        assert view is not None
        assert view.id == host


@pytest.mark.case("Y06", "H21", "H22")
async def test_a_message_that_joined_is_known_by_its_own_key(
    gateway: Gateway, slow: Slow
) -> None:
    kernel = await gateway.start()
    await kernel.accept(inbound("1"))
    host = await kernel.accept(inbound("2", text="b"), busy="join")
    await kernel.accept(inbound("3", text="c", sender="s", revision="r"), busy="join")
    again = await kernel.accept(inbound("3", text="c", sender="s", revision="r"))
    assert (again.turn_id, again.new, again.differs) == (host.turn_id, False, False)
    other = await kernel.accept(inbound("3", text="x", revision="r"), busy="join")
    assert (other.turn_id, other.new, other.differs) == (host.turn_id, False, True)
    kernel = await gateway.restart(kernel)
    again = await kernel.accept(inbound("3", text="c", revision="r"), busy="join")
    assert (again.turn_id, again.new, again.differs) == (host.turn_id, False, False)
    slow.go.set()
    assert await kernel.settled(host.turn_id, 2_000) is TurnOutcome.REPLIED
    assert "b c" in gateway.platform.contents
    assert turn(kernel, host.turn_id).joined[0].sender == "s"


async def test_the_end_of_a_posted_message_is_found_though_it_joined_another_turn(
    gateway: Gateway, slow: Slow
) -> None:
    """The owner gets it too while it waits in the inbox, and is told its first turn."""
    deaf = [True]

    class Deaf:
        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def inbox(self, limit: int = 100) -> Sequence[Command]:
            return () if deaf[0] else await self._store.inbox(limit)

    kernel = await gateway.start(wrap=Deaf)
    client = await gateway.start(work=False)
    await kernel.accept(inbound("1"))
    host = await kernel.accept(inbound("2", text="b"), busy="join")
    posted = await client.accept(inbound("3", text="c"), busy="join")
    mine = await kernel.accept(inbound("3", text="c"), busy="join")
    assert (mine.new, mine.turn_id) == (False, posted.turn_id)
    deaf[0] = False
    await until(lambda: len(turn(kernel, host.turn_id).joined) == 1)
    slow.go.set()
    for told in (posted, mine):
        assert await told.settled(2_000) is TurnOutcome.REPLIED
    assert "b c" in gateway.platform.contents


@pytest.mark.case("Y06")
async def test_nothing_joins_a_run_that_has_begun(gateway: Gateway, slow: Slow) -> None:
    kernel = await gateway.start()
    first = await kernel.accept(inbound("1", text="a"), busy="join")
    await until(lambda: slow.runs)
    kernel = await gateway.restart(kernel)  # its run is over, and the next one begins
    second = await kernel.accept(inbound("2", text="b"), busy="join")
    assert (second.joined, second.turn_id == first.turn_id) == (False, False)
    slow.go.set()
    await second.settled(2_000)
    assert gateway.platform.contents == ["a", "b"]


async def test_a_message_that_nothing_tells_from_a_repeat_joins_none(
    gateway: Gateway, slow: Slow
) -> None:
    kernel = await gateway.start()
    for number in ("1", "2"):
        await kernel.accept(inbound(number), busy="join")
    nameless = await kernel.accept(inbound(None, text="x"), busy="join")  # type: ignore[arg-type]  the platform gives no id
    assert not nameless.joined
    slow.go.set()
    await nameless.settled(2_000)


async def test_a_turn_takes_no_more_than_a_lane_holds(
    gateway: Gateway, slow: Slow
) -> None:
    gateway.settings = Settings(max_lane_turns=3)
    kernel = await gateway.start()
    done = [await kernel.accept(inbound(str(n)), busy="join") for n in range(5)]
    assert [d.joined for d in done] == [False, False, True, True, False]
    slow.go.set()
    await done[-1].settled(2_000)


@pytest.mark.case("Y06")
async def test_fragments_are_waited_for_and_answered_once(gateway: Gateway) -> None:
    gateway.handler = slow = Slow()
    slow.go.set()
    kernel = await gateway.start()
    done = await kernel.accept(inbound("1", text="a"), busy="join", debounce_ms=800)
    await gateway.advance(500)
    for number, text in ((2, "b"), (3, "c")):
        more = await kernel.accept(
            inbound(str(number), text=text), busy="join", debounce_ms=800
        )
        assert more.joined
        await gateway.advance(700)
    assert slow.runs == []
    await gateway.advance(200)
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    assert gateway.platform.contents == ["a b c"]


@pytest.mark.case("Y06")
async def test_fragments_without_end_are_not_waited_for(gateway: Gateway) -> None:
    gateway.handler = slow = Slow()
    slow.go.set()
    kernel = await gateway.start()
    for number in range(20):
        await kernel.accept(inbound(str(number)), busy="join", debounce_ms=100)
        await gateway.advance(80)
    assert len(slow.runs) == 1
    await gateway.advance(1_000)


@pytest.mark.case("Y06", "J10")
async def test_a_newer_message_supersedes_what_waits_and_runs(
    gateway: Gateway, slow: Slow
) -> None:
    kernel = await gateway.start()
    old = [await kernel.accept(inbound(str(n), text=str(n))) for n in (1, 2)]
    await until(lambda: slow.runs)
    done = await kernel.accept(inbound("3", text="3"), busy="supersede")
    assert done.stopped == tuple(o.turn_id for o in old)
    slow.go.set()
    assert [await o.settled(2_000) for o in old] == [TurnOutcome.SUPERSEDED] * 2
    assert await done.settled(2_000) is TurnOutcome.REPLIED
    await spin()
    assert gateway.platform.contents == ["3"]


@pytest.mark.case("Y06")
async def test_what_is_dropped_is_kept_and_known(gateway: Gateway, slow: Slow) -> None:
    kernel = await gateway.start()
    await kernel.accept(inbound("1", text="a"), busy="drop")
    dropped = await kernel.accept(inbound("2", text="b"), busy="drop")
    assert (dropped.new, dropped.status) == (True, TurnPhase.ABORTED)
    slow.go.set()
    await kernel.at_rest(2_000)
    again = await kernel.accept(inbound("2", text="b"))
    assert (again.new, again.turn_id) == (False, dropped.turn_id)
    assert story(kernel, dropped.turn_id) == ["accepted", "aborted"]
    assert gateway.platform.contents == ["a"]
    later = await kernel.accept(inbound("3", text="c"), busy="drop")
    assert await later.settled(2_000) is TurnOutcome.REPLIED


@pytest.mark.case("Y06")
async def test_a_message_that_joins_between_a_post_and_its_look_does_not_differ(
    gateway: Gateway, slow: Slow
) -> None:
    """The stream that the post named never came to be."""
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    await client.accept(inbound("1", text="a"))
    await until(lambda: slow.runs)
    second = await client.accept(inbound("2", text="b"), busy="join")
    third = await client.accept(inbound("3", text="c"), busy="join")
    await until(lambda: "joined" in story(kernel, second.turn_id))
    posted = Posted(stream=third.turn_id, new=False)
    for text, differs in (("c", False), ("d", True)):
        command = accept_command("turn:new", inbound("3", text=text), None, 0)
        assert await client._mailbox.differs(posted, command) is differs


@pytest.mark.case("Y06")
@pytest.mark.parametrize("busy", ["queue", "supersede", "join", "drop"])
async def test_another_process_says_the_same(
    gateway: Gateway, slow: Slow, busy: str
) -> None:
    kernel = await gateway.start()
    client = await gateway.start(work=False)
    await client.accept(inbound("1", text="a"))
    await until(lambda: slow.runs)
    second = await client.accept(inbound("2", text="b"), busy=busy)
    third = await client.accept(inbound("3", text="c"), busy=busy)
    again = await client.accept(inbound("3", text="c"), busy=busy)
    assert (again.new, again.differs) == (False, False)
    await spin()
    slow.go.set()
    for done in (second, third):
        await done.settled(5_000)
    await kernel.at_rest(5_000)
    assert (
        gateway.platform.contents
        == {
            "queue": ["a", "b", "c"],
            "supersede": ["c"],
            "join": ["a", "b c"],
            "drop": ["a"],
        }[busy]
    )


async def test_control_input_takes_no_lane_and_is_never_dropped(
    gateway: Gateway, slow: Slow
) -> None:
    kernel = await gateway.start()
    await kernel.accept(inbound("1"))
    for number, busy in enumerate(("supersede", "join", "drop")):
        done = await kernel.accept(inbound(f"c{number}", control=True), busy=busy)
        assert (done.joined, done.stopped) == (False, ())
        assert done.status is not TurnPhase.ABORTED
    await until(lambda: len(slow.runs) == 4)
    slow.go.set()
    await kernel.at_rest(2_000)


@pytest.mark.case("Y05")
@pytest.mark.parametrize("own", [True, False])
async def test_a_lane_of_its_own_for_each_author(
    gateway: Gateway, slow: Slow, own: bool
) -> None:
    kernel = await gateway.start()
    for number, sender in enumerate(("u/1", "u/2", "u/1", "u/3")):
        lane = sender if own else None
        await kernel.accept(inbound(str(number), sender=sender, lane=lane))
    await spin()
    running = [handle.inbound.message_id for handle in slow.runs]
    assert running == (["0", "1", "3"] if own else ["0"])
    if own:
        assert slow.runs[0].inbound.own_lane == "u/1"
        assert slow.runs[0].inbound.lane == f"{LANE}/u%2F1"
    slow.go.set()
    await kernel.at_rest(2_000)
    assert len(gateway.platform.contents) == 4
    found = await kernel.inspect.list()
    assert {row.conversation for row in found} == {"42"}


async def _two_people(cursor: str | None) -> AsyncIterator[tuple[Inbound, str]]:
    """Three messages at once, by two people."""
    if cursor is None:
        for number, (sender, text) in enumerate((("a", "1"), ("b", "2"), ("a", "3"))):
            yield inbound(str(number), text=text, sender=sender), str(number)
    await asyncio.Event().wait()


@pytest.mark.case("Y06", "H21")
async def test_a_source_says_what_becomes_of_a_busy_lane_and_which_lane_it_is(
    gateway: Gateway, slow: Slow
) -> None:
    kernel = await gateway.start()
    kernel.source(
        "t",
        _two_people,
        busy="join",
        debounce_ms=1_000,
        lane=lambda message: message.sender,
    )
    await spin()
    assert slow.runs == []
    await gateway.advance(1_000)
    await until(lambda: len(slow.runs) == 2)
    said = {run.inbound.sender: [more.text for more in run.joined] for run in slow.runs}
    assert said == {"a": ["3"], "b": []}
    assert {run.inbound.lane for run in slow.runs} == {f"{LANE}/a", f"{LANE}/b"}
    slow.go.set()


@pytest.mark.case("H21")
@pytest.mark.parametrize(
    "lane",
    [lambda message: 1 / 0, lambda message: "x" * 600],
    ids=["it raises", "too long"],
)
async def test_a_lane_that_cannot_be_named_makes_a_dead_turn(
    gateway: Gateway, lane: Any
) -> None:
    kernel = await gateway.start()
    kernel.source("t", _two_people, lane=lane)
    await until(lambda: kernel.health()["sources"]["t/default"]["items"] == 3)
    phases = [row.status for row in await kernel.inspect.list()]
    assert phases == [TurnPhase.FAILED] * 3


async def test_an_odd_plan_of_a_source_is_refused_by_its_name(gateway: Gateway) -> None:
    kernel = await gateway.start()
    for odd in ({"busy": "steer"}, {"debounce_ms": -1}, {"lane": "sender"}):
        with pytest.raises(InvalidInputError, match=next(iter(odd))):
            kernel.source("t", _two_people, **odd)  # type: ignore[arg-type]


@pytest.mark.case("Y05")
async def test_an_odd_lane_is_refused_by_its_name() -> None:
    odd: Any
    for odd in ("", 1.5, "x" * 600):
        with pytest.raises(InvalidInputError) as caught:
            inbound(lane=odd)
        assert caught.value.field == "lane"


async def test_an_odd_plan_is_refused_by_its_name(gateway: Gateway) -> None:
    kernel = await gateway.start()
    odd: Any
    for odd in ({"busy": "steer"}, {"debounce_ms": -1}, {"debounce_ms": 0.5}):
        with pytest.raises(InvalidInputError) as caught:
            await kernel.accept(inbound(), **odd)
        assert caught.value.field in odd
    for odd in ("running", ["walking"], 3):
        with pytest.raises(InvalidInputError) as caught:
            await kernel.abort_lane(LANE, scope=odd)
        assert caught.value.field == "scope"


# --- a stop of a lane ---


async def _crowd(gateway: Gateway, slow: Slow) -> tuple[Any, list[str]]:
    """A turn that runs, one that is queued, one that is debounced, and a neighbour's."""
    kernel = await gateway.start()
    turns = [await kernel.accept(inbound(n)) for n in ("run", "queued")]
    turns.append(await kernel.accept(inbound("debounced"), debounce_ms=5_000))
    turns.append(await kernel.accept(inbound("n", conversation="other")))
    await until(lambda: len(slow.runs) == 2)
    return kernel, [done.turn_id for done in turns]


@pytest.mark.case("J05", "J06", "J01")
@pytest.mark.parametrize(
    ("scope", "stops"),
    [
        (None, (0, 1, 2)),
        (("running",), (0,)),
        (("queued",), (1,)),
        (("debounced",), (2,)),
        (("running", "queued"), (0, 1)),
    ],
)
@pytest.mark.parametrize("client", [False, True])
async def test_a_stop_of_a_lane_stops_what_it_speaks_of_and_names_the_rest(
    gateway: Gateway,
    slow: Slow,
    scope: Any,
    stops: tuple[int, ...],
    client: bool,
) -> None:
    kernel, turns = await _crowd(gateway, slow)
    asks = await gateway.start(work=False) if client else kernel
    more = {} if scope is None else {"scope": scope}
    done = await asks.abort_lane(route(), by="me", why="stop", **more)
    assert done.stopped == tuple(turns[n] for n in stops)
    assert done.kept == tuple(turns[n] for n in range(3) if n not in stops)
    assert (done.too_late, done.unknown) == ((), ())
    slow.go.set()
    await gateway.advance(6_000)
    await kernel.at_rest(2_000)
    ends = [await kernel.settled(name, 2_000) for name in turns]
    assert ends == [
        TurnOutcome.ABORTED if n in stops else TurnOutcome.REPLIED for n in range(4)
    ]


@pytest.mark.case("J03", "J06", "J09")
async def test_a_stop_says_the_truth_about_answers(gateway: Gateway) -> None:
    """Unsent: stopped. On its way or in doubt: unknown. In another lane: not touched."""
    gateway.platform.plays(unknown(), reject(FailureClass.NOT_CONNECTED))

    async def answer(handle: TurnHandle) -> str:
        return handle.inbound.text

    gateway.handler = answer
    kernel = await gateway.start()
    doubt = await kernel.accept(inbound("1", lane="a"))
    await spin()
    waits = await kernel.accept(inbound("2", lane="a"))
    other = await kernel.accept(inbound("3", lane="b"))
    await spin()
    lane = inbound(lane="a").lane
    kept = await kernel.abort_lane(lane, scope=["running"])
    assert kept.kept == (doubt.turn_id, waits.turn_id)
    done = await kernel.abort_lane(lane)
    assert waits.turn_id in done.stopped
    assert doubt.turn_id in (*done.unknown, *done.too_late)
    assert other.turn_id not in (*done.stopped, *done.kept)
    assert not (await kernel.abort(doubt.turn_id)).aborted
    again = await kernel.abort(waits.turn_id)
    assert (again.aborted, again.answer) == (True, "stopped")


@pytest.mark.case("J03")
async def test_an_abort_answers_in_one_word(gateway: Gateway) -> None:
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "x")
    await sent.receipt(2_000)
    assert (await kernel.abort(sent.entry_id)).answer == "too_late"
    gateway.platform.plays(unknown())
    doubt = await kernel.enqueue(route("2"), "x")
    await spin()
    client = await gateway.start(work=False)
    asked = await client.abort(doubt.entry_id)
    assert (asked.answer, asked.aborted) == ("too_late", False)  # it ended, in doubt
    gateway.platform.plays(slow := hang())
    sending = await kernel.enqueue(route("3"), "x")
    await spin()
    assert (await kernel.abort(sending.entry_id)).answer == "unknown"
    assert slow.hold is not None
    slow.hold.set()


@pytest.mark.case("Y06", "H21")
async def test_the_log_of_a_busy_lane_keeps_the_rules(
    gateway: Gateway, slow: Slow
) -> None:
    kernel, _ = await _crowd(gateway, slow)
    await kernel.accept(inbound("j"), busy="join")
    await kernel.accept(inbound("s"), busy="supersede")
    await kernel.accept(inbound("d"), busy="drop")
    slow.go.set()
    await gateway.advance(6_000)
    await kernel.at_rest(2_000)
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:3]
    shown = await kernel.inspect.inbound("t", conversation="42", message_id="j")
    assert isinstance(shown, TurnView)
    assert [message.message_id for message in shown.inbound][-1] == "j"
