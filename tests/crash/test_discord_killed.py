"""The example bot on the FAKE of Discord, killed with SIGKILL in its work."""

from pathlib import Path

import pytest
from tests.fakes.killing import Play
from tests.fakes.killing_discord import Discord

SCRIPT = Path(__file__).parents[2] / "examples" / "discord" / "echo.py"
pytestmark = [pytest.mark.timeout(180), pytest.mark.case("T07", "Z09")]


@pytest.mark.parametrize(("seed", "faults"), [(1, 0.0), (2, 0.08)])
def test_a_killed_bot_answers_each_message_once(
    tmp_path: Path, seed: int, faults: float
) -> None:
    store = tmp_path / "bot.db"
    play = Play(Discord(), SCRIPT, store, "You said: {}".format, seed=seed)
    play.faults = faults
    played = play.run()
    assert (played.lost, played.doubled, played.parked) == (0, 0, 0), played
    assert (played.strays, played.marked) == (0, 0), played
    assert played.kills >= play.kills, played
