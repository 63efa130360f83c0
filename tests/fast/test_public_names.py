"""The public names: each has its docstring, values copy and pickle, errors show facts."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import turnfold
from turnfold.api.hooks import Hooks
from turnfold.errors import TurnfoldError
from turnfold.inspect import Inspect

_CLASSES = {
    name: found
    for name in turnfold.__all__
    if inspect.isclass(found := getattr(turnfold, name))
}
_HAVE_METHODS = [*_CLASSES.values(), Hooks, Inspect]


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    for name in dir(owner):
        found = inspect.getattr_static(owner, name)
        ours = (getattr(found, "__module__", None) or "").startswith("turnfold")
        of_ours = inspect.isfunction(found) and ours
        if not name.startswith("_") and (of_ours or isinstance(found, property)):
            yield f"{owner.__name__}.{name}", found


@pytest.mark.case("Z10")
def test_every_public_name_has_a_docstring() -> None:
    bare = [n for n, c in _CLASSES.items() if not (c.__doc__ or "").strip()]
    made = [n for n, c in _CLASSES.items() if (c.__doc__ or "").startswith(f"{n}(")]
    members = [m for owner in _HAVE_METHODS for m in _members(owner)]
    silent = [name for name, found in members if not inspect.getdoc(found)]
    assert (bare, made, sorted(set(silent))) == ([], [], [])


@pytest.mark.case("Z03", "Z10")
def test_the_docstring_of_settings_names_each_with_its_default() -> None:
    text = turnfold.Settings.__doc__ or ""
    defaults = turnfold.Settings()
    for field in attrs.fields(turnfold.Settings):
        line = next((n for n in text.splitlines() if f"`{field.name}`" in n), "")
        assert line, field.name
        value = getattr(defaults, field.name)
        if isinstance(value, int | str) and not isinstance(value, bool):
            assert f"{value:,}" in line if type(value) is int else str(value) in line, (
                line
            )


_ROUTE = turnfold.Route(channel="t", conversation="1")
VALUES: list[Any] = [
    _ROUTE,
    turnfold.Text("hi"),
    turnfold.File(data=b"x", name="f"),
    turnfold.Native(body={"a": [1, {"b": None}]}),
    turnfold.Inbound("t", conversation="1", message_id="1", body={"a": {"b": [1]}}),
    turnfold.Settings(),
    turnfold.Accepted(receipt=turnfold.Receipt(ids=("1",))),
    turnfold.Rejected(failure=turnfold.FailureClass.TRANSIENT, detail="x"),
    turnfold.Unknown(cause="x"),
    turnfold.SourceCursor(channel="t", account="default", value="1"),
    turnfold.Capabilities(),
]


@pytest.mark.case("Y11")
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_copies_and_pickles(value: Any) -> None:
    for other in (
        pickle.loads(pickle.dumps(value)),
        copy.copy(value),
        copy.deepcopy(value),
    ):
        assert type(other) is type(value)
        assert other == value


@pytest.mark.case("Y11")
def test_the_repr_of_an_error_shows_its_facts() -> None:
    error: TurnfoldError = turnfold.DiskError(path="/x", problem="full")
    assert repr(error) == "DiskError(path='/x', problem='full')"
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


@pytest.mark.case("Z01")
def test_the_names_that_authors_need_are_at_the_top() -> None:
    wanted = [
        "Part",
        "Attempt",
        "Outcome",
        "TurnHandle",
        "AcceptedTurn",
        "Sent",
        "PlannedPart",
        "PlanContext",
        "Channel",
        "GateScope",
        "Format",
        "Inspect",
        "Filter",
    ]
    errors = [n for n, c in vars(turnfold.errors).items() if inspect.isclass(c)]
    ours = [n for n in errors if issubclass(vars(turnfold.errors)[n], TurnfoldError)]
    assert [name for name in [*wanted, *ours] if name not in turnfold.__all__] == []
