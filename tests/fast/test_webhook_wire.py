"""What requests look like and what answers mean, row by row, without a network."""

import base64
import json
from pathlib import Path

import pytest

from turnfold.enums import FailureClass, Format, GateScope
from turnfold.messages import (
    File,
    Native,
    Payload,
    Route,
    Text,
)
from turnfold.ports.channel import Accepted, Attempt, Part, Rejected, Unknown
from turnfold_adapters.channels.webhook_wire import (
    Reply,
    ReplyRules,
    normal_id,
    outcome_of,
    request_body,
    retry_after_ms,
)

NOW_MS = 1_700_000_000_000
ATTEMPT = Attempt(number=1, at_ms=NOW_MS)
C = FailureClass


def part_of(payload: Payload, kind: str) -> Part:
    route = Route(channel="webhook", conversation="42", thread="t1", reply_to="1001")
    return Part(
        entry_id="e1",
        index=1,
        count=3,
        kind=kind,
        payload=payload,
        key="k1",
        route=route,
    )


def body_of(payload: Payload, kind: str, **attempt: object) -> dict[str, object]:
    envelope = Attempt(number=1, at_ms=NOW_MS, **attempt)  # type: ignore[arg-type]
    body = json.loads(request_body(part_of(payload, kind), "k1", envelope))
    assert isinstance(body, dict)
    return body


def reply(status: int, content: object = None, **headers: str) -> Reply:
    body = b"" if content is None else json.dumps(content).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names, body=body)


def judge(answer: Reply, **rules: object) -> Accepted | Rejected | Unknown:
    return outcome_of(answer, ReplyRules(**rules), now_ms=NOW_MS)  # type: ignore[arg-type]


def test_a_text_part_has_the_documented_shape() -> None:
    assert body_of(Text("héllo", format=Format.MARKDOWN), "text") == {
        "key": "k1",
        "kind": "text",
        "account": "default",
        "conversation": "42",
        "thread": "t1",
        "reply_to": "1001",
        "index": 1,
        "count": 3,
        "text": "héllo",
        "format": "markdown",
    }


def test_a_file_part_carries_its_bytes_and_names(tmp_path: Path) -> None:
    file = File(data=b"\x00\xff", name="plot.png", mime="image/png")
    encoded = base64.b64encode(b"\x00\xff").decode()
    expected = {"name": "plot.png", "mime": "image/png", "data": encoded}
    assert body_of(file, "file")["file"] == expected

    path = tmp_path / "by-path.bin"
    path.write_bytes(b"\x00\xff")
    shape = body_of(File(path), "file")["file"]
    assert isinstance(shape, dict)
    assert (shape["name"], shape["data"]) == ("by-path.bin", encoded)


def test_a_native_part_is_passed_on_as_given() -> None:
    native = Native({"buttons": [{"id": 1, "on": True}]})
    assert body_of(native, "native")["native"] == {"buttons": [{"id": 1, "on": True}]}


def test_only_a_marked_attempt_says_that_it_may_be_a_duplicate() -> None:
    assert "duplicate" not in body_of(Text("x"), "text")
    assert body_of(Text("x"), "text", marked=True)["duplicate"] is True


@pytest.mark.case("B15")
def test_every_attempt_of_a_part_has_the_same_bytes() -> None:
    part = part_of(Native({"b": 1, "a": [1, 2]}), "native")
    again = Attempt(number=7, at_ms=NOW_MS + 999_999)
    assert request_body(part, "k1", ATTEMPT) == request_body(part, "k1", again)


@pytest.mark.case("D01", "D02", "D05")
@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (301, C.TARGET_GONE),
        (307, C.TRANSIENT),
        (308, C.TARGET_GONE),
        (400, C.INVALID_PAYLOAD),
        (401, C.AUTH),
        (402, C.PERMISSION),
        (403, C.PERMISSION),
        (404, C.TRANSIENT),
        (405, C.TRANSIENT),
        (407, C.AUTH),
        (410, C.TARGET_GONE),
        (413, C.TOO_LONG),
        (415, C.INVALID_PAYLOAD),
        (418, C.INVALID_PAYLOAD),
        (421, C.TRANSIENT),
        (422, C.INVALID_PAYLOAD),
        (423, C.TRANSIENT),
        (425, C.TRANSIENT),
        (429, C.RATE_LIMITED),
        (431, C.INVALID_PAYLOAD),
        (451, C.PERMISSION),
    ],
)
def test_a_refusal_is_typed_by_its_status(status: int, failure: C) -> None:
    outcome = judge(reply(status, {"id": "looks accepted"}))
    assert isinstance(outcome, Rejected)
    assert outcome.failure is failure
    assert f"HTTP {status}" in outcome.detail


@pytest.mark.parametrize(
    "status",
    [*(300, 302, 303, 304), *(408, 409, 499), *(500, 501, 502, 503, 504, 520, 599)],
)
def test_a_status_that_proves_nothing_is_unknown(status: int) -> None:
    said = {} if status == 409 else {"id": "1"}
    assert isinstance(judge(reply(status, said)), Unknown)


@pytest.mark.parametrize("status", [199, 0, 600, 101])
def test_a_status_that_should_not_be_there_is_unknown(status: int) -> None:
    assert isinstance(judge(reply(status, {"id": "1"})), Unknown)


@pytest.mark.case("V13")
def test_a_conflict_that_names_the_first_message_is_its_receipt() -> None:
    outcome = judge(reply(409, {"error": "duplicate", "id": "m1"}))
    assert isinstance(outcome, Accepted)
    assert (outcome.receipt.ids, outcome.deduplicated) == (("m1",), True)


def test_a_conflict_is_in_progress_unless_it_says_that_the_key_was_reused() -> None:
    assert judge(reply(409, {"error": "busy"})) == Unknown(
        cause="in_progress", detail='HTTP 409 {"error": "busy"}'
    )
    reused = judge(reply(409, {"error": "key_reused"}))
    assert isinstance(reused, Rejected)
    assert reused.failure is C.INVALID_PAYLOAD


@pytest.mark.case("L08")
@pytest.mark.parametrize(
    ("given", "normal"),
    [("m1", "m1"), (42, "42"), (" m1 ", "m1"), (0, "0"), ("x" * 512, "x" * 512)],
)
def test_a_receipt_id_is_normalised_to_text(given: object, normal: str) -> None:
    outcome = judge(reply(200, {"id": given}))
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.ids == (normal,)


@pytest.mark.case("L05", "L08")
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"id": None},
        {"id": ""},
        {"id": "  "},
        {"id": True},
        {"id": 1.5},
        {"id": {"id": 1}},
        {"id": ["m1"]},
        {"id": "a\u0000b"},
        {"id": "\ud800"},
        {"id": "x" * 513},
        {"id": 10**400},
        {"ok": True},
        {"conversation": "42", "chat_id": 42, "message": "sent"},
        ["m1"],
        "m1",
        None,
    ],
)
def test_without_a_usable_id_nothing_counts_as_delivered(content: object) -> None:
    outcome = judge(reply(200, content))
    assert isinstance(outcome, Unknown)
    assert outcome.cause == "no_receipt"


@pytest.mark.parametrize("body", [None, b"", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_an_unreadable_answer_is_no_receipt(body: bytes | None) -> None:
    assert isinstance(judge(Reply(status=200, body=body)), Unknown)


def test_a_receiver_without_ids_is_believed_only_if_declared() -> None:
    outcome = judge(reply(204), gives_ids=False)
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.ids == ()


@pytest.mark.case("L05", "V13")
@pytest.mark.parametrize("gives_ids", [True, False])
def test_ok_false_is_never_delivered(gives_ids: bool) -> None:
    outcome = judge(reply(200, {"ok": False, "id": "m1"}), gives_ids=gives_ids)
    assert isinstance(outcome, Rejected)
    assert outcome.failure is C.INVALID_PAYLOAD


def test_the_id_may_come_in_a_header() -> None:
    outcome = judge(reply(202, None, x_message_id="h1"))
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.ids == ("h1",)
    own = judge(reply(202, None, x_receipt="h2"), id_header="X-Receipt")
    assert isinstance(own, Accepted)
    assert own.receipt.ids == ("h2",)


@pytest.mark.case("L04")
def test_the_receipt_names_the_thread_that_the_receiver_used() -> None:
    outcome = judge(reply(200, {"id": "m1", "thread": "root"}))
    assert isinstance(outcome, Accepted)
    assert outcome.receipt.thread == "root"


def test_a_replay_is_seen_in_the_header_or_the_body() -> None:
    by_header = judge(reply(200, {"id": "m1"}, idempotent_replayed="true"))
    by_body = judge(reply(200, {"id": "m1", "deduplicated": True}))
    plain = judge(reply(200, {"id": "m1"}, idempotent_replayed="false"))
    flags = [o.deduplicated for o in (by_header, by_body, plain) if type(o) is Accepted]
    assert flags == [True, True, False]


@pytest.mark.case("D11")
@pytest.mark.parametrize(
    ("value", "wait_ms"),
    [
        ("7", 7_000),
        (" 7 ", 7_000),
        ("1.5", 1_500),
        ("0", 1_000),  # a deferral is free, so it must not become a busy loop
        ("-5", 30_000),
        ("soon", 30_000),
        ("", 30_000),
        ("nan", 30_000),
        ("inf", 30_000),
        ("\u0661", 30_000),  # a digit to Python, not to HTTP
        ("9" * 400, 86_400_000),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60_000),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60_000),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 1_000),  # in the past
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400_000),
        ("Fri, 99 Dec 2023 23:59:59 GMT", 30_000),
    ],
)
def test_retry_after_is_read_bounded_and_never_trusted(
    value: str, wait_ms: int
) -> None:
    for status in (429, 503):
        outcome = judge(reply(status, None, retry_after=value))
        assert isinstance(outcome, Rejected)
        assert outcome.failure is C.RATE_LIMITED
        assert outcome.retry_after_ms == wait_ms
        assert outcome.scope is GateScope.ACCOUNT


@pytest.mark.case("D11")
def test_a_retry_date_is_measured_by_the_clock_of_its_server() -> None:
    skewed = reply(
        429,
        None,
        retry_after="Mon, 01 Jan 2035 00:00:30 GMT",
        date="Mon, 01 Jan 2035 00:00:00 GMT",
    )
    outcome = judge(skewed)
    assert isinstance(outcome, Rejected)
    assert outcome.retry_after_ms == 30_000


def test_429_without_retry_after_waits_the_default_and_503_without_is_unknown() -> None:
    limited = judge(reply(429), retry_default_ms=5_000)
    assert isinstance(limited, Rejected)
    assert limited.retry_after_ms == 5_000
    assert isinstance(judge(reply(503)), Unknown)


def test_retry_after_is_none_when_it_cannot_be_read() -> None:
    assert retry_after_ms("whenever", now_ms=0) is None


def test_detail_is_printable_and_short() -> None:
    noisy = Reply(status=400, body=b"\x1b[31mred\r\n\x00\xff" + b"x" * 9_999)
    outcome = judge(noisy)
    assert isinstance(outcome, Rejected)
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 300


def test_normal_id_refuses_what_has_no_plain_text() -> None:
    assert [normal_id(v) for v in (b"m1", 1.0, None, object())] == [None] * 4
