"""Every damaged log that one piece of damage makes of a log of the kernel: both readings
of specs/rules.md agree on it. The fast tests try a part of them. The logs are the same in
every run; `python -m turnfold_model readings --seed N` makes others."""

from collections import Counter

import pytest

from turnfold_model.edge_walks.stage import Walk, logs
from turnfold_model.edge_walks.walks import WALKS
from turnfold_model.readings.compare import judged
from turnfold_model.readings.damage import damaged


@pytest.mark.case("X10")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_both_readings_agree_on_every_damaged_log(walk: Walk, record_property) -> None:
    found: Counter[bool | None] = Counter()
    for name, log in damaged(next(logs([walk]))[1]):
        verdicts = judged(log)
        assert verdicts is None or verdicts.equal, (name, verdicts)
        found[verdicts and verdicts.legal] += 1
    record_property("logs", found[True] + found[False])
    assert found[False] > 300
