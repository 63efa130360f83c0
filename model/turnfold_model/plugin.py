"""pytest fixtures for a gateway that embeds turnfold: `pytest -p turnfold_model.plugin`.

Never loaded by itself. It brings a clock that stands still, a scripted platform with a
list of what it accepted, and an audit of every log that a test makes: each store that a
Kernel opened is judged when the test is over, by that list too if the test used it. A
test that damages its log on purpose says so: `@pytest.mark.turnfold_no_audit("why")`.
"""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from attrs import define, field

from turnfold.audit import audit_store
from turnfold.audit.witness import Acceptance
from turnfold.kernel import Kernel
from turnfold.ports.store import Store
from turnfold_model.clock import FakeClock
from turnfold_model.platform import Platform

_MARK = "turnfold_no_audit"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{_MARK}(reason): the log of this test is broken on purpose"
    )


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
            _judge(store, witness)


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
    return [Acceptance(m.key, m.id) for m in platform.messages]


def _judge(store: Store, witness: list[Acceptance] | None) -> None:
    store.close()  # whatever is left of a kernel must not write any more
    store.open(read_only=True)
    try:
        report = audit_store(store, witness=witness)
    finally:
        store.close()
    if not report.passed:
        pytest.fail(
            f"the log of this test breaks a rule: {report.first}", pytrace=False
        )
