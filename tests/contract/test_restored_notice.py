"""A notice of which the lost history may have told is in doubt in a restored store: it has
the name and the key that it had there."""

from typing import Any

import pytest
from tests.contract.test_restored import (
    Backups,
    _lost,
    _until_copy,
    backups,
    play,
)

from turnfold.api.kernel import Kernel
from turnfold.enums import Phase, Reason
from turnfold.inspect.lookup import Filter
from turnfold.notices import DEFAULTS
from turnfold_model.testing.gateway import Gateway, entry, inbound, spin
from turnfold_model.testing.platform import PlatformChannel, hang

__all__ = ["backups", "play"]  # fixtures
INTERRUPTED = DEFAULTS["interrupted"]


async def _answers(handle: Any) -> str:
    return "x"


async def _asked(kernel: Kernel) -> str:
    return (await kernel.accept(inbound())).turn_id


@pytest.mark.case("W14", "V03", "B19")
async def test_a_hold_that_was_told_in_the_lost_history_is_not_told_again(
    play: Gateway, backups: Backups
) -> None:
    play.handler = _answers
    play.platform.plays(hang())  # under way while the copy is made
    turn = await _until_copy(play, backups, _asked)
    play.platform._script.clear()
    await _lost(play, backups)
    assert play.platform.contents.count(INTERRUPTED) == 1
    kernel = await play.start()
    await spin()
    assert play.platform.contents.count(INTERRUPTED) == 1
    notice = f"{turn.replace('turn:', 'entry:')}.notice.interrupted-1"
    assert entry(kernel, notice).phase is Phase.PARKED
    assert "doubted" in [e.kind.partition(".")[2] for e in await _told(kernel, notice)]


@pytest.mark.case("W14", "B19")
async def test_such_a_notice_waits_for_nobody_once_its_answer_is_known_to_be_there(
    play: Gateway, backups: Backups
) -> None:
    """Sent by a person's hand it would say that the answer may be missing."""
    play.handler = _answers
    play.platform.plays(hang())
    turn = await _until_copy(play, backups, _asked)
    play.platform._script.clear()
    await _lost(play, backups)
    kernel = await play.start()
    await spin()
    name = turn.replace("turn:", "entry:")
    notice = f"{name}.notice.interrupted-1"
    assert entry(kernel, notice).phase is Phase.PARKED
    await kernel.resolve(f"{name}.final", "delivered", by="ann")
    assert await kernel.settled(turn) == "replied"
    view = await kernel.inspect.show(notice)
    assert view.reason == Reason.OUTCOME_UNKNOWN
    kinds = [e.kind.partition(".")[2] for e in await _told(kernel, notice)]
    assert kinds[-2:] == ["failed_terminal", "acknowledged"]
    assert not await kernel.inspect.list(Filter(person=True))
    assert play.platform.contents.count(INTERRUPTED) == 1


async def _told(kernel: Kernel, name: str) -> Any:
    return (await kernel.inspect.show(name)).happened


@pytest.mark.case("V03")
async def test_a_hold_of_an_answer_after_the_restore_is_told_as_ever(
    play: Gateway, backups: Backups
) -> None:
    play.handler = _answers
    await _until_copy(play, backups, _asked)
    await _lost(play, backups)
    play.channels = {("t", "default"): PlatformChannel(play.platform)}
    kernel = await play.start()
    play.platform.plays(hang())
    await kernel.accept(inbound("2", conversation="43"))
    await spin()
    kernel = await play.restart(kernel)
    await spin()
    assert play.platform.contents.count(INTERRUPTED) == 1
