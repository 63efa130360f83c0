"""The twin of `specs/Turn.tla`, by hand, action by action."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

MODULE: Final = "Turn"
OVER: Final = frozenset({"completed", "failed", "aborted"})
DONE: Final = frozenset({"delivered", "failed", "aborted"})
ACTIONS: Final = frozenset(
    [
        "Accepted",
        "Started",
        "Computed",
        "Answered",
        "Stale",
        "RunFailed",
        "Released",
        "Orphaned",
        "GaveUp",
        "FinalDelivered",
        "FinalFailed",
        "FinalDoubted",
        "Amended",
        "AbortRequested",
        "Aborted",
        "Crash",
        "Sleeps",
        "Wakes",
        "TakesOver",
    ]
)


class Worker(NamedTuple):
    """What the module keeps per worker."""

    life: str = "dead"
    epoch: int = 0
    job: int = 0
    ready: bool = False


class Turn(NamedTuple):
    """The variables of the module."""

    left: int
    workers: tuple[Worker, Worker] = (Worker("awake", 1), Worker())
    turns: int = 0
    turn: str = "none"
    outcome: str = "none"
    runs: int = 0
    failed: int = 0
    fence: int = 1
    final: str = "none"
    abort: bool = False
    notices: int = 0

    def put(self, index: int, worker: Worker) -> "Turn":
        """The same with one worker changed."""
        one, two = self.workers
        pair = (worker, two) if index == 0 else (one, worker)
        return self._replace(workers=pair)

    def spent(self) -> "Turn":
        """The same after something went wrong."""
        return self._replace(left=self.left - 1)

    def owner(self, worker: Worker) -> bool:
        """May this worker append?"""
        return worker.life == "awake" and worker.epoch == self.fence

    def mine(self, worker: Worker) -> bool:
        """Does this worker execute the run that counts?"""
        running = self.turn == "running" and worker.job == self.runs
        return self.owner(worker) and running


Constants = Mapping[str, Any]
Steps = Iterator[tuple[str, Turn]]


def start(constants: Constants) -> Turn:
    """`Init`."""
    return Turn(left=constants["Faults"])


def steps(constants: Constants, s: Turn) -> Steps:
    """`Next`."""
    if s.turns == 0:
        yield "Accepted", s._replace(turns=1, turn="accepted")
    for index, worker in enumerate(s.workers):
        yield from _owned(constants, s, index, worker)
        yield from _running(s, index, worker)
        yield from _living(constants, s, index, worker)
    yield from _ends(constants, s)


def _owned(constants: Constants, s: Turn, index: int, worker: Worker) -> Steps:
    """What only the holder of the fence may append, without a run of its own."""
    if not s.owner(worker):
        return
    if s.turn == "accepted":
        more = s.failed < constants["Runs"]
        if more and not s.abort and worker.job == 0:
            begun = s._replace(turn="running", runs=s.runs + 1)
            yield "Started", begun.put(index, worker._replace(job=s.runs + 1))
        if not more:
            told = s._replace(turn="failed", outcome="failed", notices=s.notices + 1)
            yield "GaveUp", told
    if s.turn == "running" and worker.job != s.runs:
        yield "Orphaned", s._replace(turn="accepted", failed=s.failed + 1)


def _running(s: Turn, index: int, worker: Worker) -> Steps:
    if worker.life != "awake" or worker.job == 0:
        return
    idle = s.put(index, worker._replace(job=0, ready=False))
    if not worker.ready:
        yield "Computed", s.put(index, worker._replace(ready=True))
    elif s.mine(worker):
        yield "Answered", idle._replace(turn="answered", final="open")
    else:
        yield "Stale", idle
    if s.mine(worker) and not worker.ready and s.left:
        failed = idle.spent()._replace(turn="accepted", failed=s.failed + 1)
        yield "RunFailed", failed
        yield "Released", idle.spent()._replace(turn="accepted")


def _living(constants: Constants, s: Turn, index: int, worker: Worker) -> Steps:
    if worker.life == "asleep":
        yield "Wakes", s.put(index, worker._replace(life="awake"))
    if worker.life == "awake" and s.left:
        yield "Sleeps", s.put(index, worker._replace(life="asleep")).spent()
    if worker.life != "dead" and s.left:
        dead = Worker("dead", worker.epoch)
        yield "Crash", s.put(index, dead).spent()
    free = all(
        w.life == "dead"
        or w.epoch != s.fence
        or (not constants["Locked"] and w.life == "asleep")
        for w in s.workers
    )
    if worker.life == "dead" and free:
        fence = s.fence + 1
        came = worker._replace(life="awake", epoch=fence)
        yield "TakesOver", s.put(index, came)._replace(fence=fence)


def _ends(constants: Constants, s: Turn) -> Steps:
    replied = s._replace(final="delivered", turn="completed", outcome="replied")
    if s.turn == "answered":
        yield "FinalDelivered", replied
        failed = s._replace(final="failed", turn="failed", outcome="failed")
        yield "FinalFailed", failed._replace(notices=s.notices + 1)
        if constants["Doubtful"] and s.final == "open":
            yield "FinalDoubted", s._replace(final="doubt")
    if constants["Doubtful"] and s.turn == "failed" and s.final == "failed":
        yield "Amended", replied
    if s.turn in ("accepted", "running", "answered") and not s.abort:
        yield "AbortRequested", s._replace(abort=True)
    if s.abort:
        aborted = s._replace(turn="aborted", outcome="aborted")
        if s.turn in ("accepted", "running"):
            yield "Aborted", aborted
        elif s.turn == "answered" and s.final == "open":
            yield "Aborted", aborted._replace(final="aborted")


def wrong(constants: Constants, s: Turn) -> str:
    """The first safety property that does not hold, or nothing."""
    del constants
    holds = {
        "OneTurn": s.turns < 2,
        "OwedNothing": s.turn not in OVER or s.final in DONE | {"none"},
        "Follows": (s.outcome == "replied") == (s.turn == "completed")
        and (s.turn == "completed") == (s.final == "delivered")
        and (s.turn != "answered" or s.final in ("open", "doubt")),
        "NoticedOnce": s.notices < 2,
        "Fenced": all(w.epoch <= s.fence for w in s.workers),
        "OneRun": sum(map(s.mine, s.workers)) < 2,
    }
    return next((name for name, held in holds.items() if not held), "")
