"""The site builds without a warning, and its code is code that runs."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))


def _blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.case("Z08")
def test_the_site_has_a_start_ways_to_do_things_operation_and_a_reference() -> None:
    nav = (ROOT / "docs" / "mkdocs.yml").read_text().partition("\nnav:")[2]
    parts = [name.lower() for name in re.findall(r"^  - ([\w ]+):", nav, re.MULTILINE)]
    for wanted in ("start", "how to", "operate", "reference"):
        assert any(part.startswith(wanted) for part in parts), parts


@pytest.mark.case("Z08")
def test_the_site_builds_and_names_no_page_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"]
    where = ["-f", str(ROOT / "docs" / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    done = subprocess.run(
        [*command, *where], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "specs" / "design" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_code_compiles_and_finds_what_it_imports(page: Path) -> None:
    for block in _blocks(page):
        if block.startswith("--8<--"):
            name = re.findall(r'"(.+?)"', block)[0]
            assert (ROOT / name).exists(), f"{page.name} shows {name}"
            continue
        compile(block, page.name, "exec")
        imports = re.findall(
            r"^from turnfold[^(]*?(?:\(.*?\)|$)", block, re.DOTALL | re.MULTILINE
        )
        for line in imports:
            exec(line, {})


@pytest.mark.case("Z08")
def test_the_first_gateway_is_killed_and_answers_each_message_once(
    tmp_path: Path,
) -> None:
    (example,) = _blocks(ROOT / "docs" / "pages" / "start.md")
    (tmp_path / "gateway.py").write_text(example)
    command = [sys.executable, "gateway.py"]
    heard: list[str] = []
    with (tmp_path / "first").open("w") as out:
        first = subprocess.Popen(command, cwd=tmp_path, stdout=out)
        while "You said" not in (tmp_path / "first").read_text():
            time.sleep(0.05)
            assert first.poll() is None
        time.sleep(0.3)  # the answer is noted, and the next one is not sent yet
        first.kill()
        first.wait()
    heard += (tmp_path / "first").read_text().splitlines()
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        heard += done.stdout.splitlines()
    answers = sorted(line for line in heard if line.startswith("You said"))
    assert answers == [f"You said: hello {number}" for number in range(5)]
    assert heard.count("known 4") == 2
