"""The bench judges each target, and never drops one."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.bench import instructions, questions, servers, tree
from tests.bench.__main__ import main
from tests.bench.compare import Rounds
from tests.bench.imports import Imports
from tests.bench.targets import TARGETS, judge

from turnfold_adapters.stores.sqlite import SqliteStore

_LONG = "WAL pages per message at 100 k of history"


def _row(
    found: dict[str, dict[str, float]], missing: dict[str, str], name: str
) -> dict:
    (row,) = (row for row in judge(found, missing) if row["name"] == name)
    return row


def test_an_empty_run_has_every_target_without_value_and_with_a_reason() -> None:
    rows = judge({}, {})
    assert [row["name"] for row in rows] == [target.name for target in TARGETS]
    for row in rows:
        assert row["value"] is None
        assert row["met"] is None
        assert row["reason"]


def test_a_row_has_the_keys_that_readers_of_the_json_expect() -> None:
    row = _row({"commits": {"lone message": 2.0}}, {}, "commits per lone message")
    assert list(row) == ["name", "value", "must", "stretch", "met"]
    assert (row["value"], row["met"]) == (2.0, True)


@pytest.mark.parametrize(("value", "met"), [(15.0, True), (15.1, False)])
def test_less_is_better_for_a_time(value: float, met: bool) -> None:
    found = {"FULL": {"turnfold, 100, p99 ms": value}}
    assert _row(found, {}, "p99 at 100 senders, ms")["met"] is met


@pytest.mark.parametrize(("value", "met"), [(1.0, True), (0.99, False)])
def test_more_is_better_for_a_ratio_of_rates(value: float, met: bool) -> None:
    found = {"FULL": {"turnfold, 100 / Redis Streams": value}}
    assert _row(found, {}, "FULL, 100 senders / Redis Streams always")["met"] is met


def test_the_best_peer_is_the_fastest_that_delivers_at_least_once() -> None:
    found = {
        "FULL": {
            "huey": 3000.0,
            "litequeue": 1500.0,
            "persist-queue": 1000.0,
            "turnfold, 1 / huey": 0.3,
            "turnfold, 1 / litequeue": 0.6,
            "turnfold, 1 / persist-queue": 0.9,
        }
    }
    row = _row(found, {}, "FULL, 1 sender / best at-least-once peer")
    assert row["value"] == 0.6


def test_a_missing_server_is_the_reason() -> None:
    missing = {"Redis Streams": "redis-server is not on the PATH"}
    row = _row({"FULL": {}}, missing, "FULL, 100 senders / Redis Streams always")
    assert row["reason"] == "Redis Streams: redis-server is not on the PATH"


def test_a_short_run_says_that_it_is_short() -> None:
    row = _row({"WAL pages": {"history 20000": 1.0}}, {}, _LONG)
    assert "--quick" in row["reason"]


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    rounds = Rounds()
    for one, other in ((1, 10), (20, 40), (30, 40)):
        rounds.note("a", one)
        rounds.note("b", other)
    assert rounds.ratio("a", "b") == 0.5


def test_a_server_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(servers.UnavailableError, match="no-such-server"):
        servers._found("no-such-server")


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(instructions.UncountedError, match="PATH"):
        instructions.count()


def test_a_count_is_the_difference_of_two_loads() -> None:
    loads, summaries = [], []
    pid = 10
    for subject in instructions.SUBJECTS:
        for senders in instructions.SENDERS:
            for messages, count in ((200, b"5,000,000"), (1000, b"805,000,000")):
                pid += 1
                loads.append(f"{pid} {subject}, {senders}, {messages}")
                summaries.append(b"==%d== I   refs:      %s" % (pid, count))
    found = instructions._per_message("\n".join(loads), b"\n".join(summaries))
    assert set(found.values()) == {1000.0}


def _graph(**files: tuple[str, ...]) -> Imports:
    return Imports(
        {
            f"turnfold.{name.replace('__', '.')}": frozenset(
                f"turnfold.{other}" for other in others
            )
            for name, others in files.items()
        }
    )


def test_an_import_of_a_higher_layer_points_up() -> None:
    graph = _graph(_log__codec=("_state.entry", "errors"), errors=("clock",))
    assert graph.upward() == ["turnfold._log.codec -> turnfold._state.entry"]


def test_a_file_of_words_may_import_no_layer() -> None:
    assert _graph(errors=("_log.ids",)).upward() == [
        "turnfold.errors -> turnfold._log.ids"
    ]


def test_ports_stand_beside_the_layers() -> None:
    graph = _graph(_decide__plan=("ports.channel",), ports__store=("_log.codec",))
    assert graph.upward() == []


def test_a_circle_of_groups_is_found_where_no_file_is_in_a_circle() -> None:
    graph = _graph(a__one=("b.one",), b__two=("a.two",), a__two=(), b__one=())
    assert graph.circles() == ["a <-> b"]
    assert graph.circles_of_files() == []


def test_the_way_of_one_message_passes_the_kernel_and_the_store() -> None:
    files = " ".join(tree.passage().calls)
    assert "kernel/turnfold" in files
    assert "turnfold_adapters/stores" in files
    assert "tests" not in files


def test_the_questions_are_asked_of_a_store_that_can_be_read(tmp_path: Path) -> None:
    """A small one, so that a change of the records it is made of is noticed."""
    path = tmp_path / "g.db"
    asyncio.run(questions.fill(SqliteStore(path), 500))
    found = asyncio.run(questions.in_python(SqliteStore(path), 500))
    assert len(found) == 20


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    "words",
    [
        ("--only", "nosuch"),
        ("--turns", "-1"),
        ("--turns", "1e6"),
        ("--nosuch",),
        ("--json", "/nosuch/a.json"),
        ("--svg", "/"),
    ],
    ids=" ".join,
)
def test_wrong_use_of_the_bench_is_one_line_and_exit_code_2(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().err.count("\n")) == (2, 1)
