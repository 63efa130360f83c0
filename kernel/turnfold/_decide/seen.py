"""An act is decided on the state that the person saw: if its stream has moved since,
the act is refused and changes nothing."""

from collections.abc import Callable
from typing import Any

from turnfold._decide import rules
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._state.entry import Entry
from turnfold._state.turn import Turn
from turnfold.errors import NotFoundError, RuleBrokenError


def act(
    draft: UnitOfWork,
    decision: Callable[..., Any],
    stream: str,
    seen: int | None,
    **arguments: Any,
) -> Any:
    """Decide, if the stream still has the version `seen` (None: any version).

    Raises RuleBrokenError with the rule `as_seen` if it has not.
    """
    if seen is not None:
        _check(draft, stream, seen)
    return decision(draft, stream=stream, **arguments)


def _check(draft: UnitOfWork, stream: str, seen: int) -> None:
    state = draft.state(stream)
    if state is None:
        raise NotFoundError(what="stream", id=stream)
    if not rules.as_seen(state, seen):
        now = f"; it is {_word(state)} now" if isinstance(state, Entry | Turn) else ""
        why = f"it has changed since it was looked at{now}"
        raise RuleBrokenError(stream=stream, rule="as_seen", why=why)


def _word(state: Entry | Turn) -> str:
    return str(state.phase if isinstance(state, Turn) else state.status)
