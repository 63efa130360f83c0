"""The batch of logs that TLC is asked about: the kernel's walks over every edge, and all
executions of the small crash scenarios with one worker."""

from turnfold.ports.store import now
from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import SMALL
from turnfold_model.crash.world import World
from turnfold_model.edge_walks.stage import logs
from turnfold_model.edge_walks.walks import WALKS
from turnfold_model.reference import Record, as_events
from turnfold_model.testing.peek import Peek
from turnfold_model.tla.trace_log import Traces


def batch() -> Traces:
    """The same traces each time: nothing here has chance or a clock in it."""
    traces = Traces()
    for _, log in logs(WALKS):
        traces.add(log)

    def take(world: World) -> list[str]:
        traces.add(log_of(world))
        return []  # the invariants are judged elsewhere

    for scenario in SMALL:
        if not scenario.zombies:  # the modules know of no two owners of one attempt
            explore(scenario, check=take)
    return traces


def log_of(world: World) -> list[Record]:
    """The events of a world's disk."""
    store = world.handle()
    now(store.open())
    events = [e for record in Peek(store).log() for e in as_events(record)]
    now(store.close())
    return events
