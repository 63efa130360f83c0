"""A whole gateway on a real Synapse, killed around everything that it does.

Alice writes into a room and into a thread of it; a gateway in a process of its own, on
a SQLite file, answers each message with two texts and a file. Whatever dies on the way,
at the end the room holds exactly one event per part, in order and in the right thread,
and the log passes the audit with those events as its witness.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from .cutting_proxy import CuttingProxy, Fault
from .matrix_play import Point, Scene, Stage, nursery, play_all
from .synapse import Synapse, User

STAGES = 2  # that play at the same time, each with a room of its own
# A process that dies in its first moments has not noted the time beside its store. The next
# one then trusts no window of a key and asks the platform. So these keys have none.
NO_WINDOW = None
EFFECTS = ("CallHandler", "Prepare", "Append dispatch", "Send", "Append settle")


@pytest.fixture
async def stages(
    tmp_path: Path, proxy: CuttingProxy, bot: User, alice: User
) -> AsyncIterator[list[Stage]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(STAGES):
            room_id = alice.create_room(bot.user_id)
            bot.join(room_id)
            stage = Stage(
                nursery=await stack.enter_async_context(nursery(tmp_path)),
                folder=tmp_path,
                base_url=proxy.base_url,
                bot=bot,
                alice=alice,
                room_id=room_id,
                root_id=alice.say(room_id, "the root of a thread"),
            )
            made.append(stage)
        yield made
    bot.leave_all()


@pytest.fixture
def stage(stages: list[Stage]) -> Stage:
    return stages[0]


def points_of(passed: Counter[str]) -> list[Point]:
    """Where to kill: every effect each time that it comes by, every commit the first
    time (most commits are those of an effect, and some are as many as syncs)."""
    return [
        (name, nth)
        for name, count in passed.items()
        for nth in range(1, (1 if "commit" in name else count) + 1)
    ]


def killed_at(scenes: Sequence[Scene]) -> list[list[str]]:
    return [scene.died for scene in scenes]


# 73 scenes: a minute on two free cores, 304 s with 20 others beside it.
@pytest.mark.timeout(600, func_only=True)
@pytest.mark.case("A04", "A07", "C02", "C12", "H03", "H05")
async def test_a_gateway_killed_around_every_effect_answers_each_message_once(
    stages: list[Stage],
) -> None:
    whole = await stages[0].play(Scene(name="whole"))
    scenes = [
        Scene(name=f"kill{number:03}", stops=[point])
        for number, point in enumerate(points_of(whole.points))
    ]
    await play_all(stages, scenes)
    killed = [name for scene in scenes for name in scene.died]
    assert len(killed) == len(scenes)  # each of them was really killed, once
    for effect in EFFECTS:
        assert {f"before {effect}", f"after {effect}"} <= set(killed)


async def test_a_channel_that_forgets_its_keys_would_be_caught(stage: Stage) -> None:
    """The verdict bites: room and witness both show the part that came twice."""
    scene = Scene(
        name="bad", stops=[("after Send", 1)], forgetful=True, window_ms=NO_WINDOW
    )
    await stage.play(scene)
    with pytest.raises(AssertionError) as caught:
        stage.judge(scene)
    assert "['bad-0: one', 'bad-0: one', 'bad-0: two'" in str(caught.value)
    assert "the platform accepted key" in str(caught.value)


@pytest.mark.case("A04", "B02", "B06")
@pytest.mark.parametrize("window_ms", [NO_WINDOW, 0], ids=["keyed", "lookup"])
async def test_a_gateway_killed_again_while_it_recovers_answers_each_message_once(
    stages: list[Stage], window_ms: int | None
) -> None:
    """The second death comes at everything that only a recovery does."""
    deaths = [("after Send", 1), ("before Send", 3), ("before CallHandler", 1)]
    more = {"threaded": (True,), "window_ms": window_ms}
    firsts = [
        Scene(name=f"once{number}", stops=[death], **more)
        for number, death in enumerate([("", 0), *deaths])
    ]
    await play_all(stages, firsts)
    known = set(firsts[0].points)
    scenes = []
    for first, death in zip(firsts[1:], deaths, strict=True):
        new = [name for name in first.points if name not in known]
        known.update(new)
        scenes += [
            Scene(name=f"twice{len(scenes) + n:02}", stops=[death, (name, 1)], **more)
            for n, name in enumerate(new)
        ]
    await play_all(stages, scenes)
    assert all(len(scene.died) == 2 for scene in scenes), killed_at(scenes)
    seconds = {scene.died[1] for scene in scenes}
    assert {"before Append bury", "after Append bury"} <= seconds
    asked = {"before Reconcile", "after Reconcile", "after Append look_up"}
    assert asked <= seconds if window_ms == 0 else not asked & seconds


@pytest.mark.case("A04", "C03")
async def test_a_notice_that_the_worker_has_to_plan_is_sent_once(
    stages: list[Stage],
) -> None:
    """Enqueued by a process that has no channel: the worker makes the plan."""
    more = {"threaded": (), "announces": True}
    whole = await stages[0].play(Scene(name="notice", **more))
    names = [n for n in whole.points if "Plan" in n or "plan" in n or "attempt" in n]
    scenes = [
        Scene(name=f"plan{number}", stops=[(name, 1)], **more)
        for number, name in enumerate(names)
    ]
    await play_all(stages, [*scenes])
    assert {"before MakePlan", "after MakePlan", "after Append plan"} <= set(names)
    assert killed_at(scenes) == [[name] for name in names]
    stages[0].judge(whole)


@pytest.mark.case("A04", "B06", "D17")
@pytest.mark.parametrize("window_ms", [NO_WINDOW, 0], ids=["keyed", "lookup"])
@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.CUT_BEFORE])
async def test_a_connection_cut_around_the_request_leaves_one_event_per_part(
    stage: Stage, proxy: CuttingProxy, fault: Fault, window_ms: int | None
) -> None:
    scenes = []
    for nth in (1, 2, 3):
        proxy.plan(Fault.DELAY, path="/send/", times=nth - 1)
        proxy.plan(fault, path="/send/", times=2 if nth == 1 else 1)
        scenes.append(Scene(name=f"cut{nth}", threaded=(True,), window_ms=window_ms))
        await stage.play(scenes[-1])
    stage.judge(*scenes)
    assert all(scene.lives == 1 for scene in scenes)
    assert proxy.planned == 0


@pytest.mark.case("A04", "B06")
async def test_a_lost_answer_and_a_death_at_once_leave_one_event_per_part(
    stage: Stage, proxy: CuttingProxy
) -> None:
    scenes = []
    for number, point in enumerate(["after Send", "before Append settle"]):
        proxy.plan(Fault.CUT_AFTER, path="/send/", times=2)
        scenes.append(Scene(name=f"both{number}", stops=[(point, 1), (point, 1)]))
        await stage.play(scenes[-1])
    stage.judge(*scenes)
    assert all(len(scene.died) == 2 for scene in scenes), killed_at(scenes)


@pytest.mark.case("C04")
async def test_an_upload_that_is_cut_is_made_again_and_the_file_is_shown_once(
    stage: Stage, proxy: CuttingProxy, alice: User
) -> None:
    proxy.plan(Fault.CUT_AFTER, method="POST", path="/media/", times=2)
    scene = await stage.play(Scene(name="file", threaded=(False,)))
    stage.judge(scene)
    assert proxy.planned == 0
    *_, shown = alice.events(stage.room_id, stage.bot.user_id)
    assert alice.download(shown["content"]["url"]) == b"file-0" * 100


@pytest.mark.case("A04", "B06", "D12")
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_kill_9_of_the_server_at_a_request_leaves_one_event_per_part(
    stage: Stage, proxy: CuttingProxy, synapse: Synapse, nth: int
) -> None:
    """The gateway lives on, but for the second time: there it dies with the server."""
    scene = Scene(name=f"server{nth}", threaded=(True,))
    playing = asyncio.create_task(stage.play(scene))
    before = proxy.sends
    while proxy.sends < before + nth:
        await asyncio.sleep(0.001)
    if nth == 2:
        stage.nursery.kill()
    await asyncio.to_thread(synapse.kill9)
    await asyncio.to_thread(synapse.start)
    await playing
    stage.judge(scene)
    assert scene.lives == (2 if nth == 2 else 1)
