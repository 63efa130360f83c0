"""The turns of one lane as a behaviour of `specs/Busy.tla`; see `trace_entry`.

A turn has the number of its message, in the order in which they came. A commit in which a message
stops older turns is one step, and so is one that drops its message. A turn that is to be
stopped while it runs is over for the module. A pause, and what a run has read, are in no log.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from turnfold_model.edge_walks.edges import Edge
from turnfold_model.reference.kinds import Record
from turnfold_model.tla.trace import OutsideError, Step, Trace

MODULE: Final = "Busy"
SILENT: Final = frozenset({"PauseEnds", "Stale", "Crash", "SaidBefore"})
ACTIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "queued": frozenset({"Queued"}),
        "joined": frozenset({"Joined"}),
        "superseded": frozenset({"Superseded"}),
        "dropped": frozenset({"Dropped"}),
        "started": frozenset({"Started"}),
        "said": frozenset({"Said"}),
        "answered": frozenset({"Answered", "AnsweredLater"}),
        "orphaned": frozenset({"Orphaned"}),
        "left_open": frozenset({"LeftOpen"}),
        "time_is_up": frozenset({"TimeIsUp"}),
        "lane_aborted": frozenset({"LaneAborted"}),
    }
)
TROUBLE: Final = frozenset({"orphaned", "lane_aborted"})
_STILL: Final = frozenset(
    {"step_started", "step_done", "completed", "amended", "redacted"}
)
_TURNS_OWN: Final = frozenset({"final", "notice"})  # no send of its handler
_TO: Final = MappingProxyType(
    {"started": "running", "answered": "answered", "left_open": "open"}
)


class Log(NamedTuple):
    """The module's variables, as far as a log tells them."""

    of: tuple[int, ...]
    phase: tuple[str, ...]
    begun: tuple[bool, ...]
    sends: tuple[int, ...]
    finals: tuple[int, ...]
    newest: int = 0


def lanes(known: Iterable[tuple[Edge, Record]]) -> Iterable[list[tuple[Edge, Record]]]:
    """The events of each lane of turns, with the first event of what they have sent."""
    found: dict[str, list[tuple[Edge, Record]]] = {}
    lane_of: dict[str, str] = {}
    for edge, event in known:
        data = event["data"]
        if edge.machine == "turn":
            lane = lane_of.setdefault(str(event["stream"]), str(data.get("lane")))
            found.setdefault(lane, []).append((edge, event))
        elif edge.event == "queued" and (of_turn := data.get("turn")) in lane_of:
            found[lane_of[of_turn]].append((edge, event))
    return found.values()


def project(events: Sequence[tuple[Edge, Record]]) -> Trace:
    """The trace of one lane: the events of its turns, and the first event of what they have
    sent. Raises OutsideError."""
    lane = _Lane(sum(edge.event in ("accepted", "joined") for edge, _ in events))
    dropped = {e["position"] for edge, e in events if edge.event == "aborted"}
    for edge, event in events:
        if edge.event == "accepted" and event["position"] in dropped:
            lane.drops = True
        lane.take(edge, event)
    lane.end_stops()
    return Trace(MODULE, (("Messages", lane.size),), tuple(lane.steps))


class _Lane:
    """`stopped`: turns that are over since the last step. `drops`: the next message is."""

    def __init__(self, size: int) -> None:
        self.size, self.steps, self.drops = size, list[Step](), False
        self._came, self._number, self._keys = 0, dict[str, int](), dict[int, str]()
        self._stopped: dict[int, str] = {}
        none = (0,) * size
        self._log = Log(none, ("none",) * size, (False,) * size, none, none)

    def take(self, edge: Edge, event: Record) -> None:
        stream, name, data = str(event["stream"]), edge.event, event["data"]
        if edge.machine == "outbox":
            self._said(self._number[str(data["turn"])], data)
            return
        if name == "accepted":
            self._accepted(stream)
            return
        turn = self._number.get(stream, 0)
        if not turn:
            raise OutsideError(name)  # it came as something that nobody could read
        if name in ("abort_requested", "aborted"):
            self._stop(turn, str(data.get("reason") or data.get("outcome")))
            return
        self.end_stops()
        if name == "joined":
            self._came += 1
            self._step("joined", of=_at(self._log.of, self._came, turn))
        elif name not in _STILL:
            self._moved(turn, name, data)

    def _accepted(self, stream: str) -> None:
        if "superseded" not in self._stopped.values():
            self.end_stops()
        self._came += 1
        me = self._number[stream] = self._came
        stopped, self._stopped = self._stopped, {}
        phase = self._phases(stopped)
        more: dict[str, Any] = {"newest": me} if stopped else {}
        word = "superseded" if stopped else "queued"
        if self.drops:
            word = "dropped"
        phase = _at(phase, me, "aborted" if self.drops else "accepted")
        self._step(word, of=_at(self._log.of, me, me), phase=phase, **more)
        self.drops = False

    def _stop(self, turn: int, why: str) -> None:
        """The commit of a newer message, or of a person, stops several turns."""
        if self._log.phase[turn - 1] in ("accepted", "running"):
            self._stopped[turn] = why

    def end_stops(self) -> None:
        """A person has stopped all that waited: the module knows no other stop."""
        if not self._stopped:
            return
        phases = enumerate(self._log.phase, 1)
        waiting = {n for n, phase in phases if phase in ("accepted", "running")}
        if set(self._stopped) != waiting:
            why = "a stop of one turn of several"
            raise OutsideError(why)
        stopped, self._stopped = self._stopped, {}
        self._step("lane_aborted", phase=self._phases(stopped))

    def _moved(self, turn: int, name: str, data: Record) -> None:
        phase, log = self._log.phase[turn - 1], self._log
        if name == "failed" and phase == "answered":
            return  # its answer was not delivered: of the outbox
        more: dict[str, Any] = {}
        if name == "failed" and phase == "open":
            name, to = "time_is_up", "failed"
        elif name == "released" and data["reason"] == "owner_died":
            name, to = "orphaned", "accepted"
        elif name in _TO:
            to = _TO[name]
        else:
            raise OutsideError(name)
        if name == "started":
            more["begun"] = _at(log.begun, turn, value=True)
        if name == "answered":
            more["finals"] = _at(log.finals, turn, log.finals[turn - 1] + 1)
        self._step(name, phase=_at(log.phase, turn, to), **more)

    def _said(self, turn: int, data: Record) -> None:
        """A send with a key over all runs; the module has one key."""
        key = data.get("key")
        if data.get("run") is not None or data["kind"] in _TURNS_OWN or key is None:
            return
        if self._keys.setdefault(turn, key) == key:
            self.end_stops()
            sends = self._log.sends
            self._step("said", sends=_at(sends, turn, sends[turn - 1] + 1))

    def _phases(self, stopped: Iterable[int]) -> tuple[str, ...]:
        over = set(stopped)
        phases = enumerate(self._log.phase, 1)
        return tuple("aborted" if n in over else phase for n, phase in phases)

    def _step(self, word: str, **changes: Any) -> None:
        self._log = self._log._replace(**changes)
        self.steps.append(Step(word, self._log))


def _at(values: tuple[Any, ...], number: int, value: Any) -> tuple[Any, ...]:
    return (*values[: number - 1], value, *values[number:])
