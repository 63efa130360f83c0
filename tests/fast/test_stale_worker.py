"""The fence protects the log (INV-5): a worker whose store another one has taken speaks
for no attempt and no run, even where it reads the other one's records and decides on
them. The store refuses stale writes as well; these tests look at the decisions alone."""

from functools import partial

import pytest

from turnfold._decide import outcomes, turns
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._runtime.committer import Decided
from turnfold._runtime.programs import Append, Send
from turnfold.enums import FailureClass
from turnfold.errors import OwnedError
from turnfold.ports.channel import Rejected
from turnfold.ports.store import now
from turnfold_model.crash import scripts
from turnfold_model.crash.matrix import named
from turnfold_model.crash.process import Process
from turnfold_model.crash.world import World
from turnfold_model.testing.peek import Peek

TURN, ENTRY = "turn:000001", "entry:000001.final"


def process(world: World, epoch: int) -> Process:
    store = world.handle()
    now(store.open())
    return Process(world, store, lambda _: 0, epoch=epoch)


@pytest.fixture
def stale() -> Process:
    """A worker with an attempt on the wire, after a later worker has written; it has
    read everything anew."""
    world = World.new(named("one"))
    worker = process(world, 1)
    worker.driver.begin()
    decision = scripts.accept(world.scenario, 0, 1)
    worker.add("in0", Append(decision), ack=True)
    while not any(isinstance(p.in_flight, Send) for p in worker.driver.ready()):
        worker.driver.step(worker.driver.ready()[0])
    later = process(world, 2)
    now(later.driver.journal.commit([lambda draft: draft.fence()]))
    now(worker.driver.journal.load())
    return worker


def decided(worker: Process, decision) -> Decided:
    return now(worker.driver.journal.commit([decision])).results[0]


def test_a_new_attempt_of_it_is_refused(stale: Process) -> None:
    before = Peek(stale.store).head

    def fence(draft: UnitOfWork) -> object:
        return draft.fence()

    assert isinstance(decided(stale, fence).error, OwnedError)
    assert Peek(stale.store).head == before


def test_the_end_of_an_attempt_that_failed_is_not_recorded(stale: Process) -> None:
    before = Peek(stale.store).head
    outcome = Rejected(failure=FailureClass.TRANSIENT)
    decision = partial(outcomes.settle, stream=ENTRY, part=0, number=1, outcome=outcome)
    assert decided(stale, decision).value is False
    assert Peek(stale.store).head == before


def test_the_end_of_a_run_is_not_recorded(stale: Process) -> None:
    before = Peek(stale.store).head
    decision = partial(turns.released, stream=TURN, run=1, reason="shutdown")
    assert decided(stale, decision).error is None
    assert Peek(stale.store).head == before
