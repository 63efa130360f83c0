"""The dashboard in a real Chromium: log-in, pages, an act, the size of a phone, and texts
that try to be markup.

Needs the extra `browser` (Playwright's client) and a Chromium on the path; no browser is
downloaded.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.contract.test_dashboard import TOKEN
from tests.contract.test_dashboard_acts import after_an_incident, store  # noqa: F401
from tests.contract.test_serve import served

from turnfold_model.testing.gateway import Gateway, in_file, inbound, route, spin

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("NO BROWSER HERE: no chromium on the path", allow_module_level=True)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="NO BROWSER HERE: pip install 'turnfold[browser]'"
)
pytestmark = pytest.mark.timeout(120)
PAGES = ("", "list", "turns", "stats", "gates", "channels", "worker", "inbox", "audit")
PHONE = {"width": 390, "height": 844}
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture
def page() -> Iterator[Any]:
    """A page; its test fails if the browser complained of anything. The client has a
    loop of its own while it is there, so a test asks for its store first."""
    complaints: list[str] = []
    asked_for: set[str | None] = set()
    with playwright.sync_playwright() as made:
        # as root, its own sandbox cannot be set up
        browser = made.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked_for.add(urlsplit(asked.url).hostname))
        yield page
        browser.close()
    assert complaints == []
    assert asked_for <= {"127.0.0.1"}


def _log_in(page: Any, url: str) -> None:
    page.goto(url)
    page.get_by_label("your name").fill("ann")
    page.get_by_label("token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()


def test_a_person_logs_in_looks_and_decides(
    store: Path,  # noqa: F811  the fixture
    page: Any,
) -> None:
    with served(store, "--acts") as (_, url):
        _log_in(page, f"{url}/list?parked=1")
        shown = page.locator("main a[href*='show']")
        assert shown.count() >= 6
        page.goto(f"{url}/act?do=resolve&verdict=delivered&parked=1")
        page.get_by_label("why").fill("seen in the app")
        page.locator("form.decide button").click()
        page.wait_for_url("**/run?id=*")
        page.get_by_text("6 of 6").wait_for()
        page.goto(f"{url}/list?parked=1")
        assert shown.count() == 0


def test_every_page_fits_a_phone(
    store: Path,  # noqa: F811  the fixture
    page: Any,
) -> None:
    page.set_viewport_size(PHONE)
    with served(store) as (_, url):
        _log_in(page, url)
        for name in PAGES:
            page.goto(f"{url}/{name}")
            wide = page.evaluate("document.scrollingElement.scrollWidth")
            assert wide <= PHONE["width"], name or "overview"


async def _talk(path: Path) -> None:
    gateway = Gateway(store=in_file(path))
    kernel = await gateway.start()
    await kernel.accept(inbound("1", "42", EVIL))
    await kernel.enqueue(route("42"), EVIL)
    await spin()
    await gateway.end()


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    path = tmp_path / "g.db"
    asyncio.run(_talk(path))
    return path


def test_a_text_that_looks_like_markup_is_text(evil: Path, page: Any) -> None:
    with served(evil) as (_, url):
        _log_in(page, f"{url}/find?place=t/42&words=img")
        for where in ("find?place=t/42&words=img", "list", "turns"):
            page.goto(f"{url}/{where}")
            assert "owned" not in page.title()
            assert page.locator("main img, main script").count() == 0
        page.locator("main a[href*='show']").first.click()
        assert "onerror" in page.inner_text("main")
        assert "owned" not in page.title()
