"""How long an entry has waited, told by the log alone: the age of a backlog."""

from collections.abc import Iterator

from attrs import define, field

from turnfold_model.reference.kinds import Record

# After these somebody may have seen a piece of it: it is finished, however old.
_SEEN = ("unknown", "placed", "part_delivered", "delivered", "late_receipt", "bounced")
_FRESH = ("redriven", "resolved", "rescheduled")


@define
class Ages:
    """Of one log without live replies and with a clock that is sure. `limit`: of its
    account, in ms; None: nothing is too old."""

    limit: int | None
    _since: dict[str, int] = field(factory=dict)
    _seen: set[str] = field(factory=set)

    def feed(self, event: Record) -> Iterator[str]:
        """The next event; yields what is wrong."""
        family, _, name = str(event["kind"]).partition(".")
        if family != "outbox" or self.limit is None:
            return
        stream, at, data = str(event["stream"]), int(event["at"]), event["data"]
        if name == "queued":
            asked = at - int(data.get("waited_ms") or 0)
            self._since[stream] = max(asked, int(data.get("not_before") or 0))
        elif name in _FRESH and not str(data.get("by")).startswith("policy:"):
            self._since[stream] = max(at, int(data.get("due") or 0))
        if name in _SEEN:
            self._seen.add(stream)
        yield from self._judged(stream, name, data, at - self._since[stream])

    def _judged(self, stream: str, name: str, data: Record, age: int) -> Iterator[str]:
        old = self.limit is not None and age > self.limit
        if name == "attempted" and old and stream not in self._seen:
            yield f"INV-12 {stream} is sent, and it has waited {age} ms"
        ended = name == "failed_terminal" and data.get("reason") == "too_old"
        if ended and (not old or stream in self._seen):
            yield f"INV-12 {stream} is called too old, and it has waited {age} ms"
