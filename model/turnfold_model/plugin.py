"""pytest fixtures for a gateway that embeds turnfold: `pytest -p turnfold_model.plugin`.

Never loaded by itself. It brings a clock that stands still, a scripted platform with a
list of accepted messages, and an audit of every log that a test makes: each store that a
Kernel opened is judged when the test is over, by that list too if the test used it. A
test that damages its log on purpose says so: `@pytest.mark.turnfold_no_audit("why")`.

`--turnfold-edges` ends the session with the edges of the two machines that no log of it
has taken: the tests have not tried them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from attrs import define, field

from turnfold.api.kernel import Kernel
from turnfold.audit import Acceptance, Report, audit_store
from turnfold.ports.store import Store, record_pages
from turnfold_model.edge_walks.edges import Edge, taken
from turnfold_model.reference import as_events
from turnfold_model.testing.clock import FakeClock
from turnfold_model.testing.platform import Platform

_MARK = "turnfold_no_audit"
_EDGES = pytest.StashKey[set[Edge]]()
_SENT = "turnfold_edges"  # handed over by a process of pytest-xdist


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("turnfold")
    group.addoption(
        "--turnfold-edges",
        action="store_true",
        help="list the edges of entries and turns that no log of this session took",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{_MARK}(reason): the log of this test is broken on purpose"
    )
    config.stash[_EDGES] = set[Edge]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    sent = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent[_SENT] = [tuple(edge) for edge in session.config.stash[_EDGES]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    sent = getattr(node, "workeroutput", {}).get(_SENT, ())
    node.config.stash[_EDGES] |= {Edge(*edge) for edge in sent}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not config.getoption("--turnfold-edges"):
        return
    from turnfold_model.edge_walks.command import told  # noqa: PLC0415  for this option only

    seen = config.stash[_EDGES]
    report = told(dict.fromkeys(seen, 1))
    terminalreporter.section("edges that no log took")
    for line in report["missing"]:
        terminalreporter.write_line(line)
    count = report["edges"] - report["never"]
    terminalreporter.write_line(f"{report['taken']} of {count} edges were taken")


@define
class _Seen:
    """The stores that kernels opened in one test."""

    stores: list[Store] = field(factory=list)

    def note(self, store: Store) -> None:
        if not any(store is known for known in self.stores):
            self.stores.append(store)


@pytest.fixture
def turnfold_clock() -> FakeClock:
    """For `Kernel(clock=...)`: `pass_ms` moves it, `jump_ms` sets the wall alone."""
    return FakeClock()


@pytest.fixture
def turnfold_platform() -> Platform:
    """A platform to attach by `PlatformChannel(platform)`; its list is the witness."""
    return Platform()


@pytest.fixture(autouse=True)
def _turnfold_audit(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    seen, platform = _Seen(), _platform(request)
    monkeypatch.setattr(Kernel, "open", _noting(Kernel.open, seen))
    yield
    if request.node.get_closest_marker(_MARK) is None:
        witness = _witness(platform)
        for store in seen.stores:
            request.config.stash[_EDGES] |= _judge(store, witness)


def _noting(
    opening: Callable[[Kernel], Coroutine[Any, Any, None]], seen: _Seen
) -> Callable[[Kernel], Coroutine[Any, Any, None]]:
    async def noted(kernel: Kernel) -> None:
        await opening(kernel)
        seen.note(kernel.store)

    return noted


def _platform(request: pytest.FixtureRequest) -> Platform | None:
    """The platform of this test, if it uses ours; asked for before it is torn down."""
    if "turnfold_platform" not in request.fixturenames:
        return None
    platform: Platform = request.getfixturevalue("turnfold_platform")
    return platform


def _witness(platform: Platform | None) -> list[Acceptance] | None:
    if platform is None:
        return None
    return platform.witness()


def _judge(store: Store, witness: list[Acceptance] | None) -> set[Edge]:
    """Fails the test if a rule is broken; gives the edges that were taken."""
    report, edges = asyncio.run(_audited(store, witness))
    if not report.passed:
        pytest.fail(
            f"the log of this test breaks a rule: {report.first}", pytrace=False
        )
    return edges


async def _audited(
    store: Store, witness: list[Acceptance] | None
) -> tuple[Report, set[Edge]]:
    await store.close()  # the rest of a kernel must not write any more
    await store.open(read_only=True)
    try:
        report = await audit_store(store, witness=witness)
        records = [record async for page in record_pages(store) for record in page]
        return report, set(taken(e for r in records for e in as_events(r)))
    finally:
        await store.close()
