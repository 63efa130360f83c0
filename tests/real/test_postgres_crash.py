"""Hosts on a real PostgreSQL, stopped beside each statement that they send: they die, they
sleep, they lose the connection, and a statement runs later than its host believes.
Another host takes over; the platform's list, the audit, triggers on the server and what
each host was told decide. TURNFOLD_LONG=1 plays every stop, else a part of them."""

import asyncio
import logging
import os
from collections.abc import Iterator

import pytest

from turnfold_model.__main__ import main
from turnfold_model.crash_hosts.hosts import How, Stop
from turnfold_model.crash_hosts.play import PROOFS
from turnfold_model.crash_hosts.scenes import Scene
from turnfold_model.crash_hosts.search import SCENES, named, search, stops
from turnfold_model.crash_hosts.theatre import Theatre

from .postgres import Postgres

LONG = bool(os.environ.get("TURNFOLD_LONG"))
EACH, _SHARED = 64, 160  # every so many of the stops; a play of two hosts takes longer
pytestmark = pytest.mark.timeout(1_800 if LONG else 110)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hosts that are stopped complain."""
    caplog.set_level(logging.CRITICAL, "turnfold")


@pytest.fixture(scope="module")
def theatre(postgres: Postgres) -> Iterator[Theatre]:
    made = Theatre(postgres.address().partition("&")[0])
    yield made
    made.close()


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_no_stop_breaks_a_rule(theatre: Theatre, scene: Scene) -> None:
    each = 1 if LONG else _SHARED if scene.shares else EACH
    done = search(theatre, scene, each=each)
    assert not done.violations
    # Of several shards the server answers one or the other first.
    assert not done.missed or scene.shares


def broken_at(
    theatre: Theatre, scene: str, names: set[str], *hows: How, most: int | None = None
) -> list[str]:
    """The rules that stops of these kinds break. `most`: so many of them."""
    of = named(scene)
    wanted = [
        stop
        for stop in stops(of, theatre.profile(of))
        if stop.name in names and stop.how in hows
    ]
    assert wanted
    return [
        rule
        for number, stop in enumerate(wanted[:most])
        for rule in theatre.play(of, stop, PROOFS[number % 3]).broken
    ]


async def played(
    postgres: Postgres,
    scene: str,
    names: set[str],
    *hows: How,
    most: int | None = None,
) -> list[str]:
    """The same in a thread of its own, since hosts have loops of their own."""

    def play() -> list[str]:
        theatre = Theatre(postgres.address().partition("&")[0])
        try:
            return broken_at(theatre, scene, names, *hows, most=most)
        finally:
            theatre.close()

    return await asyncio.to_thread(play)


async def test_a_commit_of_a_dead_host_is_never_stored_later(
    postgres: Postgres,
) -> None:
    assert not await played(postgres, "lookup-alone", {"commit"}, How.LATE)


async def test_a_host_that_slept_stores_nothing(postgres: Postgres) -> None:
    assert not await played(postgres, "lookup-alone", {"commit"}, How.PAUSED)


async def test_a_commit_told_as_not_stored_is_never_stored(postgres: Postgres) -> None:
    assert not await played(postgres, "keyed-alone", {"commit"}, How.CUT_LATE)


async def test_a_commit_that_lost_its_answer_is_no_commit_that_failed(
    postgres: Postgres,
) -> None:
    assert not await played(postgres, "keyed-alone", {"commit"}, How.CUT_AFTER)


async def test_nobody_works_beside_a_host_that_may_live(postgres: Postgres) -> None:
    kinds = {"commit", "send"}
    assert not await played(postgres, "lookup-alone", kinds, How.SILENT)


async def test_a_worker_goes_on_after_the_answer_to_its_new_token_is_lost(
    postgres: Postgres,
) -> None:
    hows = (How.CUT_BEFORE, How.CUT_AFTER, How.CUT_LATE)
    assert not await played(postgres, "lookup-in-doubt", {"next"}, *hows)


async def test_a_host_appends_nothing_to_a_log_that_lacks_its_head(
    postgres: Postgres,
) -> None:
    scene = "lookup-goes-back-1"
    assert not await played(postgres, scene, {"commit"}, How.BACK_IDLE)


async def test_a_host_writes_nothing_after_its_take_was_lost(
    postgres: Postgres,
) -> None:
    scene = "lookup-goes-back-1-takes-over"
    assert not await played(postgres, scene, {"take"}, How.BACK_BESIDE)


async def test_a_shard_whose_hand_over_is_lost_goes_to_the_other_host(
    postgres: Postgres,
) -> None:
    scene = "lookup-shares-first"
    assert not await played(postgres, scene, {"free"}, How.CUT_BEFORE, most=2)


async def test_a_commit_of_a_dead_host_of_several_shards_is_never_stored_later(
    postgres: Postgres,
) -> None:
    scene = "lookup-shares-first"
    assert not await played(postgres, scene, {"commit"}, How.LATE, most=3)


def test_a_stop_that_is_not_reached_is_told(theatre: Theatre) -> None:
    stop = Stop("commit", 1_000, How.BEFORE)
    assert theatre.play(named("lookup-alone"), stop).missed


def test_the_command_says_that_its_time_was_too_short() -> None:
    words = ["--store", "postgresql", "--only", "lookup-client", "--seconds", "0.1"]
    assert main(["crash", *words, "--jobs", "1", "--json"]) == 3
