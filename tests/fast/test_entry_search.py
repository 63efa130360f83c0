"""Whatever happens to an entry: it comes to rest, nothing is shown twice without a word
in the log, and each fact has a row of the table that tells it."""

from functools import cache

import pytest

from turnfold_model import entry_steps, transition_table
from turnfold_model.entry_search import Search, search
from turnfold_model.entry_steps import Setting

ONE = (
    Setting("keyed"),
    Setting("lookup"),
    Setting("editable"),
    Setting("editable", live=True),
    Setting("blind"),
    Setting("blind", policy="resend"),
)
TWO = tuple(Setting(one.kind, 2, one.policy, live=one.live) for one in ONE)
PREPARED = tuple(
    Setting(one.kind, 1, one.policy, prepares=True, live=one.live) for one in ONE
)
SETTINGS = (*ONE, *TWO, *PREPARED)


@cache
def searched(setting: Setting) -> Search:
    return search(setting, faults=2)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_an_entry_has_no_dead_end_and_no_double_send(setting: Setting) -> None:
    assert searched(setting).problems == {}


def test_the_search_takes_every_event_that_can_send_or_end_something() -> None:
    taken = set().union(*(searched(setting).rows for setting in SETTINGS))
    rows = set(transition_table.edges(transition_table.ENTRY_ROWS))
    assert taken <= rows
    left = {event for event, _, _ in rows} - {event for event, _, _ in taken}
    harmless = {"acknowledged", "lane_yielded", "redacted", "rescheduled", "tried"}
    assert left == {"queued", "imported", *harmless}


def test_the_search_finds_a_row_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = dict(transition_table.ENTRY["in_doubt"])
    del row["outbox.parked"]
    monkeypatch.setitem(transition_table.ENTRY, "in_doubt", row)  # type: ignore[arg-type]  # it is a dict
    problems = search(Setting("blind"), faults=1).problems
    assert any(problem.startswith("parked in in_doubt: table") for problem in problems)


def test_the_search_finds_a_double_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up calls a part absent while its request may still land."""
    monkeypatch.setattr(entry_steps, "may_land", lambda *_: False)
    problems = search(Setting("lookup"), faults=1).problems
    assert "part 0 is shown 2 times" in problems


def test_the_search_finds_a_dead_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks and nobody parks: the entry stays in doubt."""
    monkeypatch.setattr(entry_steps, "_in_doubt", lambda *_: iter(()))
    problems = search(Setting("blind"), faults=1).problems
    assert "nothing leads on from in_doubt" in problems
