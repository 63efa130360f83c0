"""Metrics and traces by the OpenTelemetry API, read from the log (specs/metrics.md).

    telemetry = Telemetry(kernel)
    async with kernel, telemetry:
        ...

No message waits for a measurement: a task reads the log behind the worker, a second
later. Events of an earlier life of the process are in the same log, so a trace goes
from the message to the receipt across restarts.

The extra `turnfold[metrics]` has the API. Your program chooses the SDK and the exporters.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Self

from attrs import define, field
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
    set_span_in_context,
)

from turnfold import Kernel
from turnfold.arguments import Some, checked
from turnfold.errors import NotOpenError, StoreError
from turnfold.inspect import export
from turnfold.inspect.shards import shards_of
from turnfold.logs import lines
from turnfold.ports.store import Record, Store, Wanted

_LOG = lines()
_PAGE = 500
_TURN_ENDS = ("completed", "failed", "aborted")
_ENTRY_ENDS = ("delivered", "failed_terminal", "aborted")
_RUN_ENDS = ("answered", "run_failed", "released", "failed", "aborted")
_OUTCOMES = {  # of an attempt
    "delivered": "accepted",
    "part_delivered": "accepted",
    "placed": "accepted",
    "deferred": "rejected",
    "failed_retryable": "rejected",
    "part_refused": "rejected",
    "failed_terminal": "rejected",
    "unknown": "unknown",
}
GAUGES = {  # name -> (fact of health, its description)
    "turnfold.open_entries": ("open_entries", "Entries that are not closed"),
    "turnfold.parked": ("parked", "Entries in doubt that wait for a person"),
    "turnfold.closed_gates": ("gates", "Gates that hold something back"),
    "turnfold.oldest_due": ("oldest_due_ms", "Age of the oldest due entry, in ms"),
    "turnfold.hung_calls": ("hung_calls", "Calls of channels past their deadline"),
}


def trace_context(stream: str) -> Context:
    """The context of the trace of a turn, or of an entry without a turn: attach it in a
    handler, and your own spans are in the trace of the message. The ids follow from the
    name, so every process has the same ones."""
    digest = sha256(stream.encode()).digest()
    span = SpanContext(
        trace_id=int.from_bytes(digest[:16]),
        span_id=int.from_bytes(digest[16:24]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(span))


@define
class _Stream:
    """The facts of a turn or an entry until it is closed."""

    name: str
    labels: dict[str, str] = field(factory=dict)
    began: int = 0
    turn: str | None = None
    kind: str = ""
    classes: tuple[str, ...] = ()  # by part
    run: tuple[int, int] | None = None  # its number, and when it began
    attempt: tuple[int, int, int] | None = None  # part, number, and when it began
    sent: int | None = None  # when the attempt went to the wire


class Telemetry:
    """`every_ms`: how often the log is read. The read position is kept as plugin state,
    and a new process goes on from there: so a span may come twice, and none is lost."""

    @checked
    def __init__(
        self,
        kernel: Kernel,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        every_ms: Some = 1_000,
    ) -> None:
        self._kernel, self._every_s = kernel, every_ms / 1000
        meter = metrics.get_meter("turnfold", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("turnfold", tracer_provider=tracer_provider)
        self._inbound = meter.create_counter(
            "turnfold.inbound", description="Messages that were accepted"
        )
        self._turns = meter.create_counter(
            "turnfold.turns", description="Turns that ended, by outcome"
        )
        self._entries = meter.create_counter(
            "turnfold.entries", description="Entries that ended, by end and reason"
        )
        self._attempts = meter.create_counter(
            "turnfold.attempts", description="Attempts that ended, by class and outcome"
        )
        self._parks = meter.create_counter(
            "turnfold.parks", description="Entries that were parked for a person"
        )
        self._turn_s = meter.create_histogram(
            "turnfold.turn.duration", "s", "From the message to the end of its turn"
        )
        self._delivery_s = meter.create_histogram(
            "turnfold.delivery.duration", "s", "From queued to delivered"
        )
        self._attempt_s = meter.create_histogram(
            "turnfold.attempt.duration", "s", "From the wire to the outcome"
        )
        self._facts: Mapping[int, Mapping[str, Any]] = {}  # by shard
        self._gauges = [
            meter.create_observable_gauge(name, [self._gauge(fact)], description=text)
            for name, (fact, text) in GAUGES.items()
        ]
        self._streams: dict[str, _Stream] = {}
        self._kept = kernel.state("telemetry").open("position", max_entries=1_000)
        self._positions: dict[int, int] = {}  # by shard
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Read the log to its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.read()

    async def _forever(self) -> None:
        while True:
            await self.read()
            await asyncio.sleep(self._every_s)

    async def read(self) -> None:
        """Measure the new records of the log, only in the worker. A log that cannot be
        read now is read later."""
        try:
            if self._kernel.working:
                self._facts = _by_shard(self._kernel.health())
                await self._read_all()
        except (StoreError, NotOpenError) as exc:
            _LOG.debug("telemetry waits: %s", exc)

    async def _read_all(self) -> None:
        """Each shard of this host. One that went to another host is read there."""
        logs = shards_of(self._kernel.store)
        for gone in self._positions.keys() - self._facts.keys():
            del self._positions[gone]
        for shard, facts in self._facts.items():
            await self._read(shard, logs[shard], facts["position"])

    async def _read(self, shard: int, store: Store, here: int) -> None:
        begun = self._positions.get(shard)
        if begun is None:
            known = self._kept.lookup(str(shard))
            begun = min(known, here) if isinstance(known, int) else here
        position = self._positions[shard] = begun
        while page := await store.log(position, _PAGE):
            for record in page:
                await self._record(record)
            position = self._positions[shard] = page[-1].position
        if position != begun:
            self._kept.register(str(shard), position)

    async def _record(self, record: Record) -> None:
        name = record.stream
        if not name.startswith(("turn:", "entry:")):
            return
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = await self._remembered(record)
        for kind, at, data in _told(record):
            self._happened(stream, kind, at, data)
            _fold(stream, kind, at, data)
            if kind in _ENTRY_ENDS or kind in _TURN_ENDS:
                self._streams.pop(name, None)

    async def _remembered(self, record: Record) -> _Stream:
        """The facts of a stream that began before this process, or was closed: from its
        past, without measuring."""
        stream = _Stream(record.stream)
        if record.version > 1:
            wanted = Wanted(streams=frozenset((record.stream,)))
            found = await self._kernel.store.fetch(wanted)
            for older in found.streams[record.stream]:
                if older.position < record.position:
                    for kind, at, data in _told(older):
                        _fold(stream, kind, at, data)
        return stream

    # --- one event ---

    def _happened(
        self, s: _Stream, kind: str, at: int, data: Mapping[str, Any]
    ) -> None:
        if s.name.startswith("turn:"):
            self._turn(s, kind, at, data)
        else:
            self._entry(s, kind, at, data)

    def _turn(self, s: _Stream, kind: str, at: int, data: Mapping[str, Any]) -> None:
        if kind in ("accepted", "dead"):
            self._inbound.add(1, _place(data) | {"read": str(kind != "dead").lower()})
        if kind in _RUN_ENDS and s.run is not None:
            number, since = s.run
            failed = kind == "run_failed"
            facts: dict[str, str | int] = {"turnfold.run": number, "turnfold.end": kind}
            self._span(s, f"run {number}", since, at, facts, failed=failed)
        if kind in _TURN_ENDS:
            outcome = str(data.get("outcome", kind))
            labels = s.labels | {"outcome": outcome}
            self._turns.add(1, labels)
            self._turn_s.record(max(0, at - s.began) / 1000, labels)
            self._span(s, "turn", s.began, at, labels, failed=kind == "failed")

    def _entry(self, s: _Stream, kind: str, at: int, data: Mapping[str, Any]) -> None:
        if kind in _OUTCOMES and s.attempt is not None:
            self._attempt(s, kind, at, data)
        if kind == "parked":
            self._parks.add(1, s.labels)
        if kind in _ENTRY_ENDS:
            reason = str(data.get("reason", "")) if kind != "delivered" else ""
            end = kind.removesuffix("_terminal")
            labels = s.labels | {"kind": s.kind, "end": end, "reason": reason}
            self._entries.add(1, labels)
            if kind == "delivered":
                seconds = max(0, at - s.began) / 1000
                self._delivery_s.record(seconds, s.labels | {"kind": s.kind})
            self._span(
                s, f"deliver {s.kind}", s.began, at, labels, failed=end == "failed"
            )

    def _attempt(self, s: _Stream, kind: str, at: int, data: Mapping[str, Any]) -> None:
        assert s.attempt is not None  # noqa: S101  its caller asked
        part, number, since = s.attempt
        offered = s.classes[part] if part < len(s.classes) else "blind"
        labels = s.labels | {
            "class": offered,
            "outcome": _OUTCOMES[kind],
            "failure": str(data.get("failure") or data.get("cause") or ""),
        }
        self._attempts.add(1, labels)
        if s.sent is not None:
            self._attempt_s.record(max(0, at - s.sent) / 1000, labels)
        facts: dict[str, str | int] = dict(labels)
        facts |= {"turnfold.part": part, "turnfold.attempt": number}
        self._span(s, "attempt", since, at, facts, failed=_OUTCOMES[kind] != "accepted")

    def _span(
        self,
        s: _Stream,
        name: str,
        since: int,
        until: int,
        facts: Mapping[str, str | int],
        *,
        failed: bool,
    ) -> None:
        """Make a past span in the trace of its message."""
        span = self._tracer.start_span(
            name,
            context=trace_context(s.turn or s.name),
            start_time=since * 1_000_000,
            attributes={"turnfold.stream": s.name, **facts},
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(max(since, until) * 1_000_000)

    def _gauge(self, fact: str) -> Any:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            """Observe the last facts: an exporter calls this in threads of its own."""
            found = [facts[fact] for facts in self._facts.values()]
            counts = [_count(one) for one in found if one is not None]
            if counts:
                oldest = fact == "oldest_due_ms"
                yield Observation(max(counts) if oldest else sum(counts))

        return observe


def _by_shard(health: Mapping[str, Any]) -> Mapping[int, Mapping[str, Any]]:
    """The facts of each shard that this process works on."""
    seats = health.get("seats")
    if seats is None:
        return {0: health}
    return {int(shard): facts for shard, facts in seats.items()}


def _count(found: Any) -> int:
    return found if isinstance(found, int) else len(found)


# --- the log ---


def _told(record: Record) -> Iterable[tuple[str, int, Mapping[str, Any]]]:
    """The events of a record: their name without its family, wall ms, their data."""
    value = json.loads(export.dump(record))
    at = value.get("wall", value["at"])
    for kind, _, data in value.get("events", ()):
        yield kind.partition(".")[2], at, data


def _place(data: Mapping[str, Any]) -> dict[str, str]:
    return {"channel": str(data["channel"]), "account": str(data["account"])}


def _fold(s: _Stream, kind: str, at: int, data: Mapping[str, Any]) -> None:
    """Remember the facts that a later event needs."""
    if kind in ("accepted", "dead", "queued", "imported"):
        s.labels, s.began = _place(data), at
        s.turn, s.kind = data.get("turn"), str(data.get("kind", ""))
    elif kind == "planned":
        offers = [part.get("classes") or ["blind"] for part in data["parts"]]
        s.classes = tuple([str(offer[0]) for offer in offers])
    elif kind == "started":
        s.run = (data["run"], at)
    elif kind == "attempted":
        s.attempt = (data["part"], data["attempt"], at)
        s.sent = at if data.get("on_wire") else None
    elif kind == "dispatched":
        s.sent = at
    elif kind in _OUTCOMES:
        s.attempt = s.sent = None
    if kind in _RUN_ENDS:
        s.run = None
