"""Values whose own methods raise: an answer, or the typed error that names the argument.

Such values come from array libraries, ORMs and proxies. Their errors say nothing to the
caller about the argument, so none of them comes out of a public call.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_every_argument import _LEFT_OUT, _OF, _base

from turnfold import (
    File,
    Inbound,
    InvalidInputError,
    Kernel,
    Native,
    Route,
    Settings,
    SourceCursor,
    Text,
    TurnfoldError,
    Unreadable,
)
from turnfold.arguments import check
from turnfold.enums import Busy
from turnfold_model.testing.gateway import Gateway, inbound, route


class BoomError(Exception):
    """Raised by a value itself."""


def boom(*_: Any, **__: Any) -> Any:
    raise BoomError


class Table(Mapping[str, Any]):
    def __init__(self, raising: str) -> None:
        self.raising = raising

    def __getitem__(self, key: str) -> Any:
        return boom() if self.raising == "item" else 1

    def __iter__(self) -> Iterator[str]:
        return boom() if self.raising == "iter" else iter("a")  # type: ignore[no-any-return]  # boom never returns

    def __len__(self) -> int:
        return 1


class Zone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise BoomError

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        raise BoomError


_ORDER = ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__hash__", "__repr__")
_TEXT = [
    "len",
    "eq",
    "ne",
    "hash",
    "str",
    "repr",
    "iter",
    "contains",
    "format",
    "getitem",
    "mod",
    "bool",
]
_PLAIN = [
    "encode",
    "isascii",
    "isprintable",
    "removeprefix",
    "replace",
    "strip",
    "split",
]


def of_class(base: type, names: Any, *made_of: Any) -> Any:
    raising: Any = property(boom) if "__class__" in names else boom
    return type("Raising", (base,), dict.fromkeys(names, raising))(*made_of)


# Every question about their class raises.
_OF_NO_CLASS: list[Any] = [(object,), (str, "abc"), (type(Path()), "abc"), (dict,)]
RAISING: list[Any] = [
    *(of_class(str, [f"__{name}__"], "abc") for name in _TEXT),
    *(of_class(str, [name], "abc") for name in _PLAIN),
    Table("iter"),
    Table("item"),
    datetime(2020, 1, 1, tzinfo=Zone()),
    of_class(object, ["__repr__", "__str__"]),
    of_class(object, ["__bool__"]),
    of_class(object, ["__eq__"]),
    of_class(object, ["__getattr__"]),
    of_class(dict, ["items", "__iter__"], {"a": 1}),
    of_class(list, ["__iter__"], [1]),
    of_class(list, ["__len__"], [1]),
    of_class(int, _ORDER, 3),
    of_class(float, _ORDER, 3.0),
    of_class(Exception, ["__str__", "__repr__"]),
    *(of_class(type(Path()), [f"__{name}__"], "abc") for name in ("str", "fspath")),
    *(of_class(base, {"__class__"}, *made) for base, *made in _OF_NO_CLASS),
]

MADE: dict[Callable[..., Any], dict[str, Any]] = {
    Inbound: {"channel": "t", "conversation": "1", "message_id": "m"},
    Unreadable: {"channel": "t", "raw": b"", "error": "x"},
    Text: {"text": "x"},
    File: {"path": "x"},
    Native: {"body": {}},
    Route: {"channel": "t", "conversation": "1"},
    SourceCursor: {"channel": "t", "account": "d", "value": "1"},
    Settings: {},
    Kernel: {"store": "memory:"},
}


@pytest.mark.case("X20", "Z06")
@pytest.mark.parametrize("made", MADE)
def test_no_constructor_raises_the_error_of_a_value(made: Callable[..., Any]) -> None:
    for name in inspect.signature(made).parameters:
        for value in RAISING:
            for given in (value, {"a": value}, [value]):
                with suppress(InvalidInputError):
                    made(**{**MADE[made], name: given})


@pytest.mark.case("X20", "Z06")
async def test_no_call_of_a_kernel_raises_the_error_of_a_value() -> None:
    gateway = Gateway()
    kernel = await gateway.start()
    made = await kernel.enqueue(route("9"), "x")
    ids = {"failed": made.entry_id, "turn": (await kernel.accept(inbound())).turn_id}
    left_out = _LEFT_OUT | {"drain", "client", "on_turn"}
    names = [
        n for n, _ in inspect.getmembers(Kernel, inspect.isfunction) if n[0] != "_"
    ]
    for name in sorted(set(names) - left_out):
        await try_all(getattr(kernel, name), _base(name, ids) | _OF.get(name, {}))
    assert kernel.working
    await gateway.end()


async def try_all(method: Callable[..., Any], base: dict[str, Any]) -> None:
    """Each argument that can be named, with each raising value."""
    taken = [
        p.name
        for p in inspect.signature(method).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    given = {name: base[name] for name in taken if name in base}
    for name in taken:
        for value in RAISING:
            with suppress(TurnfoldError):
                done = method(**{**given, name: value})
                if inspect.iscoroutine(done):
                    await done


@pytest.mark.case("X20")
def test_the_check_of_an_annotation_lets_no_error_of_a_value_out() -> None:
    for wanted in (str, int, float, Busy, Mapping[str, int], tuple[str, ...]):
        for value in RAISING:
            with suppress(InvalidInputError):
                check("given", value, wanted)


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Native(Table("iter")), "body"),
        (lambda: Native({"a": of_class(list, ["__iter__"], [1])}), "body"),
        (lambda: Native({}, Table("item")), "files"),
        (lambda: made_with(body=Table("item")), "body"),
        (lambda: made_with(sent_at=datetime(2020, 1, 1, tzinfo=Zone())), "sent_at"),
        (lambda: check("given", Table("iter"), Mapping[str, int]), "given"),
    ],
    ids=["iter", "inner", "files", "json", "sent_at", "check"],
)
def test_what_cannot_be_read_is_refused_by_name(make: Any, field: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{field}.*cannot be read: BoomError"):
        make()


def made_with(**more: Any) -> Inbound:
    return Inbound("t", conversation="1", message_id="m", **more)


@pytest.mark.case("T10")
async def test_text_of_a_class_of_its_own_is_kept_as_plain_text(lone: Gateway) -> None:
    kernel = await lone.start()
    for name in (*(f"__{n}__" for n in _TEXT), *_PLAIN):
        done = await kernel.enqueue(
            route(), "x", key=of_class(str, [name], f"key {name}")
        )
        assert done.new
