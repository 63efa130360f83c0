"""The webhook channel through the public checks of a channel, on each kind of platform."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from turnfold.enums import DeliveryClass
from turnfold.messages import Route
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_cli.platform import Platform
from turnfold_cli.platform_book import Fault as PlatformFault
from turnfold_cli.platform_book import FaultKind, Mode
from turnfold_model.checks.channel import CHECKS, Check, Fault, Harness, Seen, run_check

_SCRIPTED = {
    Fault.CUT_AFTER: PlatformFault(kind=FaultKind.CUT_AFTER),
    Fault.CUT_BEFORE: PlatformFault(kind=FaultKind.CUT_BEFORE),
    Fault.SILENT: PlatformFault(kind=FaultKind.DELAY, delay_ms=60_000),
    Fault.RATE_LIMITED: PlatformFault(kind=FaultKind.RATE_LIMITED),
    Fault.REJECTED: PlatformFault(kind=FaultKind.STATUS, status=410),
}
_NOTHING = PlatformFault(kind=FaultKind.DELAY, delay_ms=0)


class StandIn:
    """The stand-in platform as a harness. It can be down: its port is closed then, and
    what it knows is kept in its journal."""

    faults = tuple(Fault)
    route = Route(channel="webhook", conversation="42")

    def __init__(self, mode: Mode, journal: Path) -> None:
        self._mode, self._journal = mode, journal
        self._platform = Platform(mode, journal=journal)
        self._port = self._platform.port
        self._calls = 0  # of those before the last time down
        self._platform.start()

    def channel(self) -> WebhookChannel:
        url = f"http://127.0.0.1:{self._port}/messages"
        blind = self._mode is Mode.BLIND
        return WebhookChannel(
            url,
            classes=[] if blind else [DeliveryClass(self._mode.value)],
            lookup_url=url if self._mode is Mode.LOOKUP else None,
            message_url=f"{url}/{{id}}" if self._mode is Mode.EDITABLE else None,
            settle_ms=50,
            limit=500,
        )

    async def witness(self) -> list[Seen]:
        return [
            Seen(
                id=message.id,
                key=message.key,
                text=message.text or "",
                marked=message.duplicate,
            )
            for message in self._platform.book.witness()
        ]

    async def calls(self) -> int:
        requests: int = self._platform.book.stats()["requests"]
        return self._calls + requests

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        if kind is Fault.REFUSED:
            self._platform.stop()
        else:
            self._platform.script(*[_NOTHING] * skip, *[_SCRIPTED[kind]] * times)

    async def heal(self) -> None:
        """Back up, and without a script: also what met nobody is over."""
        self._calls = await self.calls()
        self._platform.stop()
        self._platform = Platform(self._mode, port=self._port, journal=self._journal)
        self._platform.start()

    def end(self) -> None:
        self._platform.stop()


Factory = Callable[[], AbstractAsyncContextManager[Harness]]


@asynccontextmanager
async def stand_in(mode: Mode, folder: Path) -> AsyncIterator[Harness]:
    harness = StandIn(mode, folder / "platform.jsonl")
    try:
        yield harness
    finally:
        harness.end()


@pytest.mark.case("A04", "B06", "C14", "D12", "D17")
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_webhook_channel_keeps_its_contract(
    check: Check, mode: Mode, tmp_path: Path
) -> None:
    factory: Factory = partial(stand_in, mode, tmp_path)
    result = await run_check(check, factory)
    assert bool(result.left_out) == (check.__name__ in left_out(mode)), result


def left_out(mode: Mode) -> set[str]:
    """What a webhook does not claim: it prepares nothing, and has one class or none."""
    names = {check.__name__ for check in CHECKS}
    keyed = {name for name in names if name.startswith("a_key_")}
    looked_up = {
        "what_was_accepted_is_found",
        "what_was_accepted_without_an_answer_is_found",
        "what_never_arrived_is_absent_even_beside_its_twin",
        "a_platform_that_cannot_be_reached_tells_nothing",
    }
    never = {"what_is_prepared_is_seen_by_nobody_and_may_be_repeated"}
    assert looked_up | never <= names
    match mode:
        case Mode.KEYED:
            return never | looked_up
        case Mode.LOOKUP:
            return never | keyed
        case Mode.EDITABLE | Mode.BLIND:
            return never | keyed | looked_up
