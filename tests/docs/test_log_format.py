"""specs/log-format.md is true: its tables are current, its example can be recomputed
with SHA-256 and a JSON library alone, and our own reader and writer agree with it."""

import json
import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from turnfold._log.codec import decode
from turnfold._log.events import NAMES
from turnfold.audit import audit_log
from turnfold.inspect import export
from turnfold_model.log_format import renewed

SPEC = Path(__file__).parents[2] / "specs" / "log-format.md"
TEXT = SPEC.read_text("utf-8")


def block(language: str, index: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[index].strip("\n")


LINES = block("ndjson").split("\n")
HASH = json.loads(LINES[0])["hash"]
EVENTS = '"events":[["store.created",1,{"store":"06gvp0000000000000000000st"}]],'


def canonical(value: object) -> bytes:
    """Written from the page, not from the library."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def envelope(line: str) -> bytes:
    value = json.loads(line)
    names = ("at", "events", "shard", "stream", "version", "wall")
    return canonical({name: value[name] for name in names if name in value})


def test_the_tables_are_those_of_the_event_classes() -> None:
    hint = "run: python -m turnfold_model.log_format specs/log-format.md"
    assert renewed(TEXT) == TEXT, hint


def test_every_event_is_on_the_page() -> None:
    assert [name for name in NAMES.values() if f"| `{name}` |" not in TEXT] == []


def test_the_lines_of_the_example_are_canonical() -> None:
    assert [canonical(json.loads(line)).decode() for line in LINES] == LINES


def test_every_hash_of_the_example_is_that_of_its_envelope() -> None:
    for line in LINES:
        assert sha256(envelope(line)).hexdigest() == json.loads(line)["hash"]


def test_the_envelope_of_the_example_is_that_of_its_last_record() -> None:
    assert envelope(LINES[-1]).decode() == block("json", 1)


def test_the_heads_of_the_example_follow_from_its_hashes() -> None:
    head, heads = bytes(32), []
    for line in LINES:
        head = sha256(head + bytes.fromhex(json.loads(line)["hash"])).digest()
        heads.append(head.hex())
    assert heads == block("text").split()


def test_the_name_of_the_body_is_that_of_its_number_and_digest() -> None:
    salt = bytes.fromhex(re.findall(r"salt is `([0-9a-f]{32})`", TEXT)[0])
    digest = sha256(salt + block("json", 0).encode()).digest()
    kind, schema, data = json.loads(LINES[1])["events"][0]
    assert (kind, schema) == ("outbox.queued", 1)
    assert data["body"] == [f"0.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"]
    assert f"`{data['body'][0]}`" in TEXT


def test_the_library_reads_the_example_and_writes_it_again() -> None:
    records = list(export.read(line.encode() for line in LINES))
    assert [export.dump(record).decode() for record in records] == LINES
    assert [[NAMES[type(e)] for e in decode(record)] for record in records] == [
        ["store.created"],
        ["outbox.queued", "outbox.planned"],
        ["store.worker_started"],
        ["outbox.attempted"],
    ]
    assert [record.before for record in records] == [0, 0, 1, 2]


@pytest.mark.case("Y16")
def test_the_example_passes_the_audit() -> None:
    report = audit_log(export.read(line.encode() for line in LINES))
    assert report.passed
    assert report.head.hash.hex() == block("text").split()[-1]


@pytest.mark.parametrize(
    ("text", "code"),
    [("\b\t\n\f\r", r"\b\t\n\f\r"), ("\x00\x1f", r"\u0000\u001f"), ('"\\', r"\"\\")],
)
def test_strings_are_escaped_as_the_page_says(text: str, code: str) -> None:
    from turnfold._log.canonical import dumps

    assert dumps(text).decode() == f'"{code}"'
    assert dumps("/\x7f\u20ac\U0001f980").decode() == '"/\x7f\u20ac\U0001f980"'
    assert dumps({"\U0001f980": 1, "\ufb01": 2}).decode().index("\ufb01") < 3


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"not json",
        LINES[0].replace('"at":', '"at": ').encode(),
        LINES[0].replace('"version":1', '"version":"1"').encode(),
        LINES[0].replace('"version":1', '"version":true').encode(),
        LINES[0].replace('"shard"', '"shar"').encode(),
        LINES[0].replace('"shard":0,', "").encode(),
        LINES[0].replace(HASH, HASH.upper()).encode(),
        LINES[0].replace(HASH, f"zz{HASH[2:]}").encode(),
        LINES[0]
        .replace('"events":[[', '"events":{"x":[[')
        .replace("]],", "]]},")
        .encode(),
        LINES[0].replace(EVENTS, "").encode(),
        LINES[0].replace(EVENTS, f'{EVENTS}"raw":"AA",').encode(),
    ],
)
def test_a_line_that_is_none_is_refused_and_the_rest_is_read_on(wrong: bytes) -> None:
    from turnfold.errors import InvalidInputError

    with pytest.raises(InvalidInputError):
        export.load(wrong)
    records = list(export.read([wrong, LINES[1].encode()]))
    assert [record.stream for record in records] == [
        "?",
        "entry:06gvp0000000000000000000ex",
    ]
    assert records[0].position == 1
