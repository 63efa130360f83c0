"""The rules of one commit, as far as a log shows where a commit ends.

A log has the time of each event and no mark at the end of a commit. So a run of events
with one time counts as one commit: a *moment*. Its rules are checked when it is over,
on the states of the streams by then.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnfold_model.reference.kinds import Breach, Record, need
from turnfold_model.reference.shapes import Entry, State, Turn

Find = Callable[[str], State | None]
_OVER = ("turn.completed", "turn.failed", "turn.aborted")
_BY_THE_SENDER = frozenset(
    {
        "outbox.dispatched",
        "outbox.part_delivered",
        "outbox.delivered",
        "outbox.deferred",
        "outbox.failed_retryable",
        "outbox.unknown",
        "outbox.part_refused",
    }
)
_ENDS_A_PART = ("outbox.part_delivered", "outbox.part_refused")
Check = Callable[["Moment"], None]


@dataclass(slots=True)
class Moment:
    """One time of the log. `checks` are asked when it is over, and raise Breach.
    `workers`: epoch and owner of those that held the store in it, in order."""

    at: Any
    workers: list[tuple[int, str | None]]
    checks: list[tuple[Record, Check]] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)
    sealed: set[str] = field(default_factory=set)  # live replies
    closed: set[str] = field(default_factory=set)
    redriven: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)  # gates that were open at its start

    def saw(self, event: Record, before: State | None, after: State) -> None:
        kind, stream = event["kind"], str(event["stream"])
        if kind == "outbox.queued":
            self.queued.add(stream)
        elif kind == "outbox.planned" and isinstance(after, Entry) and after.live:
            self.sealed.add(stream)
        elif kind == "outbox.redriven":
            self.redriven.add(stream)
        elif kind == "turn.answered":
            self.answered.add(stream)
        elif kind == "store.worker_started":
            self.workers.append((event["data"]["epoch"], event["data"]["owner"]))
        was_open = isinstance(before, Entry) and before.open
        if was_open and isinstance(after, Entry) and not after.open:
            self.closed.add(stream)

    def later(self, event: Record, check: Check) -> None:
        self.checks.append((event, check))


def by_the_worker(
    event: Record, before: State | None, held: int, moment: Moment
) -> None:
    """INV-5: the worker attempts and runs, and records the outcomes of its own attempts. A
    later worker can only call it dead. `held`: the place of the one that held the store
    at the event; one that begins in the same commit may have its record behind it."""
    data, kind = event["data"], event["kind"]
    workers = moment.workers[held:]
    epochs, owner = [epoch for epoch, _ in workers], workers[-1][1]
    if kind in ("outbox.attempted", "outbox.tried", "turn.started"):
        current = (data["fence"], data["owner"]) in workers
        need(current, "INV-5", f"by {data['owner']}, but the worker is {owner}")
    if not isinstance(before, Entry) or before.phase not in ("attempted", "dispatched"):
        return
    right = True
    if kind in _BY_THE_SENDER:
        if data.get("suppressed") or data.get("by") or data.get("looked_up"):
            return
        dead = "owner_died" in (data.get("cause"), data.get("failure"))
        right = before.fence != epochs[-1] if dead else before.fence in epochs
    elif kind == "outbox.failed_terminal" and data["reason"] == "permanent":
        right = before.fence in epochs
    need(right, "INV-5", f"fence {before.fence}, but the epochs are {epochs}")


@dataclass(slots=True)
class Joint:
    """Remembers which entries a turn has, over the whole log."""

    find: Find
    entries_of: dict[str, list[str]] = field(default_factory=dict)
    notices: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def begun(self, stream: str, entry: Entry) -> None:
        if entry.turn is not None:
            self.entries_of.setdefault(entry.turn, []).append(stream)

    def judge(self, event: Record, moment: Moment) -> None:
        """Raises Breach for a rule that an event of a moment breaks."""
        stream, kind = str(event["stream"]), event["kind"]
        state = self.find(stream)
        if isinstance(state, Entry):
            self._of_an_entry(kind, stream, state, moment)
        if not isinstance(state, Turn):
            return
        if kind == "turn.answered":
            self._finals_queued(state, stream, moment)
        elif kind == "turn.amended":
            self._follows(state)
        elif kind in _OVER:
            self._over(state, stream, moment)
            if kind == "turn.aborted":
                self._cascaded(stream, moment)
            elif kind in ("turn.failed", "turn.completed"):
                self._told(event["data"].get("notice"), stream, moment)

    def _of_an_entry(
        self, kind: str, stream: str, entry: Entry, moment: Moment
    ) -> None:
        if kind == "outbox.queued":
            self._queued(stream, entry, moment)
        elif kind == "outbox.planned" and entry.live:
            owned = entry.turn in moment.answered
            need(owned, "INV-10", "a live reply was sealed without answered")
        elif kind in _ENDS_A_PART:
            need(not (entry.open and entry.over), "INV-10", "open, and nothing is left")
        elif kind == "outbox.redriven":
            self._owed_again(stream, entry)

    def _entry(self, name: str) -> Entry | None:
        state = self.find(name)
        return state if isinstance(state, Entry) else None

    def _queued(self, stream: str, entry: Entry, moment: Moment) -> None:
        if entry.turn is None:
            return
        known = isinstance(self.find(entry.turn), Turn)
        need(known, "INV-9", f"there is no {entry.turn}")
        owned = entry.kind != "final" or entry.live or entry.turn in moment.answered
        need(owned, "INV-10", "a final was queued without answered")
        if entry.kind == "notice":
            first = self.notices.get((entry.turn, entry.cause), stream)
            self.notices[entry.turn, entry.cause] = stream
            old = self._entry(first)
            unseen = old is not None and old.phase == "aborted"
            once = first == stream or unseen
            need(once, "notices", f"a second notice for {entry.cause}, after {first}")

    def _owed_again(self, stream: str, entry: Entry) -> None:
        turn = None if entry.turn is None else self.find(entry.turn)
        if isinstance(turn, Turn) and stream in turn.finals and entry.open:
            need(turn.open, "INV-10", "redriven, and its turn is over")

    def _finals_queued(self, turn: Turn, stream: str, moment: Moment) -> None:
        for name in turn.finals:
            entry = self._entry(name)
            if entry is None:
                raise Breach("INV-10", f"answered names {name}, which is not there")
            need(entry.turn == stream, "INV-10", f"{name} belongs to another turn")
            need(entry.kind in ("final", "block"), "INV-10", f"a {entry.kind} as final")
            grown = entry.live and (name in moment.sealed or not entry.open)
            fresh = entry.kind == "block" or name in moment.queued or grown
            need(fresh, "INV-10", f"{name} was not queued with answered")

    def _told(self, notice: str | None, stream: str, moment: Moment) -> None:
        if notice is None:
            return
        entry = self._entry(notice)
        if entry is None or entry.kind != "notice":
            raise Breach("notices", f"{notice} is no notice")
        need(entry.turn == stream, "notices", f"{notice} belongs to another turn")
        need(
            notice in moment.queued,
            "notices",
            f"{notice} was not queued with its turn's end",
        )

    def _over(self, turn: Turn, stream: str, moment: Moment) -> None:
        owed = [name for name, entry in self._finals(turn) if entry.open]
        need(turn.open or not owed, "INV-10", f"over while {owed} is owed")
        if not (turn.finals or turn.silent):
            return  # it never had an answer: nothing follows from entries
        self._follows(turn)
        together = stream in moment.answered or moment.closed & set(turn.finals)
        need(bool(together), "INV-10", "not in the commit that closed a final")

    def _follows(self, turn: Turn) -> None:
        if turn.outcome is None:  # one of its finals was redriven
            again = any(entry.open for _, entry in self._finals(turn))
            need(again, "INV-10", "answered again, but no final is open")
            return
        wanted = outcome_of([entry for _, entry in self._finals(turn)])
        follows = turn.outcome == wanted
        need(follows, "INV-10", f"{turn.outcome}, but its finals say {wanted}")

    def _finals(self, turn: Turn) -> Iterator[tuple[str, Entry]]:
        for name in turn.finals:
            entry = self._entry(name)
            if entry is not None:
                yield name, entry

    def _cascaded(self, stream: str, moment: Moment) -> None:
        for name in self.entries_of.get(stream, ()):
            entry = self._entry(name)
            if entry is not None and entry.kind != "notice":
                done = not entry.open or entry.abort or name in moment.redriven
                need(done, "INV-11", f"aborted, but {name} is still open")


def outcome_of(finals: Sequence[Entry]) -> str:
    """INV-10: how a turn ended, by its final entries."""
    if not finals:
        return "silent"
    if all(entry.phase == "delivered" for entry in finals):
        return "replied"
    if any(entry.delivered for entry in finals):
        return "partially_replied"
    if any(entry.phase == "failed" for entry in finals):
        late = all(entry.reason in ("expired", "too_old") for entry in finals)
        return "expired" if late else "failed"
    reasons = {entry.reason for entry in finals}
    if "superseded" in reasons:
        return "superseded"
    return "aborted" if "user" in reasons else "silent"
