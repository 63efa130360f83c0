"""Comments and pages refer to sections and files that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "specs"
TREES = ("kernel", "adapters", "model", "tests", "examples", "specs")
ENDINGS = {".py", ".md", ".tla"}
SECTION = re.compile(r"specs/design\.md`?,? (?:section )?(\d+)(?: (?:and|to) (\d+))?")
OF_A_SPEC = re.compile(r"specs/([\w/-]+\.(?:md|tla))")
OF_A_DECISION = re.compile(r"decisions/(\d{4})(-[\w-]+\.md)?")


def texts() -> Iterator[tuple[str, str]]:
    """Every text of the tree that may refer to a page, by its path."""
    own = [path for path in ROOT.glob("*.md") if path.is_file()]
    found = [p for tree in TREES for p in (ROOT / tree).rglob("*")]
    for path in [*own, *found]:
        if path.suffix in ENDINGS and path != Path(__file__):
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def sections() -> set[str]:
    page = (SPECS / "design.md").read_text("utf-8")
    return set(re.findall(r"^## (\d+)\.", page, re.MULTILINE))


def test_every_section_of_the_contract_that_is_named_exists() -> None:
    known, named = sections(), 0
    for where, text in texts():
        for numbers in SECTION.findall(text):
            named += 1
            missing = {number for number in numbers if number} - known
            assert not missing, f"{where} names specs/design.md {missing}"
    assert named


def test_every_page_that_is_named_exists() -> None:
    for where, text in texts():
        missing = [p for p in OF_A_SPEC.findall(text) if not (SPECS / p).exists()]
        assert not missing, f"{where} names {missing}"


def test_every_decision_that_is_named_exists() -> None:
    names = {path.name for path in (SPECS / "decisions").iterdir()}
    numbers = {name[:4] for name in names}
    for where, text in texts():
        for number, rest in OF_A_DECISION.findall(text):
            known = number + rest in names if rest else number in numbers
            assert known, f"{where} names decision {number}{rest}"


@pytest.mark.case("Z07")
@pytest.mark.parametrize(
    "name", ["LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"]
)
def test_the_files_that_a_stranger_looks_for_are_there(name: str) -> None:
    assert (ROOT / name).read_text("utf-8").strip()


def test_a_comment_names_the_contract_by_its_path() -> None:
    """`design 4` alone would name a page that nobody can find."""
    bare = re.compile(r"(?<![/\w])design \d")
    found = [where for where, text in texts() if bare.search(text)]
    assert not found
