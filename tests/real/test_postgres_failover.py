"""A failover to a standby that lacks the last commits, with a real pair of servers: what
may have been sent in the history that is gone is not sent again.

Both plays share one failover, since a pair of servers takes seconds to start.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from turnfold import Kernel
from turnfold._log.codec import decode
from turnfold._log.events import Restored
from turnfold.audit import audit_store
from turnfold.enums import DeliveryClass, Phase
from turnfold.errors import LostStoreError
from turnfold.messages import Route
from turnfold.ports.store import Wanted, Watermark
from turnfold_adapters.stores.postgres import PostgresStore
from turnfold_model.checks.store_kit import put
from turnfold_model.testing.gateway import crash
from turnfold_model.testing.platform import Platform, PlatformChannel, wait_for

from .failover import Standby
from .postgres import Postgres, in_memory, kill

QUICK = "&lease_ms=500&max_pause_ms=0"
CLASSES = {
    "blind": (),
    "keyed": (DeliveryClass.KEYED,),
    "lookup": (DeliveryClass.LOOKUP,),
}


@pytest.fixture
def standby(postgres: Postgres) -> Iterator[Standby]:
    with in_memory() as folder, Standby(postgres, folder / "s") as follower:
        yield follower


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def gateway(address: str, platform: Platform) -> Kernel:
    """A worker with a channel of each class, and of each an account to be held back."""
    kernel = Kernel(address)
    for name, classes in CLASSES.items():
        channel = PlatformChannel(platform, *classes, settle_ms=0)
        for account in ("begun", "queued"):
            kernel.attach(name, channel, account=account, on_unknown="hold")
    return kernel


class Sends:
    """A worker dies in a failover, and a new one begins on the other server."""

    def __init__(self, schema: str) -> None:
        self.schema, self.platform = schema, Platform(keyed=True)
        self.go = asyncio.Event()
        self.entries: dict[tuple[str, str], str] = {}

    async def before(self, server: Postgres) -> None:
        """Six entries that the standby knows: three on the wire, three held back."""
        self.old = gateway(server.address(self.schema) + QUICK, self.platform)
        await self.old.open()
        for name in CLASSES:
            await self.old.disconnected(name, account="queued")
            self.platform.plays(wait_for(self.go))
            for account in ("begun", "queued"):
                to = Route(channel=name, account=account, conversation="1")
                sent = await self.old.enqueue(to, f"{name} {account}")
                self.entries[name, account] = sent.entry_id
            await until(lambda: len(self.platform.calls) == len(self.entries) / 2)

    async def lost(self) -> None:
        """All of it is shown, and one message more, and the standby hears nothing."""
        self.go.set()
        for name in CLASSES:
            await self.old.connected(name, account="queued")
        to = Route(channel="blind", account="begun", conversation="2")
        await self.old.enqueue(to, "later")
        await until(lambda: len(self.platform.messages) == 7)
        await crash(self.old)

    async def after(self, standby: Standby) -> None:
        new = gateway(standby.address(self.schema) + QUICK, self.platform)
        await new.open()
        await until(lambda: new.working)
        for name in CLASSES:
            await new.connected(name, account="queued")
        await until(lambda: len(self.platform.asked) > 0)
        await new.drain(5_000)
        assert len(self.platform.contents) == 7
        assert len(set(self.platform.contents)) == 7
        calls = Counter(entry for entry, _, _ in self.platform.calls)
        again = {at for at, entry in self.entries.items() if calls[entry] > 1}
        assert again == {("keyed", "begun")}, "under its key, which the platform knows"
        views = {at: await new.inspect.show(e) for at, e in self.entries.items()}
        phases = {at: view.phase for at, view in views.items()}
        assert phases == {
            **dict.fromkeys(self.entries, Phase.PARKED),
            ("keyed", "begun"): Phase.DELIVERED,
            ("lookup", "begun"): Phase.DELIVERED,  # the platform was asked
        }
        [restored] = [e for e in await log_of(new) if isinstance(e, Restored)]
        assert restored.failover is not None
        assert restored.failover.endswith("/2")
        report = await audit_store(new.store)
        assert report.passed, report.first
        await new.close()


def lead(link: Path, folder: Path) -> None:
    """Let an address lead to a server, as a name of the network does."""
    link.unlink(missing_ok=True)
    link.symlink_to(folder)


class Heads:
    """Three workers live through a failover: the log of the first lacks nothing. The
    second learns of a loss when it comes back, the third when it is idle."""

    async def before(self, server: Postgres, link: Path) -> None:
        lead(link, server.folder)
        names = ("f2", "f3", "f4")
        self.stores = [PostgresStore(server.address(name, link)) for name in names]
        for store in self.stores:
            await store.open()
            assert await store.ownership().take() is not None
            await put(store, "entry:a")
            await store.maintenance.note_watermark("id")

    async def lost(self) -> None:
        for store in self.stores[1:]:
            await put(store, "entry:b")

    async def after(self, standby: Standby, link: Path) -> None:
        lead(link, standby.folder)
        for store in self.stores:
            store.drop()
        whole, short, idle = self.stores
        await whole.reopen()
        for act in (short.reopen, lambda: idle.maintenance.note_watermark("id")):
            with pytest.raises(LostStoreError, match="does not contain position 2"):
                await act()
        assert not idle.ownership().held
        assert (await noted(whole)).failover is not None, "nobody has said it is whole"
        await put(whole, "entry:b")
        await whole.maintenance.note_watermark("id")
        assert (await noted(whole)).failover is None
        assert (await noted(idle)).failover is not None, "a new worker must learn of it"
        for store in self.stores:
            await kill(store)
            await store.close()


async def noted(store: PostgresStore) -> Watermark:
    mark = await store.maintenance.watermark()
    assert mark is not None
    return mark


async def log_of(kernel: Kernel) -> list[object]:
    found = await kernel.store.fetch(Wanted(streams=frozenset({"store"})))
    return [event for record in found.streams["store"] for event in decode(record)]


async def test_a_failover_that_lost_commits(
    postgres: Postgres, standby: Standby
) -> None:
    sends, heads = Sends("f1"), Heads()
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        link = Path(folder) / "now"
        await sends.before(postgres)
        await heads.before(postgres, link)
        await standby.caught_up()
        await standby.falls_behind()
        await sends.lost()
        await heads.lost()
        await standby.promote()
        await sends.after(standby)
        await heads.after(standby, link)
