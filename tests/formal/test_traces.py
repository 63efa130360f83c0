"""Logs of the kernel are behaviours of the TLA+ modules, and wrong ones are not."""

import logging
from functools import cache
from typing import Any

import pytest
from tests.least import LEAST

from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import named
from turnfold_model.crash.world import World
from turnfold_model.mutants.code import Edit, Mutant, applied
from turnfold_model.tla import tlc, tlc_traces, trace_batch, trace_entry, trace_lane
from turnfold_model.tla.trace import Step, Trace
from turnfold_model.tla.trace_log import Traces

if tlc.missing():
    pytest.skip(f"NO TLC HERE: {tlc.missing()}", allow_module_level=True)
# The batch needs 150 s of a core, and a busy machine gives less than that.
pytestmark = pytest.mark.timeout(1_500)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The walks cancel and refuse on purpose; their lines hide why a test failed."""
    caplog.set_level(logging.CRITICAL, "turnfold")


def test_an_entry_with_a_second_class_has_traces() -> None:
    """Whole by its first class in `Entry`, or with a placeholder in `Live`."""
    traces = Traces()

    def take(world: World) -> list[str]:
        traces.add(trace_batch.log_of(world))
        return []

    for name in ("keyed-editable", "live-lookup"):
        explore(named(name), check=take)
    plans = {dict(trace.constants).get("Plan") for trace in traces.found}
    assert {"keyed+editable", "lookup+editable"} <= plans
    assert {trace.module for trace in traces.found} >= {"Entry", "Live"}
    told = tlc_traces.told(traces)
    assert (told["refused"], told["wrong_accepted"]) == ([], 0)


@cache
def report() -> dict[str, Any]:
    return tlc_traces.told(trace_batch.batch())


def test_every_trace_of_the_kernel_is_a_behaviour_of_its_module() -> None:
    assert report()["refused"] == []
    assert report()["accepted"] == report()["distinct"]
    assert report()["accepted"] >= LEAST["distinct traces accepted"]


def test_no_trace_is_accepted_with_a_step_left_out() -> None:
    assert report()["wrong"] > 400
    assert report()["wrong_accepted"] == 0


def test_the_traces_take_every_action_that_leaves_something_in_a_log() -> None:
    assert report()["actions_unseen"] == ["Turn.Sleeps", "Turn.Wakes"]


def test_the_traces_reach_the_least_figures_of_the_page() -> None:
    assert report()["logs"] >= LEAST["logs of the kernel as traces"]
    assert report()["events"] >= LEAST["events in these logs"]
    assert report()["actions_covered"] >= LEAST["actions covered by traces"]


def test_a_kernel_that_runs_the_newest_message_of_a_lane_first_is_refused() -> None:
    where, order = "turnfold._decide.turns:next_turn", "draft.turn_lane(lane)"
    newest_first = Edit(where, order, f"list({order})[::-1]")
    traces = Traces()

    def take(world: World) -> list[str]:
        traces.add(trace_batch.log_of(world))
        return []

    with applied(Mutant("newest first", "decision", (newest_first,), ())):
        explore(named("two"), check=take, seconds=20)
    lanes = [trace for trace in traces.found if trace.module == "Busy"]
    assert tlc_traces.check(lanes).refused


ATTEMPTED = Step("attempted", trace_entry.Log("attempted", 0, 1, 1))
DISPATCHED = Step("dispatched", trace_entry.Log("dispatched", 0, 1, 1))
UNKNOWN = Step("unknown", trace_entry.Log("in_doubt", 0, 1, 1, doubt=True))
AGAIN = Step("attempted", trace_entry.Log("attempted", 0, 2, 2, doubt=True))
ABORTING = Step("abort_requested", trace_entry.Log("queued", abort=True))
AFTER_ABORT = Step("attempted", trace_entry.Log("attempted", 0, 1, 1, abort=True))


def of_entry(kind: str, *steps: Step) -> Trace:
    classes = ("Plan", kind), ("Offers", kind), ("Ages", "+" in kind)
    constants = ("Parts", 1), ("Budget", 8), *classes
    return Trace("Entry", constants, steps)


def of_lane(*sent: int) -> Trace:
    """Two entries, attempted in this order."""
    rows = [("queued", "none"), ("queued", "queued")]
    for entry in sent:
        last = rows[-1]
        rows.append(("dispatched", last[1]) if entry == 0 else (last[0], "dispatched"))
    steps = [
        Step(
            "queued" if number < 2 else "attempted",
            trace_lane.Log(min(number + 1, 2), row, (False, False)),
        )
        for number, row in enumerate(rows)
    ]
    constants = ("Entries", 2), ("Lanes", 1), ("Ordered", True)
    return Trace("Lane", constants, tuple(steps))


@pytest.mark.parametrize(
    ("trace", "accepted"),
    [
        (of_entry("keyed", ATTEMPTED, DISPATCHED, UNKNOWN, AGAIN), True),
        (of_entry("blind", ATTEMPTED, DISPATCHED, UNKNOWN, AGAIN), False),
        (of_entry("keyed", ATTEMPTED, DISPATCHED, AGAIN), False),
        (of_entry("keyed", ABORTING), True),
        (of_entry("keyed", ABORTING, AFTER_ABORT), False),
        (of_lane(0), True),
        (of_lane(1), False),
        (of_lane(0, 1), False),
    ],
    ids=lambda value: (
        str(value) if isinstance(value, bool) else tlc_traces.shown(value)
    ),
)
def test_a_trace_that_breaks_a_rule_is_refused(trace: Trace, accepted: bool) -> None:
    assert tlc_traces.check([trace]).accepted == accepted
