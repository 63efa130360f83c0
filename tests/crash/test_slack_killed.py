"""Example bots on the FAKE Slack, killed with SIGKILL in their work."""

from pathlib import Path

import pytest
from tests.fakes.killing import Play
from tests.fakes.killing_slack import Slack

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.timeout(180), pytest.mark.case("T07", "Z09")]
RUNS = [("slack/echo.py", 1, 0.0), ("bolt/bot.py", 2, 0.08)]


@pytest.mark.parametrize(("script", "seed", "faults"), RUNS)
def test_a_killed_bot_answers_each_message_once(
    tmp_path: Path, script: str, seed: int, faults: float
) -> None:
    store = tmp_path / "bot.db"
    play = Play(Slack(), EXAMPLES / script, store, "You said: {}".format, seed=seed)
    play.faults = faults
    played = play.run()
    assert (played.lost, played.doubled) == (0, 0), played
    assert (played.parked, played.strays) == (0, 0), played
    assert played.kills >= play.kills, played


class Mentioned(Slack):
    """Each message names the bot, so Slack tells it twice, in events that differ."""

    def says(self, chat: int, text: str) -> None:
        said = {"client_msg_id": text, "channel_type": "channel"}
        ts = self.slack.says(f"C{chat}", text, **said)
        event = {"type": "app_mention", "channel": f"C{chat}", "user": "U0ANN"}
        self.slack.tell({**event, "ts": ts, "text": text, "client_msg_id": text})


@pytest.mark.case("H02")
def test_a_kill_between_both_events_of_a_mention_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    script, store = EXAMPLES / "slack" / "echo.py", tmp_path / "bot.db"
    play = Play(Mentioned(), script, store, "You said: {}".format, seed=3)
    played = play.run()
    assert (played.lost, played.doubled, played.parked) == (0, 0, 0), played
