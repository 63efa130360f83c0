"""What is not a channel is refused when it is attached, not message by message."""

from typing import Any

import pytest

from turnfold import Kernel
from turnfold.errors import ContractError


class Right:
    async def send(self, part: Any, key: Any, attempt: Any) -> None: ...


class TooFew:
    async def send(self, text: Any) -> None: ...


class NotAsync:
    def send(self, part: Any, key: Any, attempt: Any) -> None: ...


class OddLookUp(Right):
    async def reconcile(self, part: Any) -> None: ...


@pytest.mark.case("Z02")
@pytest.mark.parametrize(
    ("channel", "says"),
    [
        (Right, "is a class"),
        (TooFew(), "must take"),
        (NotAsync(), "async def"),
        (OddLookUp(), "must take"),
        (object(), "async def"),
    ],
)
def test_what_is_no_channel_is_refused(channel: Any, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        Kernel("memory:").attach("t", channel)


def test_a_channel_is_taken() -> None:
    Kernel("memory:").attach("t", Right())
