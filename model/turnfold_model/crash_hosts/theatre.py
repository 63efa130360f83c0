"""The server of all plays, its tables, and the host that takes over in each."""

from __future__ import annotations

import itertools
import os
from typing import Final

import asyncpg

from turnfold.enums import DeliveryClass
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.crash_hosts import witness
from turnfold_model.crash_hosts.company import SHARDS, Company
from turnfold_model.crash_hosts.hosts import Host, Stop
from turnfold_model.crash_hosts.play import Play, Played
from turnfold_model.crash_hosts.scenes import TERMS, Scene, Stage
from turnfold_model.crash_hosts.together import Together
from turnfold_model.testing.platform import Platform

_SHARDS: Final = 256  # a play has one of its own; then come the shards of new tables
_names = itertools.count(1)


class Theatre:
    """A server with tables, and the host that takes over in each play. `server`: its
    address without a schema."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._address, self._next = "", _SHARDS
        self._new_judge()

    def _new_judge(self) -> None:
        self.judge = Host()
        self._root: PostgresStore | None = None
        self._admin: asyncpg.Connection | None = None

    def close(self) -> None:
        if self._admin is not None:
            self._admin.terminate()
        self.judge.end()

    def spoil(self) -> None:
        """After a play that broke: the next one has new tables and another host."""
        self._next = _SHARDS

    @property
    def means(self) -> tuple[PostgresStore, asyncpg.Connection]:
        """The judge's store, and a connection that nobody watches."""
        assert self._root is not None  # noqa: S101  `stage` comes first
        assert self._admin is not None  # noqa: S101  as above
        return self._root, self._admin

    # --- the stage -------------------------------------------------------------------

    def stage(self, scene: Scene) -> Stage:
        """A shard of its own. Hosts that share shards have tables of their own."""
        if self._next == _SHARDS or scene.shares:
            self._make_tables(SHARDS if scene.shares else _SHARDS)
        shard, self._next = self._next, self._next + 1
        keyed = scene.delivery is DeliveryClass.KEYED
        kind = Company if scene.shares else Stage
        if scene.shares:
            self.spoil()
        name = f"p{next(_names)}"
        return kind(scene, self._address, shard, name, Platform(keyed=keyed))

    def _make_tables(self, shards: int) -> None:
        self.close()
        self._new_judge()
        schema = f"crash_{os.getpid()}_{next(_names)}"
        self._address = f"{self._server}&schema={schema}&shards={shards}&{TERMS}"
        self._next = 0
        self.judge.do(self._opened(schema))

    async def _opened(self, schema: str) -> None:
        self._root = self.judge.store(self._address)
        await self._root.open()
        settings = {"search_path": schema}
        dsn = self._root._place.dsn  # noqa: SLF001  the model looks inside
        self._admin = await self.judge.answered(
            lambda: asyncpg.connect(dsn, server_settings=settings)
        )
        await self._admin.execute(witness.TRIGGERS)

    # --- one play --------------------------------------------------------------------

    def play(self, scene: Scene, stop: Stop | None, proof: str = "gone") -> Played:
        with self._play(scene, stop, proof) as play:
            return play.run()

    def profile(self, scene: Scene) -> dict[str, int]:
        """How often the host under search sends each statement if nothing happens."""
        with self._play(scene, None, "gone") as play:
            broken = play.run().broken
            assert not broken, broken  # noqa: S101  a search begins with a healthy play
            return dict(play.host.reached)

    def _play(self, scene: Scene, stop: Stop | None, proof: str) -> Play:
        stage = self.stage(scene)
        if isinstance(stage, Company):
            return Together(self, stage, stop, proof)
        return Play(self, stage, stop, proof)
