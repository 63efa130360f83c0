"""The pytest plugin, as another project's CI uses it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKEN = """
import asyncio
from turnfold import Accepted, Kernel, Receipt, Route
from turnfold_model.testing.platform import PlatformChannel

class Twice(PlatformChannel):
    async def send(self, part, key, attempt):
        await super().send(part, key, attempt)
        return await super().send(part, key, attempt)

def test_a_channel_that_sends_everything_twice(tmp_path, turnfold_platform):
    async def main():
        kernel = Kernel(tmp_path / "g.db")
        kernel.attach("t", Twice(turnfold_platform), on_unknown="hold")
        async with kernel:
            done = await kernel.enqueue(Route(channel="t", conversation="1"), "hello")
            await kernel.settled(done.entry_id, 5000)
    asyncio.run(main())
"""


def _pytest(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "turnfold_model.plugin", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=100,
    )


def test_the_example_gateway_passes_its_own_tests_with_the_plugin() -> None:
    example = ROOT / "examples" / "parrot"
    done = _pytest(f"--rootdir={example}", "-c", "/dev/null", ".", cwd=example)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    ("mark", "code", "said"),
    [
        ("", 1, "breaks a rule"),
        ("import pytest\npytestmark = pytest.mark.turnfold_no_audit('why')\n", 0, ""),
    ],
)
def test_a_test_whose_log_breaks_a_rule_fails_unless_it_says_why(
    tmp_path: Path, mark: str, code: int, said: str
) -> None:
    (tmp_path / "test_broken.py").write_text(mark + BROKEN)
    done = _pytest(f"--rootdir={tmp_path}", "-c", "/dev/null", cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_edges_that_no_test_has_taken_are_listed(
    tmp_path: Path, workers: str
) -> None:
    honest = BROKEN.replace("        await super().send(part, key, attempt)\n", "")
    (tmp_path / "test_honest.py").write_text(honest)
    options = ("--turnfold-edges", "-n", workers)
    done = _pytest(f"--rootdir={tmp_path}", "-c", "/dev/null", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "outbox.delivered: in_doubt -> delivered" in done.stdout
    assert "outbox.delivered: dispatched -> delivered" not in done.stdout
    assert re.search(r"^4 of \d+ edges were taken$", done.stdout, re.MULTILINE)
