"""Gates: an account, a conversation or a route that is held back, and let go again."""

from attrs import frozen

from turnfold._decide import rules
from turnfold._decide.failures import RULES, backoff_ms
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._log.events import GateClosed, GateOpened
from turnfold._log.ids import GATE, account_scope, gate_for, gate_of_place, gates_of
from turnfold._state.entry import Entry
from turnfold._state.fold import PERSON, Gate
from turnfold.enums import FailureClass, GateScope
from turnfold.errors import InvalidInputError
from turnfold.ports.channel import CannotTell, Rejected, Unknown

_SHORTEST_MS = 100
BUG = "adapter_bug"  # the reason of a gate that holds back a channel that breaks


@frozen(kw_only=True)
class BuggyRejected(Rejected):
    """Not sent: the adapter raised an error that no platform makes."""


@frozen(kw_only=True)
class BuggyUnknown(Unknown):
    """Outcome unknown: the adapter raised an error that no platform makes."""


def breaks(draft: UnitOfWork, entry: Entry) -> bool:
    """Count a bug of the adapter. True if it breaks for one message after the other: then
    its account is held back, and one lane is tried now and then."""
    flow = draft.context.flow
    if flow is None or not flow.breaks(entry.lane, entry.stream):
        return False
    settings, name = draft.settings, gates_of(entry.lane)[0]
    gate = draft.gate(name)
    if rules.held_by_a_person(gate, draft.now):
        return True
    if gate is None or not gate.holds(draft.now):
        wait = settings.probe_ms << min(flow.refused(entry.lane), _DOUBLINGS)
        wait = max(min(wait, settings.auth_probe_ms), _SHORTEST_MS)
        draft.emit(name, GateClosed(reason=BUG, until=draft.now + wait))
    return True


_PATIENT = 30  # refused probes, before the next are made more rarely
_DOUBLINGS = 16  # of the wait between two probes, at most
_GUESSED_MS = 1_000  # the first wait of an account whose limit is a guess
_NO_PLACE = "is neither channel/account nor channel/account/conversation"


def close_gate(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> None:
    """Close the gate of a failure: for the platform's own wait, else for the wait in
    the settings. A connected account opens it earlier."""
    rule = RULES[outcome.failure]
    scope = rule.gate or GateScope.ACCOUNT
    wait = _wait(draft, entry.lane, outcome)
    if outcome.failure is FailureClass.RATE_LIMITED:
        scope = outcome.scope
        if scope is not GateScope.ACCOUNT and _guessed(draft, entry, outcome, wait):
            return
    _close(draft, gate_for(entry.lane, scope), outcome, wait)


def _guessed(draft: UnitOfWork, entry: Entry, outcome: Rejected, wait: int) -> bool:
    """Close the account's gate if its conversations are refused one after the other.
    The guess may be wrong, so another conversation is tried soon, and later after each
    refused probe. True if the account waits as long as the platform asked for."""
    flow = draft.context.flow
    if flow is None or not flow.limits(entry):
        return False
    name = gates_of(entry.lane)[0]
    gate = draft.gate(name)
    if gate is None or not gate.holds(draft.now):
        guess = _GUESSED_MS << min(flow.refused(entry.lane), _DOUBLINGS)
        _close(draft, name, outcome, min(wait, guess))
        return wait <= guess
    return gate.until is None or gate.until >= draft.now + wait


def _close(draft: UnitOfWork, name: str, outcome: Rejected, wait: int) -> None:
    until = draft.now + wait
    gate = draft.gate(name)
    if rules.held_by_a_person(gate, draft.now):
        return
    if gate is not None and gate.holds(draft.now):
        known = gate.reason == outcome.failure and outcome.retry_after_ms is None
        if known or _longer(gate.until, until):
            return
    draft.emit(name, GateClosed(reason=outcome.failure, until=until))


def _wait(draft: UnitOfWork, lane: str, outcome: Rejected) -> int:
    settings = draft.settings
    if outcome.retry_after_ms is not None:
        wait = outcome.retry_after_ms
    elif outcome.failure is FailureClass.RATE_LIMITED:
        wait = settings.rate_limit_ms
    elif outcome.failure is FailureClass.AUTH:
        wait = settings.auth_probe_ms
    elif outcome.failure is FailureClass.TRANSIENT:
        wait = _rarer(draft, lane, min(_growing(draft, lane), settings.probe_ms))
    else:
        wait = _rarer(draft, lane, settings.probe_ms)
    # A deferred part spends no budget, so it must not be tried again without a pause.
    return max(wait, _SHORTEST_MS)


def _rarer(draft: UnitOfWork, lane: str, wait: int) -> int:
    """An account that has failed for hours is tried more rarely: after each thirty
    refused probes by one wait more. Each probe costs some events of the log."""
    flow = draft.context.flow
    refused = 0 if flow is None else flow.refused(lane)
    more = wait * (1 + refused // _PATIENT)
    return max(wait, min(more, draft.settings.auth_probe_ms))


def _growing(draft: UnitOfWork, lane: str) -> int:
    """The wait grows with each refused probe of the account."""
    flow = draft.context.flow
    refused = 0 if flow is None else flow.refused(lane)
    return backoff_ms(draft.settings, refused + 1, 1000)


def passing(draft: UnitOfWork, entry: Entry, outcome: Rejected) -> int | None:
    """When a part may be tried again after a transient failure, which says nothing
    about the message. None if several lanes of its account fail: then its gate closes
    instead."""
    flow = draft.context.flow
    if flow is not None and flow.fails(entry.lane):
        close_gate(draft, entry, outcome)
        return None
    settings = draft.settings
    wait = backoff_ms(settings, entry.backoffs + 1, draft.context.jitter())
    return draft.now + max(wait, outcome.retry_after_ms or 0, _SHORTEST_MS)


def unanswered(draft: UnitOfWork, entry: Entry, said: CannotTell) -> int | None:
    """The platform did not answer a look-up, for a reason that says nothing about the
    message. Returns when to ask again, as after a send; None leaves it to a gate."""
    assert said.failure is not None  # noqa: S101  the caller has looked
    outcome = Rejected(
        failure=said.failure, retry_after_ms=said.retry_after_ms, scope=said.scope
    )
    rule = RULES[said.failure]
    if rule.gate is not None:
        close_gate(draft, entry, outcome)
    return passing(draft, entry, outcome) if rule.backs_off else None


def gates_to_probe(draft: UnitOfWork) -> list[Gate]:
    """The gates that hold accounts back since an earlier worker. Two kinds are left
    alone: a rate limit, whose wait the platform asked for, and a gate that a person
    closed."""
    return [
        gate
        for gate in draft.closed_gates()
        if gate.reason != FailureClass.RATE_LIMITED
        and not rules.held_by_a_person(gate, draft.now)
        and gate.holds(draft.now)
    ]


def probe_gates(draft: UnitOfWork, only: str | None = None) -> None:
    """A worker that begins tries each account that was held: the token may be new, or
    the connection may work again. The gate's time ends now, so one lane goes first.
    `only`: the gate of an account whose channel has just been attached."""
    for gate in gates_to_probe(draft):
        if only is not None and gate.stream != only:
            continue
        reason = gate.reason or FailureClass.NOT_CONNECTED
        draft.emit(gate.stream, GateClosed(reason=reason, until=draft.now))


def _longer(held: int | None, asked: int | None) -> bool:
    return held is None or (asked is not None and held >= asked)


def connected(
    draft: UnitOfWork, channel: str, account: str, by: str | None = None, why: str = ""
) -> None:
    """An account works again: open its gate. `by`: the person who says so; None for the
    embedder, who cannot open a gate that a person closed."""
    name = f"{GATE}{account_scope(channel, account)}"
    gate = draft.gate(name)
    if by is None and rules.held_by_a_person(gate, draft.now):
        return
    if gate is not None and gate.closed:
        open_gate(draft, name, "connected", by, why)


_NOTE = 500  # characters of a person's words that a gate keeps


def open_gate(
    draft: UnitOfWork, name: str, reason: str, by: str | None, why: str
) -> None:
    """Open one gate. `why`: a person's words, which the event itself keeps."""
    draft.emit(name, GateOpened(reason=reason, by=by, note=why[:_NOTE] or None))


def disconnected(draft: UnitOfWork, channel: str, account: str) -> None:
    """The embedder says that an account cannot send: close its gate, spend no budget.
    If the embedder never says that the account works again, one lane tries now and
    then."""
    name = f"{GATE}{account_scope(channel, account)}"
    gate = draft.gate(name)
    if rules.held_by_a_person(gate, draft.now):
        return
    reason, now = FailureClass.NOT_CONNECTED, draft.now
    known = gate is not None and gate.holds(now) and gate.reason == reason
    if not known:
        until = now + max(draft.settings.auth_probe_ms, _SHORTEST_MS)
        draft.emit(name, GateClosed(reason=reason, until=until))


def hold_back(
    draft: UnitOfWork, stream: str, by: str, why: str = "", for_ms: int | None = None
) -> str:
    """A person holds an account or a conversation back, even if another gate reason
    held it before. Returns the name of the gate. `for_ms`: how long; None: until a
    person opens it."""
    name = gate_of_place(stream)
    words = name.removeprefix(GATE).split("/")
    if not 2 <= len(words) <= 4 or "" in words[:3]:
        raise InvalidInputError(field="place", problem=f"{stream:.80} {_NO_PLACE}")
    note = why[:_NOTE] or None
    until = None if for_ms is None else draft.now + for_ms
    draft.emit(name, GateClosed(reason=PERSON, until=until, by=by, note=note))
    return name
