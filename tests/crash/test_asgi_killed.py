"""The example of the bridge to ASGI, served by uvicorn and killed with SIGKILL."""

from pathlib import Path

import pytest
from tests.fakes.killing import Play
from tests.fakes.killing_asgi import Shop

SCRIPT = Path(__file__).parents[2] / "examples" / "asgi" / "orders.py"


@pytest.mark.timeout(180)
@pytest.mark.case("T07", "Z09")
def test_each_order_is_confirmed_once_though_the_server_is_killed(
    tmp_path: Path,
) -> None:
    answer = "You said: {}".format
    play = Play(Shop(), SCRIPT, tmp_path / "shop.db", answer, seed=1, faults=0.08)
    played = play.run()
    assert (played.lost, played.doubled, played.parked) == (0, 0, 0), played
    assert played.kills >= play.kills, played
