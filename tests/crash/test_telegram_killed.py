"""Example bots on the FAKE Bot API, killed with SIGKILL in their work."""

from pathlib import Path

import pytest
from tests.fakes.killing import BotEndedError, Play
from tests.fakes.killing_telegram import Telegram

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.timeout(180), pytest.mark.case("T07", "Z09")]


@pytest.mark.parametrize(("seed", "faults"), [(1, 0.0), (2, 0.08)])
def test_a_killed_bot_answers_each_message_once(
    tmp_path: Path, seed: int, faults: float
) -> None:
    script = EXAMPLES / "telegram" / "echo.py"
    play = Play(
        Telegram(), script, tmp_path / "bot.db", "You said: {}".format, seed=seed
    )
    play.faults = faults
    played = play.run()
    assert (played.lost, played.doubled) == (0, 0), played
    assert played.parked <= 1, played  # three deaths on one message
    assert played.kills >= play.kills, played
    assert played.strays <= played.kills + 24 * faults, played


@pytest.mark.parametrize("seed", [3])
def test_a_killed_application_of_python_telegram_bot_answers_each_message_once(
    tmp_path: Path, seed: int
) -> None:
    script = EXAMPLES / "ptb" / "bot.py"
    play = Play(
        Telegram(), script, tmp_path / "bot.db", "You said: {}".format, seed=seed
    )
    played = play.run()
    assert (played.lost, played.doubled) == (0, 0), played
    assert played.parked <= 1, played  # three deaths on one message
    assert played.kills >= play.kills, played
    assert played.strays <= played.kills, played


@pytest.mark.parametrize("kills", [0, 6])
def test_a_bot_that_ends_at_its_start_is_told_with_its_last_lines(
    tmp_path: Path, kills: int
) -> None:
    script = tmp_path / "bot.py"
    script.write_text("raise ValueError('no such token')")
    play = Play(Telegram(), script, tmp_path / "bot.db", str, kills=kills)
    with pytest.raises(BotEndedError, match=r"code 1:[^$]*no such token"):
        play.run()
