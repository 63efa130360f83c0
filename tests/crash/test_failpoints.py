"""Failpoints: they stop where they say, once, and change nothing else."""

from functools import partial

import pytest

from turnfold._runtime.programs import Append, Look
from turnfold.api.kernel import Kernel
from turnfold.inbound import Inbound
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.failpoints import Failpoints, Stop, label
from turnfold_model.testing.platform import Platform, PlatformChannel


class Dead(BaseException):
    """Stands for SIGKILL."""


def die() -> None:
    raise Dead


def test_a_named_point_stops_at_its_nth_time_only() -> None:
    points = Failpoints(Stop(2, "b"), die=die)
    points.reach("a")
    points.reach("b")
    with pytest.raises(Dead):
        points.reach("b")
    points.reach("b")


def test_without_a_name_the_nth_point_of_any_name_stops() -> None:
    told: list[str] = []
    points = Failpoints(Stop(2), die=die, told=told.append)
    points.reach("a")
    with pytest.raises(Dead):
        points.reach("b")
    assert told == ["b"]


def test_an_append_goes_by_the_name_of_its_decision() -> None:
    def settle(draft: object, part: int) -> None:
        """A decision."""

    wrapped = partial(partial(settle, part=1))
    assert label(Append(wrapped)) == "Append settle"


def test_a_look_is_no_point_because_it_changes_nothing() -> None:
    points = Failpoints(Stop(1), die=die)
    points.probe("before", Look(lambda draft: draft))
    assert not points.reached


async def test_a_run_without_a_stop_counts_every_point_it_comes_by() -> None:
    points = Failpoints()
    kernel = Kernel(points.watch(MemoryStore()), probe=points.probe)
    kernel.attach("t", PlatformChannel(Platform()), on_unknown="hold")

    @kernel.on_turn
    async def answer(turn: object) -> None:
        await turn.reply("yes")

    async with kernel:
        message = Inbound("t", conversation="1", message_id="1")
        await (await kernel.accept(message)).settled(5_000)
    for name in ("commit turn.accepted", "commit turn.answered", "Send", "CallHandler"):
        assert points.reached[f"before {name}"] == 1
        assert points.reached[f"after {name}"] == 1
