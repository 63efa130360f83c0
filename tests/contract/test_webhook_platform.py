"""The stand-in itself: a witness has to be right before it can convict anybody."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator

import httpx
import pytest

from turnfold_cli.platform import Platform
from turnfold_cli.platform_book import Book, Fault, FaultKind, Mode

BODY = {"conversation": "42", "text": "hi", "index": 1, "kind": "text"}


@pytest.fixture
def platform() -> Iterator[Platform]:
    with Platform(Mode.KEYED) as running:
        yield running


def kind_of(fault: Fault | None) -> FaultKind | None:
    return None if fault is None else fault.kind


def test_the_same_seed_cuts_the_same_requests() -> None:
    def fates(seed: int) -> list[FaultKind | None]:
        book = Book(Mode.BLIND, seed=seed, cuts=6, among=30)
        return [kind_of(book.asked({})) for _ in range(40)]

    assert fates(3) == fates(3)
    assert fates(3) != fates(4)
    assert sorted(k for k in fates(3) if k) == ["cut_after"] * 3 + ["cut_before"] * 3


def test_scripted_faults_fire_in_order_and_as_often_as_told() -> None:
    book = Book(Mode.BLIND)
    book.script([Fault(kind="delay", times=2), Fault(kind="status")])
    fired = [kind_of(book.asked({})) for _ in range(4)]
    assert fired == ["delay", "delay", "status", None]
    assert book.stats()["faults_fired"] == {"delay": 2, "status": 1}
    assert book.stats()["faults_waiting"] == 0


def test_everything_over_http_is_what_the_book_says(platform: Platform) -> None:
    with httpx.Client(base_url=platform.url, trust_env=False) as http:
        sent = http.post("/messages", json=BODY, headers={"Idempotency-Key": "k1"})
        (message,) = http.get("/witness").json()["messages"]
        assert message["id"] == sent.json()["id"]
        assert (message["n"], message["key"], message["text"]) == (1, "k1", "hi")
        (asked,) = http.get("/requests").json()["requests"]
        assert (asked["idempotency-key"], asked["fault"]) == ("k1", None)
        assert http.get("/stats").json() == platform.book.stats()


def test_what_it_cannot_use_is_refused_and_not_witnessed(platform: Platform) -> None:
    key = {"Idempotency-Key": "k1"}
    with httpx.Client(base_url=platform.url, trust_env=False) as http:
        assert http.post("/messages", json=BODY).status_code == 400
        assert http.post("/messages", content=b"{", headers=key).status_code == 400
        assert http.post("/messages", json=[], headers=key).status_code == 400
        assert http.post("/elsewhere", json=BODY).status_code == 404
        assert http.get("/elsewhere").status_code == 404
        assert http.get("/messages", params={"key": "k1"}).status_code == 405
        assert http.post("/faults", json={"faults": [{"kind": "x"}]}).status_code == 400
        assert http.post("/faults", content=b"{").status_code == 400
        chunked = http.post("/messages", content=iter([b"{}"]), headers=key)
        assert chunked.status_code == 411
    assert platform.book.witness() == []


def test_a_cut_is_a_reset_and_not_a_polite_end(platform: Platform) -> None:
    platform.script(FaultKind.CUT_AFTER)
    with (
        httpx.Client(base_url=platform.url, trust_env=False) as http,
        pytest.raises(httpx.ReadError),
    ):
        http.post("/messages", json=BODY, headers={"Idempotency-Key": "k1"})


async def test_the_process_says_where_it_is_and_ends_on_sigterm() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "turnfold_cli.platform", "--class", "lookup"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = json.loads(await process.stdout.readline())
    async with httpx.AsyncClient(base_url=line["url"], trust_env=False) as http:
        assert (await http.get("/stats")).json()["mode"] == "lookup"
    assert line["url"].endswith(f":{line['port']}")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
