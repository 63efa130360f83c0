"""What a program does when the store cannot take its decision just now."""

from typing import Any

from turnfold.effects import Append, Decision, Program, Wait
from turnfold.errors import CorruptLogError, NotOpenError, StoreError

REST_MS = 250  # short, since a store that works again should be used again


def insist(decision: Decision) -> Program:
    """Append until it is stored. For outcomes: what a platform said is kept in hand
    until the log has it, and nothing is sent meanwhile (A06, A09)."""
    while True:
        try:
            answer: Any = yield Append(decision)
        except CorruptLogError:
            raise  # no patience makes it readable
        except (StoreError, NotOpenError) as exc:
            yield from rest(exc, "outcome")
        else:
            return answer


def rest(trouble: Exception, where: str) -> Program:
    yield Wait(REST_MS, trouble, where)
