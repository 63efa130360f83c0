"""The world: two worker slots, a gate, and one or two columns.

A state is a flat tuple of small integers: columns and jobs are interned, and the steps
of a column are computed once per (column, job, surroundings), so that a step costs
little more than building the tuple. There is no clock: the end of an owner, a time-out,
an expiry, the end of a key's window may come at any time, so safety holds for every
behaviour of the clocks, except as `Assumptions` says.
"""

from collections.abc import Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from turnfold_model.protocol_model import facts, platform, worker
from turnfold_model.protocol_model.checks import wrong
from turnfold_model.protocol_model.words import (
    CLOSED,
    DEAD,
    HUNG,
    TURN_OVER,
    Column,
    Config,
    Facts,
    Job,
    Ph,
    Step,
    Tp,
)

State = tuple[int, ...]
# places in a state: two worker slots (0 absent, 1 awake, 2 stopped), the holder of the
# fence, the gate, then the faults that are left
HOLDER, GATE, CRASHES, FAULTS, HANDS, PAUSES, HEAD = 2, 3, 4, 5, 6, 7, 8
WIDTH: Final = 3  # a column and the two jobs on it
ABSENT, AWAKE, STOPPED = 0, 1, 2

T = TypeVar("T")


class Pool(Generic[T]):
    """Small integers for values that occur again and again."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


class Move(NamedTuple):
    """A step with its column and job interned."""

    label: str
    column: int
    job: int
    fault: int
    hand: int
    gate: bool
    broken: str


class Edge(NamedTuple):
    """A step of the world. `kind`: a fault may never come, the rest must at last."""

    label: str
    to: State
    fault: bool
    broken: str


class World:
    """One configuration, as a graph: its beginning and the next steps of each state."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.columns: Pool[Column] = Pool()
        self.jobs: Pool[Job] = Pool()
        self.jobs.number(Job())
        self._moves: dict[tuple[int, ...], tuple[Move, ...]] = {}
        self._outside: dict[tuple[int, bool, bool], tuple[Move, ...]] = {}
        self._crashed: dict[tuple[int, int], tuple[tuple[int, ...], int]] = {}
        self._flags: list[tuple[bool, bool, bool, bool]] = []
        self.problems: list[str] = []  # per column: the invariant its state breaks

    def start(self) -> State:
        config = self.config
        turn = Tp.NONE if config.turns else Tp.BARE
        column = Column(log=Facts(turn=turn))
        if not config.turns:
            column = facts.queued(config, column)
        first = self._number(column._replace(before=None))
        budgets = (config.crashes, config.faults, config.hands, config.pauses)
        body = (first, 0, 0) * config.columns
        return (AWAKE, ABSENT, 0, 1, *budgets, *body)

    def describe(self, state: State) -> str:
        """For the reader of a counterexample."""
        lines = [f"slots {state[0]},{state[1]} fence {state[HOLDER]}"]
        for base in range(HEAD, len(state), WIDTH):
            jobs = [self.jobs.values[j].stage.name for j in state[base + 1 : base + 3]]
            column = self.columns.values[state[base]]
            lines.append(f"{column.log} wire={column.wire} taken={column.taken} {jobs}")
        return "\n    ".join(lines)

    def wrong(self, state: State) -> str:
        """The invariant that the state breaks, or nothing."""
        for base in range(HEAD, len(state), WIDTH):
            problem = self.problems[state[base]]
            if problem:
                return problem
        return ""

    def at_rest(self, state: State) -> bool:
        return all(
            self._flags[state[base]][3] for base in range(HEAD, len(state), WIDTH)
        )

    def edges(self, state: State) -> Iterator[Edge]:
        """Everything that may happen next."""
        free = turn_free = came = True
        for base in range(HEAD, len(state), WIDTH):
            for slot in (0, 1):
                if state[slot]:
                    yield from self._worked(state, base, slot, free, turn_free)
            passed, answered, comes, _ = self._flags[state[base]]
            if came:  # messages come in the order of the columns
                yield from self._from_outside(state, base)
            came = comes
            if self.config.one_lane:
                free, turn_free = free and passed, turn_free and answered
        yield from self._of_workers(state)
        if not state[GATE]:
            yield Edge("gate opens", _with(state, GATE, 1), False, "")

    def _number(self, column: Column) -> int:
        number = self.columns.number(column)
        if number == len(self.problems):
            log = column.log
            self.problems.append(wrong(self.config, column))
            over = log.phase == Ph.NONE and log.turn in TURN_OVER
            passed = log.passed or log.phase in CLOSED or over
            answered = log.turn not in (Tp.NONE, Tp.ACCEPTED, Tp.RUNNING)
            came = log.turn != Tp.NONE
            self._flags.append((passed, answered, came, facts.at_rest(log)))
        return number

    def _worked(
        self, state: State, base: int, slot: int, free: bool, turn_free: bool
    ) -> Iterator[Edge]:
        column, job = state[base], state[base + 1 + slot]
        key = (
            column,
            job,
            slot,
            state[slot],
            state[HOLDER] == slot,
            free,
            turn_free,
            state[GATE],
            state[FAULTS] > 0,
            state[HANDS] > 0,
        )
        moves = self._moves.get(key)
        if moves is None:
            moves = self._moves[key] = tuple(self._computed(key))
        for move in moves:
            new = list(state)
            new[base], new[base + 1 + slot] = move.column, move.job
            new[FAULTS] -= move.fault
            new[HANDS] -= move.hand
            if move.gate:
                new[GATE] = 0
            broken = move.broken
            if move.label == "send" and not free and not broken:
                broken = "INV-8"
            may_never = bool(move.fault or move.hand) or move.label == "preview"
            yield Edge(move.label, tuple(new), may_never, broken)

    def _computed(self, key: tuple[int, ...]) -> Iterator[Move]:
        column, job, slot = (
            self.columns.values[key[0]],
            self.jobs.values[key[1]],
            key[2],
        )
        awake, current, free, turn_free, gate, faulty, hand = (
            bool(k == 1) for k in key[3:]
        )
        around = worker.Around(slot, current, free, turn_free, gate, faulty, hand)
        found = list(platform.answers(self.config, column, job, slot, faulty))
        if awake:
            found += worker.steps(self.config, column, job, around)
            found += platform.returns(self.config, column, job)
        yield from map(self._move, found)

    def _move(self, step: Step) -> Move:
        return Move(
            step.label,
            self._number(step.column),
            self.jobs.number(step.job),
            step.fault,
            step.hand,
            step.gate,
            step.broken,
        )

    def _from_outside(self, state: State, base: int) -> Iterator[Edge]:
        idle = not state[base + 1] and not state[base + 2]
        key = (state[base], state[HANDS] > 0, idle)
        moves = self._outside.get(key)
        if moves is None:
            found = self._happenings(self.columns.values[key[0]], key[1], idle)
            moves = self._outside[key] = tuple(map(self._move, found))
        for move in moves:
            new = list(state)
            new[base] = move.column
            new[HANDS] -= move.hand
            if move.label == "inbound" and self.config.supersede:
                self._supersede(new, base)
            fault = bool(move.hand) or move.label == "time passes"
            yield Edge(move.label, tuple(new), fault, move.broken)

    def _happenings(self, column: Column, hand: bool, idle: bool) -> Iterator[Step]:
        """The steps of a column without any worker: messages, people, time."""
        config, log = self.config, column.log
        yield from platform.landings(config, column)
        if log.turn == Tp.NONE:
            accepted = facts.commit(config, column, log._replace(turn=Tp.ACCEPTED))
            yield Step("inbound", accepted, Job())
        if hand and facts.abortable(log):
            yield Step("abort", facts.abort(config, column), Job(), hand=1)
        still = idle and not any(r.part == log.settled for r in column.wire)
        ages = config.ages and column.age < 2 and log.attempts > 0
        if ages and log.phase not in CLOSED and (still or not config.assume.prompt):
            # A clock that stands still while the machine sleeps does not see it pass.
            unseen = config.without == "suspend"
            older = column._replace(age=column.age + 1, lag=column.lag + unseen)
            yield Step("time passes", older, Job())

    def _supersede(self, new: list[int], base: int) -> None:
        """A newer message of the lane takes the place of unanswered ones."""
        for other in range(HEAD, base, WIDTH):
            column = self.columns.values[new[other]]
            if facts.abortable(column.log):
                new[other] = self._number(facts.abort(self.config, column))

    def _of_workers(self, state: State) -> Iterator[Edge]:
        for slot in (0, 1):
            life = state[slot]
            if life == STOPPED:
                yield Edge("wakes", _with(state, slot, AWAKE), False, "")
            if life == AWAKE and state[PAUSES]:
                new = _with(state, slot, STOPPED)
                spent = _with(new, PAUSES, state[PAUSES] - 1)
                yield Edge("stopped", spent, True, "")
            if life and state[CRASHES]:
                yield from self._crash(state, slot)
        yield from self._starts(state)

    def _starts(self, state: State) -> Iterator[Edge]:
        """A standby takes over when nobody lives; without the lock, from a sleeper."""
        if state[0] == state[1] == ABSENT:
            new = _with(_with(state, 0, AWAKE), HOLDER, 0)
            yield Edge("starts", new, False, "")
        elif not self.config.assume.lock:
            for slot in (0, 1):
                orphaned = state[HOLDER] == slot  # the other lost its fence
                idle = state[1 - slot] == STOPPED
                if state[slot] == ABSENT and (orphaned or idle):
                    new = _with(_with(state, slot, AWAKE), HOLDER, slot)
                    yield Edge("takes over", new, not orphaned, "")

    def _crash(self, state: State, slot: int) -> Iterator[Edge]:
        new = list(state)
        new[slot] = ABSENT
        new[CRASHES] -= 1
        lost: list[list[int]] = [[]]
        for base in range(HEAD, len(state), WIDTH):
            new[base + 1 + slot] = 0
            kept, undone = self._after_crash(state[base], slot)
            lost = [[*head, k] for head in lost for k in kept]
            if undone >= 0:
                lost += [[*head[:-1], undone] for head in lost[:1]]
        for columns in lost:
            for at, column in enumerate(columns):
                new[HEAD + at * WIDTH] = column
            yield Edge("crash", tuple(new), True, "")

    def _after_crash(self, number: int, slot: int) -> tuple[tuple[int, ...], int]:
        """The columns a crash may leave, and the one where the last commit is lost."""
        key = (number, slot)
        if key not in self._crashed:
            column = self.columns.values[number]
            wire = tuple(
                sorted(
                    r._replace(tag=DEAD) if r.tag in (slot, HUNG) else r
                    for r in column.wire
                )
            )
            begun = column.log.attempts > 0
            left = column._replace(wire=wire, restarted=begun and self.config.ages)
            lags = self._lags(left)
            kept = tuple(self._number(left._replace(lag=lag)) for lag in lags)
            undone = -1
            if column.before is not None:
                undone = self._number(left._replace(log=column.before, before=None))
            self._crashed[key] = (kept, undone)
        return self._crashed[key]

    def _lags(self, column: Column) -> list[int]:
        if not column.restarted:
            return [0]
        most = 1 if self.config.assume.clock else 2
        return list(range(column.lag, most + 1))


def _with(state: State, place: int, value: int) -> State:
    return (*state[:place], value, *state[place + 1 :])


__all__ = ["Edge", "Pool", "State", "World"]
