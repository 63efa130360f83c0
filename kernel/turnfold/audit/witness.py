"""The witness join: the platform's list of accepted messages, compared with the log.

A log alone cannot show a send that it never announced. The platform's own list can: it
has one entry per accepted part with its `key`, and its `id` if there is one.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from attrs import frozen

from turnfold._log import outbox_events as o
from turnfold._state.entry import Entry, is_void
from turnfold.audit.findings import Findings, Rule
from turnfold.errors import InvalidInputError


@frozen
class Acceptance:
    """One part that a platform accepted."""

    key: str
    id: str | None = None


def read_witness(data: bytes) -> list[Acceptance]:
    """A platform's list: JSON lines, a JSON array, or `{"messages": [...]}`; further
    fields are ignored. Raises InvalidInputError."""
    try:
        rows = _rows(data.decode("utf-8"))
        return [_acceptance(row) for row in rows]
    except ValueError as exc:
        raise InvalidInputError(field="witness", problem=str(exc)) from exc


def _rows(text: str) -> Sequence[Any]:
    try:
        whole = json.loads(text)
    except ValueError:  # not one JSON value: JSON lines
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(whole, dict) and isinstance(whole.get("messages"), list):
        return list(whole["messages"])
    return whole if isinstance(whole, list) else [whole]


def _acceptance(row: object) -> Acceptance:
    match row:
        case {"key": str(key), "id": str(identity)}:
            return Acceptance(key, identity)
        case {"key": str(key)}:
            return Acceptance(key)
        case _:
            msg = f"an entry without a key: {row!r:.80}"
            raise ValueError(msg)


class Witness:
    """Takes the events of entries; `end` reports each difference of the list and the
    log.

    `channels`: the channels of this list; None: all of them. A part in doubt may be on
    the list or not. `logs`: the number of logs that are read one after the other, as of
    the shards of a store; each has a `begin` and an `end`. The last end reports the keys
    that no log announced.
    """

    def __init__(
        self,
        accepted: Iterable[Acceptance],
        channels: Collection[str] | None = None,
        logs: int = 1,
    ) -> None:
        self._findings = Findings(0)
        self._channels, self._logs = channels, logs
        self._pruned = False
        self._count: Counter[str] = Counter()
        self._ids: dict[str, set[str]] = {}
        self._keys: dict[str, set[str]] = {}  # id -> keys
        self._announced: dict[str, tuple[str, int]] = {}
        self._granted: Counter[str] = Counter()
        for item in accepted:
            self._count[item.key] += 1
            if item.id is not None:
                self._ids.setdefault(item.key, set()).add(item.id)
                self._keys.setdefault(item.id, set()).add(item.key)

    def begin(self, findings: Findings) -> None:
        """The findings of the next log go there."""
        self._findings = findings

    @property
    def total(self) -> int:
        return self._count.total()

    def feed(self, entry: Entry, event: o.OutboxEvent, position: int) -> None:
        """`entry`: after the event; its parts and their keys are frozen by then."""
        if self._channels is not None and entry.channel not in self._channels:
            return
        match event:
            case o.Attempted() if event.on_wire:
                self._sent(entry, event.part, position)
            case o.Placed():
                self._placed(entry.stream, event.handle, position)
            case o.Dispatched():
                self._sent(entry, event.part, position)
            case o.PartDelivered() | o.Delivered():
                if event.suppressed is None and event.by is None:
                    self._accepted(entry, event.part, event.receipt, position)
            case o.LateReceipt() if not is_void(entry, event.part, event.receipt):
                self._accepted(entry, event.part, event.receipt, position)
            case o.Resolved():
                self._grant(entry, event.part)
            case o.Redriven() if event.accept_duplicate:
                self._grant(entry, entry.part)
            case _:
                pass

    def _key(self, entry: Entry, part: int) -> str | None:
        return entry.parts[part].key if 0 <= part < len(entry.parts) else None

    def _sent(self, entry: Entry, part: int, position: int) -> None:
        key = self._key(entry, part)
        if key is not None and key in self._count:
            self._announced.setdefault(key, (entry.stream, position))

    def _placed(self, stream: str, handle: tuple[str, ...], position: int) -> None:
        """Record that a placeholder announced the message with this handle, such as a
        preview or a notice."""
        for name in handle:
            for key in self._keys.get(name, ()):
                self._announced.setdefault(key, (stream, position))

    def _grant(self, entry: Entry, part: int) -> None:
        """A logged decision of a policy or a person allows one more acceptance."""
        key = self._key(entry, part)
        if key is not None and key in self._count:
            self._granted[key] += 1

    def _accepted(
        self, entry: Entry, part: int, receipt: tuple[str, ...], position: int
    ) -> None:
        key = self._key(entry, part)
        if key is None:
            return
        if key not in self._count:
            text = f"part {part} is called delivered; the platform never accepted it"
            self._findings.add(Rule.NO_LOSS, text, position, entry.stream)
            return
        known = self._ids.get(key)
        if receipt and known and not known.intersection(receipt):
            given = ", ".join(sorted(known))
            text = f"its receipt is {', '.join(receipt)}; the platform gave {given}"
            self._findings.add(Rule.EVIDENCE, text, position, entry.stream)

    def end(self, *, pruned: bool = False) -> None:
        """`pruned`: an unannounced key may belong to a pruned entry."""
        self._pruned |= pruned
        self._logs -= 1
        if self._logs > 0:
            return
        for rule, text, key in self._unannounced():
            stream, position = self._announced.get(key, (None, None))
            self._findings.add(rule, text, position, stream)

    def _unannounced(self) -> Iterator[tuple[Rule, str, str]]:
        for key, count in self._count.items():
            if key not in self._announced and self._pruned:
                continue
            if key not in self._announced:
                text = f"the platform accepted key {key}, which the log never announced"
                yield Rule.WRITE_AHEAD, text, key
            elif count > 1 + self._granted[key]:
                text = f"the platform accepted key {key} {count} times"
                allowed = f"the log allows {1 + self._granted[key]}"
                yield Rule.NO_DOUBLE, f"{text}, {allowed}", key
