"""Callers that wait for ends of another process share one pace of looks."""

import asyncio
from collections.abc import Sequence

import pytest

from turnfold.api import looking
from turnfold.api.looking import Looks
from turnfold.errors import DiskError
from turnfold.ports.store import Found, Summary


class _Rows:
    """A store whose rows a test sets. `looks`: the streams of each look."""

    def __init__(self) -> None:
        self.phases: dict[str, str] = {}
        self.waiting: set[str] = set()
        self.looks: list[Sequence[str]] = []
        self.error: Exception | None = None

    async def look(self, streams: Sequence[str]) -> Found:
        self.looks.append(streams)
        if self.error is not None:
            raise self.error
        rows = {name: self._row(name) for name in streams}
        return Found(summaries=rows, waiting=frozenset(self.waiting))

    def _row(self, name: str) -> Summary | None:
        phase = self.phases.get(name)
        if phase is None:
            return None
        return Summary(
            stream=name,
            version=1,
            open=phase != "delivered",
            phase=phase,
            order=1,
            created=1,
            updated=1,
        )


def _asked(looks: Looks, name: str, *, parked: bool = False) -> asyncio.Task[Found]:
    return asyncio.ensure_future(looks.news(name, parked=parked, new=True))


async def test_all_that_wait_share_each_look():
    rows = _Rows()
    looks = Looks(rows.look)
    names = [f"entry:{n}" for n in range(50)]
    rows.phases = dict.fromkeys(names, "queued")
    waits = [_asked(looks, name) for name in names]
    await asyncio.sleep(0.1)
    rows.phases = dict.fromkeys(names, "delivered")
    async with asyncio.timeout(5):
        await asyncio.gather(*waits)
    assert all(len(names) == 50 for names in rows.looks)
    assert len(rows.looks) < 10


@pytest.mark.parametrize("parked", [True, False])
async def test_a_parked_entry_is_news_to_those_who_asked_for_it(parked: bool):
    rows = _Rows()
    rows.phases["entry:1"] = "parked"
    wait = _asked(Looks(rows.look), "entry:1", parked=parked)
    await asyncio.sleep(0.2)
    assert wait.done() is parked
    wait.cancel()


async def test_a_stream_that_is_nowhere_is_news_and_one_in_the_inbox_is_none():
    rows = _Rows()
    rows.waiting.add("entry:1")
    looks = Looks(rows.look)
    posted, unknown = _asked(looks, "entry:1"), _asked(looks, "entry:2")
    async with asyncio.timeout(5):
        assert (await unknown).summaries["entry:2"] is None
    assert not posted.done()
    posted.cancel()


async def test_an_error_of_the_store_reaches_all_and_later_callers_are_served():
    rows = _Rows()
    looks = Looks(rows.look)
    rows.error = DiskError(path="x", problem="gone")
    waits = [_asked(looks, "entry:1"), _asked(looks, "entry:2")]
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(end) for end in ends] == [DiskError, DiskError]
    rows.error, rows.phases["entry:3"] = None, "delivered"
    async with asyncio.timeout(5):
        await looks.news("entry:3", parked=False, new=True)


async def test_a_look_that_is_cut_off_begins_anew():
    """As by whoever cancels all tasks of the loop."""
    rows = _Rows()
    looks = Looks(rows.look)
    rows.phases["entry:1"] = "delivered"
    wait = _asked(looks, "entry:1")
    await asyncio.sleep(0)
    assert looks._task is not None
    looks._task.cancel()
    async with asyncio.timeout(5):
        await wait


async def test_nobody_looks_once_nobody_waits():
    rows = _Rows()
    rows.phases["entry:1"] = "queued"
    wait = _asked(Looks(rows.look), "entry:1")
    await asyncio.sleep(0.05)
    wait.cancel()
    await asyncio.sleep(0.15)
    seen = len(rows.looks)
    await asyncio.sleep(0.25)
    assert len(rows.looks) == seen


@pytest.mark.case("U11")
async def test_a_bug_of_the_looks_ends_each_wait_once_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It is not met again and again by new tasks, which only asyncio would tell of."""
    rows, met = _Rows(), []

    def broken(*_: object, **__: object) -> bool:
        met.append(1)
        raise KeyError("a bug")

    rows.phases["entry:1"] = "queued"
    monkeypatch.setattr(looking, "_is_news", broken)
    looks = Looks(rows.look)
    waits = [_asked(looks, "entry:1"), _asked(looks, "entry:1")]
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(end) for end in ends] == [KeyError, KeyError]
    assert (len(met), looks._task) == (1, None)
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    monkeypatch.undo()
    rows.phases["entry:1"] = "delivered"
    async with asyncio.timeout(5):
        await looks.news("entry:1", parked=False, new=True)
