"""Immutable for the type checker, at no cost when a program runs.

A frozen attrs class sets each field through `object.__setattr__`, which makes it three
times as slow to make as a plain one; some fifty small values are made for a message.
So the values of the inside are plain classes that mypy holds to be frozen. What an
embedder makes or keeps (payloads, routes, receipts, settings) is frozen for real.
See specs/decisions/0015.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import NOTHING, define, fields

if TYPE_CHECKING:
    from attrs import frozen
else:
    frozen = partial(define, unsafe_hash=True)

__all__ = ["frozen", "maker"]

_T = TypeVar("_T")
_NONE: Any = NOTHING


def maker(cls: type[_T]) -> type[_T]:
    """The constructor of such a class as a plain function, for what is made for every
    message: a class that is called with names packs them into a dictionary first, a
    function does not, and takes less than half the time. For the type checker it is
    the class."""
    every: Any = fields(cls)  # type: ignore[arg-type]  # all of them are attrs classes
    names = {f"default_{a.name}": a.default for a in every}
    takes = [a.name if a.default is _NONE else _default(a.name) for a in every]
    source = [f"def make(*, {', '.join(takes)}):", "    self = blank(cls)"]
    source += [f"    self.{a.name} = {a.name}" for a in every]
    names |= {"blank": object.__new__, "cls": cls}
    exec("\n".join([*source, "    return self"]), names)  # noqa: S102  our own names
    made: type[_T] = names["make"]
    return made


def _default(name: str) -> str:
    return f"{name}=default_{name}"
