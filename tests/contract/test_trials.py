"""Plans and look-ups outside of a run are written ahead, so that a death in them counts."""

import asyncio
import threading

import pytest
from attrs import evolve

from turnfold import DeliveryClass, Kernel, Part, Payload, PlannedPart
from turnfold._decide import rules
from turnfold._decide.unit_of_work import UnitOfWork
from turnfold._runtime.committer import Committer
from turnfold.enums import Phase, Trial
from turnfold.inspect import EntryView, Filter
from turnfold.ports.channel import Verdict
from turnfold_cli.list_ import _why
from turnfold_model.testing.gateway import Gateway, entry, route, spin, story, until
from turnfold_model.testing.platform import PlatformChannel, unknown

_LONGEST_MS = 900_000


class Hangs(PlatformChannel):
    """No look-up ends."""

    async def _reconcile(self, part: Part, since_ms: int) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError(part, since_ms)


async def _asked(gateway: Gateway) -> tuple[Kernel, str]:
    """An entry whose look-up is under way."""
    channel = Hangs(gateway.platform, DeliveryClass.LOOKUP)
    gateway.channels = {("t", "default"): channel}
    gateway.platform.plays(unknown(), conversation="poison")
    kernel = await gateway.start()
    sent = await kernel.enqueue(route("poison"), "poison")
    await gateway.advance(_LONGEST_MS)
    assert story(kernel, sent.entry_id)[-1] == "tried"
    return kernel, sent.entry_id


@pytest.mark.case("U08")
async def test_an_entry_that_dies_in_a_call_alone_is_held_and_others_go_out(
    gateway: Gateway,
) -> None:
    kernel, poison = await _asked(gateway)
    for deaths in (1, 2, 3):
        assert entry(kernel, poison).trying
        kernel = await gateway.restart(kernel)
        assert entry(kernel, poison).blame.alone == deaths
        await gateway.advance(_LONGEST_MS)
    held = entry(kernel, poison)
    assert (held.phase, held.reason) == (Phase.PARKED, "quarantined")
    other = await kernel.enqueue(route("other"), "other")
    await spin()
    assert entry(kernel, other.entry_id).phase is Phase.DELIVERED


async def test_a_look_up_under_way_hides_no_reason(gateway: Gateway) -> None:
    kernel, name = await _asked(gateway)
    (row,) = await kernel.inspect.list(Filter(reason=("cut",)))
    assert (row.id, row.reason, row.failure) == (name, "cut", None)
    assert row.under_way is Trial.LOOK_UP
    shown = await kernel.inspect.show(name)
    assert isinstance(shown, EntryView)
    assert (shown.reason, shown.under_way) == ("cut", Trial.LOOK_UP)
    assert _why(row) == "cut, is looked up now"


@pytest.mark.case("U08")
async def test_a_stop_counts_nothing(gateway: Gateway) -> None:
    kernel, poison = await _asked(gateway)
    await gateway.end()
    kernel = await gateway.start()
    assert entry(kernel, poison).blame.deaths == 0


@pytest.mark.case("U08")
async def test_a_stop_counts_nothing_where_it_cuts_a_plan_off(gateway: Gateway) -> None:
    over = threading.Event()

    def planner(payload: Payload) -> list[PlannedPart]:
        over.wait(10)
        return [PlannedPart(payload=payload, kind="text")]

    gateway.channels = {("u", "default"): PlatformChannel(gateway.platform)}
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "x" * 500_000)
    gateway.channels = {
        ("t", "default"): PlatformChannel(gateway.platform, planner=planner)
    }
    await gateway.end()
    kernel = await gateway.start()
    await until(lambda: entry(kernel, sent.entry_id).trying)
    await gateway.end()
    over.set()
    kernel = await gateway.start()
    assert entry(kernel, sent.entry_id).blame.deaths == 0
    await until(lambda: entry(kernel, sent.entry_id).phase is Phase.DELIVERED)


@pytest.mark.case("U08")
async def test_a_stop_counts_nothing_where_a_plan_has_begun_by_the_log_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.channels = {("u", "default"): PlatformChannel(gateway.platform)}
    kernel = await gateway.start()
    first, then = [(await kernel.enqueue(route(), text)).entry_id for text in "ab"]
    await gateway.end()
    gateway.channels = {("t", "default"): PlatformChannel(gateway.platform)}
    stored = Committer._store

    async def stops(self: Committer, draft: UnitOfWork) -> object:
        head = await stored(self, draft)
        if {first, then} <= draft.touched.keys():
            kernel._open_driver()._start_nothing()
        return head

    monkeypatch.setattr(Committer, "_store", stops)
    kernel = await gateway.start()
    await until(lambda: entry(kernel, first).phase is Phase.DELIVERED)
    await gateway.end()
    kernel = await gateway.start()
    await until(lambda: entry(kernel, then).phase is Phase.DELIVERED)
    assert story(kernel, then).count("tried") == 1


@pytest.mark.case("U08")
async def test_a_usual_message_has_no_such_event(gateway: Gateway) -> None:
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "hello")
    await spin()
    assert story(kernel, sent.entry_id) == [
        "queued",
        "planned",
        "attempted",
        "delivered",
    ]


@pytest.mark.case("U08")
async def test_a_call_that_is_needed_no_more_does_not_begin(gateway: Gateway) -> None:
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "hello")
    await spin()
    for act in Trial:
        assert not rules.trial_needed(entry(kernel, sent.entry_id), act)


@pytest.mark.case("U08")
async def test_an_answer_speaks_of_the_part_and_the_attempt_that_were_asked_for(
    gateway: Gateway,
) -> None:
    """A receipt may come while the platform is asked, and the next part be in doubt."""
    kernel, poison = await _asked(gateway)
    asked = entry(kernel, poison)
    assert rules.look_up_is_current(asked, asked.part, asked.attempt)
    assert not rules.look_up_is_current(asked, asked.part + 1, asked.attempt)
    assert not rules.look_up_is_current(asked, asked.part, asked.attempt + 1)
    sent_anew = evolve(asked, phase=Phase.QUEUED)
    assert not rules.look_up_is_current(sent_anew, asked.part, asked.attempt)
