"""A day of a gateway in fast motion (`python -m turnfold_model day`), made short."""

import asyncio
import json

import pytest

from turnfold._decide import rules
from turnfold._runtime.sender import Sender
from turnfold.clock import Clock
from turnfold_model.__main__ import main
from turnfold_model.day import clocks
from turnfold_model.day.plan import HOUR, draw
from turnfold_model.testing import virtual_time
from turnfold_model.testing.clock import START_MS
from turnfold_model.testing.virtual_time import Machine, VirtualLoop


@pytest.mark.case("A01", "R04", "R05")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [3, 4])
def test_hours_in_which_everything_goes_wrong_lose_and_double_nothing(capsys, seed):
    words = ["day", "--json", f"--seed={seed}", "--turns=150", "--hours=1"]
    status = main(words)
    told = json.loads(capsys.readouterr().out)
    assert told["breaches"] == []
    assert status == 0
    assert (told["lost"], told["doubled"], told["audit"]) == (0, 0, True)
    assert told["parked"] == told["parked_blind"]
    assert told["restores"] == 1
    assert told["witness"] > 100
    assert told["strays"] < 10
    assert set(told["clocks"]["ahead by 48 h for a second"].values()) == {0, 41}


@pytest.mark.timeout(180)
def test_a_day_notices_what_is_taken_away(capsys, monkeypatch):
    """A part in doubt is sent again, whatever its class: by the decision, and right
    before the wire."""
    monkeypatch.setattr(rules, "resend_allowed", lambda *_: True)
    monkeypatch.setattr(rules, "key_window_open", lambda *_: True)
    assert main(["day", "--json", "--seed=3", "--turns=150", "--hours=1"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["audit"]
    assert any("INV-2" in text for text in told["breaches"])


def test_a_loop_that_works_while_its_time_stands_still_is_ended(monkeypatch):
    """Such a day never ends, and what swallows errors swallows a limit of time, too."""
    monkeypatch.setattr(virtual_time, "_TURNS", 1_000)

    async def spins():
        while True:
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        with pytest.raises(RuntimeError, match="stands still"):
            runner.run(spins())
        monkeypatch.undo()


def test_a_day_is_drawn_from_its_seed_alone():
    assert draw(1, 500, 50) == draw(1, 500, 50)
    assert draw(1, 500, 50) != draw(2, 500, 50)


def test_a_day_has_everything_in_it():
    plan = draw(1, 5_000, 50)
    assert len(plan.deaths) > 20
    assert len(plan.outages) == 30
    assert len(plan.jumps) > 10
    assert sum(death.restores for death in plan.deaths) == 1
    assert {outage.how for outage in plan.outages} == {
        "down",
        "failing",
        "slow",
        "auth",
    }
    assert all(jump.until - jump.at < HOUR / 4 for jump in plan.jumps)
    assert sum(update.poison for update in plan.updates) == 50
    moods = {update.mood for update in plan.updates}
    assert sum(update.live for update in plan.updates) > 2_000
    assert moods > {"raises", "broken", "hangs", "not_now", "never", "kills_itself"}


def played(tmp_path):
    async def play():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return await clocks.scenes(Machine(loop, START_MS), tmp_path)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return clocks.wrong_in(runner.run(play()))


@pytest.mark.case("R01", "R02", "R04", "U14")
def test_clocks_expire_double_and_park_nothing(tmp_path):
    assert played(tmp_path) == []


def trusts(clock, _):
    clock._known[-1].trusted = True
    return True


def test_the_scenes_notice_what_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(Sender, "_since", lambda self, *_: self._clock.wall_now())
    monkeypatch.setattr(Clock, "_trusts", trusts)
    monkeypatch.setattr(Clock, "_behind", lambda *_: 0)  # log time follows each step
    words = {line.split()[-2] for line in played(tmp_path)}
    assert words >= {"expired", "doubled"}
