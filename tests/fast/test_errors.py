"""Every error: in the catalogue, with a code of its own, printable and picklable."""

import pickle
import re
from pathlib import Path

import pytest

from turnfold import errors
from turnfold.errors import TurnfoldError

PAGE = (Path(__file__).parents[2] / "specs" / "errors.md").read_text()
ROW = re.compile(
    r"^\| `(\w+)` \| `([\w.]+)` \| (.+) \| (.+) \| (yes|no) \|$", re.MULTILINE
)
ROWS = {row[0]: row[1:] for row in ROW.findall(PAGE)}


def classes(base: type[TurnfoldError] = TurnfoldError) -> list[type[TurnfoldError]]:
    own = [base] if base.__module__ == errors.__name__ else []
    return own + [c for sub in base.__subclasses__() for c in classes(sub)]


def made(cls: type[TurnfoldError]) -> TurnfoldError:
    fields = re.findall(r"{(\w+)}", cls.template)
    return cls(**{name: f"<{name}>" for name in fields if name != "self"})


def test_the_catalogue_has_every_class_under_its_code() -> None:
    assert {name: row[0] for name, row in ROWS.items()} == {
        cls.__name__: cls.code for cls in classes()
    }


def test_codes_are_unique() -> None:
    codes = [cls.code for cls in classes()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_each_error_prints_its_facts_and_survives_pickling(
    cls: type[TurnfoldError],
) -> None:
    error = made(cls)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.facts) == (str(error), error.facts)
    for name, value in error.facts.items():
        assert getattr(again, name) == value
        assert str(value) in str(error)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_texts_have_no_prefix_and_no_full_stop(cls: type[TurnfoldError]) -> None:
    text = str(made(cls))
    assert not text.startswith("Error")
    assert not text.endswith(".")


def test_every_class_belongs_to_one_family() -> None:
    families = (errors.UsageError, errors.ChannelError, errors.StoreError)
    for cls in classes():
        if cls is not TurnfoldError:
            assert sum(issubclass(cls, family) for family in families) == 1
