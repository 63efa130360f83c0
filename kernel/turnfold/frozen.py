"""Immutable for the type checker, at no cost when a program runs.

A frozen attrs class sets each field through `object.__setattr__`, which makes it three
times as slow to make as a plain one; some fifty small values are made for a message.
So the values of the inside are plain classes that mypy holds to be frozen. What an
embedder makes or keeps (payloads, routes, receipts, settings) is frozen for real.
See specs/decisions/0015.
"""

from functools import partial
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from attrs import frozen
else:
    frozen = partial(define, unsafe_hash=True)

__all__ = ["frozen"]
