"""Files with captions: together where the channel can, else the words before the file."""

from pathlib import Path

import pytest

from turnfold import Capabilities, File, PartClass, Text
from turnfold._log.bodies import contents_in, naming, pack, unpack
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, Status
from turnfold_model.testing.gateway import Gateway, entry, route
from turnfold_model.testing.platform import PlatformChannel

PICTURE = File(data=b"picture", name="a.png", caption="The new logo")


def test_a_stored_file_keeps_its_caption_and_its_content() -> None:
    packed = pack(PICTURE)
    data = naming(packed, ["0.digest"])
    assert contents_in(data) == ("0.digest",)
    again = unpack(data, {"0.digest": packed.contents[0]}.__getitem__)
    assert again == File(
        data=b"picture", name="a.png", mime="image/png", caption="The new logo"
    )


def _captions(gateway: Gateway, most: int) -> None:
    offer = PartClass(classes=(DeliveryClass.KEYED,))
    channel = PlatformChannel(gateway.platform)
    channel.capabilities = Capabilities(
        parts={"text": offer, "file": offer}, captions=most
    )
    gateway.channels = {("t", "default"): channel}


@pytest.mark.case("V08")
@pytest.mark.parametrize(
    ("most", "kinds"),
    [(0, ["text", "file"]), (5, ["text", "file"]), (100, ["file"])],
)
async def test_a_caption_goes_with_its_file_or_before_it(
    gateway: Gateway, tmp_path: Path, most: int, kinds: list[str]
) -> None:
    _captions(gateway, most)
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), File(path, caption="The new logo"), key="k")
    path.unlink()
    again = await kernel.enqueue(route(), PICTURE, key="k")
    other = await kernel.enqueue(route(), File(data=b"picture", name="a.png"), key="k")
    assert (again.differs, other.differs) == (False, True)
    assert await sent.settled(2_000) is Status.DELIVERED
    assert [part.kind for part in entry(kernel, sent.entry_id).parts] == kinds
    told = " ".join(gateway.platform.contents)
    assert ("The new logo" in told) or kinds == ["file"]
    assert await kernel.redact(sent.entry_id, by="me") in (True, False)
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:3]


async def test_a_file_without_a_caption_is_one_part(gateway: Gateway) -> None:
    _captions(gateway, 0)
    kernel = await gateway.start()
    sent = await kernel.enqueue(route(), File(data=b"x", name="f"), Text("and this"))
    assert await sent.settled(2_000) is Status.DELIVERED
    kinds = [part.kind for part in entry(kernel, sent.entry_id).parts]
    assert kinds == ["file", "text"]
