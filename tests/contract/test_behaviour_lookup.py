"""A look-up that comes too early says nothing, and costs nothing."""

import pytest

from turnfold import (
    Absent,
    Accepted,
    Capabilities,
    DeliveryClass,
    PartClass,
    Receipt,
    Settings,
    Unknown,
)
from turnfold_model.testing.gateway import Gateway, entry, events, route


class Forgetful:
    """Loses the first request; can be asked, and knows nothing of it."""

    capabilities = Capabilities(
        parts={"text": PartClass(classes=(DeliveryClass.LOOKUP,), settle_ms=120_000)}
    )

    def __init__(self) -> None:
        self.sends = 0

    async def send(self, part, key, attempt):
        self.sends += 1
        if self.sends == 1:
            return Unknown(cause="timeout")
        return Accepted(receipt=Receipt(ids=("m",)))

    async def reconcile(self, part, since_ms):
        return Absent()


@pytest.mark.case("B04")
async def test_restarts_inside_the_settle_time_do_not_use_up_the_look_ups() -> None:
    channel = Forgetful()
    gateway = Gateway(
        settings=Settings(max_lookups=2), channels={("t", "default"): channel}
    )
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), "hello")
    for _ in range(5):
        await gateway.crash(kernel)
        gateway.clock.pass_ms(120_001)  # due by the wall; the settle time starts anew
        kernel = await gateway.start()
        assert entry(kernel, sent.entry_id).phase == "in_doubt"
    assert sum(getattr(e, "early", False) for e in events(kernel, sent.entry_id)) >= 5
    await gateway.advance(120_000)
    await gateway.advance(120_000)
    assert entry(kernel, sent.entry_id).phase == "delivered"
    assert channel.sends == 2
    await gateway.end()
