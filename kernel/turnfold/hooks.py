"""Telling the embedder what must not pass in silence: dead letters, parks, bounces.

Hooks run after the commit and can change nothing about it: what they raise is logged
and goes no further (A10). The same news goes to the logger `turnfold`.
"""

import logging
from collections.abc import Callable

from turnfold.events import outbox as o
from turnfold.fold import State
from turnfold.journal import Commit
from turnfold.machines.entry import Entry

_LOG = logging.getLogger("turnfold")
Hook = Callable[[Entry], None]


class Hooks:
    """Lists of plain functions that get the folded Entry."""

    def __init__(self) -> None:
        self.terminal: list[Hook] = []
        self.parked: list[Hook] = []
        self.bounced: list[Hook] = []

    def on_terminal(self, hook: Hook) -> Hook:
        """An entry ended undelivered."""
        self.terminal.append(hook)
        return hook

    def on_parked(self, hook: Hook) -> Hook:
        """An entry waits for a person: nobody knows if it was sent."""
        self.parked.append(hook)
        return hook

    def on_bounced(self, hook: Hook) -> Hook:
        """A delivered entry was refused afterwards."""
        self.bounced.append(hook)
        return hook

    def tell(self, commit: Commit) -> None:
        for emitted in commit.emitted:
            state = commit.moved.get(emitted.stream)
            match emitted.event:
                case o.FailedTerminal(reason=reason):
                    self._call(self.terminal, state, f"ended undelivered: {reason}")
                case o.Parked(reason=reason):
                    self._call(self.parked, state, f"is parked, in doubt: {reason}")
                case o.Bounced():
                    self._call(self.bounced, state, "bounced")
                case _:
                    pass

    @staticmethod
    def _call(hooks: list[Hook], state: State | None, news: str) -> None:
        if not isinstance(state, Entry):
            return
        _LOG.warning("%s to %s %s", state.stream, state.lane, news)
        for hook in hooks:
            try:
                hook(state)
            except Exception:  # noqa: BLE001  a hook may raise anything
                _LOG.exception("a hook failed; the entry is not affected")
