"""The table of failure classes, row by row, against specs/failures.md."""

import re
from pathlib import Path

import pytest

from turnfold._decide.failures import RULES, backoff_ms
from turnfold.enums import FailureClass
from turnfold.settings import Settings

PAGE = Path(__file__).parents[2] / "specs" / "failures.md"
ROW = re.compile(
    r"^\| `(\w+)` \| (\w+) \| (\w+) \| (\S+) \| (.+?) \| (\w+) \|$", re.MULTILINE
)
ROWS = {row[0]: row[1:] for row in ROW.findall(PAGE.read_text())}


def test_the_page_and_the_table_have_the_same_rows() -> None:
    assert set(ROWS) == {str(failure) for failure in FailureClass}
    assert set(RULES) == set(FailureClass)


@pytest.mark.parametrize("failure", list(FailureClass))
def test_each_row_is_as_documented(failure: FailureClass) -> None:
    counts, ends, gate, opens, _ = ROWS[failure]
    rule = RULES[failure]
    assert rule.counts == (counts == "yes")
    assert rule.ends == (ends != "no")
    assert rule.alone == (ends == "part")
    assert str(rule.gate or "-") == gate
    assert (rule.gate is None) == (opens == "-")


def test_what_costs_nothing_always_waits_for_something() -> None:
    """Or it would come round without a pause: free of a wait is only what ends with this
    process or with the entry."""
    free = {f for f, rule in RULES.items() if not rule.counts and rule.gate is None}
    assert {f for f in free if RULES[f].backs_off} == {FailureClass.TRANSIENT}
    assert {f for f in free if not RULES[f].backs_off} == {
        FailureClass.DRAIN,
        FailureClass.STOPPED,
        FailureClass.OWNER_DIED,
    }


@pytest.mark.case("D06")
@pytest.mark.parametrize(
    ("used", "wait"),
    [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (10, 512), (11, 900), (10**6, 900)],
)
def test_the_back_off_doubles_from_its_base_to_its_cap(used: int, wait: int) -> None:
    assert backoff_ms(Settings(), used, 1000) == wait * 1000


@pytest.mark.parametrize("jitter", [0, 1, 500, 999, 1000])
def test_jitter_takes_its_share_and_never_more(jitter: int) -> None:
    assert backoff_ms(Settings(), 1, jitter) == jitter
