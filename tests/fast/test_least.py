"""The table of specs/guarantees.md: each figure has a command that exists."""

import re

from tests.least import LEAST, PAGE

from turnfold_model.__main__ import COMMANDS

TEXT = PAGE.read_text("utf-8")


def test_every_row_of_the_table_is_read() -> None:
    rows = re.findall(r"^\| .+ \| `python -m .+\|$", TEXT, re.MULTILINE)
    assert len(rows) == len(LEAST)


def test_every_command_of_the_page_exists() -> None:
    named = set(re.findall(r"python -m turnfold_model (\w+)", TEXT))
    assert named == set(COMMANDS)


def test_figures_stand_in_the_table_alone() -> None:
    prose = re.sub(r"^\|.+\|$", "", TEXT, flags=re.MULTILINE)
    assert not re.findall(r"\d[\d,]{2,}(?!\S*\.md)", prose)
