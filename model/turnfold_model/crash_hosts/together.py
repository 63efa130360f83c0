"""One play of two hosts that share the shards (`company`): the director's side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from turnfold_model.crash_hosts import company
from turnfold_model.crash_hosts.company import FIRST, SECOND, SHARDS, THIRD, Company
from turnfold_model.crash_hosts.hosts import DEATHS, Host, How, Stop
from turnfold_model.crash_hosts.play import Means, Play

_SLICE_S: Final = 0.25
_MOST_S: Final = 60.0  # of any phase
_BESIDE_S: Final = 2.0
_ALONE_S: Final = 15.0  # in which the other host takes what a dead one had
_HAS: Final = """
SELECT shard FROM shard WHERE owner = ANY ($1::text[]) AND freed IS DISTINCT FROM token
"""


class Together(Play):
    """`_by`: the hosts that have begun, by their roles."""

    def __init__(
        self, theatre: Means, stage: Company, stop: Stop | None, proof: str
    ) -> None:
        super().__init__(theatre, stage, stop, proof)
        self._company, self._now = stage, self.host.loop.now_s
        self._by: dict[str, Host] = {}
        self._met = self._landed = False  # its stop; its late statement
        for host in (self._judge, self.host):
            host.deaf = True

    def _plays(self) -> bool:
        self._begin(FIRST)
        self._until("the first host settles", lambda: self._is_settled(FIRST))
        self._begin(SECOND)
        self._until("the second host settles", lambda: self._is_settled(SECOND))
        self._run(_BESIDE_S)
        self._leave(SECOND)
        if not self._is_over(FIRST):
            first = self._by[FIRST]
            has_all = lambda: (  # noqa: E731  two words
                self._is_over(FIRST) or len(self._has(first)) == SHARDS
            )
            self._until("who stays has all", has_all)
        self._leave(FIRST)
        self._third()
        return self.host.stopped

    def _begin(self, role: str) -> None:
        if role in self._by:
            return
        mine = role == self._stage.scene.shares
        host = self._by[role] = self.host if mine else self._made(None)
        host.deaf, host.loop.now_s = True, self._now
        host.begin(company.lives(self._company, host, role))

    def _leave(self, role: str) -> None:
        self._company.leaves.add(role)
        self._until(f"the {role} host ends", lambda: self._is_over(role))
        if not self._by[role].dead:
            self._prove(self._by[role], self._proof)

    def _third(self) -> None:
        """All is settled at last, whatever has happened."""
        self._land()
        self._company.leaves.add(THIRD)
        judge = self._judge
        judge.loop.now_s = self._now
        judge.do(company.lives(self._company, judge, THIRD))

    # --- time ------------------------------------------------------------------------

    def _until(self, what: str, met: Callable[[], bool]) -> None:
        end = self._now + _MOST_S
        while not met() and self._now < end:
            self._slice()
        if not met():
            self._broken.append(f"O8 {what}: not in {_MOST_S:.0f} s")

    def _run(self, seconds: float) -> None:
        end = self._now + seconds
        while self._now < end:
            self._slice()

    def _slice(self) -> None:
        """All hosts that run do so until the same time."""
        self._now += _SLICE_S
        for host in [*self._by.values()]:
            if host.dead or host.stands or host.done:
                continue
            host.run_until(self._now)
            if host.stands and host is not self.host:
                self._after_a_take(host)
            if host is self.host and host.stopped and not self._met:
                self._met = True
                self._is_stopped()

    # --- the host under search ---------------------------------------------------------

    def _is_stopped(self) -> None:
        host = self.host
        if not host.stands:
            return  # it lost a connection, and runs on
        if self._how in DEATHS:
            self._company.leaves.add(self._stage.scene.shares)
            if self._how is not How.LATE:
                host.die()
            host.dead = True
            self._prove(host, self._proof)
            self._other().hold = "take" if self._how is How.LATE else ""
        else:
            self._sleeps_beside()

    def _sleeps_beside(self) -> None:
        host = self.host
        self._other()
        if self._how is How.PAUSED:
            self._prove(host, "silence")
            self._run(_ALONE_S)
        else:
            self._say("over", host)
            mine = self._has(host)
            self._run(_BESIDE_S)
            if mine - self._has(host):
                self._broken.append("a host may still live, and its shards are taken")
        self._wake(host)

    def _other(self) -> Host:
        other = SECOND if self._stage.scene.shares == FIRST else FIRST
        self._begin(other)
        return self._by[other]

    def _after_a_take(self, other: Host) -> None:
        """The statement of a dead host runs as soon as another one has its shard."""
        if self._landed or self.host.late_shards & self._has(self.host):
            other.hold = "take"
        else:
            self._land()
        other.go_on(self._now)

    def _land(self) -> None:
        if self._how is How.LATE and self.host.stopped and not self._landed:
            self._landed = True
            self.host.land()
            self._prove(self.host, self._proof)  # also a life that was registered late

    # --- what is so --------------------------------------------------------------------

    def _is_over(self, role: str) -> bool:
        host = self._by[role]
        return host.dead or host.done

    def _is_settled(self, role: str) -> bool:
        return role in self._company.settled or self._is_over(role)

    def _has(self, host: Host) -> set[int]:
        """The shards of this host."""
        ask = lambda: self._admin.fetch(_HAS, [*host.lives])  # noqa: E731
        return {row[0] for row in self._judge.do(self._judge.answered(ask))}
