"""The page of the command line: its commands, and the fields of every JSON object."""

import re
from pathlib import Path

import attrs
import pytest

from turnfold.inspect import views
from turnfold_cli import COMMANDS

PAGE = (Path(__file__).parents[2] / "specs" / "cli.md").read_text()
CLASSES = {
    cls.__name__: cls
    for cls in vars(views).values()
    if isinstance(cls, type) and attrs.has(cls) and cls.__name__ != "Answer"
}


def test_it_names_every_command() -> None:
    named = re.findall(r"^\| `turnfold (\w+)", PAGE, re.MULTILINE)
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("name", CLASSES)
def test_it_has_every_field_of_every_view(name: str) -> None:
    section = re.search(
        rf"^### {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert section is not None
    fields = re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)
    assert fields == [field.name for field in attrs.fields(CLASSES[name])]
