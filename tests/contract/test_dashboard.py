"""The dashboard as the real application: its pages say what the commands say, what comes
from outside is data on each of them, and who may not ask is told why."""

import asyncio
import json
import re
import shutil
import unicodedata
from collections.abc import AsyncIterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.contract.test_cli_acts import incident
from tests.contract.test_cli_look import MARKUP, nasty
from typer.testing import CliRunner

from turnfold_cli import app
from turnfold_cli.common import RefusedError
from turnfold_cli.dashboard.app import LOOKS, Dashboard
from turnfold_cli.dashboard.asking import address_of
from turnfold_cli.dashboard.site import Kept, Site, check

TOKEN = "0123456789abcdef-token"
HERE = "http://127.0.0.1:8911"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    found = {"nasty": folder / "nasty.db", "incident": folder / "incident.db"}
    asyncio.run(nasty(found["nasty"]))
    asyncio.run(incident(found["incident"], parked=3))
    return found


def site(path: Path, **how: Any) -> Site:
    return Site(address=str(path), shown=str(path), **{"port": 8911, **how})


def browser(of: Site, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Dashboard(of).app())
    return httpx.AsyncClient(transport=transport, base_url=HERE, headers=headers)


@pytest.fixture
async def incident_pages(stores: dict[str, Path]) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(site(stores["incident"])) as client:
        yield client


@pytest.fixture
async def nasty_pages(stores: dict[str, Path]) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(site(stores["nasty"])) as client:
        yield client


def command(path: Path, *words: str) -> Any:
    arguments = [*words, "--json", "-s", str(path)]
    return json.loads(CliRunner().invoke(app(arguments), arguments).stdout)


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        return [a["href"] or "" for tag, a in self.tags if tag in ("a", "link")]


# --- the same as the command line -----------------------------------------------------

SAME = (
    ("status",),
    ("list",),
    ("list", "--parked"),
    ("list", "--dead", "--channel", "t"),
    ("turns", "--status", "failed"),
    ("stats", "--by", "account,kind", "--since", "2020-01-01"),
    ("gates",),
    ("worker",),
    ("channels", "--since", "2020-01-01"),
    ("inbox",),
    ("show", "1"),
    ("find", "t/q"),
)


def address(words: tuple[str, ...]) -> str:
    found = address_of(f"turnfold {' '.join(words)}", lambda _: None)
    assert found is not None
    path, _, query = found.partition("?")
    return f"{path}.json?{query}"


@pytest.mark.case("X02", "X16")
@pytest.mark.parametrize("words", SAME, ids=" ".join)
async def test_a_page_as_json_is_what_its_command_prints(
    stores: dict[str, Path], incident_pages: httpx.AsyncClient, words: tuple[str, ...]
) -> None:
    told = await asyncio.to_thread(command, stores["incident"], *words)
    answer = await incident_pages.get(address(words))
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status_code, timeless(answer.json())) == (200, timeless(told))


def timeless(told: Any) -> Any:
    """The store is of another clock, so its times move with ours."""
    text = re.sub(r"\b1\d{12}\b", "0", json.dumps(told))
    return json.loads(re.sub(r"\d+ (ms|s|min)\b", "age", text))


@pytest.mark.case("X01", "X16")
async def test_the_overview_says_first_if_a_person_is_needed(
    incident_pages: httpx.AsyncClient,
) -> None:
    text = (await incident_pages.get("/")).text
    assert text.index("A person is needed:") < text.index("3 parked")
    assert text.index("3 parked") < text.index("<h2>Now</h2>")
    assert "turnfold list --parked" in text
    assert "/list?parked=1" in Tags(text).links()


@pytest.mark.case("X15", "X16")
async def test_a_message_has_verdict_next_step_and_its_timeline(
    incident_pages: httpx.AsyncClient,
) -> None:
    rows = (await incident_pages.get("/list.json?parked=1")).json()["rows"]
    text = (await incident_pages.get("/show", params={"id": rows[0]["id"]})).text
    order = [
        text.index(words)
        for words in (
            "Parked: nobody knows if it arrived",
            "Next: somebody must say if it arrived",
            f"turnfold resolve {rows[0]['short']} delivered",
            "<h2>Facts</h2>",
            "<h2>What happened</h2>",
            "queued as",
        )
    ]
    assert order == sorted(order)
    assert "/act?" not in text  # this dashboard only reads


async def test_a_long_list_goes_on_page_by_page(
    incident_pages: httpx.AsyncClient,
) -> None:
    seen: list[str] = []
    where = "/list?limit=4&dead=&channel=t"
    while where:
        tags = Tags((await incident_pages.get(where)).text)
        seen += re.findall(r"id=(entry%3A[\w.]+)", " ".join(tags.links()))
        where = next((a["href"] for _, a in tags.tags if a.get("rel") == "next"), None)
    whole = (await incident_pages.get("/list.json?limit=500")).json()["rows"]
    assert len(seen) == len(set(seen)) == len(whole) > 8


async def test_every_link_of_every_page_leads_somewhere(
    incident_pages: httpx.AsyncClient,
) -> None:
    found = {"/"}
    left = ["/"]
    while left and len(found) < 60:
        answer = await incident_pages.get(left.pop())
        assert answer.status_code == 200, answer.url
        if answer.headers["content-type"].startswith("text/html"):
            links = {link.partition("#")[0] for link in Tags(answer.text).links()}
            left += [link for link in links - found if link]
            found |= links
    assert len(found) > 50


async def test_a_page_loads_itself_again_only_if_asked_to(
    incident_pages: httpx.AsyncClient,
) -> None:
    assert "http-equiv" not in (await incident_pages.get("/turns")).text
    text = (await incident_pages.get("/turns?live=10&status=failed")).text
    assert '<meta http-equiv="refresh" content="10">' in text
    assert "/turns?status=failed" in Tags(text).links()  # stops it


async def test_looking_changes_nothing_and_makes_no_file(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(stores["incident"], tmp_path / "g.db"))
    before = files(tmp_path)
    async with browser(site(path)) as client:
        for name in LOOKS:
            await client.get(f"/{name}?id=1" if name == "show" else f"/{name}")
    assert files(tmp_path) == before


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


async def test_a_store_that_is_gone_is_told_and_found_again(
    stores: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "g.db"
    async with browser(site(path)) as client:
        gone = await client.get("/")
        assert (gone.status_code, "That did not work" in gone.text) == (503, True)
        assert files(tmp_path) == {}
        shutil.copy(stores["incident"], path)
        assert (await client.get("/")).status_code == 200


async def test_an_audit_is_made_once_and_its_result_shown(
    stores: dict[str, Path],
) -> None:
    async with browser(site(stores["incident"])) as client:
        assert "No audit was made" in (await client.get("/audit")).text
        begun = await client.post("/audit")
        assert (begun.status_code, begun.headers["location"]) == (303, "/audit?live=2")
        async with asyncio.timeout(20):
            while "passed: " not in (text := (await client.get("/audit")).text):
                await asyncio.sleep(0.01)
        assert "<h2>Not checked</h2>" in text
        told = (await client.get("/audit.json")).json()
        assert (told["audit"], told["passed"]) == ("passed", True)


# --- text from outside ----------------------------------------------------------------


def hidden(text: str) -> set[str]:
    kinds = ("Cc", "Cf", "Co", "Zl", "Zp")
    return {c for c in text if c != "\n" and unicodedata.category(c) in kinds}


@pytest.mark.case("X03", "X04")
async def test_what_comes_from_outside_is_data_on_every_page(
    nasty_pages: httpx.AsyncClient,
) -> None:
    rows = (await nasty_pages.get("/list.json")).json()["rows"]
    rows += (await nasty_pages.get("/turns.json")).json()["rows"]
    gates = (await nasty_pages.get("/gates.json")).json()["gates"]
    ids = [row["id"] for row in rows] + [gate["id"] for gate in gates] + ["store"]
    where = [f"/{name}" for name in LOOKS if name not in ("show", "find")]
    where += [f"/show?{urlencode({'id': one})}" for one in ids]
    where += ["/stats?by=account,reason&since=2020-01-01", "/channels?since=2020-01-01"]
    where += [f"/list?{urlencode({'channel': rows[0]['channel']})}"]
    where += [f"/{MARKUP}", f"/list?{urlencode({'channel': '<script>'})}"]
    whole = ""
    for one in where:
        answer = await nasty_pages.get(one)
        assert not hidden(unescape(answer.text)), one
        tags = {tag for tag, _ in Tags(answer.text).tags}
        assert not tags & {"script", "img", "iframe", "style"}
        for _, attributes in Tags(answer.text).tags:
            assert not [n for n in attributes if n.startswith("on") or n == "style"]
            assert not (attributes.get("href") or "").startswith(("http", "java", "//"))
        if one.startswith("/"):
            data = one.partition("?")
            as_json = await nasty_pages.get(f"{data[0]}.json?{data[2]}")
            assert not hidden(as_json.text)
        whole += answer.text
    assert "[link=http://x]a[/link]" in unescape(whole)
    assert "\\u202e" in whole
    assert "&lt;script&gt;" in whole


async def test_markup_in_a_message_is_text(tmp_path: Path) -> None:
    from turnfold_model.testing.gateway import Gateway, in_file, inbound, spin

    bad = "<script>alert(1)</script><b onclick='x'>&amp;{{ 7*7 }}"
    gateway = Gateway(store=in_file(tmp_path / "g.db"))

    async def answer(turn: Any) -> None:
        await turn.reply(bad)

    gateway.handler = answer
    kernel = await gateway.start()
    await kernel.accept(inbound(bad, bad, bad))
    await spin()
    await gateway.end()
    async with browser(site(tmp_path / "g.db")) as client:
        for where in (
            "/turns",
            "/list",
            f"/show?{urlencode({'id': bad})}",
            f"/find?{urlencode({'place': f't/{bad}'})}",
        ):
            text = (await client.get(where)).text
            assert "&lt;script&gt;alert(1)" in text, where
            assert "{{ 7*7 }}" in text
            assert "<script" not in text
            assert "<b " not in text


# --- wrong questions ------------------------------------------------------------------


@pytest.mark.case("X17", "X20")
@pytest.mark.parametrize(
    ("where", "status", "text"),
    [
        ("/list?channel=nosuch", 400, "there are: t"),
        ("/list?chanel=t", 400, "no 'chanel'; there are: status"),
        ("/list?status=nonsense", 400, "no 'nonsense'; there are:"),
        ("/list?since=whenever", 400, "no time 'whenever'"),
        ("/list?limit=0", 400, "limit: '0' is no number from 1 to 500"),
        ("/list?before=x", 400, "before: 'x' is no number"),
        (f"/list?before={'0' * 17}1{'9' * 30}", 400, "is no number from 1"),
        ("/stats?by=colour", 400, "no group 'colour'"),
        ("/find?place=nosuch/1", 400, "there are: t"),
        ("/find?place=t&at=noon", 400, "no time 'noon'"),
        ("/show", 400, "expected 1 to 512 characters"),
        ("/show?id=nonsense", 404, "nonsense"),
        ("/run?id=x", 400, "there is no job of this name"),
        ("/nosuch", 404, "there is no such page"),
        ("/act?do=retry&dead=1", 400, "this dashboard only reads"),
        ("/list?live=x&%ff=%fe", 400, "there are"),
    ],
)
async def test_a_wrong_question_is_answered_in_a_line(
    incident_pages: httpx.AsyncClient, where: str, status: int, text: str
) -> None:
    answer = await incident_pages.get(where)
    assert answer.status_code == status, answer.text
    assert text in unescape(answer.text)
    assert "Traceback" not in answer.text
    path, _, query = where.partition("?")
    told = await incident_pages.get(f"{path}.json?{query}")
    assert told.status_code == status
    assert text in told.json()["error"]["message"]


async def test_an_id_that_fits_several_names_them(
    incident_pages: httpx.AsyncClient,
) -> None:
    answer = await incident_pages.get("/show?id=entry:")
    assert answer.status_code == 400
    assert "fits several" in answer.text
    assert len(re.findall(r"/show\?id=entry%3A", answer.text)) == 8


# --- who may ask ----------------------------------------------------------------------


async def test_every_answer_carries_the_headers_of_safety(
    incident_pages: httpx.AsyncClient,
) -> None:
    for where in ("/", "/list.json", "/style.css", "/nosuch", "/login"):
        headers = (await incident_pages.get(where)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
async def test_another_host_name_is_refused(
    incident_pages: httpx.AsyncClient, host: str
) -> None:
    """A name that its owner points at this machine reads nothing through a browser."""
    for where in ("/", "/list.json", "/style.css"):
        answer = await incident_pages.get(where, headers={"host": host})
        assert answer.status_code == 421
        assert "parked" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8912"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_form_of_another_site_is_refused(
    incident_pages: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for where in ("/audit", "/act", "/login"):
        answer = await incident_pages.post(where, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text


async def test_with_a_token_nobody_reads_without_it(stores: dict[str, Path]) -> None:
    async with browser(site(stores["incident"], token=TOKEN)) as client:
        for where in ("/", "/list?parked=1", "/show?id=1", "/nosuch"):
            answer = await client.get(where)
            assert (answer.status_code, answer.text) == (303, "")
            assert answer.headers["location"].startswith("/login?to=%2F")
        told = await client.get("/list.json")
        assert (told.status_code, told.headers["www-authenticate"]) == (401, "Bearer")
        wrong = {"authorization": "Bearer nonsense-nonsense"}
        assert (await client.get("/list.json", headers=wrong)).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert (await client.get("/list.json", headers=right)).status_code == 200
        forged = {"cookie": "turnfold-8911=x; turnfold=y"}
        assert (await client.get("/list.json", headers=forged)).status_code == 401


async def test_somebody_logs_in_and_out(stores: dict[str, Path]) -> None:
    async with browser(site(stores["incident"], token=TOKEN)) as client:
        assert "incident.db" not in (await client.get("/login")).text
        form = {"name": "ann", "token": "wrong", "to": "/list?parked=1"}
        assert (await client.post("/login", data=form)).status_code == 403
        nameless = form | {"token": TOKEN, "name": " "}
        assert (await client.post("/login", data=nameless)).status_code == 403
        done = await client.post("/login", data=form | {"token": TOKEN})
        assert done.headers["location"] == "/list?parked=1"
        cookie = done.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        text = (await client.get("/list")).text
        assert "ann, reading only" in text
        assert (await client.post("/logout")).status_code == 403  # without its word
        csrf = next(a["value"] for _, a in Tags(text).tags if a.get("name") == "csrf")
        assert (await client.post("/logout", data={"csrf": csrf})).status_code == 303
        assert (await client.get("/list.json")).status_code == 401


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil", ""]
)
async def test_a_log_in_leads_to_no_other_site(
    stores: dict[str, Path], to: str
) -> None:
    async with browser(site(stores["incident"], token=TOKEN)) as client:
        form = {"name": "ann", "token": TOKEN, "to": to}
        assert (await client.post("/login", data=form)).headers["location"] == "/"


async def test_a_form_that_is_too_long_is_refused(
    incident_pages: httpx.AsyncClient,
) -> None:
    answer = await incident_pages.post("/audit", content=b"x" * 70_000)
    assert answer.status_code == 413


async def test_behind_a_proxy_links_and_cookies_are_those_of_its_address(
    stores: dict[str, Path],
) -> None:
    url = "https://ops.example.org/turnfold/"
    where = {"host": "ops.example.org", "origin": "https://ops.example.org"}
    async with browser(site(stores["incident"], token=TOKEN, url=url)) as client:
        form = {"name": "ann", "token": TOKEN, "to": "/list"}
        plain = where | {"origin": "http://ops.example.org"}
        refused = await client.post("/login", data=form, headers=plain)
        assert refused.status_code == 403
        done = await client.post("/turnfold/login", data=form, headers=where)
        assert done.headers["location"] == "/turnfold/list"
        cookie = done.headers["set-cookie"]
        assert "Secure" in cookie
        assert "Path=/turnfold;" in cookie
        sent = where | {"cookie": cookie.partition(";")[0]}
        for path in ("/list", "/turnfold/list"):  # some proxies take the path off
            links = Tags((await client.get(path, headers=sent)).text).links()
            assert all(link.startswith(("/turnfold/", "#")) for link in links), links


# --- what is refused before it starts ---


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"host": "0.0.0.0"}, "--token-file"),
        ({"host": "192.168.1.5"}, "--token-file"),
        ({"host": "example.org"}, "--token-file"),
        ({"host": "::"}, "--token-file"),
        ({"token": "short"}, "openssl rand"),
        ({"host": "0.0.0.0", "token": TOKEN}, "--url"),
        ({"token": TOKEN, "url": "ops.example.org"}, "--url"),
    ],
)
def test_what_would_let_anybody_in_does_not_start(
    how: dict[str, str], text: str
) -> None:
    with pytest.raises(RefusedError, match=text):
        check(Site(address="g.db", **how))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_a_reader_needs_no_token(host: str) -> None:
    check(Site(address="g.db", host=host))


def test_what_is_remembered_ends_and_stays_small() -> None:
    now = [0.0]
    kept = Kept[int](10, 2, lambda: now[0])
    for number in range(3):
        kept.put(str(number), number)
    assert [kept.get(name) for name in "012"] == [None, 1, 2]
    assert [kept.take("1"), kept.take("1")] == [1, None]
    now[0] = 10.0
    assert kept.get("2") is None


def test_wrong_use_of_the_command_is_one_line(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    store = str(stores["incident"])
    (tmp_path / "empty").write_text(" \n")
    for words, code in (
        (["serve", "-s", str(tmp_path / "none.db")], 3),
        (["serve", store, "--host", "0.0.0.0", "--acts"], 2),
        (["serve", store, "--token-file", str(tmp_path / "none")], 2),
        (["serve", store, "--token-file", str(tmp_path / "empty")], 2),
        (["serve", store, "--host", "192.0.2.1", "--token-file", __file__], 2),
        (["serve", store, "--port", "70000"], 2),
    ):
        done = CliRunner().invoke(app(words), words)
        assert done.exit_code == code, done.output
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "none.db").exists()
