"""The reference: each rule of specs/design.md 4 and 5 is broken once, and noticed by its name."""

import json

import pytest

from turnfold_model.reference import Log, as_events, audit, legal, read_ndjson

HOUR = 3_600_000
PLACE = {"channel": "c", "account": "a", "conversation": "1"}
LANE = "c/a/1/"


class Story:
    """Writes a log, one event per call; a later `at` ends the commit."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.now = 1_000
        self.say("store", "store.created", store="s").worker()

    def worker(self, epoch=1) -> "Story":
        return self.say("store", "store.worker_started", epoch=epoch, owner="o")

    def say(self, stream: str, kind: str, /, **data: object) -> "Story":
        version = 1 + sum(e["stream"] == stream for e in self.events)
        self.events.append(
            {
                "position": len(self.events) + 1,
                "stream": stream,
                "version": version,
                "kind": kind,
                "schema": 1,
                "at": self.now,
                "data": data,
            }
        )
        return self

    def then(self, ms: int = 1) -> "Story":
        self.now += ms
        return self

    def queue(self, name="e", **more) -> "Story":
        data = {"kind": "final", "lane": LANE, "body": ["b"], "expires_at": HOUR}
        return self.say(f"entry:{name}", "outbox.queued", **{**data, **PLACE, **more})

    def plan(self, name="e", parts=1, classes=("keyed",), budget=3, **more) -> "Story":
        many = [
            {"kind": "text", "body": "b", "key": f"{name}{n}", "classes": classes}
            for n in range(parts)
        ]
        many = [{**part, **more} for part in many]
        return self.say(f"entry:{name}", "outbox.planned", parts=many, budget=budget)

    def attempt(self, name="e", part=0, attempt=1, fence=1, **more) -> "Story":
        data = {"part": part, "attempt": attempt, "owner": "o", "fence": fence}
        data = {"on_wire": True, **data, **more}
        return self.say(f"entry:{name}", "outbox.attempted", **data)

    def out(self, kind: str, name="e", /, **data) -> "Story":
        return self.say(f"entry:{name}", f"outbox.{kind}", **data)

    def unknown(self, name="e", part=0, attempt=1) -> "Story":
        return self.out(
            "unknown", name, part=part, attempt=attempt, cause="lost", due=1
        )

    def accept(self, name="t", message="m", **more) -> "Story":
        data = {"message_id": message, "body": "b", "lane": LANE, **PLACE, **more}
        return self.say(f"turn:{name}", "turn.accepted", **data)

    def run(self, name="t", run=1, fence=1) -> "Story":
        data = {"run": run, "owner": "o", "fence": fence}
        return self.say(f"turn:{name}", "turn.started", **data)

    def turn(self, kind: str, name="t", /, **data) -> "Story":
        return self.say(f"turn:{name}", f"turn.{kind}", **data)

    def answer(self, name="t") -> "Story":
        final = f"{name}.final"
        self.queue(final, turn=f"turn:{name}").plan(final)
        return self.turn("answered", name, run=1, finals=[f"entry:{final}"])

    def wrong(self) -> list[str]:
        return [violation.rule for violation in audit(self.events)]


def begun(**more) -> Story:
    return Story().queue().plan(**more)


def doubtful(**more) -> Story:
    return begun(**more).attempt().unknown()


def failed(reason="permanent") -> Story:
    return begun().attempt().out("failed_terminal", reason=reason)


def receipt(part=0, attempt=1) -> dict:
    return {"part": part, "attempt": attempt, "receipt": ["1"]}


GOOD = {
    "delivered": begun().attempt().out("delivered", **receipt()),
    "two parts": begun(parts=2)
    .attempt()
    .out("part_delivered", **receipt())
    .attempt(part=1)
    .out("delivered", **receipt(part=1)),
    "keyed again": doubtful().attempt(attempt=2),
    "keyed again, in the window": doubtful(key_window_ms=1_000)
    .then(499)
    .attempt(attempt=2),
    "looked up": doubtful(classes=["lookup"])
    .out("reconciled", part=0, absent=True, due=1)
    .attempt(attempt=2),
    "resolved": doubtful(classes=[])
    .out("parked", reason="hold")
    .out("resolved", part=0, resend=True, by="me")
    .attempt(attempt=2),
    "refunded": begun(budget=1)
    .attempt()
    .out("deferred", part=0, attempt=1, failure="rate_limited")
    .attempt(attempt=2),
    "deferred in doubt": doubtful(budget=2)
    .attempt(attempt=2)
    .out("deferred", part=0, attempt=2, failure="rate_limited")
    .attempt(attempt=3),
    "yielded": doubtful(classes=[])
    .out("parked", reason="hold")
    .out("lane_yielded", reason="parked")
    .queue("f")
    .plan("f")
    .attempt("f"),
    "a turn": Story()
    .accept()
    .run()
    .answer()
    .then()
    .attempt("t.final")
    .then()
    .out("delivered", "t.final", **receipt())
    .turn("completed", outcome="replied"),
    "silent": Story()
    .accept()
    .run()
    .turn("answered", run=1, silent="nothing to say")
    .turn("completed", outcome="silent"),
    "aborted": Story()
    .accept()
    .run()
    .answer()
    .then()
    .turn("abort_requested", reason="user")
    .out("abort_requested", "t.final", reason="user")
    .out("aborted", "t.final", reason="user")
    .turn("aborted", outcome="aborted"),
    "a person ends a doubt": doubtful(classes=[], budget=1)
    .out("resolved", part=0, resend=False, by="me")
    .attempt(attempt=2),
    "nothing to see": Story()
    .accept()
    .run()
    .queue("t.final", turn="turn:t")
    .out("aborted", "t.final", reason="suppressed")
    .turn("answered", run=1, finals=["entry:t.final"])
    .turn("completed", outcome="silent"),
    "a failed head": failed().queue("f").plan("f").attempt("f"),
    "redriven": failed().out("redriven", budget=1, expires_at=HOUR, by="me"),
    "gates": begun()
    .say("gate:c/a", "gate.closed", reason="auth")
    .say("gate:c/a", "gate.opened", reason="connected")
    .attempt(),
    "a gate that closes in the commit of an attempt": begun()
    .say("gate:c/a", "gate.closed", reason="auth")
    .attempt(),
    "a head whose record stands behind that of the next": begun()
    .attempt()
    .then()
    .queue("f")
    .plan("f")
    .attempt("f")
    .out("delivered", part=0, attempt=1, receipt=["r"]),
    "a turn whose record stands behind that of the next": Story()
    .accept()
    .run()
    .then()
    .accept("u", "n")
    .run("u")
    .turn("answered", run=1, silent="x"),
}


@pytest.mark.parametrize("story", GOOD.values(), ids=GOOD)
def test_a_log_that_keeps_the_rules(story):
    assert story.wrong() == []


BAD = {
    "off the table": ("table", begun().out("dispatched", part=0, attempt=1)),
    "unknown event": ("table", begun().out("teleported")),
    "no expiry": ("INV-12", Story().queue(expires_at=0)),
    "planned twice": ("INV-7", begun().plan()),
    "one key for two": ("INV-7", begun(parts=2, key="k")),
    "not planned": ("INV-7", Story().queue().attempt()),
    "attempt skipped": ("INV-6", begun().attempt(attempt=2)),
    "attempt reused": ("INV-6", doubtful().attempt(attempt=1)),
    "budget spent": ("INV-6", doubtful(budget=1).attempt(attempt=2)),
    "part skipped": ("INV-4", begun(parts=2).attempt(part=1)),
    "after an abort": (
        "INV-11",
        begun().out("abort_requested", reason="user").attempt(),
    ),
    "dispatched after an abort": (
        "INV-11",
        begun()
        .attempt(on_wire=False)
        .out("abort_requested", reason="user")
        .out("dispatched", part=0, attempt=1),
    ),
    "after it expired": ("INV-12", begun().then(HOUR).attempt()),
    "older fence": ("INV-5", begun().attempt(fence=2).unknown().attempt(attempt=2)),
    "another attempt's outcome": (
        "INV-5",
        begun().attempt().out("delivered", **receipt(attempt=2)),
    ),
    "blind again": ("INV-2", doubtful(classes=[]).attempt(attempt=2)),
    "looked up, not asked": (
        "INV-2",
        doubtful(classes=["lookup"]).attempt(attempt=2),
    ),
    "after the window": (
        "INV-2",
        doubtful(key_window_ms=1_000).then(1_000).attempt(attempt=2),
    ),
    "after half of the window, by the same worker": (
        "INV-2",
        doubtful(key_window_ms=1_000).then(500).attempt(attempt=2),
    ),
    "after half of the window, by another worker": (
        "INV-2",
        doubtful(key_window_ms=1_000).then(500).worker(2).attempt(attempt=2, fence=2),
    ),
    "grant used twice": (
        "INV-2",
        doubtful(classes=[])
        .out("resolved", part=0, resend=True, by="me")
        .attempt(attempt=2)
        .unknown(attempt=2)
        .attempt(attempt=3),
    ),
    "not marked": (
        "INV-2",
        doubtful(classes=[])
        .out("resolved", part=0, resend=True, marked=True, by="policy")
        .attempt(attempt=2),
    ),
    "doubt forgotten": (
        "INV-2",
        doubtful()
        .attempt(attempt=2)
        .out("failed_retryable", part=0, attempt=2, failure="cancelled", due=1),
    ),
    "deferred in doubt and forgotten": (
        "INV-12",
        doubtful()
        .attempt(attempt=2)
        .out("deferred", part=0, attempt=2, failure="rate_limited")
        .out("failed_terminal", reason="permanent"),
    ),
    "dead owner as failure": (
        "INV-4",
        begun()
        .attempt()
        .out("failed_retryable", part=0, attempt=1, failure="owner_died", due=1),
    ),
    "no receipt": ("INV-4", begun().attempt().out("delivered", part=0, attempt=1)),
    "parts left": ("INV-10", begun(parts=2).attempt().out("delivered", **receipt())),
    "denied in doubt": ("INV-12", doubtful().out("failed_terminal", reason="expired")),
    "denied on the wire": (
        "INV-12",
        begun().attempt().then(HOUR).out("failed_terminal", reason="expired"),
    ),
    "too old on the wire": (
        "INV-12",
        begun().attempt().out("failed_terminal", reason="too_old"),
    ),
    "too old in doubt": ("INV-12", doubtful().out("failed_terminal", reason="too_old")),
    "too old, though a part was shown": (
        "INV-12",
        begun(parts=2)
        .attempt()
        .out("part_delivered", **receipt())
        .out("failed_terminal", reason="too_old"),
    ),
    "expired too early": ("INV-12", begun().out("failed_terminal", reason="expired")),
    "budget not spent": (
        "INV-6",
        begun().attempt().out("failed_terminal", reason="attempts_exhausted"),
    ),
    "read back without the means": (
        "INV-2",
        doubtful().out("reconciled", part=0, absent=True, due=1),
    ),
    "rerun of a final": ("INV-9", begun().out("aborted", reason="rerun")),
    "redriven in doubt": (
        "INV-2",
        doubtful()
        .out("failed_terminal", reason="outcome_unknown")
        .out("redriven", budget=1, expires_at=HOUR, by="me"),
    ),
    "redriven without bodies": (
        "INV-7",
        failed()
        .out("redacted", by="me")
        .out("redriven", budget=1, expires_at=HOUR, by="me"),
    ),
    "late receipt of nothing": ("INV-5", begun().out("late_receipt", **receipt())),
    "gate closed": (
        "gates",
        begun().say("gate:c/a", "gate.closed", reason="auth").then().attempt(),
    ),
    "lane overtaken": ("INV-8", begun().queue("f").plan("f").attempt("f")),
    "a message that is no notice jumps its lane": (
        "INV-8",
        begun().queue("f", behind=1),
    ),
    "a notice overtaken by what waits behind its entry": (
        "INV-8",
        failed().queue("f").plan("f").queue("n", cause="late", behind=1).attempt("f"),
    ),
    "a parked head that did not yield": (
        "INV-8",
        doubtful(classes=[])
        .out("parked", reason="hold")
        .queue("f")
        .plan("f")
        .attempt("f"),
    ),
    "step never started": (
        "steps",
        Story().accept().run().turn("step_done", run=1, key="k", result="r"),
    ),
    "silence does not follow": (
        "INV-10",
        Story()
        .accept()
        .run()
        .answer()
        .out("aborted", "t.final", reason="user")
        .turn("completed", outcome="silent"),
    ),
    "stale epoch": (
        "INV-5",
        Story().worker(2).then().queue().plan().attempt(fence=1),
    ),
    "accepted twice": ("INV-9", Story().accept().accept("u")),
    "joined twice": (
        "INV-9",
        Story()
        .accept()
        .turn("joined", message_id="n", body="b")
        .turn("joined", message_id="n", body="b"),
    ),
    "two runs in a lane": (
        "lanes",
        Story().accept().accept("u", "n").run().run("u"),
    ),
    "run skipped": ("INV-6", Story().accept().run(run=2)),
    "another run's answer": (
        "INV-5",
        Story().accept().run().turn("answered", run=2, silent="x"),
    ),
    "held": ("held", Story().accept().turn("held", reason="restored").run()),
    "step again": (
        "steps",
        Story()
        .accept()
        .run()
        .turn("step_started", run=1, key="k")
        .turn("step_done", run=1, key="k", result="r")
        .turn("step_started", run=1, key="k"),
    ),
    "final not there": (
        "INV-10",
        Story().accept().run().turn("answered", run=1, finals=["entry:x"]),
    ),
    "final queued before": (
        "INV-10",
        Story()
        .accept()
        .run()
        .queue("t.final", turn="turn:t")
        .then()
        .turn("answered", run=1, finals=["entry:t.final"]),
    ),
    "final queued, not answered": (
        "INV-10",
        Story().accept().run().queue("t.final", turn="turn:t"),
    ),
    "over too early": (
        "INV-10",
        Story().accept().run().answer().turn("completed", outcome="replied"),
    ),
    "outcome does not follow": (
        "INV-10",
        Story()
        .accept()
        .run()
        .answer()
        .then()
        .attempt("t.final")
        .out("delivered", "t.final", **receipt())
        .turn("completed", outcome="expired"),
    ),
    "completed in a later commit": (
        "INV-10",
        Story()
        .accept()
        .run()
        .answer()
        .then()
        .attempt("t.final")
        .out("delivered", "t.final", **receipt())
        .then()
        .turn("completed", outcome="replied"),
    ),
    "no cascade": (
        "INV-11",
        Story()
        .accept()
        .run()
        .queue("b", kind="block", turn="turn:t", run=1)
        .then()
        .turn("aborted", outcome="aborted"),
    ),
    "aborted, but seen": (
        "INV-10",
        Story()
        .accept()
        .run()
        .answer()
        .then()
        .attempt("t.final")
        .unknown("t.final")
        .turn("aborted", outcome="aborted"),
    ),
    "notice not queued": (
        "notices",
        Story().accept().turn("failed", outcome="failed", reason="x", notice="e"),
    ),
    "resubmitted twice": (
        "once",
        Story()
        .accept()
        .turn("failed", outcome="failed", reason="x")
        .turn("resubmitted", by="me")
        .turn("failed", outcome="failed", reason="x")
        .turn("resubmitted", by="me"),
    ),
    "answered turn resubmitted": (
        "INV-9",
        Story()
        .accept()
        .run()
        .answer()
        .out("failed_terminal", "t.final", reason="refused")
        .turn("failed", outcome="failed", reason="x")
        .then()
        .turn("resubmitted", by="me"),
    ),
    "a block of no run": (
        "field",
        Story().accept().run().queue("b", kind="block", turn="turn:t"),
    ),
    "another part looked up": (
        "INV-5",
        doubtful(classes=["lookup"]).out("reconciled", part=1, absent=False, due=1),
    ),
    "started after an abort": (
        "INV-11",
        Story().accept().turn("abort_requested", reason="user").run(),
    ),
    "a final named twice": (
        "INV-10",
        Story()
        .accept()
        .run()
        .queue("t.final", turn="turn:t")
        .turn("answered", run=1, finals=["entry:t.final", "entry:t.final"]),
    ),
    "let go, and nothing held it": ("held", Story().accept().turn("unheld", by="me")),
    "a bounce of nothing": (
        "INV-4",
        begun(parts=2)
        .attempt()
        .out("part_delivered", **receipt())
        .attempt(part=1)
        .out("delivered", **receipt(part=1))
        .out("bounced", part=2),
    ),
    "epoch goes back": (
        "INV-5",
        Story()
        .say("store", "store.worker_started", epoch=2, owner="o")
        .say("store", "store.worker_started", epoch=2, owner="o"),
    ),
    "gate opened twice": ("table", Story().say("gate:c/a", "gate.opened", reason="x")),
}


@pytest.mark.parametrize(("rule", "story"), BAD.values(), ids=BAD)
def test_a_log_that_breaks_a_rule(rule, story):
    assert set(story.wrong()) == {rule}


def test_positions_versions_and_times_grow():
    events = begun().attempt().events
    assert [v.rule for v in audit([events[0], events[2]])] == ["order"]
    assert [v.rule for v in audit([events[1], events[0]])][-1] == "order"
    back = [events[0], {**events[1], "at": 1}]
    assert [v.rule for v in audit(back)] == ["order"]


def test_a_stream_is_reported_once_and_others_go_on():
    story = begun().attempt(attempt=9).attempt(attempt=9).queue("g", lane="other")
    log = Log()
    wrong = [v for event in story.events for v in log.feed(event)]
    assert [(v.rule, v.stream, v.position) for v in wrong] == [("INV-6", "entry:e", 5)]
    assert "entry:g" in log.streams


def line(*events: dict) -> str:
    """The line that an export has for the record of these events."""
    record = {n: events[-1][n] for n in ("position", "stream", "version", "at")}
    told = [[e["kind"], e["schema"], e["data"]] for e in events]
    return json.dumps({**record, "events": told, "shard": 0, "hash": "00"})


def test_it_reads_lines():
    lines = [line(event) for event in GOOD["delivered"].events]
    assert list(audit(read_ndjson([*lines, "\n"]))) == []


def test_the_events_of_a_record_share_its_position():
    story = begun().attempt().events
    entry = [e for e in story if e["stream"] == "entry:e"]
    first = [e for e in story if e["stream"] != "entry:e"]
    lines = [
        *map(line, first),
        line(*({**e, "position": len(first) + 1} for e in entry)),
    ]
    events = list(read_ndjson(lines))
    assert [e["version"] for e in events if e["stream"] == "entry:e"] == [1, 2, 3]
    assert len({e["position"] for e in events if e["stream"] == "entry:e"}) == 1
    assert list(audit(events)) == []


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"kind": 1, "at": 1, "data": {}},
        {"kind": "outbox.queued", "at": "now", "data": {}},
        {"kind": "outbox.queued", "at": 1, "data": []},
        {"kind": "outbox.queued", "at": 1, "data": {"kind": "rumour"}},
        {"kind": "nonsense", "at": 1, "data": {}},
        {"kind": "turn.accepted", "at": 1, "data": {"message_id": 7}},
    ],
)
def test_nonsense_is_a_violation_and_no_crash(event):
    assert legal(None, event).rule in ("field", "table")


@pytest.mark.parametrize("events", [b"{", b"[]", b'[["outbox.queued",1]]', b"null"])
def test_a_damaged_record_is_a_violation(events):
    class Row:
        position, version, count, at = 1, 1, 1, 1
        stream = "entry:e"

    Row.events = events
    assert [v.rule for v in audit(as_events(Row()))] == ["table"]
