"""The terms of an audit: rules with stable ids, findings, and the report of all
findings."""

from enum import StrEnum

from attrs import define, field, frozen

from turnfold._log.canonical import BLANK, Head


class Rule(StrEnum):
    """Every rule that an audit can find broken. The id is stable; `RULES` describes it
    in words. INV ids are those of specs/design.md 2."""

    HASH = "chain.hash"
    POSITION = "chain.position"
    VERSION = "chain.version"
    HEAD = "chain.head"
    DECODE = "log.decode"
    TRANSITION = "log.transition"
    TIME = "log.time"
    NO_LOSS = "INV-1"
    NO_DOUBLE = "INV-2"
    WRITE_AHEAD = "INV-3"
    EVIDENCE = "INV-4"
    FENCE = "INV-5"
    ATTEMPTS = "INV-6"
    FROZEN_PLAN = "INV-7"
    LANE_ORDER = "INV-8"
    ONE_TURN = "INV-9"
    TURN_TRUTH = "INV-10"
    ABORT = "INV-11"
    EXPIRY = "INV-12"
    PROJECTION = "INV-13"
    TURN_LANE = "turn.lane"
    NOTICE = "turn.notice"
    GATE = "lane.gate"
    KEY = "store.key"
    BODY = "store.body"
    MARK = "store.mark"
    FILE = "store.file"
    PRUNED = "store.pruned"
    PLUGINS = "store.plugins"
    SETTLED = "INV-14"


RULES = {
    Rule.HASH: "a record's hash is the hash of its stored bytes",
    Rule.POSITION: "positions run from 1 without a gap",
    Rule.VERSION: "the versions of a stream run from 1 without a gap",
    Rule.HEAD: "the running hash of the log is the head that was noted for it",
    Rule.DECODE: "every record can be read",
    Rule.TRANSITION: "every event is legal where it stands in its stream",
    Rule.TIME: "the time of a record is never before that of the record before it",
    Rule.NO_LOSS: "delivered means: accepted by the platform, with its receipt",
    Rule.NO_DOUBLE: "what is in doubt is sent again only if class or policy allows it",
    Rule.WRITE_AHEAD: "nothing reaches a platform that the log did not announce",
    Rule.EVIDENCE: "a part with a receipt is never attempted again",
    Rule.FENCE: "epochs only grow, and an outcome belongs to the last attempt",
    Rule.ATTEMPTS: "attempts are numbered without gap or repeat, within the budget",
    Rule.FROZEN_PLAN: "parts are frozen once and sent in their order",
    Rule.LANE_ORDER: "a lane is sent in order, unless the head has yielded",
    Rule.ONE_TURN: "one turn per inbound message, one run of it at a time",
    Rule.TURN_TRUTH: "a turn ends when no reply is owed, and as its finals ended",
    Rule.ABORT: "nothing goes out after an abort; what may be out is never `aborted`",
    Rule.EXPIRY: "no attempt at or after expiry; doubt never ends as `not delivered`",
    Rule.PROJECTION: "the projections are the fold of the log, none more and none less",
    Rule.TURN_LANE: "a lane of turns runs one at a time, in order",
    Rule.NOTICE: "a turn has one notice for each cause, and it is a notice",
    Rule.GATE: "nothing is attempted while a gate of its lane is closed",
    Rule.KEY: "the dedupe keys are those of the log, each at its stream",
    Rule.BODY: "the bodies are those that events name, but for redacted ones",
    Rule.MARK: "the log reaches the mark that was noted beside it",
    Rule.FILE: "the database finds nothing wrong with its own files",
    Rule.PRUNED: "what is gone from the log was pruned, and the log names it",
    Rule.PLUGINS: "the file with the state of plugins is sound",
    Rule.SETTLED: "everything is closed, parked, held, or due in the future",
}


@frozen(kw_only=True)
class Finding:
    """One broken rule. `position`: of the record that broke it; None if no single
    record did."""

    rule: Rule
    text: str
    position: int | None = None
    stream: str | None = None

    def __str__(self) -> str:
        at = "" if self.position is None else f"position {self.position}, "
        where = "" if self.stream is None else f"{self.stream}: "
        return f"{self.rule} {at}{where}{self.text}"


@frozen(kw_only=True)
class Report:
    """The result of an audit. `findings`: at most `limit` of them, those of the log in
    its order; `found` counts all."""

    findings: tuple[Finding, ...] = ()
    found: int = 0
    events: int = 0
    streams: int = 0
    witnessed: int | None = None  # entries of the platform's list; None: no list given
    head: Head = BLANK
    redacted: int | None = None  # streams with erased bodies; None: not checked
    unchecked: tuple[str, ...] = ()  # the checks that were not made, a sentence each

    @property
    def passed(self) -> bool:
        return not self.found

    @property
    def first(self) -> Finding | None:
        """The first broken rule."""
        return self.findings[0] if self.findings else None


@define
class Findings:
    """Collects findings, but keeps at most `limit`: a log with one lost record can
    break rules a million times. Findings of the rules `without` are dropped."""

    limit: int = 100
    without: frozenset[Rule] = frozenset()
    kept: list[Finding] = field(factory=list)
    count: int = 0

    def add(
        self,
        rule: Rule,
        text: str,
        position: int | None = None,
        stream: str | None = None,
    ) -> None:
        if rule in self.without:
            return
        self.count += 1
        if len(self.kept) < self.limit:
            finding = Finding(rule=rule, text=text, position=position, stream=stream)
            self.kept.append(finding)

    def in_order(self) -> tuple[Finding, ...]:
        """In the order of the log; findings without a position come last."""
        key = [(f.position is None, f.position or 0) for f in self.kept]
        order = sorted(range(len(key)), key=key.__getitem__)
        return tuple(self.kept[index] for index in order)


# --- The checks that an audit did not make, in words: `passed` covers only made checks
# ---


@frozen(kw_only=True)
class Made:
    """The checks that were made besides those of the log alone. `store`: summaries and
    dedupe keys. `mark`: there was a mark beside the store."""

    store: bool = False
    bodies: bool = False
    mark: bool = False
    integrity: bool = False
    witness: bool = False
    heads: bool = False
    pruned: bool = False  # entries are gone that the witness list may name
    settled: bool = False
    text: bool = True  # False: the store is a copy without bodies
    plugins: bool = False


def unchecked(made: Made) -> tuple[str, ...]:
    """A sentence for each check that was not made, with the way to make it."""
    beside = made.store
    said = {
        "sends that the log never announced: give the platform's list (--witness)": (
            made.witness
        ),
        "sends of pruned entries: the log cannot tell theirs from those that it never "
        "announced": not (made.pruned and made.witness),
        "a tail that was cut off together with its mark: keep heads elsewhere "
        "(turnfold head) and give them (--head)": made.heads,
        "whether everything is at rest: stop the gateway and ask for it (--settled)": (
            made.settled
        ),
        "summaries, dedupe keys, bodies and the mark: audit the store itself": beside,
        "bodies: audit without --no-bodies": (
            made.bodies or not beside or not made.text
        ),
        "bodies: this is a copy without text": made.text or not beside,
        "the state of plugins: no store of it was given": (
            made.plugins or not beside or not made.text
        ),
        "an older copy put in place of the store: there is no mark beside it": (
            made.mark or not beside
        ),
        "the database's own check of its files: audit without --no-integrity": (
            made.integrity or not beside
        ),
        "the record of the owner: it explains and decides nothing": False,
    }
    return tuple(text for text, done in said.items() if not done)
