"""The Hypothesis machine: people, platforms and crashes against a real SQLite file.

Chance makes most of the steps; rules of their own make the rest, each from a new
message on. A crash is data of the rule that lets the worker work, not a rule of its own: so one
example takes hundreds of kernel steps, and shrinks well. `run` says how much.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from turnfold._decide import gates, operator, outcomes
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.enums import AbortReason, BlindPolicy, DeliveryClass, TurnPhase
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.command_kit import ROOM
from turnfold_model.crash import scripts
from turnfold_model.crash.scenario import HOUR, Scenario
from turnfold_model.stateful.gateway import POISON, StatefulGateway

_K, _L = (DeliveryClass.KEYED,), (DeliveryClass.LOOKUP,)
_FATES = ("landed", "lost", "late", "refused", "limited", "offline", "auth", "barred")
_ALL = (*_FATES, "gone", "blurred")


def _row(name: str, **more: Any) -> Scenario:
    base: dict[str, Any] = {"fates": _ALL, "lanes": 2, "deaths": 3, "runs": 3}
    return Scenario(name=name, **{**base, "attempts": 4, **more})


ROWS = (
    _row("keyed", classes=_K, window_ms=30_000),
    _row("lookup", classes=_L, prepares=True),
    _row("both", classes=(*_K, *_L), window_ms=12_000, resumes=False),
    _row("hold", classes=(), resumes=False),
    _row("marked", classes=(), policy=BlindPolicy.RESEND_MARKED, prepares=True),
    _row("drop", classes=(), policy=BlindPolicy.DROP),
    _row("aged", classes=_K, age_ms=2 * HOUR),
)
_USER = AbortReason.USER
SEEN: set[tuple[str, str]] = set()  # by all examples of this process
BEGINS: list[Callable[[], None]] = []  # called between two examples, before each
REFUSALS = (*_FATES[3:], "gone")
VERDICTS = ("cured", "again", "stopped", "left")
_LIVES = 12  # far fewer find a handler that kills its process
DOUBTS = ("late", "delivered", "not_sent", "resend", "give_up", "found", "missed")
_WAITS = (1, 250, 1_000, 6_000, 60_000, 2 * HOUR, 25 * HOUR)
_numbers = st.integers(0, 11)
_pick = st.integers(0, 63)
_drawn = st.lists(st.integers(0, 10), max_size=30)


Item = TypeVar("Item")


def _one(items: Sequence[Item], pick: int) -> Item | None:
    return items[pick % len(items)] if items else None


class GatewayMachine(RuleBasedStateMachine):
    """See the module. Rules that find nothing to do do nothing."""

    def __init__(self) -> None:
        for call in BEGINS:
            call()
        super().__init__()
        self.newest = 0  # `_fresh` begins beyond the numbers of other messages
        self.folder = tempfile.mkdtemp(prefix="turnfold-", dir=ROOM)

    @initialize(row=st.sampled_from(ROWS))
    def begin(self, row: Scenario) -> None:
        self.gateway = StatefulGateway(row, str(Path(self.folder) / "g.db"))

    # --- the worker, and its death ---

    @rule(steps=st.integers(1, 80), drawn=_drawn, faults=st.integers(0, 4))
    def work(self, steps: int, drawn: list[int], faults: int) -> None:
        self._live(steps, None, drawn, faults)

    @rule(dies_at=st.integers(0, 60), drawn=_drawn, faults=st.integers(0, 4))
    def work_and_die(self, dies_at: int, drawn: list[int], faults: int) -> None:
        """Crash at a moment between two effects; and the next process at once, too."""
        self._live(100, dies_at, drawn, faults)
        self._live(100, dies_at // 3, drawn, faults)

    def _live(
        self, steps: int, dies_at: int | None, drawn: list[int], faults: int
    ) -> None:
        self.gateway.world.faults = faults
        self.gateway.live(steps, dies_at, drawn)
        self.gateway.world.faults = 0

    # --- rare situations: each rule sets up its own ---

    def _fresh(self, style: int) -> int:
        """The number of a message that nobody has sent yet."""
        self.newest += 12
        return self.newest + style

    @rule(how=st.sampled_from(DOUBTS))
    def answer_gets_lost(self, how: str) -> None:
        """Nobody hears whether a request landed. `how` its doubt ends: its receipt turns
        up, a person decides, or the worker is left to find it or not."""
        self._connect(up=True)
        self.gateway.accept(self._fresh(0))
        lost = how in ("not_sent", "missed")
        self.gateway.lose_answers(200, "lost" if lost else "landed")
        if how == "late":
            self._evidence(0)
        elif how not in ("found", "missed"):
            self.resolve(pick=0, verdict=how)
        self._live(20, None, [], 0)

    @rule(fate=st.sampled_from(REFUSALS), style=st.integers(0, 5))
    def request_is_refused(self, fate: str, style: int) -> None:
        self._connect(up=True)
        self.gateway.accept(self._fresh(style))
        self.gateway.strike(fate, 60)

    @rule()
    def answer_is_taken_back(self) -> None:
        """The platform accepts a reply, and refuses it afterwards."""
        turn = self._until(0, lambda turn: turn.phase is TurnPhase.COMPLETED)
        for final in turn.finals:
            self.gateway.tell(operator.bounce, stream=final, part=0, detail="full")

    @rule()
    def handler_always_fails(self) -> None:
        """All runs of a turn raise; a person lets it run once more."""
        turn = self._until(11, lambda turn: turn.phase is TurnPhase.FAILED)
        self.gateway.tell(operator.resubmit, stream=turn.stream, by="test")

    @rule(
        style=st.integers(0, 1),
        others=st.integers(0, 3),
        verdict=st.sampled_from(VERDICTS),
    )
    def handler_kills(self, style: int, others: int, verdict: str) -> None:
        """A handler kills its process each time it runs, beside others, until its turn is
        held; then a person lets it run, stops it, or does nothing."""
        self._connect(up=True)
        number = POISON + self._fresh(style)
        for other in (number, *(self._fresh(n) for n in range(others))):
            self.gateway.accept(other)
        turn = self._until_held(number)
        if verdict == "stopped":
            self.gateway.tell(operator.abort_turn, stream=turn.stream, reason=_USER)
        if verdict in ("cured", "again"):
            self.gateway.cured |= {number} if verdict == "cured" else set()
            self.gateway.tell(operator.unhold, stream=turn.stream, by="test")
            self._until_held(number)

    def _until_held(self, number: int) -> Turn:
        def is_found() -> bool:
            return (turn := self._turn_of(number)).held or not turn.open

        for _ in range(_LIVES):
            if self.gateway.live(400, None, (), is_found):
                break
        return self._turn_of(number)

    @rule()
    def backlog_gets_old(self) -> None:
        """A reply waits for its channel for longer than anything may wait. No second
        send waits with it between its record and the wire: its key would be forgotten."""
        self._until(0, lambda turn: bool(turn.finals), up=False)
        if not self._nothing_goes_again():
            self.gateway.live(400, None, (), self._nothing_goes_again)
        self.gateway.pass_time((self.gateway.world.scenario.age_ms or HOUR) + 1)
        self._connect(up=True)
        self._live(40, None, [], 0)

    @rule(reason=st.sampled_from([_USER, AbortReason.SUPERSEDED]))
    def reply_is_stopped(self, reason: AbortReason) -> None:
        """One that waits for its channel, and one whose second part is on the wire."""
        turn = self._until(0, lambda turn: bool(turn.finals), up=False)
        self.gateway.tell(operator.abort_turn, stream=turn.stream, reason=reason)
        turn = self._until(1, self._is_half_sent)
        self.gateway.tell(operator.abort_turn, stream=turn.stream, reason=reason)
        self._live(20, None, [], 0)

    def _nothing_goes_again(self) -> bool:
        doubtful = [entry for entry in self.gateway.entries() if entry.doubt]
        return not any(e.phase in ("attempted", "dispatched") for e in doubtful)

    def _is_half_sent(self, turn: Turn) -> bool:
        found = [e for e in self.gateway.entries() if e.stream in turn.finals]
        return any(e.part and e.phase == "dispatched" for e in found)

    def _until(
        self, style: int, so: Callable[[Turn], bool], *, up: bool = True
    ) -> Turn:
        """Accept a message and let the worker work until its turn is so, or for long."""
        self._connect(up=up)
        number = self._fresh(style)
        self.gateway.accept(number)
        self.gateway.live(400, None, (), lambda: so(self._turn_of(number)))
        return self._turn_of(number)

    def _turn_of(self, number: int) -> Turn:
        return self.gateway.turn_of(str(number))

    # --- messages and requests of people ---

    @rule(
        numbers=st.lists(_numbers, min_size=1, max_size=4),
        notices=st.lists(st.integers(0, 5), max_size=2),
        steps=st.integers(0, 20),
        drawn=_drawn,
        faults=st.integers(0, 2),
    )
    def talk(
        self,
        numbers: list[int],
        notices: list[int],
        steps: int,
        drawn: list[int],
        faults: int,
    ) -> None:
        """Messages that are new, or delivered again by the platform; and notices."""
        for number in numbers:
            self.gateway.accept(number)
        for number in notices:
            self.gateway.enqueue(number)
        self._live(steps, None, drawn, faults)

    @rule(pick=_pick, reason=st.sampled_from([_USER, AbortReason.SUPERSEDED]))
    def stop_turn(self, pick: int, reason: AbortReason) -> None:
        turn = _one(self.gateway.turns(), pick)
        if turn:
            self.gateway.tell(operator.abort_turn, stream=turn.stream, reason=reason)

    # --- operators ---

    @rule(
        what=st.sampled_from(
            ["stop", "redrive", "risk", "late", "acknowledge", "bounce", "redact"]
        ),
        pick=_pick,
    )
    def operate(self, what: str, pick: int) -> None:
        """Act on an entry that allows it; without one, on any entry, where it is
        refused."""
        entries, tell = self.gateway.entries(), self.gateway.tell
        match what:
            case "stop":
                self._operate(
                    pick,
                    ("queued", "attempted", "dispatched", "in_doubt", "retryable"),
                    operator.abort_entry,
                    reason=_USER,
                )
            case "redrive" | "risk":
                failed = _one([e for e in entries if e.phase == "failed"], pick)
                if failed:
                    anyway = {"by": "test", "accept_duplicate": what == "risk"}
                    tell(operator.redrive, stream=failed.stream, **anyway)
            case "late":
                self._evidence(pick)
            case "acknowledge":
                self._operate(pick, "failed", operator.acknowledge, by="test")
            case "bounce":
                self._operate(
                    pick, ("delivered",), operator.bounce, part=0, detail="full"
                )
            case _:
                self._operate(
                    pick, ("delivered", "failed", "aborted"), operator.redact, by="test"
                )

    @rule(pick=_pick, verdict=st.sampled_from(["not_sent", "resend", "give_up"]))
    def resolve(self, pick: int, verdict: str) -> None:
        """A person's "not sent" is true; "resend" accepts the risk."""
        entries = self.gateway.entries()
        entry = _one([e for e in entries if e.phase in ("in_doubt", "parked")], pick)
        if entry is None:
            return
        if verdict == "not_sent" and self._may_have_landed(entry):
            verdict = "delivered" if self._landed(entry) else "give_up"
        stream = entry.stream
        self.gateway.tell(operator.resolve, stream=stream, verdict=verdict, by="test")

    @rule(pick=_pick, wait=st.sampled_from(_WAITS))
    def reschedule(self, pick: int, wait: int) -> None:
        due = self.gateway.process.now() + wait
        self._operate(
            pick,
            ("queued", "retryable", "in_doubt"),
            operator.reschedule,
            due=due,
            by="test",
        )

    @rule(pick=_pick)
    def resubmit(self, pick: int) -> None:
        failed = [t for t in self.gateway.turns() if t.phase is TurnPhase.FAILED]
        turn = _one([t for t in failed if not t.finals] or failed, pick)
        if turn:
            self.gateway.tell(operator.resubmit, stream=turn.stream, by="test")

    def _evidence(self, pick: int) -> None:
        """A success that comes late: the platform's word for an attempt long past, for
        one in doubt where there is one."""
        entries = self.gateway.entries()
        landed = [e for e in entries if e.planned and self._landed(e)]
        doubted = [e for e in landed if e.phase in ("in_doubt", "parked")]
        entry = _one(doubted or landed, pick)
        if entry:
            outcome = Accepted(receipt=Receipt(ids=(self._landed(entry) or "",)))
            at = {"part": entry.part, "number": max(1, entry.attempt)}
            stream, tell = entry.stream, self.gateway.tell
            taken = tell(outcomes.settle, stream=stream, outcome=outcome, **at)
            assert taken is True, taken  # noqa: S101  INV-4: evidence wins

    def _operate(
        self, pick: int, phases: Sequence[str], decision: Any, **more: Any
    ) -> None:
        entries = self.gateway.entries()
        entry = _one([e for e in entries if e.phase in phases] or entries, pick)
        if entry:
            self.gateway.tell(decision, stream=entry.stream, **more)

    def _landed(self, entry: Entry) -> str | None:
        """The platform's view of the current part."""
        if entry.part >= len(entry.parts):
            return None
        return self.gateway.world.platform.find(entry.current.key)

    def _may_have_landed(self, entry: Entry) -> bool:
        pending = [r.key for _, r in self.gateway.world.platform.pending]
        key = entry.parts[entry.part].key if entry.part < len(entry.parts) else ""
        return bool(self._landed(entry)) or key in pending

    # --- surroundings ---

    @rule(
        up=st.sampled_from([None, True, False]),
        person=st.sampled_from([None, None, "holds", "lets go"]),
        wait=st.sampled_from(_WAITS),
        jump=st.sampled_from([0, 0, -HOUR, -5_000, -1, 1, 5_000, HOUR]),
    )
    def meanwhile(
        self, up: bool | None, person: str | None, wait: int, jump: int
    ) -> None:
        """Connections come and go, a person holds the account back and lets it go, time
        passes, the wall clock is set: any jump, while a process lives."""
        if up is not None:
            self._connect(up=up, by=None)
        if person is not None:
            self._hold(back=person == "holds")
        if jump:
            self.gateway.seen.add(("clock", "forward" if jump > 0 else "back"))
        self.gateway.world.skew += jump
        self.gateway.pass_time(wait)

    def _connect(self, *, up: bool, by: str | None = "a person") -> None:
        place = {"channel": scripts.CHANNEL, "account": "default"}
        if up:
            self.gateway.tell(gates.connected, **place, by=by)
        else:
            self.gateway.tell(gates.disconnected, **place)

    def _hold(self, *, back: bool) -> None:
        decision = gates.hold_back if back else operator.let_go
        place = f"{scripts.CHANNEL}/default"
        self.gateway.tell(decision, stream=place, by="a person")

    # --- invariants ---

    @invariant()
    @precondition(lambda self: hasattr(self, "gateway"))
    def all_agree(self) -> None:
        self.gateway.compare()

    def teardown(self) -> None:
        """A play that was cut short in the middle of a step is not judged: no gateway
        makes such a state."""
        cut_short = sys.exc_info()[0] is not None
        try:
            if hasattr(self, "gateway"):
                self._end(judge=not cut_short)
        finally:
            shutil.rmtree(self.folder)

    def _end(self, *, judge: bool) -> None:
        SEEN.update(self.gateway.seen)
        try:
            if judge:
                self._connect(up=True)
                self.gateway.settle()
                self.gateway.judge()
                SEEN.update(self.gateway.seen)
        finally:
            self.gateway.close()


def directed() -> None:
    """Plays, on a gateway of each kind, the steps that chance seldom makes; nothing here is drawn."""
    for row in ROWS:
        machine = GatewayMachine()
        try:
            machine.begin(row)
            for how in DOUBTS:
                machine.answer_gets_lost(how=how)
            for fate in REFUSALS:
                machine.request_is_refused(fate=fate, style=0)
            machine.operate(what="risk", pick=0)
            for reason in (_USER, AbortReason.SUPERSEDED):
                machine.reply_is_stopped(reason=reason)
            machine.answer_is_taken_back()
            machine.handler_always_fails()
            for verdict in VERDICTS:
                machine.handler_kills(style=0, others=2, verdict=verdict)
            machine.backlog_gets_old()
            machine.all_agree()
        finally:
            machine.teardown()


def run(examples: int, steps: int, *, seed: int = 0, shrink: bool = True) -> None:
    """Plays so many examples; raises if one breaks a rule, and tells the seed. There is no
    limit of time in it: an example that a limit cuts short draws less than the same
    example did before, and Hypothesis calls the strategy flaky."""
    try:
        run_state_machine_as_test(
            hypothesis.seed(seed)(GatewayMachine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                database=None,
                deadline=None,
                print_blob=True,
                phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as exc:
        exc.add_note(f"seed {seed}: {__name__}.run({examples}, {steps}, seed={seed})")
        raise
