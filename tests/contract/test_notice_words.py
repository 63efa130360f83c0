"""Notices of the kernel in the words of the embedder, and in a form the channel takes."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.test_foreign_code import ANSWERS, ERRORS, QUIET

from turnfold import FailureClass, InvalidInputError, Native, Notice, Settings
from turnfold.enums import Phase, TurnOutcome
from turnfold.notices import DEFAULTS
from turnfold.ports.channel import Accepted, Receipt
from turnfold_model.testing.gateway import Gateway, commits, entry, inbound, spin, turn
from turnfold_model.testing.platform import accept, reject, unknown

FAILED = DEFAULTS["runs_exhausted"]


async def _breaks(handle: Any) -> str:
    raise ValueError(handle.id)


async def told(gateway: Gateway, notices: Any, **more: Any) -> list[Any]:
    """What the reader of a turn that fails is told."""
    gateway.handler = _breaks
    gateway.settings = Settings(max_runs=1, notices=notices)
    kernel = await gateway.start()
    done = await kernel.accept(inbound(**more))
    assert await done.settled(2_000) is TurnOutcome.FAILED
    await spin()
    return gateway.platform.contents


@pytest.mark.case("V07")
@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("de", "Schade."),
        ("de-AT", "Schade."),
        ("DE_ch", "Schad."),
        ("fr", "Sorry."),
        (None, "Sorry."),
    ],
)
async def test_the_words_are_those_of_the_reader_s_locale(
    lone: Gateway, locale: str | None, words: str
) -> None:
    table = {"de": "Schade.", "de-CH": "Schad.", "": "Sorry."}
    assert await told(lone, {"runs_exhausted": table}, locale=locale) == [words]


async def test_a_locale_that_is_not_in_the_table_gets_the_default_words(
    lone: Gateway,
) -> None:
    assert await told(lone, {"runs_exhausted": {"de": "Schade."}}) == [FAILED]


@pytest.mark.case("V07")
async def test_a_function_gives_the_words_and_knows_who_reads_them(
    lone: Gateway,
) -> None:
    seen: list[Notice] = []

    def words(notice: Notice) -> str:
        seen.append(notice)
        return f"{notice.channel}: {notice.text}"

    assert await told(lone, words, locale="fr") == [f"t: {FAILED}"]
    (notice,) = {(n.cause, n.conversation, n.locale) for n in seen}
    assert notice == ("runs_exhausted", "42", "fr")


class NativeOnly:
    """A channel that takes no text."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    async def send(self, part: Any, key: str, attempt: Any) -> Accepted:
        del attempt
        self.bodies.append(part.payload.body)
        return Accepted(receipt=Receipt(ids=(key,)))


@pytest.mark.case("V07")
async def test_a_channel_that_takes_no_text_gets_a_notice_that_it_takes() -> None:
    channel = NativeOnly()
    gateway = Gateway(channels={("t", "default"): channel})
    await told(gateway, {"runs_exhausted": lambda n: Native({"say": n.text})})
    await gateway.end()
    assert channel.bodies == [{"say": FAILED}]


@pytest.mark.parametrize("nothing", [{}, {"runs_exhausted": ""}, lambda _: None])
async def test_words_may_say_nothing(lone: Gateway, nothing: Any) -> None:
    assert await told(lone, nothing) == []


SAID = (*QUIET, "a text", "a huge text")  # words that can be said, or None
ODD: dict[str, Callable[[], Any]] = {
    **{name: act for name, act in ERRORS.items() if name != "KeyboardInterrupt"},
    **{n: a for n, a in ANSWERS.items() if n not in SAID},
    "a text that cannot be stored": lambda: "\ud800",
}


@pytest.mark.case("U06", "V07")
@pytest.mark.parametrize("kind", ODD)
async def test_words_that_break_are_a_bug_and_the_default_words_are_said(
    lone: Gateway, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    act = ODD[kind]
    assert await told(lone, lambda _: act()) == [FAILED]
    (kernel,) = lone.alive
    assert kernel.health()["foreign_bugs"]["notices"] >= 1
    told_bugs = [r for r in caplog.records if r.levelno == logging.ERROR and r.exc_info]
    assert any("runs_exhausted" in r.getMessage() for r in told_bugs)


@pytest.mark.case("Z03")
@pytest.mark.parametrize(
    "wrong", ["hello", 7, {"no_such": "x"}, {"late": 7}, {"late": {"de": 7}}]
)
def test_words_are_checked_when_the_settings_are_made(wrong: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Settings(notices=wrong)
    assert caught.value.field == "notices"


def test_numbers_stand_where_the_words_want_them() -> None:
    notice = Notice(cause="incomplete", text="x", missing=2, parts=3)
    assert notice.filled("{missing} von {parts} fehlen") == "2 von 3 fehlen"


# --- one notice for each cause ---


LIMIT = reject(FailureClass.RATE_LIMITED, retry_after_ms=60_000)
NEVER = reject(FailureClass.INVALID_PAYLOAD)


async def _held_in_its_second_part(gateway: Gateway, *acts: Any) -> tuple[Any, str]:
    async def answer(handle: Any) -> None:
        await handle.reply("one", "two")

    gateway.handler = answer
    gateway.platform.plays(accept(), unknown(), *acts)
    kernel = await gateway.start()
    done = await kernel.accept(inbound())
    await spin()
    return kernel, turn(kernel, done.turn_id).finals[0]


@pytest.mark.case("V03", "V05")
async def test_later_news_takes_the_place_of_a_notice_that_has_not_gone_out(
    lone: Gateway,
) -> None:
    kernel, final = await _held_in_its_second_part(lone, LIMIT, NEVER)
    await kernel.resolve(final, "not_sent", by="me")
    for _ in range(2):  # the wait of the gate, and the pace behind it
        await lone.advance(60_000)
    missing = "1 of 2 parts of the answer could not be delivered."
    assert lone.platform.contents == ["one", missing]
    assert commits(kernel)["outbox.aborted"] == 1


@pytest.mark.case("V03", "V05")
async def test_each_cause_is_told_once(lone: Gateway) -> None:
    kernel, final = await _held_in_its_second_part(lone)
    lone.platform.plays(unknown())
    await kernel.resolve(final, "resend", by="me")
    await lone.advance(2_000)
    assert entry(kernel, final).phase is Phase.PARKED  # once more
    assert lone.platform.contents == ["one", DEFAULTS["interrupted"]]


@pytest.mark.case("V03")
async def test_another_cause_of_the_same_turn_is_told_too(lone: Gateway) -> None:
    kernel, final = await _held_in_its_second_part(lone)
    lone.platform.plays(NEVER)
    await kernel.resolve(final, "not_sent", by="me")
    await spin()
    missing = "1 of 2 parts of the answer could not be delivered."
    assert lone.platform.contents == ["one", DEFAULTS["interrupted"], missing]
