"""An example bot that writes to the server of `emulate`, killed with SIGKILL in its work.
That server has no Socket Mode: the events come from our fake, which passes every call of
the Web API on."""

import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.fakes.fake_slack import APP_TOKEN, FakeSlack, Fault, Message, _cut
from tests.fakes.killing import CHATS, Play
from tests.fakes.killing_slack import Slack

from .emulate import ALICE, BOT, Emulate

EXAMPLES = Path(__file__).parents[2] / "examples"


class PassingOn(FakeSlack):
    """Socket Mode of the fake, messages of the real server."""

    def __init__(self, server: Emulate) -> None:
        super().__init__()
        self.server = server
        self.rooms = {f"C{n}": server.room() for n in range(1, CHATS + 1)}

    def says(self, channel: str, text: str, user: str = "U0ANN", **more: str) -> str:
        return super().says(self.rooms[channel], text, user, **more)

    def own(self, channel: str | None = None) -> list[Message]:
        return [
            Message(room, shown["ts"], shown["user"], shown["text"])
            for room in self.rooms.values()
            for shown in self.server.shown(room)
        ]

    async def _method(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if method == "apps.connections.open":
            assert APP_TOKEN in request.headers["Authorization"]
            return await super()._method(request)
        body = await request.read()
        fault = self._take_fault(method)
        self.calls.append((method, {}))
        if fault is Fault.RATE_LIMITED:
            return self._limited()
        url = f"http://127.0.0.1:{self.server.port}/api/{method}"
        head = {"Authorization": f"Bearer {BOT}"}
        head["Content-Type"] = request.headers.get("Content-Type", "")
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=head) as answer,
        ):
            said = await answer.read()
        if fault is Fault.CUT_AFTER:
            return _cut(request)
        return web.json_response(json.loads(said))


@pytest.mark.timeout(240, func_only=True)
@pytest.mark.case("T07", "Z09")
@pytest.mark.parametrize(("script", "faults"), [("slack/echo.py", 0.08)])
def test_a_killed_bot_answers_each_message_once(
    tmp_path: Path, script: str, faults: float, emulate: Emulate
) -> None:
    slack = PassingOn(emulate)
    store = tmp_path / "bot.db"
    answer = "You said: {}".format
    play = Play(Slack(slack), EXAMPLES / script, store, answer, seed=5, faults=faults)
    played = play.run()
    assert (played.lost, played.doubled) == (0, 0), played
    assert (played.parked, played.strays) == (0, 0), played
    assert played.kills >= play.kills, played
    assert emulate.ask(ALICE, "auth.test")["ok"]
