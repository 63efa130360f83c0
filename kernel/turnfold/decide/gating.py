"""Gates: an account, a conversation or a route that is held back, and let go again."""

from turnfold.decide.draft import Draft
from turnfold.events.ledger import GateClosed, GateOpened
from turnfold.failures import RULES
from turnfold.names import GATE, account_scope, gate_for
from turnfold.ports.channel import Rejected
from turnfold.words import FailureClass, GateScope

_SHORTEST_MS = 100


def close_gate(draft: Draft, lane: str, outcome: Rejected) -> None:
    """Hold what the failure speaks of, until it says so or somebody reconnects."""
    rule = RULES[outcome.failure]
    scope = rule.gate or GateScope.ROUTE
    if outcome.failure is FailureClass.RATE_LIMITED:
        scope = outcome.scope
    wait = _wait(draft, outcome)
    until = draft.now + wait if rule.opens_by_itself else None
    name = gate_for(lane, scope)
    gate = draft.gate(name)
    if gate is not None and gate.holds(draft.now) and _longer(gate.until, until):
        return
    draft.emit(name, GateClosed(reason=outcome.failure, until=until))


def _wait(draft: Draft, outcome: Rejected) -> int:
    if outcome.retry_after_ms is not None:
        # What is deferred costs nothing, so it must not come round without a pause.
        return max(outcome.retry_after_ms, _SHORTEST_MS)
    if outcome.failure is FailureClass.RATE_LIMITED:
        return draft.settings.rate_limit_ms
    return draft.settings.probe_ms


def _longer(held: int | None, asked: int | None) -> bool:
    return held is None or (asked is not None and held >= asked)


def connected(draft: Draft, channel: str, account: str) -> None:
    """The embedder says that an account works again: nothing waits any longer."""
    name = f"{GATE}{account_scope(channel, account)}"
    gate = draft.gate(name)
    if gate is not None and gate.closed:
        draft.emit(name, GateOpened(reason="connected"))


def disconnected(draft: Draft, channel: str, account: str) -> None:
    """The embedder knows that an account cannot send: hold it, spend nothing."""
    name = f"{GATE}{account_scope(channel, account)}"
    gate = draft.gate(name)
    if gate is None or not gate.holds(draft.now) or gate.until is not None:
        draft.emit(name, GateClosed(reason=FailureClass.NOT_CONNECTED, until=None))
