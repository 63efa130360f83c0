"""A trace: the log variables of a module after each event of a stream."""

from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple


class Step(NamedTuple):
    """An event, and the module's log variables after it."""

    event: str
    log: NamedTuple


class Trace(NamedTuple):
    """`constants` of the module, but for its faults: see `TROUBLE` of a projection."""

    module: str
    constants: tuple[tuple[str, object], ...]
    steps: tuple[Step, ...]


class OutsideError(Exception):
    """The module does not speak of this log; `args` say why."""


# Steps that nothing can do without: a log in which one is missing is wrong.
_REQUIRED_STEPS: Final = MappingProxyType(
    {
        "Entry": frozenset({"attempted", "unknown", "owner_died"}),
        "Live": frozenset({"placeholder", "edit", "placed", "planned"}),
        "Turn": frozenset({"accepted", "started", "answered"}),
        "Lane": frozenset({"queued"}),
        "Busy": frozenset({"queued", "joined", "superseded", "dropped", "started"}),
        "Lease": frozenset({"take", "commit", "reopen", "hand_over"}),
    }
)

# Late evidence needs no attempt, and a failover takes the last steps back anyhow.
_NEED_NOTHING: Final = frozenset({"late_receipt", "failover"})


def without_a_required_step(trace: Trace) -> list[Trace]:
    """The same with one step left out, so that no behaviour has it any more."""
    steps, required = trace.steps, _REQUIRED_STEPS[trace.module]
    return [
        trace._replace(steps=(*steps[:index], *steps[index + 1 :]))
        for index, (step, later) in enumerate(pairwise(steps))
        if step.event in required and later.event not in _NEED_NOTHING
    ]
