"""Checks of a channel on the wire: receipts, keys, look-ups, faults."""

import asyncio

from turnfold._decide.failures import RULES
from turnfold._runtime.calls import end_of
from turnfold._runtime.channel import AttachedChannel
from turnfold.enums import DeliveryClass, FailureClass
from turnfold.ports.channel import (
    Absent,
    Accepted,
    CannotTell,
    Found,
    Outcome,
    Part,
    Rejected,
    Unknown,
)
from turnfold_model.checks.channel_kit import (
    Bench,
    Fault,
    NotApplicableError,
    is_of,
    same,
    settle_s,
    token,
    true,
)
from turnfold_model.checks.store_kit import checks_in

GRACE_S = 1.0  # the kernel's own: how long a cancelled call may take to end


def _accepted(outcome: Outcome, what: str) -> Accepted:
    true(isinstance(outcome, Accepted), f"{what} came to {outcome!r:.300}")
    assert isinstance(outcome, Accepted)  # noqa: S101  just checked; for the type
    return outcome


async def an_accepted_part_is_there_once_and_has_a_receipt(bench: Bench) -> None:
    desk = bench.desk()
    for payload in bench.payloads(desk):
        part = bench.part(desk, payload)
        before = await bench.harness.calls()
        outcome = _accepted(await bench.deliver(desk, part), f"a {part.kind}")
        seen = await bench.shows_once(part, f"after an accepted {part.kind}")
        made = await bench.harness.calls() - before
        same(made, 1, "visible calls of one send")
        if desk.capabilities.gives_ids:
            true(seen.id in outcome.receipt.ids, f"{seen.id} is not in the receipt")


async def a_receipt_is_of_texts(bench: Bench) -> None:
    """The result of send() itself, before the kernel interprets it."""
    desk = bench.desk()
    part = bench.part(desk, bench.text())
    end = await bench.sending(desk, part, await bench.prepared(desk, part))
    raw = end.value
    true(isinstance(raw, Accepted), f"send() came to {end!r:.200}")
    ids = raw.receipt.ids
    text = isinstance(ids, tuple) and all(isinstance(i, str) and i for i in ids)
    true(text, f"the ids of a receipt are {ids!r:.200}")
    same(bool(ids), desk.capabilities.gives_ids, "gives ids, as declared")


async def parts_arrive_in_the_order_in_which_they_were_sent(bench: Bench) -> None:
    desk = bench.desk()
    sent = [bench.part(desk, bench.text()) for _ in range(4)]
    for part in sent:
        _accepted(await bench.deliver(desk, part), "a text")
    shown = await bench.harness.witness()
    order = [n for seen in shown for n, part in enumerate(sent) if is_of(seen, part)]
    same(order, [0, 1, 2, 3], "the order in which four parts are shown")


async def the_same_words_twice_are_two_messages(bench: Bench) -> None:
    """Identity is the key, never the content."""
    desk = bench.desk()
    payload = bench.text()
    before = len(await bench.harness.witness())
    for _ in range(2):
        _accepted(await bench.deliver(desk, bench.part(desk, payload)), "a text")
    same(len(await bench.harness.witness()) - before, 2, "messages of the same words")


async def a_part_that_is_sent_again_shows_its_mark(bench: Bench) -> None:
    desk = bench.desk()
    if not desk.capabilities.marks:
        raise NotApplicableError("the channel shows no marks")
    for marked in (False, True):
        part = bench.part(desk, bench.text())
        _accepted(await bench.deliver(desk, part, marked=marked), "a text")
        seen = await bench.shows_once(part, "after a text")
        told = seen.text != token(part.payload) if seen.marked is None else seen.marked
        same(told, marked, "shown as a possible duplicate")


# --- keys ---


async def a_key_that_is_sent_again_is_the_same_message(bench: Bench) -> None:
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.KEYED)
    for payload in bench.payloads(desk):
        part = bench.part(desk, payload)
        first = _accepted(await bench.deliver(desk, part), "the first send")
        again = _accepted(await bench.deliver(desk, part, number=2), "the second send")
        await bench.shows_once(part, "after the same key twice")
        same(again.receipt.ids, first.receipt.ids, "the receipt of the second send")


async def a_key_outlives_the_process_that_sent_it(bench: Bench) -> None:
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.KEYED)
    part = bench.part(desk, bench.text())
    first = _accepted(await bench.deliver(desk, part), "the first send")
    other = bench.desk()
    again = _accepted(await bench.deliver(other, part, number=2), "the second send")
    await bench.shows_once(part, "after the same key from another process")
    same(again.receipt.ids, first.receipt.ids, "the receipt of the second send")


async def a_key_whose_answer_was_lost_is_the_same_message(bench: Bench) -> None:
    bench.needs(Fault.CUT_AFTER)
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.KEYED)
    part = bench.part(desk, bench.text())
    await _with_fault(bench, Fault.CUT_AFTER, desk, part)
    again = _accepted(await bench.deliver(desk, part, number=2), "the second send")
    seen = await bench.shows_once(part, "after a lost answer and the key again")
    if desk.capabilities.gives_ids:
        true(seen.id in again.receipt.ids, f"{seen.id} is not in the receipt")


# --- look-ups ---


async def what_was_accepted_is_found(bench: Bench) -> None:
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.LOOKUP)
    part = bench.part(desk, bench.text())
    outcome = _accepted(await bench.deliver(desk, part), "a text")
    for asking, who in ((desk, "its sender"), (bench.desk(), "another process")):
        verdict = await bench.ask(asking, part)
        true(isinstance(verdict, Found), f"to {who} the look-up said {verdict!r:.200}")
        assert isinstance(verdict, Found)  # noqa: S101  just checked; for the type
        same(verdict.receipt.ids, outcome.receipt.ids, "the receipt of the look-up")


async def what_was_accepted_without_an_answer_is_found(bench: Bench) -> None:
    bench.needs(Fault.CUT_AFTER)
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.LOOKUP)
    part = bench.part(desk, bench.text())
    await _with_fault(bench, Fault.CUT_AFTER, desk, part)
    await asyncio.sleep(settle_s(desk))
    verdict = await bench.ask(bench.desk(), part)
    true(isinstance(verdict, Found), f"the look-up said {verdict!r:.200}")


async def what_never_arrived_is_absent_even_beside_its_twin(bench: Bench) -> None:
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.LOOKUP)
    payload = bench.text()
    twin, missing = bench.part(desk, payload), bench.part(desk, payload)
    _accepted(await bench.deliver(desk, twin), "a text")
    if Fault.CUT_BEFORE in bench.harness.faults:
        await _with_fault(bench, Fault.CUT_BEFORE, desk, missing)
        await asyncio.sleep(settle_s(desk))
    verdict = await bench.ask(desk, missing)
    true(isinstance(verdict, Absent), f"the look-up said {verdict!r:.200}")


async def a_platform_that_cannot_be_reached_tells_nothing(bench: Bench) -> None:
    bench.needs(Fault.REFUSED)
    desk = bench.desk()
    bench.needs_class(desk, DeliveryClass.LOOKUP)
    part = bench.part(desk, bench.text())
    _accepted(await bench.deliver(desk, part), "a text")
    await bench.harness.fault(Fault.REFUSED)
    for asking in (desk, bench.desk()):
        verdict = await bench.ask(asking, part)
        true(isinstance(verdict, CannotTell), f"the look-up said {verdict!r:.200}")
    await bench.harness.heal()


# --- prepare ---


async def what_is_prepared_is_seen_by_nobody_and_may_be_repeated(bench: Bench) -> None:
    desk = bench.desk()
    payloads = [p for p in bench.payloads(desk) if desk.prepares(_kind(bench, desk, p))]
    if not payloads:
        raise NotApplicableError("the channel has no prepare()")
    for payload in payloads:
        part = bench.part(desk, payload)
        before = await bench.harness.calls()
        ready = [await bench.prepared(at, part) for at in (desk, desk, bench.desk())]
        refusals = [r for r in ready if isinstance(r, Rejected)]
        same(refusals, [], "refusals of prepare()")
        same(await bench.harness.calls() - before, 0, "visible calls of prepare()")
        same(await bench.shown(part), [], "what is shown after prepare()")
        outcome = desk.outcome(await bench.sending(desk, part, ready[-1]))
        _accepted(outcome, "the send after prepare()")


def _kind(bench: Bench, desk: AttachedChannel, payload: object) -> str:
    return bench.part(desk, payload).kind  # type: ignore[arg-type]  # one of payloads()


# --- faults ---


async def _with_fault(
    bench: Bench, fault: Fault, desk: AttachedChannel, part: Part
) -> Outcome:
    """The outcome of one send with a fault."""
    before = await bench.harness.calls()
    await bench.harness.fault(fault)
    outcome = await bench.deliver(desk, part)
    made = await bench.harness.calls() - before
    await bench.harness.heal()
    wanted = 0 if fault is Fault.REFUSED else 1
    same(made, wanted, f"visible calls of one send that met {fault}")
    return outcome


async def a_connection_that_broke_leaves_it_unknown(bench: Bench) -> None:
    """A connection that breaks before the acceptance looks the same as after it."""
    desk = bench.desk()
    faults = {Fault.CUT_AFTER: 1, Fault.CUT_BEFORE: 0}
    if not set(faults) & set(bench.harness.faults):
        bench.needs(Fault.CUT_AFTER)
    for fault, shown in faults.items():
        if fault in bench.harness.faults:
            part = bench.part(desk, bench.text())
            outcome = await _with_fault(bench, fault, desk, part)
            true(isinstance(outcome, Unknown), f"{fault}: {outcome!r:.300}")
            same(len(await bench.shown(part)), shown, f"shown after {fault}")


async def a_connection_that_was_refused_is_proven_not_sent_and_costs_nothing(
    bench: Bench,
) -> None:
    bench.needs(Fault.REFUSED)
    desk = bench.desk()
    _accepted(await bench.deliver(desk, bench.part(desk, bench.text())), "a text")
    for at in (desk, bench.desk()):  # with and without anything prepared before
        part = bench.part(at, bench.text())
        outcome = await _with_fault(bench, Fault.REFUSED, at, part)
        free = isinstance(outcome, Rejected) and not RULES[outcome.failure].counts
        true(free, f"a refused connection came to {outcome!r:.300}")
        same(await bench.shown(part), [], "what is shown")
        _accepted(await bench.deliver(at, part, number=2), "the send after the outage")


async def a_rate_limit_is_told_and_not_waited_out(bench: Bench) -> None:
    bench.needs(Fault.RATE_LIMITED)
    desk = bench.desk()
    part = bench.part(desk, bench.text())
    outcome = await _with_fault(bench, Fault.RATE_LIMITED, desk, part)
    limited = (
        isinstance(outcome, Rejected) and outcome.failure is FailureClass.RATE_LIMITED
    )
    true(limited, f"a rate limit came to {outcome!r:.300}")
    same(await bench.shown(part), [], "what is shown")


async def a_refusal_is_a_refusal(bench: Bench) -> None:
    bench.needs(Fault.REJECTED)
    desk = bench.desk()
    part = bench.part(desk, bench.text())
    outcome = await _with_fault(bench, Fault.REJECTED, desk, part)
    true(isinstance(outcome, Rejected), f"a refusal came to {outcome!r:.300}")
    same(await bench.shown(part), [], "what is shown")


async def a_call_that_is_cancelled_ends_and_is_never_called_unsent(
    bench: Bench,
) -> None:
    bench.needs(Fault.SILENT)
    desk = bench.desk()
    part = bench.part(desk, bench.text())
    ready = await bench.prepared(desk, part)
    await bench.harness.fault(Fault.SILENT)
    call = bench.start(desk, part, ready)
    await _until_shown(bench, part)
    call.cancel()
    await asyncio.wait({call}, timeout=GRACE_S)
    await bench.harness.heal()
    true(call.done(), f"send() had not ended {GRACE_S:.0f} s after its cancellation")
    outcome = desk.outcome(end_of(call))
    honest = not isinstance(outcome, Rejected)
    true(honest, f"a cancelled call came to {outcome!r:.300}")


async def _until_shown(bench: Bench, part: Part) -> None:
    for _ in range(500):
        if await bench.shown(part):
            return
        await asyncio.sleep(0.01)
    true(condition=False, what="a silent platform never got the part")


CHECKS = checks_in(globals())
