"""The example bot on a real Synapse, killed with SIGKILL in its work."""

from pathlib import Path

import pytest
from tests.fakes.killing import Play

from .killing_matrix import Matrix
from .synapse import Synapse

SCRIPT = Path(__file__).parents[2] / "examples" / "matrix" / "echo.py"


@pytest.mark.timeout(300, func_only=True)
@pytest.mark.case("T07", "Z09")
def test_a_killed_bot_answers_each_message_once(
    tmp_path: Path, synapse: Synapse
) -> None:
    store = tmp_path / "bot.db"
    platform = Matrix(synapse)
    play = Play(platform, SCRIPT, store, "You said: {}".format, seed=1, faults=0.08)
    play.messages, play.kills = 16, 4
    played = play.run()
    assert (played.lost, played.doubled, played.parked) == (0, 0, 0), played
    assert (played.strays, played.marked) == (0, 0), played
    assert played.kills >= play.kills, played
