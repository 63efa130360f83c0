"""The twin of `specs/Entry.tla`, by hand, action by action."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

MODULE: Final = "Entry"
OPEN: Final = frozenset(
    {"queued", "retryable", "attempted", "dispatched", "in_doubt", "parked"}
)
ACTIONS: Final = frozenset(
    [
        "Attempted",
        "Dispatched",
        "Lands",
        "Vanishes",
        "Delivered",
        "FailedRetryable",
        "Deferred",
        "FailedPermanent",
        "AnswerLost",
        "NoAnswer",
        "Crash",
        "OwnerDiedBefore",
        "OwnerDiedAfter",
        "AbortedAttempt",
        "Found",
        "Absent",
        "Parked",
        "LateReceipt",
        "Bounced",
        "OutOfMeans",
        "Exhausted",
        "Expired",
        "AbortRequested",
        "Aborted",
    ]
)


class Entry(NamedTuple):
    """The variables of the module."""

    taken: tuple[int, ...]
    left: int
    phase: str = "queued"
    part: int = 0
    att: int = 0
    used: int = 0
    doubt: bool = False
    abort: bool = False
    reason: str = "none"
    spoiled: bool = False
    owner: bool = False
    wire: frozenset[tuple[int, int]] = frozenset()


Constants = Mapping[str, Any]
Steps = Iterator[tuple[str, Entry]]


def start(constants: Constants) -> Entry:
    """`Init`."""
    return Entry(taken=(0,) * constants["Parts"], left=constants["Faults"])


def steps(constants: Constants, s: Entry) -> Steps:
    """`Next`."""
    yield from _towards_the_wire(constants, s)
    yield from _platform(constants, s)
    yield from _outcomes(constants, s)
    yield from _recovery(s)
    if s.phase in ("attempted", "dispatched", "in_doubt", "parked", "failed"):
        yield from _doubt(constants, s)
    yield from _taken_back(s)
    yield from _ends(constants, s)


def _towards_the_wire(constants: Constants, s: Entry) -> Steps:
    may = s.phase in ("queued", "retryable") or (
        s.phase == "in_doubt" and constants["Class"] == "keyed"
    )
    if may and not s.abort and s.used < constants["Budget"]:
        begun = s._replace(
            phase="attempted", att=s.att + 1, used=s.used + 1, owner=True
        )
        yield "Attempted", begun
    if s.phase == "attempted" and s.owner and not s.abort:
        wire = s.wire | {(s.part, s.att)}
        yield "Dispatched", s._replace(phase="dispatched", wire=wire)


def _platform(constants: Constants, s: Entry) -> Steps:
    for request in s.wire:
        gone = s._replace(wire=s.wire - {request})
        part = request[0]
        known = constants["Class"] == "keyed" and constants["HonoursKey"]
        taken = list(s.taken)
        if not (known and taken[part]):
            taken[part] = min(taken[part] + 1, 2)
        yield "Lands", gone._replace(taken=tuple(taken))
        yield "Vanishes", gone


def _past(constants: Constants, s: Entry) -> Entry:
    after = s._replace(part=s.part + 1, att=0, used=0, doubt=False, owner=False)
    if after.part == constants["Parts"]:
        if not s.spoiled:
            return after._replace(phase="delivered", reason="none")
        return after if s.phase == "failed" else _failed(after)
    return after if s.phase == "failed" else after._replace(phase="queued")


def _failed(s: Entry) -> Entry:
    return s._replace(phase="failed", reason="no")


def _not_accepted(s: Entry, to: str, refund: int) -> Entry:
    return s._replace(
        phase="in_doubt" if s.doubt else to,
        used=s.used if s.doubt else s.used - refund,
        owner=False,
    )


def _outcomes(constants: Constants, s: Entry) -> Steps:
    if not s.owner:
        return
    request = (s.part, s.att)
    there, trouble = request in s.wire, s.left > 0
    if s.phase == "dispatched" and not there:
        if s.taken[s.part]:
            yield "Delivered", _past(constants, s)
        else:
            yield "NoAnswer", s._replace(phase="in_doubt", doubt=True, owner=False)
    if not trouble:
        return
    spent = s._replace(left=s.left - 1)
    if s.phase == "attempted" or (s.phase == "dispatched" and there):
        refused = spent._replace(wire=s.wire - {request})
        yield "FailedRetryable", _not_accepted(refused, "retryable", 0)
        yield "Deferred", _not_accepted(refused, "queued", 1)
        if not s.doubt:
            yield "FailedPermanent", _failed(refused)._replace(owner=False)
    if s.phase == "dispatched":
        yield "AnswerLost", spent._replace(phase="in_doubt", doubt=True, owner=False)
    yield "Crash", spent._replace(owner=False)


def _recovery(s: Entry) -> Steps:
    if s.phase == "attempted" and not s.owner:
        yield (
            "OwnerDiedBefore",
            s._replace(phase="in_doubt" if s.doubt else "retryable"),
        )
    if s.phase == "dispatched" and not s.owner:
        yield "OwnerDiedAfter", s._replace(phase="in_doubt", doubt=True)
    if s.phase == "attempted" and s.owner and s.abort:
        yield "AbortedAttempt", _not_accepted(s, "retryable", 0)


def _doubt(constants: Constants, s: Entry) -> Steps:
    kind = constants["Class"]
    if s.doubt and s.taken[s.part]:
        yield "LateReceipt", _past(constants, s)
    if s.phase != "in_doubt":
        return
    if kind == "lookup":
        quiet = not constants["Settles"] or all(r[0] != s.part for r in s.wire)
        if s.taken[s.part]:
            yield "Found", _past(constants, s)
        elif quiet:
            yield "Absent", s._replace(phase="retryable", doubt=False)
    yield "Parked" if kind == "blind" else "OutOfMeans", s._replace(phase="parked")


def _taken_back(s: Entry) -> Steps:
    if s.part and s.left and not s.spoiled:
        spoiled = s._replace(spoiled=True, left=s.left - 1)
        yield "Bounced", _failed(spoiled) if s.phase == "delivered" else spoiled


def _ends(constants: Constants, s: Entry) -> Steps:
    spent = s.used == constants["Budget"]
    no = _failed(s)
    unknown = s._replace(phase="failed", reason="unknown")
    if s.phase in ("queued", "retryable"):
        if spent:
            yield "Exhausted", no
        yield "Expired", no
        if s.abort:
            yield "Aborted", s._replace(phase="aborted")
    if s.phase == "in_doubt" and constants["Class"] == "keyed" and (spent or s.abort):
        yield "Exhausted", unknown
    if s.phase in ("in_doubt", "parked"):
        yield "Expired", unknown
    if s.phase in OPEN and not s.abort:
        yield "AbortRequested", s._replace(abort=True)


def wrong(constants: Constants, s: Entry) -> str:
    """The first safety property that does not hold, or nothing."""
    parts = constants["Parts"]
    says_no = s.phase in ("queued", "retryable", "aborted") or (
        s.phase == "failed" and s.reason == "no"
    )
    clean = not s.doubt and (
        s.part == parts or (not s.taken[s.part] and all(r[0] != s.part for r in s.wire))
    )
    holds = {
        "NoDoubleSend": all(n < 2 for n in s.taken),
        "WriteAhead": all(
            p < s.part or (p == s.part and a <= s.att) for p, a in s.wire
        ),
        "Proven": all(s.taken[p] for p in range(s.part)),
        "InOrder": all(p <= s.part for p in range(parts) if s.taken[p]),
        "Counted": s.used <= s.att,
        "Truthful": not (says_no and s.part < parts) or clean,
        "Whole": s.phase != "delivered" or (s.part == parts and not s.spoiled),
    }
    return next((name for name, held in holds.items() if not held), "")
