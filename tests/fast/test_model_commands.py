"""`python -m turnfold_model`: one JSON object, exit codes, and what is missing is said."""

import json

import pytest

from turnfold_model.__main__ import main
from turnfold_model.tla import tlc


def test_no_command_is_wrong_usage(capsys):
    assert main([]) == 2
    assert "explore" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "tlc" in capsys.readouterr().out


def test_explore_prints_one_object_and_its_progress_elsewhere(capsys):
    assert main(["explore", "--only", "clock", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["distinct"] > 1000
    assert report["configurations"] == 1
    assert report["violations"] == 0
    assert report["dropped"] == 1
    assert "without-clock" in err


@pytest.mark.case("X18")
def test_explore_without_time_is_honest(capsys):
    assert main(["explore", "--only", "alone", "--json", "--seconds", "0"]) == 3
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["complete"] < report["configurations"]
    assert "nothing found, 0 of" in err


@pytest.mark.case("X18")
def test_a_search_without_time_is_neither_well_nor_broken(capsys):
    words = ["powerloss", "--lives", "1", "--jobs", "1"]
    assert main([*words, "--seconds", "0", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["complete"] is False
    assert "nothing found, cut short" in err


@pytest.mark.case("X18")
def test_an_extra_that_is_missing_is_named(capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name="hypothesis")

    monkeypatch.setattr("turnfold_model.__main__.import_module", missing)
    assert main(["mutants"]) == 2
    assert "needs hypothesis: pip install" in capsys.readouterr().err


def test_mutants_of_no_name_are_wrong_usage(capsys):
    assert main(["mutants", "--only", "of no name at all"]) == 2
    assert "no mutant has the words" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["crash", "explore", "ownership"])
def test_a_search_of_no_name_is_wrong_usage(capsys, command):
    assert main([command, "--only", "of no name at all"]) == 2
    assert "there are: " in capsys.readouterr().err


def test_explore_tells_the_way_to_a_violation(capsys):
    assert main(["explore", "--only", "without-key", "--traces"]) == 0
    out, err = capsys.readouterr()
    assert "violations: 0" in out
    assert "accepted: slots" in err


@pytest.mark.parametrize(
    ("java", "said"), [("/usr/bin/java", "tla2tools.jar"), (None, "no java")]
)
def test_without_java_or_jar_tlc_says_so(capsys, monkeypatch, java, said):
    monkeypatch.setenv("TLA2TOOLS_JAR", "/nowhere")
    monkeypatch.setattr(tlc.shutil, "which", lambda _: java)
    assert main(["tlc", "--small"]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_option_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as refused:
        main(["explore", "--sideways"])
    assert refused.value.code == 2
    assert "--sideways" in capsys.readouterr().err


def test_readings_judges_logs_of_a_seed(capsys):
    words = ["readings", "--logs", "20", "--seed", "7", "--json"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out == first
    report = json.loads(first)
    assert report["complete"]
    assert report["legal"] + report["illegal"] + report["unreadable"] == 20
