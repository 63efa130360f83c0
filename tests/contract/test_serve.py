"""`turnfold serve` as a process: it listens where it says, ends on a signal, and what it
was doing when it was killed is whole and can be done again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.contract.test_cli_acts import counts, run
from tests.contract.test_dashboard import TOKEN
from tests.contract.test_dashboard_acts import after_an_incident, store  # noqa: F401

COMMAND = "import sys; from turnfold_cli import main; sys.argv[0] = 'turnfold'; main()"


@contextmanager
def served(path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard, and the address that it says."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            COMMAND,
            "serve",
            str(path),
            "--port",
            "0",
            "--json",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TURNFOLD_SERVE_TOKEN": TOKEN},
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"].rstrip("/")
    finally:
        process.kill()
        process.communicate()


def test_it_serves_until_a_signal_and_leaves_nothing(
    store: Path,  # noqa: F811  the fixture
) -> None:
    files = sorted(store.parent.iterdir())
    headers = {"authorization": f"Bearer {TOKEN}"}
    with served(store) as (process, url):
        told = httpx.get(f"{url}/status.json", headers=headers, timeout=60).json()
        assert told["parked"] == 6
        assert httpx.get(f"{url}/status.json", timeout=60).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in process.communicate()[1]
    assert sorted(store.parent.iterdir()) == files


@pytest.mark.case("X01", "N06")
def test_killed_while_it_acts_all_is_whole_and_done_again(
    store: Path,  # noqa: F811  the fixture
    tmp_path: Path,
) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with served(store, "--acts") as (process, url):
        ask = f"{url}/act.json?do=discard&parked=1"
        name = httpx.get(ask, headers=headers, timeout=60).json()["preview"]
        form = {"preview": name, "by": "ann"}
        begun = httpx.post(f"{url}/act", data=form, headers=headers, timeout=60)
        assert begun.status_code == 303
        process.kill()
    assert run(store, "audit").exit_code == 0
    left = counts(store).get("parked", 0)
    again = run(store, "discard", "--parked", "--yes", "--by", "ann")
    assert again.exit_code == 0, again.output
    assert f"{left} done" in again.stdout or left == 0
    assert "parked" not in counts(store)
    assert run(store, "audit").exit_code == 0
    shutil.rmtree(tmp_path, ignore_errors=True)
