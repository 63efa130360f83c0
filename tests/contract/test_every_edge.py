"""The kernel takes every edge of the model, but for those that are listed with a reason.

All walks are played once per process, on the real Kernel; a test per edge then looks at
their logs, so that what is missing is told by its name.
"""

import json
from functools import cache

import pytest
from tests.least import LEAST

from turnfold_model import reference
from turnfold_model.__main__ import main
from turnfold_model.edge_walks.edges import ALL, Edge, taken
from turnfold_model.edge_walks.stage import Walk, logs
from turnfold_model.edge_walks.walks import UNTAKEN, WALKS
from turnfold_model.reference.kinds import Record


@cache
def log_of(walk: Walk) -> list[Record]:
    return next(logs([walk]))[1]


@cache
def walked() -> dict[Edge, str]:
    """Each edge that a walk takes, with the first walk that does."""
    seen: dict[Edge, str] = {}
    for walk in WALKS:
        for edge in taken(log_of(walk)):
            seen.setdefault(edge, walk.name)
    return seen


@pytest.mark.parametrize("edge", sorted(ALL), ids=str)
def test_every_edge_is_taken_by_the_kernel_or_listed_with_its_reason(
    edge: Edge,
) -> None:
    by = walked().get(edge)
    if edge in UNTAKEN:
        assert by is None, f"{edge} is taken now ({by}): strike it from UNTAKEN"
    else:
        assert by is not None, f"no walk takes {edge}"


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_the_log_of_every_walk_keeps_every_rule(walk: Walk) -> None:
    assert list(reference.audit(log_of(walk))) == []


def test_no_walk_is_there_twice() -> None:
    assert len({walk.name for walk in WALKS}) == len(WALKS)


def test_an_event_that_cannot_be_ends_its_stream_and_no_other() -> None:
    log = log_of(Walk("queue go accept"))
    queued = next(event for event in log if event["kind"] == "outbox.queued")
    wrong = {**queued, "kind": "outbox.bounced", "data": {"part": 0}}
    end = log.index(queued) + 1
    seen = taken([*log[:end], wrong, *log[end:]])
    assert list(seen) == [Edge("outbox", "none", "queued", "queued")]


def test_the_command_tells_of_the_walks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edges", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["taken"] + report["never"] == report["edges"] == len(ALL)
    assert report["missing"] == report["unexpected"] == []
    assert report["breaches"] == 0
    assert report["taken"] >= LEAST["edges taken by the kernel"]


def _line(event) -> str:
    """The line of an export with one event in its record."""
    record = {name: event[name] for name in ("position", "stream", "version", "at")}
    told = [event["kind"], event["schema"], event["data"]]
    return json.dumps({**record, "events": [told]})


def test_the_command_tells_of_a_log_from_elsewhere(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.ndjson"
    lines = map(_line, log_of(Walk("queue go accept")))
    file.write_text("\n".join(lines))
    assert main(["edges", "--json", "--log", str(file), "--log", str(file)]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["times"]["outbox.delivered: dispatched -> delivered"] == 2
    assert "not taken  outbox.delivered: in_doubt -> delivered" in err
    assert len(report["missing"]) == len(ALL) - len(UNTAKEN) - report["taken"]
