"""What programs want of channels: a plan, a preparation, a call, a look-up.

It finds the channel as it is attached now, keeps the number of calls under way in
bounds, and lets each leg tell its program what came of it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from turnfold.attached import Attached
from turnfold.bodies import read_body
from turnfold.decide.draft import AttemptRef, NotLoaded
from turnfold.drivers.calls import Call
from turnfold.drivers.legs import DRAIN, Legs, route_of
from turnfold.drivers.running import Places, Running
from turnfold.effects import Asked, Send
from turnfold.errors import MissingBodyError, StoreError, UsageError
from turnfold.machines.entry import Entry
from turnfold.packing import fetch_payload
from turnfold.planning import Plan
from turnfold.ports.channel import CannotTell, Rejected, Unknown
from turnfold.ports.store import Store
from turnfold.words import FailureClass

_ABSENT_MS = 5_000  # how long a look-up waits for a channel that is not attached

Tell = Callable[[Any], None]


class Carrier:
    """`find` gives the folded entry. Answers go to `tell`, perhaps at once; errors of
    a program's own making are raised, but for a send that had to wait in line."""

    def __init__(
        self,
        store: Store,
        find: Callable[[str], Entry],
        desks: Mapping[tuple[str, str], Attached],
        legs: Legs,
        at_once: int,
        draining: Callable[[], bool],
    ) -> None:
        self._store, self._find, self._desks, self._legs = store, find, desks, legs
        self.places = Places(at_once)
        self._draining = draining

    async def plan(self, stream: str) -> Plan | Rejected:
        entry = self._find(stream)
        desk = self._desk(entry)
        if desk is None:
            return _detached(entry)
        try:
            read = partial(read_body, self._store)
            payloads = [await fetch_payload(read, stream, ref) for ref in entry.body]
            return desk.plan(payloads, route_of(entry), entry.kind, stream)
        except Exception as exc:  # an adapter's plan may raise anything
            if isinstance(exc, StoreError) and not isinstance(exc, MissingBodyError):
                raise  # a disk may recover; a body that is gone stays gone
            detail = f"plan: {type(exc).__name__}: {exc}"
            return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=detail)

    def prepare(self, run: Running, attempt: AttemptRef, tell: Tell) -> None:
        entry = self._find(attempt.entry)
        desk = self._desk(entry)
        if desk is None or self._draining():
            tell(_detached(entry) if desk is None else DRAIN)
        else:
            _wait_for(run, self._legs.prepare(desk, attempt, tell))

    def send(
        self, run: Running, effect: Send, tell: Tell, fail: Callable[[Exception], None]
    ) -> None:
        """As soon as there is a place for it."""
        self.places.enter(run, partial(self._send, run, effect, tell, fail))

    def _send(
        self, run: Running, effect: Send, tell: Tell, fail: Callable[[Exception], None]
    ) -> None:
        ended = partial(self._sent, tell)
        try:
            entry = self._find(effect.attempt.entry)
        except NotLoaded:  # it was closed while this attempt waited for a place
            ended(Unknown(cause="overtaken"))
            return
        try:
            desk = self._desk(entry)
            if desk is None:
                ended(_detached(entry))
            else:
                _wait_for(run, self._legs.send(desk, effect.attempt, ended))
        except (StoreError, UsageError) as exc:
            self.places.leave()
            fail(exc)

    def _sent(self, tell: Tell, outcome: Any) -> None:
        self.places.leave()
        tell(outcome)

    def reconcile(self, run: Running, stream: str, tell: Tell) -> None:
        desk = self._desk(self._find(stream))
        if desk is None:
            tell(Asked(CannotTell(detail="channel is not attached"), _ABSENT_MS))
        else:
            _wait_for(run, self._legs.reconcile(desk, stream, tell))

    def _desk(self, entry: Entry) -> Attached | None:
        return self._desks.get((entry.channel, entry.account))


def _wait_for(run: Running, call: Call | None) -> None:
    if call is not None:  # else it was told already, and has gone on
        run.waits = call


def _detached(entry: Entry) -> Rejected:
    detail = f"channel {entry.channel}/{entry.account} is not attached"
    return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)
