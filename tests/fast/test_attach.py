"""What is not a channel is refused when it is attached, not message by message."""

from typing import Any

import pytest

from turnfold import Kernel
from turnfold._runtime.channel import AttachedChannel
from turnfold.enums import BlindPolicy, DeliveryClass
from turnfold.errors import ContractError, InvalidInputError
from turnfold.ports.channel import KINDS, Capabilities, PartClass

ALL_HELD = dict.fromkeys(KINDS, "hold")


class Right:
    async def send(self, part: Any, key: Any, attempt: Any) -> None: ...


class TooFew:
    async def send(self, text: Any) -> None: ...


class NotAsync:
    def send(self, part: Any, key: Any, attempt: Any) -> None: ...


class OddLookUp(Right):
    async def reconcile(self, part: Any) -> None: ...


class OddKind(Right):
    capabilities = Capabilities(parts={"txt": PartClass()})


@pytest.mark.case("Z02")
@pytest.mark.parametrize(
    ("channel", "says"),
    [
        (Right, "is a class"),
        (TooFew(), "must take"),
        (NotAsync(), "async def"),
        (OddLookUp(), "must take"),
        (OddKind(), "'txt', which is none of text, file, native"),
        (object(), "async def"),
    ],
)
def test_what_is_no_channel_is_refused(channel: Any, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        Kernel("memory:").attach("t", channel, on_unknown="hold")


def test_a_channel_is_taken() -> None:
    Kernel("memory:").attach("t", Right(), on_unknown="hold")


class Windowed(Right):
    """Keys for an hour, whatever the part."""

    capabilities = Capabilities(
        parts=dict.fromkeys(
            KINDS, PartClass(classes=(DeliveryClass.KEYED,), key_window_ms=3_600_000)
        )
    )


class Keyed(Right):
    capabilities = Capabilities(
        parts=dict.fromkeys(KINDS, PartClass(classes=(DeliveryClass.KEYED,)))
    )


class TextKeyed(Right):
    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.KEYED,))}, marks=True
    )


class LooksUp(Right):
    capabilities = Capabilities(
        parts=dict.fromkeys(KINDS, PartClass(classes=(DeliveryClass.LOOKUP,)))
    )

    async def reconcile(self, part: Any, since_ms: Any) -> None: ...


@pytest.mark.case("B01", "Y02")
@pytest.mark.parametrize("channel", [Right(), Windowed(), TextKeyed()])
def test_a_policy_must_be_said_where_nobody_can_tell(channel: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Kernel("memory:").attach("t", channel)
    assert caught.value.field == "on_unknown"
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == list(BlindPolicy)


@pytest.mark.parametrize("channel", [Keyed(), LooksUp()])
def test_no_policy_is_needed_where_the_class_always_answers(channel: Any) -> None:
    Kernel("memory:").attach("t", channel)


def test_a_policy_may_differ_by_kind_of_part() -> None:
    said = {"file": "drop", "native": BlindPolicy.RESEND_MARKED}
    Kernel("memory:").attach("t", TextKeyed(), on_unknown=said)
    desk = AttachedChannel("t", "default", TextKeyed(), said)
    assert desk.policies == {k: BlindPolicy(word) for k, word in said.items()}


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("maybe", "maybe"),
        (3, "3"),
        ({"txt": "hold"}, "txt"),
        ({"text": "hold", "file": "hold"}, "native"),
        ({"text": "never", "file": "hold", "native": "hold"}, "never"),
    ],
)
def test_a_wrong_policy_is_refused_and_named(said: Any, names: str) -> None:
    with pytest.raises(InvalidInputError, match=names) as caught:
        Kernel("memory:").attach("t", Right(), on_unknown=said)
    assert caught.value.field == "on_unknown"


@pytest.mark.case("V11")
@pytest.mark.parametrize(
    "said", ["resend_marked", {**ALL_HELD, "file": "resend_marked"}]
)
def test_resend_marked_needs_a_channel_that_shows_the_mark(said: Any) -> None:
    with pytest.raises(InvalidInputError, match="marks=True"):
        Kernel("memory:").attach("t", Right(), on_unknown=said)
    Kernel("memory:").attach("t", TextKeyed(), on_unknown=said)
