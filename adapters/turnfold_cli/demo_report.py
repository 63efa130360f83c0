"""The judgement of a demo: the end of every message, compared with the log.

It compares three lists: the posted messages, the gateway's log, and the messages that
the platform accepted. The audit compares the last two. Only the demo knows which texts
belong to which message, so that is checked here.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen
from rich.table import Table

from turnfold.api.shard_kernel import shard_of_id
from turnfold.audit import Acceptance, Rule, audit_store, read_witness
from turnfold.audit import Report as Audit
from turnfold.enums import Kind, Phase
from turnfold.errors import CorruptLogError
from turnfold.inspect import EntryView, Filter, Inspect, TurnView
from turnfold.inspect.shards import shards_of
from turnfold.notices import DEFAULTS
from turnfold.ports.store import Store
from turnfold_cli.demo_plan import Class, Message, Plan
from turnfold_cli.demo_run import SETTLES_WITHIN_S, WITNESS, Evidence, reading

PASSED = "passed"


@frozen(kw_only=True)
class Report:
    """The figures of a demo. `breaches`: the broken promises, in words."""

    delivery: str
    seed: int
    messages: int
    turns: int
    delivered: int
    parked: int
    pending: int
    lost: int
    doubled: int
    strays: int  # left-over placeholders, without a part of an answer
    redelivered: int
    kills: int
    restarts: int
    cuts: int
    hosts: int
    shards: int
    pauses: int
    takeovers: int
    server_cuts: int  # of connections to the store
    faults: Sequence[str]
    audit: str
    seconds: float
    breaches: Sequence[str] = ()

    @property
    def good(self) -> bool:
        whole = self.audit == PASSED and not self.breaches
        return whole and not (self.lost or self.doubled or self.pending)

    def table(self) -> Table:
        """The figures for people. Only eight columns fit into 80 characters."""
        shown = Table(title=f"turnfold demo, {self.delivery}, seed {self.seed}")
        shown.add_column("in", justify="right")
        row = [str(self.messages)]
        names = ("turns", "delivered", "lost", "doubled", "parked", "kills", "cuts")
        for name in names:
            shown.add_column(name, justify="right")
            row.append(str(getattr(self, name)))
        shown.add_row(*row)
        return shown


_ALL = Filter(what="turn", limit=1_000_000)


async def _turns(store: Store) -> dict[str, TurnView]:
    """The turns of the log, with their entries, by the id of their message."""
    inspect, turns = Inspect(store), {}
    for row in await inspect.list(_ALL):
        try:
            turn = await inspect.show(row.id)
        except CorruptLogError:
            continue  # the audit reports it; its message counts as lost
        if isinstance(turn, TurnView):
            turns[turn.inbound[0].message_id] = turn
    return turns


async def judge(plan: Plan, mode: Class, seed: int, evidence: Evidence) -> Report:
    """Read the store of the gateway and compare it with the other lists."""
    witness = read_witness((evidence.folder / WITNESS).read_bytes())
    async with reading(evidence.address) as store:
        turns = await _turns(store)
        audits = await _audited(store, witness, turns)
    breaches = [str(finding) for audit in audits for finding in audit.findings]
    breaches += [f"{Rule.ONE_TURN} {text}" for text in _once(plan, evidence)]
    if mode is not Class.BLIND:
        breaches += [
            f"{Rule.LANE_ORDER} {text}" for text in _overtaken(turns, evidence)
        ]
    breaches += _too_many_strays(plan, evidence)
    breaches += evidence.odd_answers
    if not evidence.settled:
        breaches.append(f"not all came to rest within {SETTLES_WITHIN_S:g} s")
    fates = {m.name: _fate(m, turns, evidence) for m in plan.messages}
    bad = _BAD if mode is Class.BLIND else (*_BAD, "parked")
    breaches += [f"{name} is {fate}" for name, fate in fates.items() if fate in bad]
    became = Counter(fates.values())
    faults = evidence.stats["faults_fired"]
    return Report(
        delivery=mode.value,
        seed=seed,
        messages=len(plan.messages),
        turns=len(turns),
        delivered=became["delivered"],
        parked=became["parked"],
        pending=became["pending"],
        lost=became["lost"],
        doubled=_doubled(evidence),
        strays=evidence.stats["strays"],
        redelivered=sum(len(got) - 1 for got in evidence.accepted.values()),
        kills=evidence.kills,
        restarts=evidence.starts - evidence.hosts,
        cuts=faults.get("cut_after", 0) + faults.get("cut_before", 0),
        hosts=evidence.hosts,
        shards=evidence.shards,
        pauses=evidence.pauses,
        takeovers=evidence.takeovers,
        server_cuts=evidence.cuts,
        faults=evidence.faults,
        audit=next((v for v in map(_verdict, audits) if v != PASSED), PASSED),
        seconds=round(evidence.seconds, 1),
        breaches=tuple(breaches),
    )


async def _audited(
    store: Store, witness: Sequence[Acceptance], turns: Mapping[str, TurnView]
) -> list[Audit]:
    """Audit each chain with its part of the platform's list; messages without a turn go
    to the first chain."""
    parts = shards_of(store)
    place = {
        part.key: shard_of_id(turn.id, len(parts))
        for turn in turns.values()
        for entry in turn.entries
        for part in entry.parts
    }
    audits = []
    for number, shard in enumerate(parts):
        mine = [w for w in witness if place.get(w.key, 0) == number]
        audits.append(await audit_store(shard, witness=mine))
    return audits


_BAD = ("lost", "pending")
_NOTICES = frozenset(DEFAULTS.values())


def _verdict(audit: Audit) -> str:
    return PASSED if audit.first is None else str(audit.first.rule)


def _once(plan: Plan, evidence: Evidence) -> Iterator[str]:
    """Each message must be one turn with one answer, even if it came several times."""
    for message in plan.messages:
        got = evidence.accepted.get(message.name, ())
        if len({posted.turn for posted in got}) > 1:
            yield f"{message.name} has become several turns"
        elif sum(posted.new is True for posted in got) > 1:
            yield f"{message.name} was called new twice"
    for text in _same_text(evidence.witness):
        yield f"{text!r} arrived under two keys"


def _too_many_strays(plan: Plan, evidence: Evidence) -> Iterator[str]:
    """Are there more left-over placeholders than allowed? A broken connection may leave
    one, the death or pause of a process one in each conversation."""
    places = len({message.conversation for message in plan.messages})
    troubles = evidence.kills + evidence.pauses + evidence.cuts
    most = troubles * places + sum(evidence.stats["faults_fired"].values())
    strays = evidence.stats["strays"]
    if strays > most:
        yield f"{strays} placeholders are left over, at most {most} may be"


def _same_text(witness: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts that arrived under several keys. Each text must arrive once, except
    notices, which have the same words for all."""
    keys: dict[str, set[str]] = {}
    for message in witness:
        if message["text"] is not None and message["text"] not in _NOTICES:
            keys.setdefault(message["text"], set()).add(message["key"])
    return [text for text, of in keys.items() if len(of) > 1]


def _doubled(evidence: Evidence) -> int:
    """The doubled messages by the platform's list alone."""
    counts = Counter(message["key"] for message in evidence.witness)
    again = sum(count - 1 for count in counts.values())
    return again + len(_same_text(evidence.witness))


def _overtaken(turns: Mapping[str, TurnView], evidence: Evidence) -> Iterator[str]:
    """The parts of a lane arrive in the order in which they were queued. Not asked of
    a blind platform, where a parked head lets the others pass, nor of an entry that
    yielded its lane: a live reply does, once its first part is seen."""
    yields = {
        part.key
        for turn in turns.values()
        for entry in turn.entries
        if any(event.kind == "outbox.lane_yielded" for event in entry.happened)
        for part in entry.parts
    }
    place = {
        part.key: (entry.lane, (entry.happened[0].position, index))
        for turn in turns.values()
        for entry in turn.entries
        for index, part in enumerate(entry.parts)
    }
    latest: dict[str, tuple[int, int]] = {}
    for key in dict.fromkeys(m["key"] for m in evidence.witness if m["key"] in place):
        lane, order = place[key]
        if order < latest.get(lane, order) and key not in yields:
            yield f"{key} was overtaken in {lane}"
        latest[lane] = max(latest.get(lane, order), order)


def _fate(message: Message, turns: Mapping[str, TurnView], evidence: Evidence) -> str:
    """The end of a message: every piece of the answer has to arrive, or to be parked,
    where a person sees it."""
    turn = turns.get(message.name)
    if turn is None:
        return "lost"
    wanted = [entry for entry in turn.entries if entry.phase is not Phase.ABORTED]
    if any(entry.phase is Phase.PARKED for entry in wanted):
        return "parked"
    if not turn.phase.closed or not all(entry.phase.closed for entry in wanted):
        return "pending"
    whole = _arrived(message, wanted, evidence.witness)
    delivered = all(entry.phase is Phase.DELIVERED for entry in wanted)
    return "delivered" if delivered and whole else "lost"


def _arrived(
    message: Message, entries: list[EntryView], witness: Sequence[Mapping[str, Any]]
) -> bool:
    """Does the platform have every text of the answer, and its file?"""
    texts = {m["text"] for m in witness}
    files = {m["key"] for m in witness if m["kind"] == "file"}
    finals = [entry for entry in entries if entry.kind is Kind.FINAL]
    mine = {part.key for entry in finals for part in entry.parts}
    return texts.issuperset(message.pieces) and len(mine & files) == message.file
