"""Real servers. Without the network to install them the tests skip, and say so; with
`TURNFOLD_REAL=required` (as in CI) they fail instead."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from turnfold_adapters.channels.matrix import MatrixChannel

from .cutting_proxy import CuttingProxy
from .emulate import Emulate, emulate_program, running
from .matrix_scene import MakeChannel
from .postgres import Postgres, in_memory
from .synapse import CannotInstallError, Synapse, User, synapse_python

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs a server installs and starts it, which may take
    minutes. The time of a test counts from then on."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


class _ByServer(LoadScopeScheduling):
    """With `-n 2`: all tests with Synapse go to one process, which starts it once; the
    others go file by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        with_synapse = "test_matrix_" in file or "test_channel_page" in file
        return "synapse" if with_synapse else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByServer:
    return _ByServer(config, log)


@pytest.fixture(scope="session")
def synapse() -> Iterator[Synapse]:
    """A running homeserver with the users bot, alice and root (an admin)."""
    try:
        python = synapse_python()
    except CannotInstallError as exc:
        if os.environ.get("TURNFOLD_REAL") == "required":
            raise
        pytest.skip(f"matrix-synapse cannot be installed here: {exc}")
    with in_memory() as folder:
        server = Synapse(folder / "synapse", python)
        try:
            server.start()
            for name in ("bot", "alice"):
                server.register(name)
            server.register("root", admin=True)
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulate]:
    """A running Slack server of `emulate`."""
    try:
        emulate_program()
    except CannotInstallError as exc:
        if os.environ.get("TURNFOLD_REAL") == "required":
            raise
        pytest.skip(f"no Node here, or no `emulate` for it: {exc}")
    with running(tmp_path_factory.mktemp("emulate")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    with in_memory() as folder:
        server = Postgres(folder / "pg")
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def alice(synapse: Synapse) -> User:
    return synapse.login("alice", "ALICE")


@pytest.fixture(scope="session")
def bot(synapse: Synapse) -> User:
    """The bot's own session. Its token is what a channel (or a subprocess) gets."""
    return synapse.login("bot", "BOT")


@pytest.fixture(scope="session")
def root(synapse: Synapse) -> User:
    return synapse.login("root", "ROOT")


@pytest.fixture
def room_id(alice: User, bot: User) -> Iterator[str]:
    """A fresh room with alice and the bot in it."""
    room = alice.create_room(bot.user_id)
    bot.join(room)
    yield room
    bot.leave_all()


@pytest.fixture
async def proxy(synapse: Synapse) -> AsyncIterator[CuttingProxy]:
    """A lossy way to the homeserver."""
    async with CuttingProxy(synapse.port) as between:
        yield between


@pytest.fixture
async def make_channel(synapse: Synapse, bot: User) -> AsyncIterator[MakeChannel]:
    """Makes channels of the bot (or `user=`), straight to the server or through a
    given address, and closes them."""
    made: list[MatrixChannel] = []

    def make(base_url: str = "", *, user: User = bot, **more: Any) -> MatrixChannel:
        login = {"device_id": user.device_id, "token": user.token, **more}
        channel = MatrixChannel(
            base_url or synapse.base_url, user_id=user.user_id, **login
        )
        made.append(channel)
        return channel

    yield make
    for channel in made:
        await channel.aclose()
