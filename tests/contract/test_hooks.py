"""A hook is told of each event of its kind at least once, also after a death (U10)."""

from typing import Any

import pytest

from turnfold import FailureClass, InvalidInputError, Kernel
from turnfold._state.fold import Cursor
from turnfold.api import hooks, retelling
from turnfold.api.retelling import MARK
from turnfold.errors import BusyError
from turnfold.ports.store import Store
from turnfold_model.testing.gateway import (
    Gateway,
    commits,
    driver_of,
    entry,
    peek,
    route,
    spin,
    story,
)
from turnfold_model.testing.platform import reject

pytestmark = pytest.mark.case("U10")
_REFUSED = reject(FailureClass.PERMISSION)


class Ear:
    """Hooks that are there when a kernel begins to work."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[tuple[str, str]] = []
        self.deaf = False
        ear, plain = self, Kernel.attach

        def attach(kernel: Kernel, *args: Any, **more: Any) -> None:
            plain(kernel, *args, **more)
            if not kernel.hooks.terminal:
                kernel.hooks.on_terminal(ear.hears)

        monkeypatch.setattr(Kernel, "attach", attach)

    async def hears(self, found: Any, name: str) -> None:
        if self.deaf:
            await spin(10_000)
        self.heard.append((found.stream, name))


def _mark(kernel: Kernel) -> int:
    state = peek(kernel).state(MARK)
    assert isinstance(state, Cursor)
    return int(state.value or 0)


async def _dead_letter(gateway: Gateway, kernel: Kernel, place: str = "42") -> str:
    gateway.platform.plays(_REFUSED)
    done = await kernel.enqueue(route(place), "x")
    await kernel.settled(done.entry_id, 1_000)
    return done.entry_id


def _id(kernel: Kernel, name: str) -> str:
    return f"{name}#{story(kernel, name).index('failed_terminal') + 1}"


@pytest.fixture
def ear(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Ear:
    return Ear(gateway, monkeypatch)


async def test_what_a_hook_was_told_is_noted_and_not_told_again(
    gateway: Gateway, ear: Ear
) -> None:
    kernel = await gateway.start()
    name = await _dead_letter(gateway, kernel)
    await spin()
    assert ear.heard == [(name, _id(kernel, name))]
    assert _mark(kernel) >= entry(kernel, name).order
    kernel = await gateway.restart(kernel)
    await spin()
    assert len(ear.heard) == 1


async def test_after_a_death_a_hook_is_told_again_with_the_same_id(
    gateway: Gateway, ear: Ear
) -> None:
    kernel = await gateway.start()
    ear.deaf = True
    names = [await _dead_letter(gateway, kernel, place) for place in "ab"]
    assert not ear.heard
    ids = [_id(kernel, name) for name in names]
    ear.deaf = False
    kernel = await gateway.restart(kernel)
    await spin()
    assert ear.heard == list(zip(names, ids, strict=True))
    later = await _dead_letter(gateway, kernel, "c")
    await spin()
    assert [stream for stream, _ in ear.heard] == [*names, later]
    kernel = await gateway.restart(kernel)
    await spin()
    assert len(ear.heard) == 3


async def test_news_of_an_earlier_life_are_not_passed_over_when_the_log_cannot_be_read(
    gateway: Gateway, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_AGAIN_S", 0)
    kernel = await gateway.start()
    ear.deaf = True
    first = await _dead_letter(gateway, kernel)
    await gateway.crash(kernel)
    ear.deaf = False
    blind = [True]

    class Blind:
        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def log(self, after: int = 0, limit: int = 1000) -> Any:
            if blind[0] and limit == retelling._PAGE:
                raise BusyError(path="here", waited_ms=1)
            return await self._store.log(after, limit)

    kernel = await gateway.start(wrap=Blind)
    second = await _dead_letter(gateway, kernel, "43")
    await spin()
    assert [stream for stream, _ in ear.heard] == [second]
    assert kernel.health()["untold_records"] > 0
    assert _mark(kernel) < entry(kernel, first).order + 3
    blind[0] = False
    await spin()
    assert first in [stream for stream, _ in ear.heard]
    assert kernel.health()["untold_records"] == 0
    assert _mark(kernel) > entry(kernel, second).order


async def test_what_was_before_the_first_hook_is_no_news(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = await gateway.start()
    await _dead_letter(gateway, kernel)
    assert "cursor.advanced" not in commits(kernel)
    ear = Ear(gateway, monkeypatch)
    kernel = await gateway.restart(kernel)
    await spin()
    assert not ear.heard
    ear.deaf = True
    name = await _dead_letter(gateway, kernel)
    ear.deaf = False
    kernel = await gateway.restart(kernel)
    await spin()
    assert [stream for stream, _ in ear.heard] == [name]


async def test_the_mark_does_not_fall_far_behind(
    gateway: Gateway, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnfold.api.hooks.FAR", 20)
    kernel = await gateway.start()
    for number in range(30):
        await kernel.enqueue(route(), f"{number}")
    await spin()
    assert driver_of(kernel).book.position - _mark(kernel) <= 21
    assert not ear.heard


async def test_a_hook_may_take_the_state_alone(lone: Gateway) -> None:
    heard: list[str] = []
    kernel = await lone.start()
    kernel.hooks.on_terminal(lambda found, heard=heard: heard.append(found.stream))
    name = await _dead_letter(lone, kernel)
    await spin()
    assert heard == [name]


_NO_HOOKS: list[Any] = [5, None, "news", lambda: None, lambda a, b, c: None]


@pytest.mark.case("Z02", "Z06")
@pytest.mark.parametrize(
    "name",
    ["terminal", "parked", "bounced", "stalled", "held", "dead", "restored"],
)
@pytest.mark.parametrize("hook", _NO_HOOKS, ids=["int", "None", "str", "none", "three"])
def test_what_no_news_can_be_told_to_is_refused_at_once(name: str, hook: Any) -> None:
    mine = Kernel("memory:").hooks
    register = getattr(mine, f"on_{name}")
    with pytest.raises(InvalidInputError) as caught:
        register(hook)
    assert caught.value.field == "hook"
    for fits in ([].append, print, lambda one: None, lambda one, two: None):
        assert register(fits) is fits


async def test_a_bug_of_the_teller_is_told_and_the_next_news_are_heard(
    lone: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    lone.platform.plays(_REFUSED, _REFUSED)
    kernel = await lone.start()
    kernel.hooks.on_terminal(lambda entry: heard.append(entry.stream))

    async def broken(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(kernel.hooks, "_tell_new", broken)
    first = await kernel.enqueue(route("1"), "x")
    await spin()
    assert "the news for hooks stopped" in caplog.text
    monkeypatch.undo()
    second = await kernel.enqueue(route("2"), "x")
    await spin()
    assert heard == [first.entry_id, second.entry_id]
