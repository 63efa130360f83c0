"""The form of a webhook on the wire and the meaning of its answers. Pure: no I/O.

The body of a request is one JSON object (canonical: sorted keys, UTF-8), the same bytes
on every attempt of a part unless the attempt is marked, so that a receiver that keys on
`Idempotency-Key` can compare them:

    {"key": str, "kind": "text" | "file" | "native", "account": str,
     "conversation": str, "thread": str | null, "reply_to": str | null,
     "index": int from 0, "count": int,
     "text": str, "format": "plain" | "markdown" | "html"      (kind "text")
     "file": {"name": str, "mime": str, "data": base64 text}   (kind "file")
     "caption": str                                            (a file that has one)
     "native": object                                          (kind "native")
     "files": {name: as "file"}                                (its files, if it has any)
     "duplicate": true}                                        (only when marked)

The answer of the receiver is a status and, in the 2xx range, a JSON object with `id`
(text or integer), optionally `thread` (the thread where the part is shown) and
`deduplicated`. No other field counts as an id.

Sources: Standard Webhooks spec (ids, signature, 410), RFC 9110 (statuses, Retry-After),
draft-ietf-httpapi-idempotency-key-header (409 in progress, 422 key reused).
"""

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from turnfold.enums import FailureClass, GateScope
from turnfold.messages import File, Native, Text
from turnfold.ports.channel import (
    Accepted,
    Attempt,
    Outcome,
    Part,
    Receipt,
    Rejected,
    Unknown,
)

ID_HEADER = "x-message-id"
REPLAYED_HEADER = "idempotent-replayed"

# A receipt id is stored as an identifier of the log, which takes 512 characters.
ID_LENGTH = 512
DETAIL_LENGTH = 300

# Deferrals spend no budget, so `Retry-After: 0` must not become a busy loop.
RETRY_LEAST_MS = 1_000
RETRY_DEFAULT_MS = 30_000
RETRY_CAP_MS = 24 * 3_600_000

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")

_REFUSALS: Mapping[int, FailureClass] = {
    301: FailureClass.TARGET_GONE,  # a redirect is an error of configuration
    307: FailureClass.TRANSIENT,
    308: FailureClass.TARGET_GONE,
    400: FailureClass.INVALID_PAYLOAD,
    401: FailureClass.AUTH,
    402: FailureClass.PERMISSION,
    403: FailureClass.PERMISSION,
    # A receiver may answer 404 during its deployment, and one URL serves every
    # conversation, so 404 proves "not taken" but not "gone": 410 means gone.
    404: FailureClass.TRANSIENT,
    405: FailureClass.TRANSIENT,
    407: FailureClass.AUTH,
    410: FailureClass.TARGET_GONE,
    413: FailureClass.TOO_LONG,
    421: FailureClass.TRANSIENT,
    422: FailureClass.INVALID_PAYLOAD,
    423: FailureClass.TRANSIENT,
    425: FailureClass.TRANSIENT,
    451: FailureClass.PERMISSION,
}

# 4xx without proof: 408 and 499 also come from proxies that stopped waiting for a
# receiver which may have the request.
_DOUBTFUL = frozenset({408, 499})

# One of these in `error` of a 409 means that the key belongs to another payload. Any
# other 409 means "the first request with this key is still in progress".
KEY_REUSED = "key_reused"


@frozen(kw_only=True)
class Reply:
    """An HTTP answer. `body` is None if it was too large or encoded. Header names are
    lower case."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = b""


@frozen(kw_only=True)
class ReplyRules:
    """The rules for reading one receiver's answers. Times are milliseconds."""

    gives_ids: bool = True
    id_header: str = ID_HEADER
    retry_default_ms: int = RETRY_DEFAULT_MS
    retry_cap_ms: int = RETRY_CAP_MS
    rate_scope: GateScope = GateScope.ACCOUNT


def request_body(part: Part, key: str, attempt: Attempt) -> bytes:
    """The JSON body of a part. Reads the file if it is still given by path.

    Raises OSError when that file cannot be read.
    """
    route = part.route
    shape: dict[str, Any] = {
        "key": key,
        "kind": part.kind,
        "account": route.account,
        "conversation": route.conversation,
        "thread": route.thread,
        "reply_to": route.reply_to,
        "index": part.index,
        "count": part.count,
        **_content(part.payload),
    }
    if attempt.marked:
        shape["duplicate"] = True
    text = json.dumps(
        shape,
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
        default=_plain,
    )
    return text.encode()


def _content(payload: Text | File | Native) -> dict[str, Any]:
    match payload:
        case Text():
            return {"text": payload.text, "format": payload.format.value}
        case File():
            caption = {"caption": payload.caption} if payload.caption else {}
            return {"file": _file(payload), **caption}
        case Native():
            files = {name: _file(file) for name, file in payload.files.items()}
            return {"native": payload.body, **({"files": files} if files else {})}


def _file(payload: File) -> dict[str, str]:
    name = payload.name
    if payload.data is not None:
        data = payload.data
    else:
        assert payload.path is not None  # noqa: S101  File holds one of the two
        path = Path(payload.path)
        data, name = path.read_bytes(), name or path.name
    encoded = base64.b64encode(data).decode("ascii")
    return {"name": name, "mime": payload.mime, "data": encoded}


def _plain(value: object) -> dict[str, Any]:
    """A native body as plain dicts and lists: json does not know frozen mappings."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def is_gone(reply: Reply) -> bool:
    """Does the answer to an edit mean that there is no such message? A proxy without
    the path also answers 404, so only the receiver's own `"found": false` counts."""
    return reply.status in (404, 410) and json_object(reply.body).get("found") is False


def outcome_of(reply: Reply, rules: ReplyRules, *, now_ms: int) -> Outcome:
    """The outcome of the receiver's answer. `now_ms`: wall time."""
    status = reply.status
    if 200 <= status < 300:
        return _taken(reply, rules)
    if status == 429 or (status == 503 and "retry-after" in reply.headers):
        return Rejected(
            failure=FailureClass.RATE_LIMITED,
            detail=_detail(reply),
            retry_after_ms=_wait_ms(reply, rules, now_ms),
            scope=rules.rate_scope,
        )
    if status == 409:
        return _conflict(reply)
    if status in _REFUSALS:
        return Rejected(failure=_REFUSALS[status], detail=_detail(reply))
    if 400 <= status < 500 and status not in _DOUBTFUL:
        return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=_detail(reply))
    # 5xx may come from a proxy in front of a receiver that has the part; web frameworks
    # answer an accepted POST with 302 or 303.
    cause = "server_error" if status >= 500 else "unexpected_status"
    return Unknown(cause=cause, detail=_detail(reply))


def _taken(reply: Reply, rules: ReplyRules) -> Outcome:
    shape = json_object(reply.body)
    if shape.get("ok") is False:
        return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=_detail(reply))
    receipt_id = normal_id(shape.get("id")) or normal_id(
        reply.headers.get(rules.id_header.lower())
    )
    if receipt_id is None and rules.gives_ids:
        return Unknown(cause="no_receipt", detail=_detail(reply))
    replayed = reply.headers.get(REPLAYED_HEADER, "").strip().lower() == "true"
    return Accepted(
        receipt=Receipt(
            ids=() if receipt_id is None else (receipt_id,),
            thread=normal_id(shape.get("thread")),
        ),
        deduplicated=replayed or shape.get("deduplicated") is True,
    )


def _conflict(reply: Reply) -> Outcome:
    """The outcome of a 409: the key is known. An answer that names the first message
    proves that the part was accepted."""
    shape = json_object(reply.body)
    if shape.get("error") == KEY_REUSED:
        return Rejected(failure=FailureClass.INVALID_PAYLOAD, detail=_detail(reply))
    first = normal_id(shape.get("id"))
    if first is not None:
        return Accepted(receipt=Receipt(ids=(first,)), deduplicated=True)
    return Unknown(cause="in_progress", detail=_detail(reply))


def json_object(body: bytes | None) -> Mapping[str, Any]:
    """The body as a JSON object; empty for any other body."""
    try:
        value = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def normal_id(value: object) -> str | None:
    """An id as text, or None for a value that cannot be one (empty, bool, object, too long).

    >>> normal_id(42), normal_id(" m1 "), normal_id(True), normal_id("")
    ('42', 'm1', None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int):
        return str(value) if abs(value) < 2**63 else None
    text = value.strip()
    if not 0 < len(text) <= ID_LENGTH or not text.isprintable():
        return None  # not printable: control characters and lone surrogates
    return text


def _wait_ms(reply: Reply, rules: ReplyRules, now_ms: int) -> int:
    # The date is by the server's clock, so its own Date header, if present, is the
    # better "now": a skew between the two machines then does not matter.
    server_now = _date_ms(reply.headers.get("date", ""))
    wait = retry_after_ms(
        reply.headers.get("retry-after", ""),
        now_ms=now_ms if server_now is None else server_now,
    )
    wanted = rules.retry_default_ms if wait is None else wait
    return min(max(wanted, RETRY_LEAST_MS), rules.retry_cap_ms)


def retry_after_ms(value: str, *, now_ms: int) -> int | None:
    """Retry-After (seconds or an HTTP date) as milliseconds from now, never negative;
    None when it cannot be read.

    >>> retry_after_ms("1.5", now_ms=0), retry_after_ms("soon", now_ms=0)
    (1500, None)
    >>> retry_after_ms("Thu, 01 Jan 1970 00:00:10 GMT", now_ms=4000)
    6000
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        # A number with so many digits that float() gives infinity counts as unreadable.
        return int(min(float(value), 1e9) * 1000)
    at_ms = _date_ms(value)
    return None if at_ms is None else max(at_ms - now_ms, 0)


def _date_ms(value: str) -> int | None:
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return int((when - datetime.fromtimestamp(0, UTC)).total_seconds()) * 1000
    except (ValueError, OverflowError):
        return None


def _detail(reply: Reply) -> str:
    """A detail for people: the status and the start of the answer, made printable."""
    said = (reply.body or b"")[:DETAIL_LENGTH].decode("utf-8", "replace")
    place = reply.headers.get("location", "")
    text = f"HTTP {reply.status} {place} {said}".encode("utf-8", "replace").decode()
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:DETAIL_LENGTH]
