"""The records of the stand-in platform: accepted messages, requests, and faults.

The witness list is the platform's own record, separate from turnfold's files, so that a
test can compare turnfold's log with the messages that really arrived (INV-3). An entry
is journalled before its answer: a platform that is killed and started again on the same
journal still has every confirmed message and key.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from attrs import asdict, evolve, field, frozen

Shape = Mapping[str, Any]  # the JSON object of a part


class Mode(StrEnum):
    """The mode of the platform, named as the delivery classes."""

    KEYED = "keyed"
    LOOKUP = "lookup"
    EDITABLE = "editable"
    BLIND = "blind"


# In mode editable a message with this text is a placeholder.
PLACEHOLDER = "\u2026"


class FaultKind(StrEnum):
    """The kinds of fault of one request."""

    CUT_BEFORE = "cut_before"  # reset before the body is read; nothing accepted
    CUT_AFTER = "cut_after"  # accepted, then reset
    DELAY = "delay"  # accepted at once, answered `delay_ms` later
    LAND_LATE = "land_late"  # accepted only `delay_ms` later, then answered
    RATE_LIMITED = "rate_limited"  # 429 with `retry_after`; not accepted
    ERROR_BEFORE = "error_before"  # 500; not accepted
    ERROR_AFTER = "error_after"  # accepted, then 500
    STATUS = "status"  # `status` with `content`; not accepted


@frozen(kw_only=True)
class Fault:
    """A fault for the next `times` requests that send or edit."""

    kind: FaultKind = field(converter=FaultKind)
    times: int = 1
    delay_ms: int = 0
    retry_after: str = "1"
    status: int = 410
    content: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Message:
    """One accepted part in its present form. `n` counts acceptances from 1; `digest` is
    the SHA-256 of the received body, in hex. `edits`: how often it was replaced.
    `gone`: it was deleted."""

    n: int
    id: str
    key: str
    conversation: str
    thread: str | None
    kind: str
    index: int
    text: str | None
    duplicate: bool
    digest: str
    at_ms: int
    edits: int = 0
    gone: bool = False

    @property
    def empty(self) -> bool:
        """True for an unedited placeholder, or a deleted message."""
        return self.gone or self.text == PLACEHOLDER


class KeyReusedError(Exception):
    """The key belongs to another body already."""


class Book:
    """Thread-safe. `cuts` faults are spread by `seed` over the first `among` requests,
    half of them before and half after the acceptance."""

    def __init__(
        self,
        mode: Mode,
        *,
        seed: int = 0,
        cuts: int = 0,
        among: int | None = None,
        journal: str | Path | None = None,
    ) -> None:
        self.mode = mode
        self._lock = threading.Condition()  # notified on every acceptance
        self._messages: list[Message] = []
        self._by_key: dict[str, Message] = {}  # the first of each key
        self._requests: list[dict[str, Any]] = []
        self._script: list[Fault] = []
        self._seeded = _spread(seed, cuts, among or max(2 * cuts, 1))
        self._counts: Counter[str] = Counter()
        self._fired: Counter[str] = Counter()
        self._journal = None if journal is None else self._reopen(Path(journal))

    def close(self) -> None:
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    def asked(self, headers: Mapping[str, str]) -> Fault | None:
        """Count a request that sends or edits, and return its fault."""
        with self._lock:
            self._counts["requests"] += 1
            fault = self._next_fault()
            if fault is not None:
                self._fired[fault.kind] += 1
            seen = {name: headers.get(name) for name in _NOTED}
            self._requests.append({**seen, "fault": fault and fault.kind.value})
            return fault

    def _next_fault(self) -> Fault | None:
        number = self._counts["requests"]
        if not self._script:
            return self._seeded.get(number)
        fault = self._script[0]
        if fault.times <= 1:
            del self._script[0]
        else:
            self._script[0] = evolve(fault, times=fault.times - 1)
        return fault

    def accept(self, key: str, body: bytes, shape: Shape) -> tuple[Message, bool]:
        """Accept a part. Returns also if it was there already (keyed only).

        Raises KeyReusedError. The caller checks the shape.
        """
        digest = sha256(body).hexdigest()
        with self._lock:
            known = self._by_key.get(key) if self.mode is Mode.KEYED else None
            if known is not None:
                if known.digest != digest:
                    raise KeyReusedError(key)
                self._counts["replayed"] += 1
                return known, True
            message = self._message(key, digest, shape)
            self._write(message)
            self._remember(message)
            return message, False

    def edit(
        self, identity: str, key: str, body: bytes, shape: Shape
    ) -> Message | None:
        """Replace the part of a message; None if there is no such message."""
        with self._lock:
            old = self._standing(identity)
            if old is None:
                return None
            new = self._message(key, sha256(body).hexdigest(), shape)
            new = evolve(new, n=old.n, id=old.id, edits=old.edits + 1)
            self._write(new)
            self._replace(new)
            return new

    def delete(self, identity: str) -> bool:
        """Delete a message; False if there is no such message."""
        with self._lock:
            old = self._standing(identity)
            if old is None:
                return False
            gone = evolve(old, gone=True)
            self._write(gone)
            self._replace(gone)
            return True

    def _standing(self, identity: str) -> Message | None:
        known = (m for m in self._messages if m.id == identity and not m.gone)
        return next(known, None)

    def _replace(self, message: Message) -> None:
        self._messages[message.n - 1] = message
        self._lock.notify_all()

    def _remember(self, message: Message) -> None:
        if message.n <= len(self._messages):  # an edit or a deletion
            self._replace(message)
            return
        self._messages.append(message)
        self._by_key.setdefault(message.key, message)
        self._lock.notify_all()

    def _message(self, key: str, digest: str, shape: Shape) -> Message:
        n = len(self._messages) + 1
        return Message(
            n=n,
            id=f"m{n}",
            key=key,
            conversation=shape["conversation"],
            thread=shape.get("thread"),
            kind=shape.get("kind", "text"),
            index=shape.get("index", 0),
            text=shape.get("text"),
            duplicate=shape.get("duplicate", False),
            digest=digest,
            at_ms=time.time_ns() // 1_000_000,
        )

    def find(self, key: str) -> Message | None:
        """The first message accepted under a key."""
        with self._lock:
            self._counts["lookups"] += 1
            return self._by_key.get(key)

    def script(self, faults: Iterable[Fault]) -> None:
        """Queue faults for the requests to come, before the seeded ones."""
        with self._lock:
            self._script.extend(faults)

    def witness(self) -> list[Message]:
        """All accepted messages, in order; in mode editable those that show a part
        now."""
        with self._lock:
            if self.mode is Mode.EDITABLE:
                return [m for m in self._messages if not m.empty]
            return list(self._messages)

    def wait(self, count: int, *, timeout_ms: int = 10_000) -> bool:
        """Block until `count` messages were accepted; False if that took too long."""
        with self._lock:
            return self._lock.wait_for(
                lambda: len(self._messages) >= count, timeout_ms / 1000
            )

    def requests(self) -> list[dict[str, Any]]:
        """Every request that sends or edits, accepted or not, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def stats(self) -> dict[str, Any]:
        with self._lock:
            keys = Counter(m.key for m in self._messages)
            return {
                "mode": self.mode.value,
                "requests": self._counts["requests"],
                "accepted": len(self._messages),
                "replayed": self._counts["replayed"],
                "lookups": self._counts["lookups"],
                "edits": sum(m.edits for m in self._messages),
                "strays": sum(m.empty and not m.gone for m in self._messages),
                "keys_accepted_twice": sum(count > 1 for count in keys.values()),
                "faults_fired": dict(self._fired),
                "faults_waiting": sum(f.times for f in self._script),
            }

    def _reopen(self, path: Path) -> BinaryIO:
        # A last line without its end was never confirmed: remove it.
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        with self._lock:
            for line in whole.splitlines():
                self._remember(Message(**json.loads(line)))
        journal = path.open("ab", buffering=0)
        os.truncate(path, len(whole))
        return journal

    def _write(self, message: Message) -> None:
        if self._journal is not None:
            self._journal.write(json.dumps(asdict(message)).encode() + b"\n")


_NOTED = ("idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature")


def _spread(seed: int, cuts: int, among: int) -> dict[int, Fault]:
    """Request number -> cut. The same seed always cuts the same requests."""
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    numbers = rng.sample(range(1, among + 1), cuts)
    kinds = (FaultKind.CUT_AFTER, FaultKind.CUT_BEFORE)
    return {n: Fault(kind=kinds[i % 2]) for i, n in enumerate(numbers)}
