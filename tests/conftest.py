"""What all tests share: which cases they cover, and gateways to attack."""

import gc
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from turnfold._runtime import calls, programs
from turnfold.audit import audit_store
from turnfold.enums import Flush
from turnfold.ports.store import record_pages
from turnfold_model import reference
from turnfold_model.command_kit import ROOM
from turnfold_model.testing.gateway import Gateway, in_file, in_memory

from .case_report import PAGE, CaseReport, marked_in_files, read_cases

# On a busy machine the first draw alone may take a second.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

REQUIRED = Path(__file__).parent / "cases.txt"  # what must be covered, one id per word


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cases")
    group.addoption(
        "--cases",
        action="store_true",
        help="list every case of specs/cases.md with its tests and their results",
    )
    group.addoption(
        "--cases-json",
        metavar="FILE",
        type=Path,
        help="write the same to FILE as JSON",
    )


SPACE = 4 << 30  # bytes in memory; a run needs a tenth of them


def pytest_configure(config: pytest.Config) -> None:
    # A sync to a disk takes milliseconds, and what it means is tested by power losses.
    if ROOM is not None and shutil.disk_usage(ROOM).free > SPACE:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(ROOM))
    show, path = config.getoption("--cases"), config.getoption("--cases-json")
    if show or path:
        cases = read_cases(PAGE.read_text("utf-8"))
        config.pluginmanager.register(CaseReport(cases, show, path), "turnfold-cases")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: "crash" not in item.path.parts)


@pytest.fixture(scope="module", autouse=True)
def old_objects_at_rest() -> None:
    """Ten thousand tests, and what those before have left, are not searched for garbage
    again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def required_cases() -> set[str]:
    return set(REQUIRED.read_text().split())


@pytest.fixture(scope="session")
def marked_cases() -> set[str]:
    return marked_in_files()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two waits of the real clock, made short."""
    monkeypatch.setattr(programs, "BACK_OFF_MS", 2)
    monkeypatch.setattr(calls, "GRACE_S", 0.02)


async def audited(gateway: Gateway) -> None:
    """The log of a test keeps every rule, by both readers and the platform's list."""
    store = gateway.store()
    await store.open()
    try:
        witness = gateway.platform.witness()
        report = await audit_store(store, witness=witness)
        records = [record async for page in record_pages(store) for record in page]
        events = (e for record in records for e in reference.as_events(record))
        breaches = list(reference.audit(events))
    finally:
        await store.close()
    assert report.passed, report.first
    assert not breaches, breaches[0]


@pytest.fixture(params=["memory", "sqlite", "thread"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway on either store, and with its commits written in a thread; its log is
    audited when the test is over."""
    memory = request.param == "memory"
    flush = Flush.THREAD if request.param == "thread" else Flush.LOOP
    made = Gateway(store=in_memory() if memory else in_file(tmp_path / "g.db", flush))
    yield made
    await made.end()
    await audited(made)


@pytest.fixture
async def filed(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway on one SQLite file, for tests that look at the files. Audited, too."""
    made = Gateway(store=in_file(tmp_path / "g.db"))
    yield made
    await made.end()
    await audited(made)


@pytest.fixture
async def lone() -> AsyncIterator[Gateway]:
    """A gateway in memory, for what no store can change. Audited, too."""
    made = Gateway()
    yield made
    await made.end()
    await audited(made)


@pytest.fixture
async def wild() -> AsyncIterator[Gateway]:
    """A gateway in memory whose log a test damages or whose platform doubles by
    permission; not audited."""
    made = Gateway()
    yield made
    await made.end()
