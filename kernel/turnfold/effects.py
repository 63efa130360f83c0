"""Everything a program can want from the world. Programs yield these; a driver answers.

A driver may stop before an effect, or after it happened but before the program learns
of it. Those two are every crash there is, which is why nothing else has effects.
"""

from collections.abc import Callable, Generator
from typing import Any

from turnfold.decide.draft import AttemptRef, Draft
from turnfold.frozen import frozen

Decision = Callable[[Draft], Any]


@frozen
class Append:
    """Decide and commit. Answer: what the decision returned. Raises what it raised."""

    decision: Decision


@frozen
class Look:
    """Ask folded state, outside a transaction. Answer: what the question returned."""

    question: Decision


@frozen
class MakePlan:
    """Run the channel's plan for a queued entry. Answer: Plan, or Rejected."""

    entry: str


@frozen
class Prepare:
    """Upload, open, fetch a token. Answer: Prepared, or Rejected."""

    attempt: AttemptRef


@frozen
class Prepared:
    value: Any = None


@frozen
class TakeUp:
    """Start the program of an attempt, unless this process has taken it up before."""

    attempt: AttemptRef


@frozen
class Send:
    """The one visible platform call of an attempt. Answer: an Outcome, always."""

    attempt: AttemptRef


@frozen
class Reconcile:
    """Ask what became of the current part of an entry. Answer: Asked."""

    entry: str


@frozen
class Asked:
    """`unsettled_ms`: how long an old request may still land; 0 when it cannot."""

    verdict: Any
    unsettled_ms: int = 0


@frozen
class CallHandler:
    """Run the embedder's handler. Answer: RunEnd."""

    turn: str
    run: int


@frozen
class RunEnd:
    """`how`: "returned", "raised" or "stopped"."""

    how: str
    detail: str = ""


@frozen
class Wait:
    """Let time pass. `trouble`: the error that made waiting necessary, to be told."""

    ms: int
    trouble: Exception | None = None
    where: str = ""


Effect = (
    Append | Look | MakePlan | Prepare | TakeUp | Send | Reconcile | CallHandler | Wait
)
Program = Generator[Effect, Any, Any]
