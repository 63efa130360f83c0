"""How a log becomes traces for TLC: the words, the states, and what stays outside."""

import re

import pytest

from turnfold_model.edge_walks.stage import Walk, logs
from turnfold_model.tla.tlc import files
from turnfold_model.tla.tlc_traces import ACTIONS
from turnfold_model.tla.trace import Trace, without_a_required_step
from turnfold_model.tla.trace_log import Traces


def of(*walks: Walk) -> Traces:
    traces = Traces()
    for _, log in logs(walks):
        traces.add(log)
    return traces


def only(traces: Traces, module: str) -> Trace:
    return next(trace for trace in traces.found if trace.module == module)


def words(trace: Trace) -> list[str]:
    return [step.event for step in trace.steps]


def test_an_attempt_that_goes_on_the_wire_at_once_is_two_steps() -> None:
    entry = only(of(Walk("queue go accept")), "Entry")
    assert words(entry) == ["attempted", "dispatched", "delivered"]
    assert [step.log[0] for step in entry.steps] == [
        "attempted",
        "dispatched",
        "delivered",
    ]
    constants = {"Parts": 1, "Budget": 8, "Plan": "keyed", "Offers": "keyed"}
    assert dict(entry.constants) == {**constants, "Ages": False}


def test_the_death_of_an_owner_is_told_from_an_answer_that_was_lost() -> None:
    traces = of(Walk("queue go crash"), Walk("queue go lose"))
    found = [words(t)[-1] for t in traces.found if t.module == "Entry"]
    assert sorted(found) == ["owner_died", "unknown"]


def test_a_turn_ends_in_one_step_with_its_final() -> None:
    turn = only(of(Walk("ask reply go accept")), "Turn")
    assert words(turn) == ["accepted", "started", "answered", "completed"]
    assert [step.log[5] for step in turn.steps] == ["none", "none", "owed", "delivered"]


def test_an_abort_of_a_run_is_a_request_and_its_end() -> None:
    turn = only(of(Walk("ask abort")), "Turn")
    assert words(turn)[-2:] == ["abort_requested", "aborted"]


def test_a_lane_notices_what_is_under_way_and_no_more() -> None:
    lane = only(of(Walk("queue go lose", kind="blind")), "Lane")
    assert words(lane) == ["queued", "attempted", "parked"]
    assert lane.steps[-1].log == (1, ("parked",), (True,))


def test_the_messages_of_a_lane_are_one_trace_with_a_number_for_each() -> None:
    lane = only(of(Walk("ask reply")), "Busy")
    assert words(lane) == ["queued", "started", "answered"]
    assert lane.constants == (("Messages", 1),)
    assert lane.steps[-1].log[:2] == ((1,), ("answered",))


def test_a_stop_of_all_that_waits_is_a_stop_of_the_lane() -> None:
    assert words(only(of(Walk("ask abort")), "Busy"))[-1] == "lane_aborted"


def test_what_a_module_does_not_know_is_counted_and_not_forced() -> None:
    traces = of(
        Walk("queue go lose resend", kind="blind"),
        Walk("ask silent stop"),
        Walk("queue go accept go accept", parts=2),
        Walk("ask reply expire redrive go accept"),
        Walk("remind"),
    )
    later = "an entry that is not to go before its time"
    outside = {"resolved", "silent", "part_delivered", "redriven", "final redriven"}
    assert set(traces.outside) == {*outside, later}
    assert traces.logs == 5
    assert traces.found.total() + traces.outside.total() == 12


def test_a_step_that_later_ones_rest_on_can_be_left_out() -> None:
    entry = only(of(Walk("queue go accept")), "Entry")
    assert [words(wrong) for wrong in without_a_required_step(entry)] == [
        ["dispatched", "delivered"]
    ]


@pytest.mark.parametrize("module", list(ACTIONS))
def test_a_module_is_short_and_names_every_action_of_its_traces(module: str) -> None:
    texts = [file.read_text(encoding="utf-8") for file in files(module)]
    assert max(len(text.splitlines()) for text in texts) < 260
    text = "\n".join(texts)
    defined = set(re.findall(r"^(\w+)(?:\([^)]*\))? ==", text, re.MULTILINE))
    assert ACTIONS[module] <= defined


def test_a_last_part_after_a_bounced_one_ends_the_entry_as_failed() -> None:
    entry = only(of(Walk("queue go accept bounce go accept", parts=2)), "Entry")
    assert words(entry)[-3:] == ["attempted", "dispatched", "delivered"]
    assert entry.steps[-1].log[0] == "failed"
    assert entry.steps[-1].log[-1] is True


def test_a_turn_that_ends_before_its_final_in_the_log_has_the_final_of_its_commit() -> (
    None
):
    turn = only(of(Walk("ask reply abort")), "Turn")
    assert words(turn)[-2:] == ["abort_requested", "aborted"]
    assert [step.log[5] for step in turn.steps[-2:]] == ["owed", "aborted"]
