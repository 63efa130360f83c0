"""The pictures of the README: `python -m tests.docs.pictures`.

A store of 3,000 turns is made; commands run on a terminal of 80 and 140 columns, and a
Chromium takes the dashboard (`pip install -e '.[dev,browser]'`).
"""

import asyncio
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text
from tests.bench.questions import fill
from tests.contract.test_dashboard import TOKEN
from tests.contract.test_serve import served

from turnfold_adapters.stores.sqlite import SqliteStore

PLACE = Path(__file__).resolve().parents[2] / "docs" / "pages" / "pictures"
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
SCREENS = {
    "status-80.svg": (80, "status"),
    "list-140.svg": (140, "list --dead --since 7d --limit 10"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # a short address on the pictures
        store = Path("gateway.db")
        asyncio.run(_fill(store))
        for name, (width, words) in SCREENS.items():
            _screen(store, PLACE / name, width, words)
        _page(store, PLACE / "dashboard.png")


async def _fill(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await fill(store, 3_000)
    await store.close()


def _screen(store: Path, target: Path, width: int, words: str) -> None:
    said = _on_terminal(
        [sys.executable, "-m", "turnfold", *words.split()], store, width
    )
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text(f"$ turnfold {words}", style="bold"))
    console.print(Text.from_ansi(said))
    drawn = console.export_svg(title="turnfold")
    target.write_text(_FONTS.sub("", drawn), "utf-8")  # no address outside


def _on_terminal(command: list[str], store: Path, width: int) -> str:
    ours, theirs = pty.openpty()
    env = {
        "TURNFOLD_STORE": str(store),
        "COLUMNS": str(width),
        "TERM": "xterm-256color",
    }
    process = subprocess.Popen(command, stdout=theirs, env=os.environ | env)
    os.close(theirs)
    said = b""
    while True:
        try:
            more = os.read(ours, 65_536)
        except OSError:  # its other end is closed
            break
        if not more:
            break
        said += more
    process.wait()
    return said.decode().replace("\r", "")


def _page(store: Path, target: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with served(store) as (_, url), sync_playwright() as made:
        browser = made.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 720})
        page.goto(url)
        page.get_by_label("your name").fill("ann")
        page.get_by_label("token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main()
