"""The pages of the site include examples by name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))


def test_every_include_is_written_as_the_generator_reads_it() -> None:
    """A formatter of code takes an include for Python, and breaks it."""
    odd = [page.name for page in PAGES if re.search(r"-- *8 *< ", page.read_text())]
    assert not odd


def test_every_included_file_is_there() -> None:
    found = [
        name
        for page in PAGES
        for name in re.findall(r'^--8<-- "([^":]+)', page.read_text(), re.MULTILINE)
    ]
    assert len(found) >= 6
    assert not [name for name in found if not (ROOT / name).is_file()]
