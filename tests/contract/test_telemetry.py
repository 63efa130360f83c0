"""Metrics and traces are read from the log, also of what an earlier process did."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span
from typer.testing import CliRunner

from turnfold import Kernel
from turnfold.enums import DeliveryClass, FailureClass
from turnfold_adapters.telemetry import GAUGES, Telemetry, trace_context
from turnfold_cli import app
from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin
from turnfold_model.testing.platform import PlatformChannel, reject, unknown

BOARD = Path(__file__).parents[2] / "examples" / "grafana" / "turnfold.json"


class Probe:
    """An SDK in memory, and what it was told."""

    def __init__(self) -> None:
        self.reader, self.spans = InMemoryMetricReader(), InMemorySpanExporter()
        self.meters = MeterProvider([self.reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))

    def on(self, kernel: Kernel) -> Telemetry:
        meters, tracers = self.meters, self.tracers
        return Telemetry(kernel, meter_provider=meters, tracer_provider=tracers)

    def points(self, name: str) -> list[tuple[dict[str, object], object]]:
        data = self.reader.get_metrics_data()
        return [
            (
                dict(point.attributes),
                getattr(point, "value", getattr(point, "count", 0)),
            )
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def total(self, name: str, **labels: object) -> object:
        found = self.points(name)
        return sum(v for at, v in found if labels.items() <= at.items())


async def answer(turn):
    await turn.reply("one", "two")


@pytest.mark.case("Y15")
async def test_a_message_is_one_trace_and_every_end_is_counted(lone: Gateway) -> None:
    lone.handler = answer
    keyed = PlatformChannel(lone.platform, DeliveryClass.KEYED)
    lone.channels = {("t", "default"): keyed}
    probe = Probe()
    kernel = await lone.start()
    async with probe.on(kernel):
        turn = await kernel.accept(inbound("1"))
        await turn.settled(5_000)
        lone.platform.plays(reject(FailureClass.PERMISSION), conversation="C-99")
        await kernel.enqueue(route("C-99"), "never")
        await spin()
    assert probe.total("turnfold.inbound", channel="t", read="true") == 1
    assert probe.total("turnfold.turns", outcome="replied") == 1
    assert probe.total("turnfold.entries", end="delivered", kind="final") == 1
    dead = {"end": "failed", "reason": "permanent", "kind": "notice"}
    assert probe.total("turnfold.entries", **dead) == 1
    assert probe.total("turnfold.attempts", outcome="accepted") == 2
    assert probe.total("turnfold.attempts", failure="permission") == 1
    assert {at["class"] for at, _ in probe.points("turnfold.attempts")} == {"keyed"}
    assert probe.total("turnfold.delivery.duration", kind="final") == 1
    assert probe.total("turnfold.open_entries") == 0
    spans = probe.spans.get_finished_spans()
    mine = [s for s in spans if s.context.trace_id == _trace(turn.turn_id)]
    names = ["attempt", "attempt", "deliver final", "run 1", "turn"]
    assert sorted(s.name for s in mine) == names
    others = {s.context.trace_id for s in spans} - {_trace(turn.turn_id)}
    assert len(others) == 1
    assert all(s.end_time >= s.start_time for s in spans)
    told = json.dumps([dict(s.attributes) for s in spans])
    assert "C-99" not in told
    assert "never" not in told


def _trace(stream: str) -> int:
    return get_current_span(trace_context(stream)).get_span_context().trace_id


async def test_a_trace_goes_on_after_a_restart(tmp_path: Path) -> None:
    gateway = Gateway(store=in_file(tmp_path / "g.db"))
    gateway.handler = answer
    first, second = Probe(), Probe()
    kernel = await gateway.start()
    telemetry = first.on(kernel)
    await telemetry.read()
    await kernel.disconnected("t")
    turn = await kernel.accept(inbound("1"))
    await spin()
    await telemetry.read()
    kernel = await gateway.restart(kernel)  # as by SIGKILL
    async with second.on(kernel):
        await kernel.connected("t")
        await spin()
    spans = [*first.spans.get_finished_spans(), *second.spans.get_finished_spans()]
    mine = [s.name for s in spans if s.context.trace_id == _trace(turn.turn_id)]
    names = ["attempt", "attempt", "deliver final", "run 1", "turn"]
    assert sorted(mine) == names
    assert second.total("turnfold.turns", outcome="replied") == 1
    ended = next(s for s in second.spans.get_finished_spans() if s.name == "turn")
    begun = min(s.start_time for s in spans)
    assert ended.start_time == begun  # in the life before
    await gateway.end()


async def test_what_is_in_doubt_and_parked_is_counted(lone: Gateway) -> None:
    probe = Probe()
    kernel = await lone.start()
    async with probe.on(kernel):
        lone.platform.plays(unknown())
        await kernel.enqueue(route(), "maybe")
        await spin()
        await lone.advance(10_000)
    assert probe.total("turnfold.attempts", outcome="unknown") == 1


async def test_a_process_that_is_not_the_worker_measures_nothing(
    lone: Gateway,
) -> None:
    probe = Probe()
    await lone.start()
    client = await lone.start(work=False)
    async with probe.on(client):
        await client.enqueue(route(), "x")
        await spin()
    assert probe.points("turnfold.entries") == []
    assert probe.spans.get_finished_spans() == ()


async def test_the_board_names_what_prometheus_shows(lone: Gateway) -> None:
    from prometheus_client import REGISTRY, generate_latest

    lone.handler = answer
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    kernel = await lone.start()
    async with Telemetry(kernel, meter_provider=provider):
        await (await kernel.accept(inbound("1"))).settled(5_000)
        lone.platform.plays(unknown(), unknown(), conversation="9")
        await kernel.enqueue(route("9"), "x")
        await spin()
    shown = generate_latest(REGISTRY).decode()
    provider.shutdown()
    text = BOARD.read_text()
    json.loads(text)
    wanted = set(re.findall(r"\bturnfold_\w+", text))
    seldom = {
        "turnfold_parks_total",
        "turnfold_oldest_due",
    }  # nothing parked or due here
    assert len(wanted) >= 11
    assert not [
        n for n in wanted - seldom if not re.search(rf"^{n}\b", shown, re.MULTILINE)
    ]


def test_every_gauge_is_a_fact_of_health() -> None:
    from inspect import getsource

    from turnfold.api.health import Health

    source = getsource(Health.health)
    assert not [fact for fact, _ in GAUGES.values() if f'"{fact}"' not in source]


# --- turnfold health ---


def run(*words: object) -> tuple[int, str]:
    arguments = [str(word) for word in words]
    done = CliRunner().invoke(app(arguments), arguments)
    return done.exit_code, done.stdout + done.stderr


WORKED = """
import asyncio, sys
from turnfold import Kernel, Route
async def main():
    async with Kernel(sys.argv[1]) as kernel:
        await kernel.enqueue(Route(channel="t", conversation="1"), "x")
asyncio.run(main())
"""


async def test_a_probe_sees_if_a_worker_lives(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    code, said = await asyncio.to_thread(run, "health", path)
    assert (code, "Traceback" in said) == (3, False)
    command = [sys.executable, "-c", WORKED, str(path)]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    code, said = await asyncio.to_thread(run, "health", path, "--json")
    told = json.loads(said)
    assert (code, told["well"]) == (1, False)
    assert "no worker is alive" in told["reasons"][0]
    async with Kernel(path):
        assert await asyncio.to_thread(run, "health", path) == (0, "well\n")


@pytest.mark.parametrize("words", [("--nope",), ("a", "b")])
def test_a_probe_that_is_used_wrongly_is_one_line(words: tuple[str, ...]) -> None:
    code, said = run("health", *words)
    assert code == 2
    assert "Traceback" not in said
