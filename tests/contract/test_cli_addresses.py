"""An address of a store names the same file for each command."""

from pathlib import Path

import pytest
from tests.contract.test_cli import folder, run, template  # noqa: F401


@pytest.mark.parametrize(
    "words",
    [
        ["copy", "gateway.db", "sqlite:new.db"],
        ["restore", "b.db", "-s", "sqlite:new.db"],
    ],
)
def test_a_new_store_is_at_its_address(folder: Path, words: list[str]) -> None:  # noqa: F811  the fixture
    assert run("backup", "b.db").exit_code == 0
    before = {path.name for path in folder.iterdir()}
    assert run(*words).exit_code == 0
    assert {path.name for path in folder.iterdir()} - before == {"new.db"}
    assert run("head", "-s", "sqlite:new.db").exit_code == 0


def test_a_backup_is_put_back_into_a_file_only(folder: Path) -> None:  # noqa: F811  the fixture
    assert run("backup", "b.db").exit_code == 0
    address = "postgresql://ann:secret@db.example.org/chat"
    refused = run("restore", "b.db", "-s", address)
    assert refused.exit_code == 2
    assert "is no file" in refused.stderr
    assert "secret" not in refused.stderr
