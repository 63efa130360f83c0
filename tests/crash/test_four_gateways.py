"""Four gateway processes on one store: one works, the others stand by and post.

The program that forks them runs in an interpreter of its own (four_gateways.py).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("four_gateways.py")


@pytest.mark.case("F01")
@pytest.mark.parametrize("flush", ["auto", "thread"])
def test_four_gateways_answer_every_message_once_though_their_worker_is_killed(
    tmp_path: Path, flush: str
) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path), flush]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["missing"], told["doubled"]) == ([], [])
    assert told["finding"] is None
    assert told["inbox"] == []
    assert told["turns"] == {"completed": 60}
    assert told["status"] == [0, 0, 0]
    assert len(told["workers"]) == 2, "another one took over"
    assert told["killed"] in told["workers"]
    assert told["before"] < 60, "it was killed in the middle"
