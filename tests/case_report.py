"""The cases of specs/cases.md, and the tests of a session that cover them.

`pytest --cases` prints one line for each case: its id, its result and its tests.
`--cases-json FILE` writes the same as JSON. This lives with the tests and not in
`turnfold_model.plugin`, because the list is one of turnfold's own duties: a gateway that
loads the plugin has other cases, and no copy of specs/.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

HERE = Path(__file__).parent
PAGE = HERE.parent / "specs" / "cases.md"
ID = r"[A-Z]\d\d"
PROPERTY = "case"  # of a report: the ids travel with it from workers of pytest-xdist

_FAMILY = re.compile(r"^## (\w)\. (.+) \(area: (.+)\)$", re.MULTILINE)
_CASE = re.compile(rf"^- \*\*({ID})\*\* (.+)$", re.MULTILINE)
_NEVER = re.compile(rf"^({ID}) cannot occur: (.+)$", re.MULTILINE)


@frozen
class Case:
    """One line of the page. `never`: the reason why it cannot occur."""

    id: str
    text: str
    area: str
    never: str | None = None


def read_cases(page: str) -> dict[str, Case]:
    """Every case of a page like specs/cases.md, in its order."""
    areas = {letter: area for letter, _, area in _FAMILY.findall(page)}
    never = dict(_NEVER.findall(page))
    return {
        case: Case(case, text, areas[case[0]], never.get(case))
        for case, text in _CASE.findall(page)
    }


def marked_in_files(folder: Path = HERE) -> set[str]:
    """The ids that any test file marks, collected in this session or not."""
    found: set[str] = set()
    for path in folder.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) == "case":
                found |= {
                    str(a.value) for a in node.args if isinstance(a, ast.Constant)
                }
    return found


def _name(function: ast.expr) -> str:
    """The last word of `pytest.mark.case`, or of a shorter name for it."""
    return getattr(function, "attr", getattr(function, "id", ""))


@define(eq=False)
class CaseReport:
    """A plugin. `outcomes`: the result of each test, by case and node id."""

    cases: Mapping[str, Case]
    show: bool = False
    path: Path | None = None
    outcomes: dict[str, dict[str, str]] = field(factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            ids = {str(i) for mark in item.iter_markers("case") for i in mark.args}
            item.user_properties += [(PROPERTY, case) for case in sorted(ids)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, case in report.user_properties:
            if name == PROPERTY:
                self.note(str(case), report.nodeid, _outcome(report))

    def note(self, case: str, test: str, outcome: str | None) -> None:
        """One phase of a test has ended. A failure in any phase stays a failure."""
        tests = self.outcomes.setdefault(case, {})
        if outcome is not None and tests.get(test) != "failed":
            tests[test] = outcome

    def result(self, case: str) -> str:
        """`failed`, `covered`, `cannot occur` or `uncovered`: a test that was skipped
        did not run, and covers nothing."""
        outcomes = set(self.outcomes.get(case, {}).values())
        if "failed" in outcomes:
            return "failed"
        if "passed" in outcomes:
            return "covered"
        known = self.cases.get(case)
        return "cannot occur" if known and known.never else "uncovered"

    def as_json(self) -> dict[str, Any]:
        ids = [*self.cases, *sorted(set(self.outcomes) - set(self.cases))]
        rows = [self._row(case) for case in ids]
        counts: dict[str, int] = {}
        for row in rows:
            counts[row["result"]] = counts.get(row["result"], 0) + 1
        return {"cases": rows, "counts": counts}

    def _row(self, case: str) -> dict[str, Any]:
        known = self.cases.get(case)
        tests = sorted(self.outcomes.get(case, {}).items())
        return {
            "id": case,
            "text": known.text if known else "not in specs/cases.md",
            "area": known.area if known else None,
            "result": self.result(case),
            "why": known.never if known else None,
            "tests": [{"test": test, "result": outcome} for test, outcome in tests],
        }

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.path is not None and not hasattr(session.config, "workerinput"):
            text = json.dumps(self.as_json(), indent=1, ensure_ascii=False)
            self.path.write_text(text + "\n", "utf-8")

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        if not self.show:
            return
        terminalreporter.section("cases of specs/cases.md")
        for line in lines(self.as_json()):
            terminalreporter.write_line(line)


def _outcome(report: pytest.TestReport) -> str | None:
    """None for a set-up or tear-down that went well: the call decides."""
    if report.failed:
        return "failed"
    if report.skipped:
        return "xfailed" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """One line for each case and test function, and a sum at the end."""
    for row in report["cases"]:
        head = f"{row['id']}  {row['result']}"
        if not row["tests"]:
            why = f": {row['why']}" if row["result"] == "cannot occur" else ""
            yield f"{head}{why}"
        for test, outcomes in _by_function(row["tests"]).items():
            yield f"{head}  {test}  {', '.join(outcomes)}"
    counts = report["counts"].items()
    yield ", ".join(f"{count} {result}" for result, count in sorted(counts))


def _by_function(tests: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """The results of each test function, its parameters counted: `3 passed`."""
    found: dict[str, dict[str, int]] = {}
    for test in tests:
        counts = found.setdefault(test["test"].partition("[")[0], {})
        counts[test["result"]] = counts.get(test["result"], 0) + 1
    return {
        name: [f"{count} {result}" for result, count in sorted(counts.items())]
        for name, counts in found.items()
    }
