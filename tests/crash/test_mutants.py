"""A broken kernel is noticed: a fast selection of mutants, each by a named checker.

All of them are killed by `python -m turnfold_model mutants`; TURNFOLD_LONG=1 does that
here.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import pytest
from tests.least import LEAST

from turnfold._decide import rules
from turnfold._state.entry import Entry
from turnfold_model.__main__ import main
from turnfold_model.mutants import checkers
from turnfold_model.mutants.checkers import NoCheckerError, check, price
from turnfold_model.mutants.code import Edit, Mutant, StaleMutantError, applied
from turnfold_model.mutants.matrix import COLUMNS, survey, table
from turnfold_model.mutants.table import MUTANTS, read
from turnfold_model.protocol_model import matrix

LONG = bool(os.environ.get("TURNFOLD_LONG"))
pytestmark = pytest.mark.timeout(7_200 if LONG else 110)
FIRST = {m.name: min(m.killers, key=price) for m in MUTANTS}
# Their searches take a second or two, those of others up to half a minute.
_SHORT = ("one", "budget", "editable", "join", "live", "lookup", "poison", "prepare")
QUICK = ("answers", *(f"crash:{name}" for name in _SHORT))
FAST = [m for m in MUTANTS if FIRST[m.name] in QUICK]


@pytest.mark.parametrize("mutant", FAST, ids=lambda mutant: mutant.name)
def test_its_cheapest_checker_kills_the_mutant(mutant: Mutant) -> None:
    with applied(mutant):
        assert check(FIRST[mutant.name])


@pytest.mark.parametrize("checker", sorted({FIRST[m.name] for m in FAST}))
def test_a_checker_that_kills_has_nothing_to_say_of_the_product(checker: str) -> None:
    assert check(checker) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_leaves_no_trace(mutant: Mutant) -> None:
    with applied(mutant):
        pass
    assert check("answers") is None


def test_there_is_a_mutant_for_each_guard() -> None:
    broken = {edit.where for mutant in MUTANTS for edit in mutant.edits}
    names = [
        name
        for name, found in vars(rules).items()
        if getattr(found, "__module__", "") == rules.__name__
    ]
    assert len(names) > 15
    assert {f"turnfold._decide.rules:{name}" for name in names} <= broken


def test_each_guard_of_the_world_model_has_its_twin_among_the_mutants() -> None:
    worlds = [c.name.removeprefix("unguarded-") for c in matrix.unguarded()]
    assert sorted(m.world for m in MUTANTS if m.world) == sorted(worlds)


def test_names_are_unique_and_areas_are_all_there() -> None:
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) >= 25
    areas = {"guard", "program", "decision", "recovery", "shards", "sql", "store"}
    assert {m.area for m in MUTANTS} == areas


def test_there_are_at_least_as_many_mutants_as_the_page_asks_for() -> None:
    of = Counter(mutant.area for mutant in MUTANTS)
    assert len(MUTANTS) >= LEAST["mutants, all killed"]
    assert of["guard"] >= LEAST["mutants of guards"]
    assert of["decision"] >= LEAST["mutants of decisions"]
    assert of["program"] >= LEAST["mutants of programs"]
    assert of["recovery"] >= LEAST["mutants of recovery"]
    assert of["store"] >= LEAST["mutants of the store"]


def test_a_text_of_mutants_is_read_line_by_line() -> None:
    text = """# Why.
[guard]
two places are broken
  in a:b
  + return True
  in c:d
  - for x in y:
  -     f(x)
  + pass
  by crash:one, answers
  world consent
"""
    edits = (
        Edit("a:b", "", "return True"),
        Edit("c:d", "for x in y:\n    f(x)", "pass"),
    )
    killers = ("crash:one", "answers")
    assert [*read(text)] == [
        Mutant("two places are broken", "guard", edits, killers, "consent")
    ]


# --- what fits no more is loud ---


def test_a_line_that_means_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="'a name': a line that means nothing: of x"):
        [*read("[guard]\na name\n  of x\n")]


@pytest.mark.parametrize(
    ("where", "old", "told"),
    [
        (
            "turnfold._decide.rules:no_doubt",
            "entry.gone",
            "`entry.gone`, found it 0 times",
        ),
        ("turnfold._decide.rules:no_doubt", "entry", "found it 1 times"),
        (
            "turnfold._decide.rules:outcome_is_current",
            "entry.phase",
            "found it 1 times",
        ),
        ("turnfold._decide.rules:gone", "entry", "there is no such function"),
        ("turnfold.gone:guard", "entry", "there is no such function"),
        ("turnfold._state.entry:Entry", "entry", "no function"),
    ],
)
def test_a_mutant_whose_code_has_moved_on_says_what_it_looked_for(
    where: str, old: str, told: str
) -> None:
    gone = Mutant("gone", "guard", (Edit(where, old, "True"),), ())
    if told == "found it 1 times":
        with applied(gone):
            return
    with pytest.raises(StaleMutantError, match=told), applied(gone):
        pass


def test_a_piece_that_stands_there_twice_is_not_replaced() -> None:
    where = "turnfold._decide.rules:nothing_seen"
    twice = Mutant("twice", "guard", (Edit(where, "Phase", "None"),), ())
    with pytest.raises(StaleMutantError, match="5 times"), applied(twice):
        pass


def test_layout_does_not_matter_and_everything_is_put_back() -> None:
    entry = cast("Entry", SimpleNamespace(abort="user"))
    edit = Edit(
        "turnfold._decide.rules:not_aborted", "( entry . abort )is\\\n None", "True"
    )
    with applied(Mutant("spread", "guard", (edit,), ())):
        assert rules.not_aborted(entry)
    assert not rules.not_aborted(entry)


def test_the_command_tells_a_stale_mutant_and_a_checker_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from turnfold_model.mutants import command

    edit = Edit("turnfold._decide.rules:no_doubt", "entry.gone", "True")
    rows = (
        Mutant("stale", "guard", (edit,), ("answers",)),
        Mutant("lost", "guard", (), ("crash:nowhere",)),
        Mutant("harmless", "guard", (), ("answers",)),
    )
    monkeypatch.setattr(command, "MUTANTS", rows)
    monkeypatch.setattr(command, "isolate", lambda work, tasks, *_: map(work, tasks))
    assert main(["mutants", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["total"], report["killed"]) == (3, 0)
    assert report["survivors"] == ["harmless"]
    assert report["stale"] == [
        "stale: turnfold._decide.rules:no_doubt: looked for `entry.gone`, found it 0 times",
        "lost: crash:nowhere",
    ]


@pytest.mark.parametrize(
    "name",
    ["crash:nowhere", "power:nowhere", "world:nowhere", "who", "test:fast/nobody.py"],
)
def test_a_checker_that_is_not_there_has_noticed_nothing(name: str) -> None:
    with pytest.raises(NoCheckerError):
        check(name)


def _waits_and_blames_another(_: str) -> None:
    try:
        signal.pause()
    except BaseException as exc:
        message = "not the same twice"
        raise ValueError(message) from exc


def _swallows_the_first_alarm(_: str) -> None:
    with suppress(BaseException):
        signal.pause()
    signal.pause()


@pytest.mark.parametrize("look", [_waits_and_blames_another, _swallows_the_first_alarm])
def test_a_checker_that_is_cut_off_says_that_its_time_was_up(
    look: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(checkers._KINDS, "slow", look)
    monkeypatch.setattr(checkers, "_PATIENCE_S", 0.05)
    assert check("slow") == "no end after 0.05 s"


# --- the command and the table ---


def test_a_row_of_the_whole_table_tells_who_noticed() -> None:
    mutant = next(m for m in MUTANTS if m.world == "doubt")
    with applied(mutant):
        found = [(n, survey(n)) for n in ("crash:keyed-two-faults", "world:doubt")]
    assert {"world", "reference", "audit"} <= set(found[0][1]) | set(found[1][1])
    head, line = table([(mutant, found)])
    assert head.split() == list(COLUMNS)
    assert line.split()[-len(COLUMNS) :].count(".") < len(COLUMNS)


@pytest.mark.case("X18")
def test_the_command_reports_and_says_if_its_time_is_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["mutants", "--json", "--only", "not_expired", "--jobs", "1"]
    assert main(words) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["killed"] == report["total"] == 1
    assert report["areas"] == {"guard": 1}
    assert report["killed_by"] == {"crash": 1}
    assert "2/2 killed" in shown.err or "1/2 killed" in shown.err
    assert main([*words, "--seconds", "0"]) == 3
    assert json.loads(capsys.readouterr().out)["late"] == 2


def test_the_whole_table_asks_every_sort_of_checker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from turnfold_model.mutants import command

    asked: set[str] = set()

    def answer(name: str) -> dict[str, str]:
        asked.add(name.partition(":")[0])
        return {"crash": "found"} if name == "crash:expiry" else {}

    monkeypatch.setattr(command, "survey", answer)
    monkeypatch.setattr(command, "isolate", lambda work, tasks, *_: map(work, tasks))
    words = ["mutants", "--full", "--only", "called undelivered"]
    assert main(words) == 1  # for it said the same of the product
    assert asked >= {"world", "crash", "power", "disk", "store", "stateful", "test"}
    assert "FALSE ALARM crash:expiry" in capsys.readouterr().err


@pytest.mark.skipif(not LONG, reason="minutes")
def test_the_command_kills_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["killed"] == report["total"] == len(MUTANTS)
    assert report["false_alarms"] == []
