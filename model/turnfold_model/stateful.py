"""The Hypothesis machine: people, platforms and crashes against a real SQLite file.

A crash is data of the rule that lets the worker work, not a rule of its own: so one
example takes hundreds of kernel steps, and shrinks well. `run` says how much.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

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

from turnfold.decide import aborting, gating, operating, settling
from turnfold.machines.entry import Entry
from turnfold.ports.channel import Accepted, Receipt
from turnfold.words import AbortReason, BlindPolicy, DeliveryClass, TurnPhase
from turnfold_model.crash import scripts
from turnfold_model.crash.scenario import HOUR, Scenario
from turnfold_model.scratch import ROOM
from turnfold_model.stateful_gateway import StatefulGateway

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
)
_USER = AbortReason.USER
SEEN: set[tuple[str, str]] = set()  # by all examples of this process
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
        super().__init__()
        self.lost = 12  # beyond the numbers of other messages
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

    @rule(pick=_pick)
    def answer_gets_lost(self, pick: int) -> None:
        """A success is cut off, and its receipt turns up while it is in doubt."""
        self.lost += 6  # the style of the answer, and no message that came before
        self.gateway.accept(self.lost)
        self.gateway.lose_answers(80)
        self._evidence(pick)

    # --- messages and what people want ---

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
            self.gateway.tell(aborting.abort_turn, stream=turn.stream, reason=reason)

    # --- operators ---

    @rule(
        what=st.sampled_from(
            ["stop", "redrive", "risk", "late", "acknowledge", "bounce", "redact"]
        ),
        pick=_pick,
    )
    def operate(self, what: str, pick: int) -> None:
        """On an entry that this can be done to; if there is none, on any: refused."""
        entries, tell = self.gateway.entries(), self.gateway.tell
        match what:
            case "stop":
                self._operate(
                    pick,
                    ("queued", "attempted", "dispatched", "in_doubt", "retryable"),
                    aborting.abort_entry,
                    reason=_USER,
                )
            case "redrive" | "risk":
                failed = _one([e for e in entries if e.phase == "failed"], pick)
                if failed:
                    anyway = {"by": "test", "accept_duplicate": what == "risk"}
                    tell(operating.redrive, stream=failed.stream, **anyway)
            case "late":
                self._evidence(pick)
            case "acknowledge":
                self._operate(pick, "failed", operating.acknowledge, by="test")
            case "bounce":
                self._operate(
                    pick, ("delivered",), operating.bounce, part=0, detail="full"
                )
            case _:
                self._operate(
                    pick,
                    ("delivered", "failed", "aborted"),
                    operating.redact,
                    by="test",
                )

    @rule(pick=_pick, verdict=st.sampled_from(["not_sent", "resend", "give_up"]))
    def resolve(self, pick: int, verdict: str) -> None:
        """A person who says "not sent" is right; who says "resend" takes the risk."""
        entries = self.gateway.entries()
        entry = _one([e for e in entries if e.phase in ("in_doubt", "parked")], pick)
        if entry is None:
            return
        if verdict == "not_sent" and self._may_have_landed(entry):
            verdict = "delivered" if self._landed(entry) else "give_up"
        stream = entry.stream
        self.gateway.tell(operating.resolve, stream=stream, verdict=verdict, by="test")

    @rule(pick=_pick, wait=st.sampled_from(_WAITS))
    def reschedule(self, pick: int, wait: int) -> None:
        due = self.gateway.process.now() + wait
        self._operate(
            pick,
            ("queued", "retryable", "in_doubt"),
            operating.reschedule,
            due=due,
            by="test",
        )

    @rule(pick=_pick)
    def resubmit(self, pick: int) -> None:
        failed = [t for t in self.gateway.turns() if t.phase is TurnPhase.FAILED]
        turn = _one([t for t in failed if not t.finals] or failed, pick)
        if turn:
            self.gateway.tell(operating.resubmit, stream=turn.stream, by="test")

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
            taken = tell(settling.settle, stream=stream, outcome=outcome, **at)
            assert taken is True, taken  # noqa: S101  INV-4: evidence wins

    def _operate(
        self, pick: int, phases: Sequence[str], decision: Any, **more: Any
    ) -> None:
        entries = self.gateway.entries()
        entry = _one([e for e in entries if e.phase in phases] or entries, pick)
        if entry:
            self.gateway.tell(decision, stream=entry.stream, **more)

    def _landed(self, entry: Entry) -> str | None:
        """What the platform knows of the current part."""
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
        wait=st.sampled_from(_WAITS),
        jump=st.sampled_from([0, 0, -HOUR, -5_000, -1, 1, 5_000, HOUR]),
    )
    def meanwhile(self, up: bool | None, wait: int, jump: int) -> None:
        """Connections come and go, time passes, the wall clock is set: any jump, while
        a process lives."""
        if up is not None:
            self._connect(up=up)
        if jump:
            self.gateway.seen.add(("clock", "forward" if jump > 0 else "back"))
        self.gateway.world.skew += jump
        self.gateway.pass_time(wait)

    def _connect(self, *, up: bool) -> None:
        decision = gating.connected if up else gating.disconnected
        self.gateway.tell(decision, channel=scripts.CHANNEL, account="default")

    # --- what must hold ---

    @invariant()
    @precondition(lambda self: hasattr(self, "gateway"))
    def all_agree(self) -> None:
        self.gateway.compare()

    def teardown(self) -> None:
        try:
            if hasattr(self, "gateway"):
                self._end()
        finally:
            shutil.rmtree(self.folder)

    def _end(self) -> None:
        SEEN.update(self.gateway.seen)
        try:
            self._connect(up=True)
            self.gateway.settle()
            self.gateway.judge()
            SEEN.update(self.gateway.seen)
        finally:
            self.gateway.close()


def run(
    examples: int, steps: int, *, derandomize: bool = True, shrink: bool = True
) -> None:
    """Plays so many examples; raises if one breaks a rule."""
    run_state_machine_as_test(
        GatewayMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            print_blob=True,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )
