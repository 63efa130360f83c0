"""What the death of a process says of a turn or an entry, told by the log alone.

The kernel counts in one commit after a death how many others were under way. Here the same is
counted event by event: what was running or being sent when the next worker began.
"""

from collections.abc import Iterator

from turnfold_model.reference.kinds import Record
from turnfold_model.reference.shapes import Entry, State, Turn

_DIED = "owner_died"
_FRESH = ("turn.unheld", "turn.resubmitted")
_SURVIVED = (*_FRESH, "turn.released", "turn.run_failed", "turn.answered")


class Deaths:
    """Of one log without control input; `limit`: so many deaths alone hold a turn. `alone`:
    the deaths in which each turn was alone since a person let it run."""

    def __init__(self, limit: int) -> None:
        self.alone: dict[str, int] = {}
        self._limit = limit
        self._going: set[str] = set()
        self._died: set[str] = set()  # with the process before this one
        self._turn_of: dict[str, str | None] = {}
        self._row: dict[str, int] = {}  # deaths in a row
        self._on_trial: set[str] = (
            set()
        )  # the only suspects of a death that was not the first

    def feed(self, event: Record, state: State) -> Iterator[str]:
        """The next event and the state after it; yields what is wrong."""
        stream, kind, data = str(event["stream"]), str(event["kind"]), event["data"]
        if isinstance(state, Entry):
            self._turn_of.setdefault(stream, data.get("turn"))
        yield from self._moved(stream, kind, data, goes=_is_going(state))
        yield from self._counted(stream, kind, data)

    def _moved(
        self, stream: str, kind: str, data: Record, *, goes: bool
    ) -> Iterator[str]:
        if kind == "store.worker_started":
            self._died = set(self._going)
        by_death = _DIED in (
            data.get(name) for name in ("reason", "cause", "failure", "end")
        )
        if by_death:
            yield from self._death(stream, data)
        elif stream in self._going and not goes and kind != "turn.failed":
            self._died.discard(stream)  # it ended before its death was told, not by it
        if kind in _SURVIVED and not by_death:
            self._row.pop(stream, None)
            self._on_trial.discard(stream)
        (self._going.add if goes else self._going.discard)(stream)

    def _death(self, stream: str, data: Record) -> Iterator[str]:
        others = {s for s in self._died if s != stream}
        if stream.startswith("turn:"):
            others = {s for s in others if self._turn_of.get(s) != stream}
            self._row[stream] = self._row.get(stream, 0) + 1
            alone = data.get("suspects") == 1 and self._row[stream] > 1
            (self._on_trial.add if alone else self._on_trial.discard)(stream)
        told = data.get("beside")
        if told is None:  # something could not be read: nobody knows
            return
        self.alone[stream] = self.alone.get(stream, 0) + (not others)
        if len(others) != told:
            yield f"INV-14 {stream} died beside {len(others)}, and {told} are told"

    def _counted(self, stream: str, kind: str, data: Record) -> Iterator[str]:
        if kind in _FRESH:
            self.alone[stream] = 0
        alone = self.alone.get(stream, 0)
        if kind == "turn.started":
            if alone >= self._limit:
                yield f"INV-14 {stream} was alone in {alone} deaths, and runs"
            yield from self._beside(stream)
        blamed = kind == "turn.held" and data["reason"] == "quarantined"
        if blamed and alone < self._limit:
            yield f"INV-14 {stream} is held, and was alone in {alone} deaths"

    def _beside(self, stream: str) -> Iterator[str]:
        """A turn that is tried alone has no other run beside it."""
        running = {s for s in self._going if s.startswith("turn:")}
        others = running - {stream} - self._died
        tried = self._on_trial & (others | {stream})
        if others and tried:
            yield f"INV-14 {stream} runs beside {len(others)}, and one is tried alone"


def _is_going(state: State) -> bool:
    if isinstance(state, Turn):
        return state.phase == "running" and not state.left_open
    if not isinstance(state, Entry):
        return False
    return state.trying or state.phase in ("attempted", "dispatched")
