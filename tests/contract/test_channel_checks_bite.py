"""The public checks of a channel bite: each of them catches a channel that is broken in
the way that it looks for, and lets a good one pass."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from turnfold.enums import DeliveryClass, FailureClass, Kind
from turnfold.messages import (
    File,
    Payload,
    Route,
    Text,
)
from turnfold.ports.channel import (
    Absent,
    Accepted,
    Attempt,
    CannotTell,
    Capabilities,
    Found,
    Outcome,
    Part,
    PartClass,
    PlanContext,
    PlannedPart,
    Receipt,
    Rejected,
    Unknown,
    Verdict,
)
from turnfold_model import check_channel
from turnfold_model.checks.channel import (
    CHECKS,
    CheckFailedError,
    Fault,
    Seen,
    run_check,
)

BY_NAME = {check.__name__: check for check in CHECKS}
LIMIT = 60
MARK = " (again)"
KEYED, LOOKUP = DeliveryClass.KEYED, DeliveryClass.LOOKUP


class LostError(OSError):
    """The connection broke after it was made."""


class Platform:
    """The smallest platform that can do everything, in this process."""

    faults: Sequence[Fault] = tuple(Fault)
    route = Route(channel="t", conversation="42")

    def __init__(self, channel: "type[Good]") -> None:
        self._channel = channel
        self.messages: list[Seen] = []
        self.made = 0
        self.down = False
        self.script: list[Fault | None] = []

    def channel(self) -> "Good":
        return self._channel(self)

    async def witness(self) -> Sequence[Seen]:
        return list(self.messages)

    async def calls(self) -> int:
        return self.made

    async def fault(self, kind: Fault, *, skip: int = 0, times: int = 1) -> None:
        if kind is Fault.REFUSED:
            self.down = True
        else:
            self.script += [*[None] * skip, *[kind] * times]

    async def heal(self) -> None:
        self.down = False
        self.script.clear()

    # --- what its API offers ---

    def reach(self) -> None:
        if self.down:
            raise ConnectionRefusedError(111, "refused")

    async def post(self, key: str, text: str, *, honour: bool = True) -> dict[str, Any]:
        self.reach()
        self.made += 1
        fault = self.script.pop(0) if self.script else None
        if fault is Fault.CUT_BEFORE:
            raise LostError(104, "reset")
        if fault is Fault.RATE_LIMITED:
            return {"error": "slow down"}
        if fault is Fault.REJECTED or len(text) > LIMIT:
            return {"error": "no"}
        seen = self.find(key) if honour else None
        if seen is None:
            seen = Seen(id=f"m{len(self.messages) + 1}", key=key, text=text)
            self.messages.append(seen)
        if fault is Fault.CUT_AFTER:
            raise LostError(104, "reset")
        if fault is Fault.SILENT:
            await asyncio.sleep(60)
        return {"id": seen.id}

    def find(self, key: str) -> Seen | None:
        return next((seen for seen in self.messages if seen.key == key), None)


class Good:
    """A channel without a fault, to be broken in one place."""

    classes: Sequence[DeliveryClass] = (KEYED, LOOKUP)
    settle_ms = 20

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.sent = 0
        offer = PartClass(classes=tuple(self.classes), settle_ms=self.settle_ms)
        self.capabilities = Capabilities(
            parts={"text": offer, "file": offer},
            limit=LIMIT,
            prepares=("file",),
            marks=True,
        )

    def plan(
        self, payload: Payload, route: Route, kind: Kind, context: PlanContext
    ) -> Sequence[PlannedPart]:
        if not isinstance(payload, Text):
            return [PlannedPart(payload=payload, kind="file")]
        text = payload.text
        chunks = [text[n : n + LIMIT] for n in range(0, len(text), LIMIT)]
        return [PlannedPart(payload=Text(chunk), kind="text") for chunk in chunks]

    async def prepare(self, part: Part) -> Any:
        self.platform.reach()
        return {"uploaded": True}

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        self.sent += 1
        if part.kind == "file" and not attempt.prepared:
            return Rejected(failure=FailureClass.CANCELLED)
        honour = KEYED in self.classes
        text = shown(part) + MARK * attempt.marked
        answer = await self.platform.post(key, text, honour=honour)
        return self.outcome(answer)

    def outcome(self, answer: dict[str, Any]) -> Any:
        match answer:
            case {"id": found}:
                return Accepted(receipt=Receipt(ids=(found,)))
            case {"error": "slow down"}:
                return Rejected(failure=FailureClass.RATE_LIMITED, retry_after_ms=50)
            case _:
                return Rejected(failure=FailureClass.INVALID_PAYLOAD)

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        try:
            self.platform.reach()
        except ConnectionRefusedError:
            return CannotTell()
        seen = self.platform.find(part.key)
        return Found(receipt=Receipt(ids=(seen.id,))) if seen else Absent()

    def classify(self, exception: BaseException) -> Outcome | None:
        current: BaseException | None = exception
        while current is not None:
            if isinstance(current, ConnectionRefusedError):
                return Rejected(failure=FailureClass.NOT_CONNECTED)
            current = current.__cause__
        return None


def shown(part: Part) -> str:
    payload = part.payload
    if isinstance(payload, File):
        return payload.name
    return payload.text if isinstance(payload, Text) else ""


@asynccontextmanager
async def platform_of(channel: type[Good]) -> AsyncIterator[Platform]:
    yield Platform(channel)


class LooksUp(Good):
    classes = (LOOKUP,)


class Blind(Good):
    classes = ()


@pytest.mark.case("Y17")
@pytest.mark.parametrize("channel", [Good, LooksUp, Blind])
def test_a_good_channel_passes_every_check(channel: type[Good]) -> None:
    results = check_channel(partial(platform_of, channel))
    assert [result.check.replace(" ", "_") for result in results] == list(BY_NAME)
    left_out = [result for result in results if result.left_out]
    assert len(left_out) == {Good: 0, LooksUp: 3, Blind: 7}[channel]


def test_what_a_harness_cannot_make_is_left_out_and_said() -> None:
    class Calm(Platform):
        faults = ()

    @asynccontextmanager
    async def calm() -> AsyncIterator[Platform]:
        yield Calm(Good)

    told = [str(result) for result in check_channel(calm) if result.left_out]
    assert any("the harness cannot make cut_after" in line for line in told)
    assert len(told) == 10


# --- channels that are broken in one place ---


class Moody(Good):
    count = 0

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        Moody.count += 1
        self.capabilities = Capabilities(limit=100 + Moody.count)


class ClosesInTheMiddle(Good):
    def aclose(self) -> None:
        """Not an `async def`."""


class PlansByChance(Good):
    plans = 0

    def plan(self, payload: Payload, *rest: Any) -> Sequence[PlannedPart]:
        PlansByChance.plans += 1
        made = list(super().plan(payload, *rest))
        return made + made[:1] if PlansByChance.plans % 2 else made


class PlansTooLong(Good):
    def plan(self, payload: Payload, *rest: Any) -> Sequence[PlannedPart]:
        kind = "text" if isinstance(payload, Text) else "file"
        return [PlannedPart(payload=payload, kind=kind)]


class PlansAndForgets(Good):
    def plan(self, payload: Payload, *rest: Any) -> Sequence[PlannedPart]:
        return super().plan(payload, *rest)[:2]


class BoastsOfItsLimit(Good):
    def __init__(self, platform: Platform) -> None:
        super().__init__(platform)
        parts = self.capabilities.parts
        self.capabilities = Capabilities(parts=parts, limit=200, prepares=("file",))


class TakesAnyErrorForUnsent(Good):
    def classify(self, exception: BaseException) -> Outcome | None:
        return Rejected(failure=FailureClass.NOT_CONNECTED)


class BelievesTheContext(Good):
    def classify(self, exception: BaseException) -> Outcome | None:
        inner = exception.__context__
        refused = ConnectionRefusedError
        if isinstance(exception, refused) or isinstance(inner, refused):
            return Rejected(failure=FailureClass.NOT_CONNECTED)
        return None


class GivesNoIds(Good):
    def outcome(self, answer: dict[str, Any]) -> Any:
        if "id" in answer:
            return Accepted(receipt=Receipt())
        return super().outcome(answer)


class GivesNumbers(Good):
    def outcome(self, answer: dict[str, Any]) -> Any:
        if "id" in answer:
            return Accepted(receipt=Receipt(ids=(int(answer["id"][1:]),)))  # type: ignore[arg-type]  # that is the fault
        return super().outcome(answer)


class GivesForeignIds(Good):
    def outcome(self, answer: dict[str, Any]) -> Any:
        if "id" in answer:
            return Accepted(receipt=Receipt(ids=("always-the-same",)))
        return super().outcome(answer)


class SendsLater(Good):
    """Keeps the first message back and sends it behind the next one."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        kept = self.__dict__.setdefault("kept", [])
        kept.append((key, shown(part)))
        if len(kept) == 1:
            return Accepted(receipt=Receipt(ids=("later",)))
        for old, text in reversed(kept):
            answer = await self.platform.post(old, text)
        kept.clear()
        return self.outcome(answer)


class ForgetsTheMark(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        return self.outcome(await self.platform.post(key, shown(part)))


class KeysByContent(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        answer = await self.platform.post(f"h{hash(shown(part))}", shown(part))
        return self.outcome(answer)


class ForgetsKeys(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        answer = await self.platform.post(key, shown(part), honour=False)
        return self.outcome(answer)


class RemembersKeysItself(Good):
    """In its own memory, which dies with the process."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        known = self.__dict__.setdefault("known", {})
        if key not in known:
            answer = await self.platform.post(key, shown(part), honour=False)
            known[key] = self.outcome(answer)
        return known[key]


class LooksUpByText(LooksUp):
    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        for seen in self.platform.messages:
            if seen.text == shown(part):
                return Found(receipt=Receipt(ids=(seen.id,)))
        return Absent()


class NeverFinds(LooksUp):
    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        return Absent()


class FindsWhatItSentItself(LooksUp):
    """In its own memory, and only what was answered."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        outcome = await super().send(part, key, attempt)
        _answered(self.platform)[key] = outcome
        return outcome

    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        outcome = _answered(self.platform).get(part.key)
        known = isinstance(outcome, Accepted)
        return Found(receipt=outcome.receipt) if known else Absent()


def _answered(platform: Platform) -> dict[str, Any]:
    return platform.__dict__.setdefault("answered", {})


class SeesNothingInTheDark(LooksUp):
    async def reconcile(self, part: Part, since_ms: int) -> Verdict:
        if self.platform.down:
            return Absent()
        return await super().reconcile(part, since_ms)


class ShowsAPlaceholder(Good):
    async def prepare(self, part: Part) -> Any:
        await self.platform.post(f"{part.key}-placeholder", "...")
        return await super().prepare(part)


class PreparesOnce(Good):
    async def prepare(self, part: Part) -> Any:
        done = self.platform.__dict__.setdefault("done", set())
        if part.key in done:
            raise LookupError("uploaded already")
        done.add(part.key)
        return await super().prepare(part)


class TriesAgain(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        try:
            return await super().send(part, key, attempt)
        except LostError:
            return await super().send(part, key, attempt)


class CallsALostAnswerARefusal(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        try:
            return await super().send(part, key, attempt)
        except LostError:
            return Rejected(failure=FailureClass.CANCELLED)


class CallsALostRequestASuccess(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        try:
            return await super().send(part, key, attempt)
        except LostError:
            return Accepted(receipt=Receipt(ids=("surely",)))


class DoubtsEverything(Good):
    def classify(self, exception: BaseException) -> Outcome | None:
        return Unknown(cause="odd")


class PaysForOutages(Good):
    def classify(self, exception: BaseException) -> Outcome | None:
        refused = isinstance(exception, ConnectionRefusedError)
        return Rejected(failure=FailureClass.CANCELLED) if refused else None


class HidesALimit(Good):
    def outcome(self, answer: dict[str, Any]) -> Any:
        if answer.get("error") == "slow down":
            return Rejected(failure=FailureClass.CANCELLED)
        return super().outcome(answer)


class WaitsALimitOut(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        answer = await self.platform.post(key, shown(part))
        while answer.get("error") == "slow down":
            answer = await self.platform.post(key, shown(part))
        return self.outcome(answer)


class TakesNoForYes(Good):
    def outcome(self, answer: dict[str, Any]) -> Any:
        if answer.get("error") == "no":
            return Accepted(receipt=Receipt(ids=("no",)))
        return super().outcome(answer)


class CallsACancelledCallARefusal(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        try:
            return await super().send(part, key, attempt)
        except asyncio.CancelledError:
            return Rejected(failure=FailureClass.CANCELLED)


class CannotBeCancelled(Good):
    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        call = asyncio.ensure_future(super().send(part, key, attempt))
        for _ in range(2):
            try:
                await asyncio.wait({call}, timeout=1.5)
            except asyncio.CancelledError:
                continue
        call.cancel()
        return Unknown(cause="tired")


class KeepsAChangingKey(Good):
    """Right in every single call, wrong as soon as there is a second attempt."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        call = self.platform.post(key, shown(part), honour=attempt.number == 1)
        return self.outcome(await call)


class SettlesTooSlowly(LooksUp):
    settle_ms = 120_000


class ForgetsAcrossProcesses(Good):
    """Looks well until a process dies: its keys have its own number in them."""

    async def send(self, part: Part, key: str, attempt: Attempt) -> Any:
        first = self.platform.__dict__.setdefault("first", id(self))
        honour = first == id(self)
        return self.outcome(await self.platform.post(key, shown(part), honour=honour))


KILLED = "killed_around_every_effect_each_part_is_there_once"
AGAIN = "killed_again_while_recovering_each_part_is_there_once"
CUT = "cut_at_every_call_each_part_is_there_once"
BOTH = "cut_and_killed_each_part_is_there_once"
BROKEN: list[tuple[str, type[Good]]] = [
    ("it_can_be_attached_and_declares_the_same_each_time", Moody),
    ("it_can_be_attached_and_declares_the_same_each_time", ClosesInTheMiddle),
    ("a_plan_is_the_same_each_time", PlansByChance),
    ("no_text_of_a_plan_is_longer_than_the_limit", PlansTooLong),
    ("no_text_of_a_plan_is_longer_than_the_limit", PlansAndForgets),
    ("a_text_as_long_as_the_limit_is_accepted", BoastsOfItsLimit),
    ("no_error_after_the_connect_is_called_unsent", TakesAnyErrorForUnsent),
    ("no_error_after_the_connect_is_called_unsent", BelievesTheContext),
    ("an_accepted_part_is_there_once_and_has_a_receipt", GivesNoIds),
    ("an_accepted_part_is_there_once_and_has_a_receipt", GivesForeignIds),
    ("a_receipt_is_of_texts", GivesNumbers),
    ("parts_arrive_in_the_order_in_which_they_were_sent", SendsLater),
    ("the_same_words_twice_are_two_messages", KeysByContent),
    ("a_part_that_is_sent_again_shows_its_mark", ForgetsTheMark),
    ("a_key_that_is_sent_again_is_the_same_message", ForgetsKeys),
    ("a_key_outlives_the_process_that_sent_it", RemembersKeysItself),
    ("a_key_whose_answer_was_lost_is_the_same_message", RemembersKeysItself),
    ("what_was_accepted_is_found", NeverFinds),
    ("what_was_accepted_without_an_answer_is_found", FindsWhatItSentItself),
    ("what_never_arrived_is_absent_even_beside_its_twin", LooksUpByText),
    ("a_platform_that_cannot_be_reached_tells_nothing", SeesNothingInTheDark),
    ("what_is_prepared_is_seen_by_nobody_and_may_be_repeated", ShowsAPlaceholder),
    ("what_is_prepared_is_seen_by_nobody_and_may_be_repeated", PreparesOnce),
    ("a_connection_that_broke_leaves_it_unknown", TriesAgain),
    ("a_connection_that_broke_leaves_it_unknown", CallsALostAnswerARefusal),
    ("a_connection_that_broke_leaves_it_unknown", CallsALostRequestASuccess),
    (
        "a_connection_that_was_refused_is_proven_not_sent_and_costs_nothing",
        DoubtsEverything,
    ),
    (
        "a_connection_that_was_refused_is_proven_not_sent_and_costs_nothing",
        PaysForOutages,
    ),
    ("a_rate_limit_is_told_and_not_waited_out", HidesALimit),
    ("a_rate_limit_is_told_and_not_waited_out", WaitsALimitOut),
    ("a_refusal_is_a_refusal", TakesNoForYes),
    (
        "a_call_that_is_cancelled_ends_and_is_never_called_unsent",
        CallsACancelledCallARefusal,
    ),
    ("a_call_that_is_cancelled_ends_and_is_never_called_unsent", CannotBeCancelled),
    (KILLED, ForgetsKeys),
    (KILLED, NeverFinds),
    (KILLED, KeepsAChangingKey),
    (KILLED, ShowsAPlaceholder),
    (KILLED, SettlesTooSlowly),
    (AGAIN, ForgetsAcrossProcesses),
    (CUT, CallsALostRequestASuccess),
    (CUT, ForgetsKeys),
    (BOTH, FindsWhatItSentItself),
    (BOTH, KeepsAChangingKey),
]


@pytest.mark.parametrize(("name", "channel"), BROKEN)
async def test_a_broken_channel_is_caught(name: str, channel: type[Good]) -> None:
    with pytest.raises(CheckFailedError) as caught:
        await run_check(BY_NAME[name], partial(platform_of, channel))
    assert name.replace("_", " ") in caught.value.__notes__[0]


def test_every_check_has_a_channel_that_it_catches() -> None:
    assert {name for name, _ in BROKEN} == set(BY_NAME)
