"""Two readings of specs/rules.md, written apart: the kernel's audit and the model's
reference. They agree on logs of the real kernel, and on damaged ones: the same ones in every
run. `python -m turnfold_model readings --seed N` makes others."""

from collections import Counter
from functools import cache
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fast import test_audit, test_reference
from tests.fast.audit_logs import records

from turnfold_model.edge_walks.stage import logs
from turnfold_model.edge_walks.walks import WALKS
from turnfold_model.readings.compare import judged
from turnfold_model.readings.damage import WAYS, Log, damaged
from turnfold_model.reference import as_events

EVERY = 37  # of all damaged logs; tests/formal tries more of them


@cache
def right() -> list[Log]:
    """The log of every walk of the kernel over the edges of its machines."""
    return [log for _, log in logs(WALKS)]


def written() -> dict[str, Log]:
    """The logs that the tests of both readings have by hand, good and bad."""
    made = {f"reference: {n}": s.events for n, s in test_reference.GOOD.items()}
    made |= {f"reference: {n}": s.events for n, (_, s) in test_reference.BAD.items()}
    steps = test_audit.GOOD | {n: steps for n, (*_, steps) in test_audit.BAD.items()}
    return made | {
        f"audit: {name}": [e for r in records(some) for e in as_events(r)]
        for name, some in steps.items()
    }


WRITTEN = written()


@pytest.mark.case("X10")
def test_both_readings_call_every_log_of_the_kernel_legal() -> None:
    for log in right():
        verdicts = judged(log)
        assert verdicts is not None
        assert verdicts.legal, verdicts.kernel
        assert verdicts.equal, verdicts.reference


@pytest.mark.case("X10")
@pytest.mark.parametrize("name", WRITTEN)
def test_both_readings_agree_on_the_logs_that_are_written_by_hand(name: str) -> None:
    verdicts = judged(WRITTEN[name])
    assert verdicts is None or verdicts.equal, verdicts


@pytest.mark.case("X10")
@pytest.mark.timeout(400)  # thousands of logs on a machine that is busy elsewhere
def test_both_readings_agree_on_thousands_of_damaged_logs(capsys) -> None:
    found: Counter[str] = Counter()
    every = (case for log in right() for case in damaged(log))
    for name, log in islice(every, 0, None, EVERY):
        verdicts = judged(log)
        if verdicts is None:
            found["unreadable"] += 1
            continue
        assert verdicts.equal, (name, verdicts)
        found["legal" if verdicts.legal else "illegal"] += 1
    with capsys.disabled():
        print(f"\ndamaged logs that both readings judge alike: {dict(found)}")  # noqa: T201  the count is wanted in every run
    assert found["illegal"] >= 4_000
    assert found["legal"] >= 400


@pytest.mark.case("X10")
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_both_readings_agree_on_logs_with_several_pieces_of_damage(data) -> None:
    log = data.draw(st.sampled_from(right()), label="log")
    for _ in range(data.draw(st.integers(1, 3), label="pieces")):
        way = data.draw(st.sampled_from(WAYS), label="way")
        cases = list(way(log))
        if cases:
            name, log = data.draw(st.sampled_from(cases), label="damage")
            verdicts = judged(log)
            assert verdicts is None or verdicts.equal, (name, verdicts)
