"""One play: a host is stopped at one statement, and others go on after it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, Protocol, Self

import asyncpg
from attrs import frozen

from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.crash_hosts import scenes, witness
from turnfold_model.crash_hosts.failover import Standby
from turnfold_model.crash_hosts.hosts import DEATHS, SLEEPS, Host, How, Stop
from turnfold_model.crash_hosts.scenes import MAX_PAUSE_MS, Stage

_GONE = 2**22 + 1  # no process id
_SILENT_S = (MAX_PAUSE_MS + 3_600_000) / 1000
PROOFS: Final = ("gone", "person", "silence")
_BACK: Final = "UPDATE worker SET lease_until = lease_until - make_interval(secs => {})"
_THOSE: Final = " WHERE id = ANY ($1) AND state = 'alive'"
_SAY: Final = {
    "gone": f"UPDATE worker SET pid = {_GONE}{_THOSE}",
    "person": f"UPDATE worker SET state = 'dead', certified_by = 'a person'{_THOSE}",
    "silence": f"{_BACK.format(_SILENT_S)}{_THOSE}",
    "over": f"{_BACK.format(scenes.LEASE_MS / 1000 + 1)}{_THOSE}",
}


@frozen
class Played:
    """`missed`: its statement was not reached."""

    broken: tuple[str, ...]
    missed: bool


class Means(Protocol):
    """What all plays have: the host that takes over in each, a store of its own, and a
    connection that nobody watches (`theatre.Theatre`)."""

    judge: Host

    @property
    def means(self) -> tuple[PostgresStore, asyncpg.Connection]:
        """The judge's store, and the connection."""

    def spoil(self) -> None:
        """The next play has new tables and another judge."""


class Play:
    """`host`: the one under search."""

    def __init__(
        self, theatre: Means, stage: Stage, stop: Stop | None, proof: str
    ) -> None:
        self._theatre, self._stage, self._proof = theatre, stage, proof
        self._judge, self._how = theatre.judge, stop.how if stop else None
        self._root, self._admin = theatre.means
        self._proven: dict[str, str] = {}
        self._hosts = [self._judge]
        self._broken: list[str] = []
        self.host = self._made(stop, stage.scene.cut)
        if stage.scene.lag is not None:
            Standby(stage, self.host, self._hosts, stage.scene.lag)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._judge.timeline = ""
        for host in self._hosts[1:]:
            host.end()

    def _made(self, stop: Stop | None, cut: Stop | None = None) -> Host:
        host = Host(stop, max(host.loop.now_s for host in self._hosts), cut)
        self._hosts.append(host)
        return host

    def run(self) -> Played:
        try:
            missed = not self._plays()
            self._broken += self._verdict()
        except Exception as exc:  # noqa: BLE001  whatever breaks a play is a finding
            self._broken.append(f"the play ended: {type(exc).__name__}: {exc}")
            self._theatre.spoil()
            missed = False
        return Played(tuple(dict.fromkeys(self._broken)), missed)

    def _plays(self) -> bool:
        """True if the host was stopped."""
        scene, host = self._stage.scene, self.host
        if scene.before is not None:
            self._dies_before(scene.before)
        if scene.client:
            self._judge.begin(self._works(stands=True))
            self._judge.run()
        host.begin(scenes.lives(self._stage, host))
        if host.run():
            host.do(host.land_cut())
            self._prove(host, self._proof)
        elif self._how in DEATHS:
            self._dies()
            return True
        elif self._how in SLEEPS:
            self._sleeps()
        else:
            self._goes_on_beside()
        self._takes_over()
        return host.stopped

    def _dies_before(self, stop: Stop) -> None:
        first = self._made(stop)
        first.begin(scenes.lives(self._stage, first))
        assert not first.run()  # noqa: S101  it is stopped
        first.die()
        self._prove(first, "gone")
        self.host.loop.now_s = first.loop.now_s

    def _dies(self) -> None:
        host = self.host
        if self._how is not How.LATE:
            host.die()
        self._prove(host, self._proof)
        self._judge.hold = "take" if self._how is How.LATE else ""
        self._takes_over()
        self._judge.hold = ""
        if self._how is How.LATE and not host.landed:  # nobody had to take the shard
            host.land()
            self._takes_over()

    def _sleeps(self) -> None:
        host = self.host
        if self._how is How.PAUSED:
            self._prove(host, "silence")
            self._takes_over()
        else:
            self._say("over", host)
            owns = self._owns(host)
            work = scenes.stands_by(self._stage, self._judge, self._root)
            if self._judges(work) and owns:
                self._broken.append("a host may still live, and another one works")
        self._wake(host)
        host.run()
        host.die()
        self._prove(host, "gone")

    def _wake(self, host: Host) -> None:
        """It goes on after its lease was over."""
        host.woke = True
        for store in host.stores:
            store._shared.life._until = 0.0  # noqa: SLF001  its own clock knows
        host.go_on(max(host.loop.now_s for host in self._hosts))

    def _goes_on_beside(self) -> None:
        """The server went back, and another host begins where this one worked."""
        self._judge.loop.now_s = self.host.loop.now_s
        self._judge.begin(self._works(stands=True))
        self._judge.run()
        self.host.go_on(self._judge.loop.now_s)
        self.host.run()
        self._prove(self.host, self._proof)

    def _prove(self, host: Host, how: str) -> None:
        self._proven |= dict.fromkeys(host.lives, how)
        self._say(how, host)

    def _say(self, what: str, host: Host) -> None:
        if host.lives:
            sql, lives = _SAY[what], [*host.lives]
            self._judge.do(
                self._judge.answered(lambda: self._admin.execute(sql, lives))
            )

    def _owns(self, host: Host) -> bool:
        """Does the shard belong to this host, which nobody has called dead?"""
        sql = (
            "SELECT owner FROM shard WHERE shard = $1 AND freed IS DISTINCT FROM token"
        )
        ask = lambda: self._admin.fetchval(sql, self._stage.shard)  # noqa: E731
        return self._judge.do(self._judge.answered(ask)) in host.lives

    def _takes_over(self) -> None:
        """Another host ends all work. In a scene with a client it works already."""
        judge = self._judge
        if not judge.stands:
            judge.loop.now_s = max(host.loop.now_s for host in self._hosts)
            judge.begin(self._works())
        else:
            judge.go_on(self.host.loop.now_s)
        while not judge.run():
            self.host.land()
            judge.go_on(self.host.loop.now_s)

    def _works(self, *, stands: bool = False) -> Coroutine[Any, Any, None]:
        return scenes.works(self._stage, self._judge, self._root, stands=stands)

    def _judges(self, work: Coroutine[Any, Any, Any]) -> Any:
        self._judge.loop.now_s = max(host.loop.now_s for host in self._hosts)
        return self._judge.do(work)

    def _verdict(self) -> list[str]:
        backends = {pid: host.lives for host in self._hosts for pid in host.backends}
        mine = (self._stage, self._root, self._admin)
        work = witness.broken(
            *mine, self._proven, backends, self._how, self.host.backends
        )
        return list(self._judges(work))
