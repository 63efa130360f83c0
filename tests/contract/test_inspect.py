"""The typed queries: what happened to a message, and what happens next."""

import asyncio
from pathlib import Path

import pytest

from turnfold import BlindPolicy, DeliveryClass, FailureClass, Settings
from turnfold.enums import (
    Phase,
    Status,
    TurnOutcome,
    TurnPhase,
)
from turnfold.errors import AmbiguousIdError, InvalidInputError, NotFoundError
from turnfold.inspect import (
    CommandView,
    EntryView,
    Filter,
    Inspect,
    LedgerView,
    Place,
    TurnView,
    View,
    lookup,
)
from turnfold.ports.store import Command
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.testing.gateway import Gateway, in_file, inbound, peek, route, spin
from turnfold_model.testing.platform import PlatformChannel, hang, reject, unknown

HOUR = 3_600_000
RETRY = FailureClass.CANCELLED


async def reply(turn) -> None:
    await turn.block("thinking")
    await turn.reply("one", "two")


async def asked(gateway: Gateway, handler=reply):
    """A kernel that has taken one message in, and the turn of it."""
    gateway.handler = handler
    kernel = await gateway.start()
    turn = await kernel.accept(inbound())
    await spin()
    return kernel, turn


async def queued(gateway: Gateway, *acts, **more):
    gateway.platform.plays(*acts)
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi", **more)
    await spin()
    return kernel, done.entry_id


# --- by inbound message -------------------------------------------------------------------


@pytest.mark.case("N08", "N01")
async def test_an_inbound_message_leads_to_runs_entries_attempts_and_receipts(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(reject(RETRY, detail="busy"))
    kernel, turn = await asked(gateway)
    await gateway.advance(10_000)
    await turn.settled(5_000)
    found = await kernel.inspect.inbound("t", conversation="42", message_id="1")
    assert found is not None
    assert (found.id, found.outcome) == (turn.turn_id, TurnOutcome.REPLIED)
    assert [m.text for m in found.inbound] == ["hello"]
    assert [(run.number, run.ended, len(run.entries)) for run in found.runs] == [
        (1, "answered", 2)
    ]
    block, final = found.entries
    assert [a.outcome for a in block.parts[0].attempts] == [
        "not accepted (cancelled)",
        "accepted",
    ]
    assert block.parts[0].attempts[0].detail == "busy"
    assert [(p.text, p.settled, p.receipt) for p in final.parts] == [
        ("one", "delivered", ("m2",)),
        ("two", "delivered", ("m3",)),
    ]
    assert found.verdict.startswith("answered: the platform accepted all 2 part(s)")


@pytest.mark.case("N08")
async def test_a_message_that_never_came_is_said_to_have_never_come(
    gateway: Gateway,
) -> None:
    kernel, _ = await asked(gateway)
    inspect = kernel.inspect
    assert await inspect.inbound("t", conversation="42", message_id="2") is None
    answer = await inspect.answer_to("t", conversation="42", message_id="2")
    assert answer.turn is None
    assert "never handed message 2" in answer.text


async def silent(turn) -> None:
    await turn.silent("NO_REPLY")


async def says_nothing(_) -> None:
    pass


async def breaks(_) -> None:
    message = "boom"
    raise ValueError(message)


async def waits(_) -> None:
    await asyncio.Event().wait()


@pytest.mark.case("I07")
@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (reply, "answered: the platform accepted all 2"),
        (silent, "no answer was meant (NO_REPLY)"),
        (says_nothing, "the handler returned, and said neither an answer nor silence"),
        (waits, "has no answer yet: run 1 is under way"),
        (breaks, "has no answer yet: run 2, after a wait"),
        (None, "has no answer yet: run 1 starts"),
    ],
)
async def test_i_wrote_and_got_no_answer(gateway: Gateway, handler, words) -> None:
    kernel, _ = await asked(gateway, handler)
    answer = await kernel.inspect.answer_to("t", conversation="42", message_id="1")
    assert words in answer.text


async def test_an_answer_that_waits_is_told_with_what_it_waits_for(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(*[reject(FailureClass.AUTH)] * 2)
    kernel, _ = await asked(gateway)
    answer = await kernel.inspect.answer_to("t", conversation="42", message_id="1")
    assert "there is an answer, but it is not through" in answer.text
    assert answer.turn is not None
    assert answer.turn.phase is TurnPhase.ANSWERED


async def test_an_answer_that_failed_is_told_with_the_users_notice(
    gateway: Gateway,
) -> None:
    gateway.platform.plays(*[reject(FailureClass.TOO_LONG)] * 3)
    kernel, turn = await asked(gateway)
    await turn.settled(5_000)
    answer = await kernel.inspect.answer_to("t", conversation="42", message_id="1")
    assert "did not get through (refused); the user's notice is" in answer.text


# --- what happens next -----------------------------------------------------------------------


async def test_an_entry_on_the_wire_waits_for_its_outcome(gateway: Gateway) -> None:
    kernel, entry = await queued(gateway, hang())
    shown = await kernel.inspect.show(entry)
    assert isinstance(shown, EntryView)
    assert shown.phase is Phase.DISPATCHED
    assert shown.next.text == "part 1, attempt 1, is under way; its outcome is awaited"


async def test_a_retry_says_when(gateway: Gateway) -> None:
    kernel, entry = await queued(gateway, reject(RETRY))
    shown = await kernel.inspect.show(entry)
    assert shown.next.text == "part 1, attempt 2, after a wait"
    assert shown.next.at == gateway.clock.now() + 1_000


async def test_a_parked_entry_asks_for_a_person(gateway: Gateway) -> None:
    kernel, entry = await queued(gateway, unknown())
    await gateway.advance(10_000)
    shown = await kernel.inspect.show(entry)
    assert shown.phase is Phase.PARKED
    assert shown.next.person
    assert "somebody must say if it arrived" in shown.next.text
    assert shown.next.at == shown.expires_at


async def test_a_closed_gate_is_named(gateway: Gateway) -> None:
    limit = reject(FailureClass.RATE_LIMITED, retry_after_ms=7_000)
    kernel, entry = await queued(gateway, limit)
    shown = await kernel.inspect.show(entry)
    assert (
        shown.next.text == "waits: gate:t/default/42 is closed (rate_limited, for 0 s)"
    )
    assert shown.next.at == gateway.clock.now() + 7_000
    gate = await kernel.inspect.show("gate:t/default/42")
    assert isinstance(gate, LedgerView)
    assert (gate.state, gate.next.text) == ("closed", "opens by itself")


async def test_a_channel_that_is_not_attached_is_named(gateway: Gateway) -> None:
    kernel = await gateway.start()
    done = await kernel.enqueue(route(channel="other"), "hi")
    shown = await kernel.inspect.show(done.entry_id)
    assert shown.next.text == "waits: other/default is not attached here"
    assert shown.next.person
    outside = await Inspect(kernel.store, clock=gateway.clock).show(done.entry_id)
    assert "not attached" not in outside.next.text


async def test_a_later_entry_names_the_one_before_it(gateway: Gateway) -> None:
    kernel, first = await queued(gateway, reject(RETRY))
    second = await kernel.enqueue(route(), "me too")
    shown = await kernel.inspect.show(second.entry_id)
    assert shown.next.text == (
        f"waits behind {first} in its lane; that one part 1, attempt 2, after a wait"
    )
    assert shown.next.at == (await kernel.inspect.show(first)).next.at


async def test_a_policy_is_told_before_it_acts(gateway: Gateway) -> None:
    policy = BlindPolicy.RESEND_MARKED
    kernel, entry = await queued(gateway, unknown(), policy=policy)
    gateway.clock.pass_ms(5_000)
    later = await Inspect(kernel.store, clock=gateway.clock).show(entry)
    assert "sent again, marked as a possible duplicate" in later.next.text


async def test_a_dead_letter_asks_for_a_person_until_it_is_acknowledged(
    gateway: Gateway,
) -> None:
    kernel, entry = await queued(gateway, reject(FailureClass.PERMISSION))
    assert (await kernel.inspect.show(entry)).next.person
    await kernel.acknowledge(entry, by="me")
    assert not (await kernel.inspect.show(entry)).next.person


async def test_a_lookup_is_announced(gateway: Gateway) -> None:
    channel = PlatformChannel(gateway.platform, DeliveryClass.LOOKUP, settle_ms=60_000)
    gateway.channels = {("t", "default"): channel}
    kernel, entry = await queued(gateway, unknown())
    await gateway.advance(1)
    shown = await kernel.inspect.show(entry)
    assert shown.phase in (Phase.IN_DOUBT, Phase.RETRYABLE, Phase.DISPATCHED)
    assert shown.doubt or shown.phase is not Phase.IN_DOUBT


async def test_without_a_worker_the_next_step_says_so(gateway: Gateway) -> None:
    kernel = await gateway.start()
    done = await kernel.enqueue(route(), "hi", not_before=gateway.clock.now() + HOUR)
    inspect = Inspect(kernel.store, clock=gateway.clock, alive=lambda: False)
    assert (await inspect.show(done.entry_id)).next.text.endswith(
        "; no worker is running now"
    )


async def test_an_attempt_of_a_dead_process_is_told_as_such(gateway: Gateway) -> None:
    kernel, entry = await queued(gateway, hang())
    inspect = Inspect(kernel.store, clock=gateway.clock, alive=lambda: False)
    assert (
        "was under way when its process died" in (await inspect.show(entry)).next.text
    )


# --- finding ---------------------------------------------------------------------------------


@pytest.mark.case("N08")
async def test_an_id_may_be_given_in_full_or_in_part_or_as_a_message(
    gateway: Gateway,
) -> None:
    kernel, turn = await asked(gateway)
    bare = turn.turn_id.removeprefix("turn:")
    for wanted in (turn.turn_id, bare, bare[:8], turn.turn_id[:12], "1"):
        shown = await kernel.inspect.show(wanted)
        assert isinstance(shown, TurnView)
        assert shown.id == turn.turn_id
    final = await kernel.inspect.show(f"{bare}.f")
    assert isinstance(final, EntryView)
    assert final.id == f"entry:{bare}.final"


async def test_an_id_that_fits_nothing_or_several_is_refused(gateway: Gateway) -> None:
    kernel = await gateway.start()
    for conversation in ("a", "b"):
        await kernel.enqueue(route(conversation), "hi")
    with pytest.raises(NotFoundError, match="turnfold list"):
        await kernel.inspect.show("zzz")
    with pytest.raises(AmbiguousIdError, match="fits several"):
        await kernel.inspect.show("entry:0")
    with pytest.raises(InvalidInputError, match="got 0"):
        await kernel.inspect.show("")


async def test_a_message_id_in_two_conversations_is_not_guessed(
    gateway: Gateway,
) -> None:
    kernel = await gateway.start()
    for conversation in ("a", "b"):
        await kernel.accept(inbound("same", conversation))
    with pytest.raises(AmbiguousIdError, match=r"fits several: .*turn:"):
        await kernel.inspect.show("same")


@pytest.mark.case("N08")
async def test_lists_are_filtered_by_status_place_time_reason_and_kind(
    gateway: Gateway,
) -> None:
    gateway.settings = Settings(max_failures=1)
    refused = reject(FailureClass.PERMISSION)
    gateway.platform.plays(refused, conversation="dead")
    gateway.platform.plays(unknown(), conversation="parked")
    kernel = await gateway.start()
    ids = {}
    for name in ("dead", "parked", "fine", "a/b"):
        ids[name] = (await kernel.enqueue(route(name), "hi")).entry_id
        await spin()
        await gateway.advance(10_000)

    async def listed(**want) -> set[str]:
        rows = await kernel.inspect.list(Filter(**want))
        return {name for name, value in ids.items() if value in {r.id for r in rows}}

    assert await listed() == set(ids)
    assert await listed(status=("failed_terminal",)) == {"dead"}
    assert await listed(status=("parked",)) == {"parked"}
    assert await listed(status=("attempted",)) == set()  # one word for one state
    assert await listed(status=(Status.DELIVERED, "parked")) == {
        "parked",
        "fine",
        "a/b",
    }
    assert await listed(conversation="a/b") == {"a/b"}
    with pytest.raises(InvalidInputError, match="no channel 'x'; there are: t"):
        await listed(channel="x")
    assert await listed(channel="t", account="default") == set(ids)
    assert await listed(reason=("permanent",)) == {"dead"}
    assert await listed(kind=("final",)) == set()
    assert await listed(open=True) == {"parked"}
    assert await listed(what="turn") == set()
    assert await listed(lane="t/default/fine/") == {"fine"}
    start = gateway.clock.now() - 40_000
    assert await listed(until=start + 10_000) == {"dead"}
    assert await listed(since=start + 25_000) == {"a/b"}
    assert len(await kernel.inspect.list(Filter(limit=2))) == 2


async def test_a_list_goes_on_over_many_pages(gateway: Gateway, monkeypatch) -> None:

    monkeypatch.setattr(lookup, "_PAGE", 2)
    kernel = await gateway.start()
    for number in range(7):
        await kernel.enqueue(route(f"c{number}"), "hi")
    await spin()
    rows = await kernel.inspect.list(Filter(conversation="c1"))
    assert [row.conversation for row in rows] == ["c1"]
    newest = await kernel.inspect.list(Filter(limit=5))
    assert [row.conversation for row in newest] == ["c6", "c5", "c4", "c3", "c2"]


async def test_every_event_is_told_in_words(gateway: Gateway) -> None:
    kernel, turn = await asked(gateway)
    await turn.settled(5_000)
    texts = [event.text async for event in kernel.inspect.events()]
    assert "message 1 accepted" in texts
    assert "over: replied" in texts
    assert len(texts) == len(peek(kernel).names())


# --- the inbox ---------------------------------------------------------------------------


async def test_a_message_that_is_only_posted_is_shown_as_such(
    gateway: Gateway,
) -> None:
    client = await gateway.start(work=False)
    turn = await client.accept(inbound())
    shown = await client.inspect.show(turn.turn_id)
    assert isinstance(shown, CommandView)
    assert (shown.id, shown.kind, shown.new) == (turn.turn_id, "accept", True)
    assert "waits in the inbox" in shown.next.text
    assert await client.inspect.show("1") == shown
    assert await client.inspect.show(turn.turn_id.removeprefix("turn:")[:8]) == shown
    asked = {"conversation": "42", "message_id": "1"}
    assert await client.inspect.inbound("t", **asked) is None
    answer = await client.inspect.answer_to("t", **asked)
    assert (answer.turn, answer.waiting) == (None, shown)
    assert "arrived and has no answer yet: waits in the inbox" in answer.text
    dead = Inspect(client.store, alive=lambda: False)
    assert (await dead.show("1")).next.text.endswith("; no worker is running now")
    assert await client.inspect.inbox() == (shown,)
    kernel = await gateway.start()
    await spin()
    assert await kernel.inspect.inbox() == ()
    assert isinstance(await kernel.inspect.show("1"), TurnView)


async def test_a_command_about_something_is_shown_with_it(gateway: Gateway) -> None:
    kernel, entry = await queued(gateway, reject(RETRY))
    await gateway.crash(kernel)
    client = await gateway.start(work=False)
    command = Command(id="c1", kind="redrive", stream=entry, at=1, data=b"{}")
    await client.store.post([command])
    shown = await client.inspect.show(entry)
    assert isinstance(shown, EntryView)
    assert [(c.id, c.kind, c.new) for c in shown.waiting] == [("c1", "redrive", False)]


# --- read only -----------------------------------------------------------------------------------


@pytest.mark.case("N10")
async def test_a_store_is_inspected_without_a_kernel_beside_one_that_works(
    tmp_path: Path,
) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    kernel, turn = await asked(gateway)
    store = SqliteStore(path)
    await store.open(read_only=True)
    shown = await Inspect(store, clock=gateway.clock).show(turn.turn_id)
    assert shown.verdict == (await kernel.inspect.show(turn.turn_id)).verdict
    more = await kernel.enqueue(route("later"), "hi")
    assert (await Inspect(store).show(more.entry_id)).id == more.entry_id
    await store.close()
    assert kernel.working
    await gateway.end()


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}


@pytest.mark.case("N10")
async def test_inspecting_a_store_at_rest_changes_nothing_on_disk(
    tmp_path: Path,
) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    _, turn = await asked(gateway)
    await gateway.end()
    before = contents(tmp_path)
    store = SqliteStore(path)
    await store.open(read_only=True)
    await Inspect(store).show(turn.turn_id)
    await Inspect(store).list()
    await store.close()
    assert contents(tmp_path) == before


@pytest.mark.case("X15")
async def test_a_search_for_words_looks_closer_at_those_that_fit_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several pages: a page of turns is read together, by its first records."""
    monkeypatch.setattr("turnfold.inspect._SEARCHED", 2)
    gateway.handler = reply
    kernel = await gateway.start()
    for number, text in enumerate(["old RING", "a", "b", "c", "ring", "d"]):
        await kernel.accept(inbound(str(number), "42", text))
        await spin()
    looked = []
    show = Inspect._show

    async def shown(self: Inspect, stream: str) -> View:
        looked.append(stream)
        return await show(self, stream)

    monkeypatch.setattr(Inspect, "_show", shown)
    found = await kernel.inspect.find(Place(channel="t"), words="Ring")
    assert [one.text for one in found] == ["ring", "old RING"]
    assert looked == [one.turn.id for one in found]
    newest = await kernel.inspect.find(Place(channel="t"), Filter(limit=1), "ring")
    assert [one.text for one in newest] == ["ring"]
