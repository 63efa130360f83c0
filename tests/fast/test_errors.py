"""Every error: in the catalogue, with a code of its own, printable and picklable."""

import pickle
import re
from pathlib import Path

import attrs
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
    wanted = {a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING}
    return cls(**{name: f"<{name}>" for name in wanted})


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
    for name in re.findall(r"{(\w+)}", cls.template):
        assert str(error.facts[name]) in str(error)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_the_facts_of_an_error_are_typed_fields(cls: type[TurnfoldError]) -> None:
    """An error that gains a fact without a type, or a text without its fact, is found
    here and by mypy."""
    assert set(re.findall(r"{(\w+)}", cls.template)) <= {
        a.name for a in attrs.fields(cls)
    }
    with pytest.raises(TypeError):
        cls(**made(cls).facts, surplus=1)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_an_error_comes_back_from_its_code_and_facts(cls: type[TurnfoldError]) -> None:
    error = made(cls)
    again = errors.error_of(cls.code, error.facts)
    assert (type(again), str(again)) == (cls, str(error))


@pytest.mark.parametrize(
    ("code", "facts"),
    [("usage.newest", {"id": "x"}), ("usage.not_found", {"what": "turn", "why": "x"})],
)
def test_a_refusal_of_another_version_is_told_as_such(
    code: str, facts: dict[str, str]
) -> None:
    error = errors.error_of(code, facts)
    assert isinstance(error, errors.UnknownRefusalError)
    assert code in str(error)
    assert "=x" in str(error)


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_a_docstring_says_when_an_error_is_raised(cls: type[TurnfoldError]) -> None:
    assert (cls.__doc__ or "").startswith(("Raised ", "The base of "))


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
