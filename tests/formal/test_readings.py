"""Damaged logs that one piece of damage makes of each log of the kernel: both readings of
specs/rules.md agree on them. The logs are the same in every run;
`python -m turnfold_model readings --seed N` makes others.

TURNFOLD_LONG=1 takes them all, for ten minutes of one processor; else every eighth.
"""

import os
from collections import Counter
from itertools import islice

import pytest

from turnfold_model.edge_walks.stage import Walk, logs
from turnfold_model.edge_walks.walks import WALKS
from turnfold_model.readings.compare import judged
from turnfold_model.readings.damage import damaged

STEP = 1 if os.environ.get("TURNFOLD_LONG") else 8


@pytest.mark.case("X10")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_both_readings_agree_on_the_damaged_logs(walk: Walk, record_property) -> None:
    found: Counter[bool | None] = Counter()
    first = WALKS.index(walk) % STEP  # each walk begins with another one
    for name, log in islice(damaged(next(logs([walk]))[1]), first, None, STEP):
        verdicts = judged(log)
        assert verdicts is None or verdicts.equal, (name, verdicts)
        found[verdicts and verdicts.legal] += 1
    record_property("logs", found[True] + found[False])
    assert found[False] > 300 // STEP
