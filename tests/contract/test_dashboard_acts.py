"""A person decides in the dashboard: what was shown is done and nothing else, the log
keeps who and why, and nobody acts who may not."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.test_cli_acts import incident, run
from tests.contract.test_dashboard import TOKEN, Tags, browser, site
from tests.contract.test_redacting_sender import _store_of

from turnfold.enums import Phase
from turnfold_cli.dashboard.jobs import Job, Jobs, StoppedError
from turnfold_model.testing.gateway import Gateway, entry, in_file, route, until
from turnfold_model.testing.platform import unknown


@pytest.fixture(scope="module")
def after_an_incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("incident") / "gateway.db"
    asyncio.run(incident(path))
    return path


@pytest.fixture
def store(after_an_incident: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(after_an_incident, tmp_path / "copy.db"))


@pytest.fixture
async def ann(store: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with logged_in(store) as client:
        yield client


class logged_in:  # noqa: N801  reads as what it is: async with logged_in(store)
    def __init__(self, store: Path, **how: Any) -> None:
        self.client = browser(site(store, **{"token": TOKEN, "acts": True, **how}))

    async def __aenter__(self) -> httpx.AsyncClient:
        await self.client.__aenter__()
        form = {"name": "ann", "token": TOKEN, "to": "/"}
        assert (await self.client.post("/login", data=form)).status_code == 303
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.client.__aexit__(None, None, None)


def form_of(text: str) -> dict[str, str]:
    """The hidden fields of the form of a preview."""
    fields = [a for tag, a in Tags(text).tags if a.get("type") == "hidden"]
    return {a["name"] or "": a["value"] or "" for a in fields if a["name"] != "to"}


async def decided(
    client: httpx.AsyncClient, where: str, why: str = "", **more: str
) -> dict[str, Any]:
    """Look at the preview, decide, and wait for the end of it."""
    preview = await client.get(where)
    assert preview.status_code == 200, preview.text
    form = form_of(preview.text) | {"why": why} | more
    return await ended(client, await client.post("/act", data=form))


async def ended(client: httpx.AsyncClient, begun: httpx.Response) -> dict[str, Any]:
    assert begun.status_code == 303, begun.text
    where = begun.headers["location"].replace("/run?", "/run.json?")
    async with asyncio.timeout(20):
        while (told := (await client.get(where)).json())["state"] == "under way":
            await asyncio.sleep(0.01)
    return told


async def rows(client: httpx.AsyncClient, where: str) -> list[dict[str, Any]]:
    return (await client.get(where)).json()["rows"]


async def head(store: Path) -> str:
    return (await asyncio.to_thread(run, store, "head")).stdout


# --- what is done ---------------------------------------------------------------------


@pytest.mark.case("X01", "X11", "N02")
async def test_all_that_a_filter_finds_is_resolved_after_a_preview(
    store: Path, ann: httpx.AsyncClient
) -> None:
    page = (await ann.get("/list?parked=1")).text
    offered = [link for link in Tags(page).links() if link.startswith("/act")]
    where = next(link for link in offered if "verdict=delivered" in link)
    assert "resolve delivered: 6 entries (t 6)" in (await ann.get(where)).text
    told = await decided(ann, where, why="seen in the app")
    assert (told["state"], told["of"], told["refused"]) == ("done", 6, [])
    assert told["done"] == {"done": 6}
    assert await rows(ann, "/list.json?parked=1") == []
    shown = await asyncio.to_thread(run, store, "show", "e2", "-v")
    assert "by ann" in shown.stdout
    assert "seen in the app" in shown.stdout


@pytest.mark.case("X01")
async def test_the_page_of_a_message_offers_its_next_steps(
    ann: httpx.AsyncClient,
) -> None:
    row = (await rows(ann, "/list.json?dead=1"))[0]
    page = (await ann.get("/show", params={"id": row["id"]})).text
    links = [link for link in Tags(page).links() if link.startswith("/act")]
    retry = f"/act?do=retry&id={row['short']}&seen={row['version']}"
    assert retry in links
    assert {"do=discard", "do=redact", "do=ack"} <= {
        link.partition("?")[2].partition("&")[0] for link in links
    }
    told = await decided(ann, retry)
    assert told["done"] == {"redriven": 1}
    (again,) = [r for r in await rows(ann, "/list.json") if r["id"] == row["id"]]
    assert again["status"] == "queued"


@pytest.mark.parametrize(
    ("where", "done"),
    [
        ("/act?do=discard&dead=1", {"acknowledged": 4}),
        ("/act?do=ack&unseen=1&account=b", {"done": 2}),
        ("/act?do=abort&status=queued", {"aborted": 1}),
        ("/act?do=retry&turns=1&status=failed", {"resubmitted": 1}),
        ("/act?do=redact&turns=1&open=no", {"done": 1}),
        ("/act?do=resubmit&status=failed", {"done": 1}),
        ("/act?do=close&id=t/b&for=2h", {"held back": 1}),
        ("/act?do=close&channel=t", {"held back": 2}),
        ("/act?do=open&id=gate:t/default/w", {"let go": 1}),
    ],
)
@pytest.mark.case("X01")
async def test_every_act_is_done_to_what_was_shown(
    ann: httpx.AsyncClient, where: str, done: dict[str, int]
) -> None:
    told = await decided(ann, where)
    assert (told["done"], told["refused"]) == (done, [])


@pytest.mark.case("N03")
async def test_all_that_a_sender_wrote_is_erased_from_the_page_of_a_turn(
    tmp_path: Path,
) -> None:
    await _store_of(tmp_path / "g.db")
    async with logged_in(tmp_path / "g.db") as ann:
        page = (await ann.get("/show", params={"id": "0"})).text
        (there,) = [link for link in Tags(page).links() if "sender=" in link]
        assert there == "/act?do=redact&sender=7"
        preview = (await ann.get(there)).text
        assert "redact: 3 turns" in preview
        assert "not covered: plugin state" in preview
        none = (await ann.get("/act.json?do=ack&sender=7")).json()
        assert (none["ids"], "not covered" in str(none["lines"])) == ([], False)
        assert (await decided(ann, there))["done"] == {"done": 3}
        shown = (await ann.get("/show", params={"id": "0"})).text
        assert "written-by-7" not in shown
        kept = (await ann.get("/show", params={"id": "1"})).text
        assert "kept" in kept


async def test_an_act_works_beside_a_living_worker(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    gateway.platform.plays(unknown())
    name = (await kernel.enqueue(route("1"), "x")).entry_id
    await until(lambda: entry(kernel, name).phase is Phase.PARKED)
    async with logged_in(path) as client:
        await decided(client, "/act?do=resolve&verdict=resend&parked=1")
    await kernel.settled(name, 2_000)
    assert entry(kernel, name).phase is Phase.DELIVERED
    await gateway.end()


# --- the state that was seen ----------------------------------------------------------


@pytest.mark.case("N06")
async def test_what_has_moved_since_the_preview_is_refused(
    store: Path, ann: httpx.AsyncClient
) -> None:
    preview = (await ann.get("/act?do=retry&dead=1")).text
    first = (await rows(ann, "/list.json?dead=1"))[0]
    await asyncio.to_thread(run, store, "ack", first["id"], "--by", "bob")
    told = await ended(ann, await ann.post("/act", data=form_of(preview)))
    assert told["done"] == {"redriven": 3}
    (refused,) = told["refused"]
    assert refused["id"] == first["id"]
    assert "has changed since" in refused["error"]


@pytest.mark.case("N06")
async def test_an_act_is_for_the_version_that_its_page_showed(
    store: Path, ann: httpx.AsyncClient
) -> None:
    """The page of the message was old before its link was followed."""
    row = (await rows(ann, "/list.json?dead=1"))[0]
    await asyncio.to_thread(run, store, "ack", row["id"], "--by", "bob")
    told = await decided(ann, f"/act?do=retry&id={row['id']}&seen={row['version']}")
    assert (told["done"], len(told["refused"])) == ({}, 1)


async def test_a_gate_that_closed_again_for_another_reason_stays_closed(
    store: Path, ann: httpx.AsyncClient
) -> None:
    preview = (await ann.get("/act?do=open&id=gate:t/default/w")).text
    await asyncio.to_thread(run, store, "open", "gate:t/default/w")
    await asyncio.to_thread(run, store, "close", "t/default/w", "--for", "2h")
    told = await ended(ann, await ann.post("/act", data=form_of(preview)))
    assert "has changed since you looked" in told["refused"][0]["error"]
    (gate,) = (await ann.get("/gates.json")).json()["gates"]
    assert gate["place"] == "t/default/w"


async def test_a_preview_is_used_once(ann: httpx.AsyncClient) -> None:
    form = form_of((await ann.get("/act?do=ack&dead=1")).text)
    await ended(ann, await ann.post("/act", data=form))
    again = await ann.post("/act", data=form)
    assert again.status_code == 400
    assert "used up or too old" in again.text


# --- who may --------------------------------------------------------------------------


async def test_nothing_is_done_without_the_word_of_the_form(
    store: Path, ann: httpx.AsyncClient
) -> None:
    before = await head(store)
    form = form_of((await ann.get("/act?do=ack&dead=1")).text)
    for csrf in ("", "x", "\u00e9"):
        refused = await ann.post("/act", data=form | {"csrf": csrf})
        assert (refused.status_code, "out of date" in refused.text) == (403, True)
    evil = {"origin": "https://evil.example"}
    assert (await ann.post("/act", data=form, headers=evil)).status_code == 403
    ann.cookies.clear()
    assert (await ann.post("/act", data=form)).status_code == 303  # to the login
    assert await head(store) == before
    assert len(await asyncio.to_thread(_unseen, store)) == 4


def _unseen(store: Path) -> list[Any]:
    return json.loads(run(store, "list", "--dead", "--unseen", "--json").stdout)["rows"]


async def test_a_preview_of_one_person_is_of_no_use_to_another(store: Path) -> None:
    async with logged_in(store) as ann:
        form = form_of((await ann.get("/act?do=ack&dead=1")).text)
        other = await ann.post("/login", data={"name": "bob", "token": TOKEN})
        ann.cookies.update(other.cookies)
        mine = form_of((await ann.get("/act?do=ack&dead=1")).text)
        stolen = await ann.post("/act", data=form | {"csrf": mine["csrf"]})
        assert "used up or too old" in stolen.text


async def test_a_dashboard_that_only_reads_decides_nothing(store: Path) -> None:
    before = await head(store)
    async with logged_in(store, acts=False) as client:
        refused = await client.get("/act?do=ack&dead=1")
        assert (refused.status_code, "only reads" in refused.text) == (400, True)
        page = (await client.get("/list?dead=1")).text
        assert not [link for link in Tags(page).links() if link.startswith("/act")]
        form = form_of(page) | {"preview": "x"}
        assert "only reads" in (await client.post("/act", data=form)).text
    async with browser(site(store, acts=True)) as client:  # nobody is known
        assert "only reads" in (await client.get("/act?do=ack&dead=1")).text
        assert "only reads" in (await client.post("/act", data={"preview": "x"})).text
    assert await head(store) == before


async def test_a_program_acts_with_the_token_and_says_who(store: Path) -> None:
    client = browser(
        site(store, token=TOKEN, acts=True), authorization=f"Bearer {TOKEN}"
    )
    async with client:
        told = (await client.get("/act.json?do=ack&dead=1")).json()
        assert [len(told["ids"]), told["act"]] == [4, "ack"]
        nobody = await client.post("/act", data={"preview": told["preview"]})
        assert "say who decides" in nobody.text
        form = {"preview": told["preview"], "by": "robot", "why": "seen"}
        assert (await ended(client, await client.post("/act", data=form)))[
            "by"
        ] == "robot"


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("/act", "no act"),
        ("/act?do=explode&dead=1", "no act"),
        ("/act?do=retry", "which?"),
        ("/act?do=resolve&parked=1", "verdict: one of"),
        ("/act?do=resolve&parked=1&verdict=maybe", "verdict: one of"),
        ("/act?do=retry&id=nonsense", "nonsense"),
        ("/act?do=retry&id=store", "no turn and no entry"),
        ("/act?do=retry&channel=nosuch", "there are: t"),
        ("/act?do=close&id=t", "is no place"),
        ("/act?do=close&id=t/default&for=ever", "no length"),
        ("/act?do=close", "which?"),
        ("/act?do=retry&dead=1&seen=x", "seen: "),
        ("/act?do=retry&dad=1", "dad"),
    ],
)
async def test_a_wrong_preview_is_a_line(
    ann: httpx.AsyncClient, where: str, text: str
) -> None:
    answer = await ann.get(where)
    assert answer.status_code in (400, 404)
    assert text in answer.text
    assert '<form class="decide"' not in answer.text


# --- work that outlives a request -----------------------------------------------------


async def test_work_ends_early_when_the_dashboard_does(tmp_path: Path) -> None:
    of = site(tmp_path / "g.db")
    jobs, began = Jobs(of), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(job: Job) -> None:
        loop.call_soon_threadsafe(began.set)
        of.stopping.wait(10)
        jobs.go_on()

    job = Job(about="x")
    jobs.start(job, work)
    await began.wait()
    of.stopping.set()
    await until(lambda: not job.active)
    assert job.word == "stopped"
    with pytest.raises(StoppedError):
        jobs.go_on()


async def test_work_that_fails_says_why(store: Path, ann: httpx.AsyncClient) -> None:
    form = form_of((await ann.get("/act?do=ack&dead=1")).text)
    await asyncio.to_thread(store.unlink)
    told = await ended(ann, await ann.post("/act", data=form))
    assert told["state"] == "failed"
    assert str(store) in told["error"]
    assert not await asyncio.to_thread(store.exists)
