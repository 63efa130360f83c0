"""The list of cases, the marks of tests, and the option that lists both."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.case_report import PAGE, CaseReport, lines, read_cases

ROOT = Path(__file__).parents[2]
CASES = read_cases(PAGE.read_text("utf-8"))
TREES = ("kernel", "adapters", "model")
SMALL = """
## A. Letters (area: answers)

- **A01** The first.
- **A02** The second.
- **A03** The third.
- **A04** The fourth.

A03 cannot occur: there is no third letter
"""
TESTS = """
import pytest
case = pytest.mark.case

@case("A01")
@pytest.mark.parametrize("n", [1, 2])
def test_that_passes(n): pass

@case("A02", "A04")
def test_that_fails(): assert False

@case("A05")
def test_that_is_skipped(): pytest.skip("here")

@case("Z99")
def test_of_no_case(): pass
"""


def report() -> CaseReport:
    return CaseReport(read_cases(SMALL))


# --- the page ---


def test_every_required_case_is_covered_by_a_test(
    required_cases: set[str], marked_cases: set[str]
) -> None:
    assert not required_cases - marked_cases


def test_every_marked_case_is_on_the_page(marked_cases: set[str]) -> None:
    assert not marked_cases - set(CASES)


def test_every_case_in_a_comment_is_on_the_page() -> None:
    named = {
        case
        for tree in TREES
        for path in (ROOT / tree).rglob("*.py")
        for group in re.findall(r"\(([A-Z]\d\d(?:, [A-Z]\d\d)*)\)", path.read_text())
        for case in group.split(", ")
    }
    assert named
    assert not named - set(CASES)


def test_each_case_stands_once_and_has_an_area() -> None:
    ids = re.findall(r"^- \*\*(\w+)\*\*", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(ids) == sorted(CASES)
    assert {c.area for c in CASES.values()} == {"answers", "real life", "operators"}


def test_a_case_that_cannot_occur_is_listed_and_no_test_covers_it(
    marked_cases: set[str],
) -> None:
    text = PAGE.read_text("utf-8")
    never = set(re.findall(r"^(\w+) cannot occur: .+$", text, re.MULTILINE))
    assert never == {case.id for case in CASES.values() if case.never}
    assert not never & marked_cases


# --- the results ---


def test_a_case_without_a_test_is_uncovered() -> None:
    assert report().result("A01") == "uncovered"


def test_a_case_with_a_passing_test_is_covered() -> None:
    seen = report()
    seen.note("A01", "t", "passed")
    assert seen.result("A01") == "covered"


def test_a_skipped_test_covers_nothing() -> None:
    seen = report()
    seen.note("A01", "t", "skipped")
    assert seen.result("A01") == "uncovered"


def test_one_failing_test_makes_its_case_fail() -> None:
    seen = report()
    seen.note("A01", "t", "passed")
    seen.note("A01", "u", "failed")
    assert seen.result("A01") == "failed"


def test_a_test_that_fails_in_its_set_up_or_tear_down_has_failed() -> None:
    seen = report()
    seen.note("A01", "t", "passed")
    seen.note("A01", "t", "failed")
    seen.note("A01", "t", "passed")
    assert seen.result("A01") == "failed"


def test_a_case_that_cannot_occur_says_why() -> None:
    assert report().result("A03") == "cannot occur"
    assert "A03  cannot occur: there is no third letter" in lines(report().as_json())


# --- the option ---


def run(folder: Path, *options: str) -> tuple[str, dict[str, dict[str, object]]]:
    """pytest with the options, over the tests above and one of ours, for its
    conftest.py."""
    (folder / "test_of_cases.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    picked = f"{Path(__file__)}::test_a_case_without_a_test_is_uncovered"
    path = folder / "cases.json"
    done = subprocess.run(
        [*command, *options, "--cases-json", str(path), picked, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=100,
    )
    assert path.exists(), done.stdout + done.stderr
    rows = json.loads(path.read_text("utf-8"))["cases"]
    return done.stdout, {row["id"]: row for row in rows}


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_the_option_lists_every_case_with_its_tests_and_results(
    tmp_path: Path, workers: list[str]
) -> None:
    text, rows = run(tmp_path, "--cases", *workers)
    assert {*CASES, "Z99"} == set(rows)
    results = {case: rows[case]["result"] for case in ("A01", "A02", "A05", "R05")}
    assert results == {
        "A01": "covered",
        "A02": "failed",
        "A05": "uncovered",
        "R05": "uncovered",
    }
    assert re.search(
        r"^A01  covered  \S+::test_that_passes  2 passed$", text, re.MULTILINE
    )
    assert re.search(r"^R05  uncovered$", text, re.MULTILINE)
    assert re.search(r"^A16  cannot occur: .+$", text, re.MULTILINE)


def test_the_json_names_each_test_and_a_case_that_is_on_no_page(
    tmp_path: Path,
) -> None:
    text, rows = run(tmp_path)
    assert "cases of specs/cases.md" not in text
    tests = rows["A04"]["tests"]
    assert isinstance(tests, list)
    assert [test["result"] for test in tests] == ["failed"]
    assert tests[0]["test"].endswith("test_of_cases.py::test_that_fails")
    assert rows["Z99"]["text"] == "not in specs/cases.md"
