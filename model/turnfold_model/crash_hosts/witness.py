"""What the server itself saw: triggers note each change of `shard` and `worker`.

`broken` reads these notes, the log, and the list of the platform, and says which of O1
to O7, O9 and O10 does not hold. (O8 is that the play comes to its end.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import asyncpg

from turnfold.api.shard_kernel import shard_of_id
from turnfold.audit import Acceptance, audit_store
from turnfold.enums import DeliveryClass, Phase, TurnPhase
from turnfold.ports.store import Head, Listing
from turnfold_adapters.stores.postgres import PostgresStore, reads
from turnfold_model.crash_hosts.hosts import How
from turnfold_model.crash_hosts.scenes import Stage
from turnfold_model.testing.platform import Message

TRIGGERS: Final = """
CREATE TABLE seen (
    n bigserial PRIMARY KEY, shard int, owner text, token bigint, position bigint,
    old_owner text, old_token bigint, old_position bigint, was_free bool,
    old_state text, pid int);
CREATE TABLE deaths (id text, old_state text, state text, certified_by text);
CREATE FUNCTION see_shard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO seen (shard, owner, token, position, old_owner, old_token, old_position,
        was_free, old_state, pid)
    VALUES (NEW.shard, NEW.owner, NEW.token, NEW.position, OLD.owner, OLD.token,
        OLD.position, OLD.owner IS NULL OR OLD.freed IS NOT DISTINCT FROM OLD.token,
        (SELECT state FROM worker WHERE id = OLD.owner), pg_backend_pid());
    RETURN NULL; END $$;
CREATE FUNCTION see_worker() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.state <> OLD.state THEN
        INSERT INTO deaths VALUES (NEW.id, OLD.state, NEW.state, NEW.certified_by);
    END IF; RETURN NULL; END $$;
CREATE TRIGGER sees AFTER UPDATE ON shard FOR EACH ROW EXECUTE FUNCTION see_shard();
CREATE TRIGGER sees AFTER UPDATE ON worker FOR EACH ROW EXECUTE FUNCTION see_worker();
"""
_SEEN: Final = "SELECT * FROM seen WHERE shard = $1 ORDER BY n"
_ALLOWED_DOUBLES = (DeliveryClass.LOOKUP, DeliveryClass.BLIND)


async def broken(
    stage: Stage,
    root: PostgresStore,
    admin: asyncpg.Connection,
    proven: Mapping[str, str],
    lives_of: Mapping[int, set[str]],
    how: How | None,
    searched: set[int],
) -> list[str]:
    """The rules that this play has broken. `proven`: the lives whose death the director
    has proven. `lives_of`: a process of the server -> the lives of its host. `searched`:
    the processes of the host under search."""
    parts = {n: PostgresStore.shard(root, n) for n in stage.numbers}
    found = [*_deaths(await admin.fetch("DELETE FROM deaths RETURNING *"), proven)]
    for number, part in parts.items():
        await part.open()
        seen = await admin.fetch(_SEEN, number)
        found += [*_owners(seen, lives_of), *_behind(stage, seen, searched)]
        found += await _log(stage, part, _witness(stage, number, how))
    found += await _told(stage, [*parts.values()])
    found += await _turns(stage, [*parts.values()])
    parked = sum([await _parked(part) for part in parts.values()])
    found += _shown(stage, parked, how)
    for part in parts.values():
        await part.close()
    return found


def _owners(seen: Sequence[Any], lives_of: Mapping[int, set[str]]) -> Iterator[str]:
    """O1, O2, and the right to take a shard."""
    owner_of: dict[int, str] = {}
    for row in seen:
        owner, token = row["owner"], row["token"]
        if token < row["old_token"] or row["position"] < row["old_position"]:
            yield "O2 a token or a log went back"
        if owner is not None and owner_of.setdefault(token, owner) != owner:
            yield "O1 one token has two owners"
        if row["position"] > row["old_position"] and owner not in lives_of[row["pid"]]:
            yield "O1 a host that is not the owner wrote into the log"
        if row["position"] > row["old_position"] and token != row["old_token"]:
            yield "O1 a commit changed the token"
        changed = owner != row["old_owner"]
        if changed and token <= row["old_token"]:
            yield "O1 a shard changed hands under its token"
        if changed and not row["was_free"] and row["old_state"] == "alive":
            yield "O1 the shard of a living host was taken"


def _deaths(deaths: Sequence[Any], proven: Mapping[str, str]) -> Iterator[str]:
    """O3, and nobody is called dead without a proof."""
    for row in deaths:
        if row["old_state"] != "alive":
            yield f"O3 {row['id']} was {row['old_state']} and is {row['state']}"
        if row["certified_by"] != "itself" and row["id"] not in proven:
            yield f"O3 {row['id']} was called dead without a proof: {row['certified_by']}"


def _behind(stage: Stage, seen: Sequence[Any], searched: set[int]) -> Iterator[str]:
    """O10: a host that the failover took a head from appends nothing."""
    for row in seen:
        grows = row["position"] > row["old_position"] and row["pid"] in searched
        began = stage.anew is not None and row["token"] >= stage.anew
        if stage.lost and grows and not began and row["n"] > (stage.noted or 0):
            yield f"O10 position {row['position']} follows a log that lacks a head in hand"


async def _told(stage: Stage, parts: Sequence[PostgresStore]) -> list[str]:
    """O4, and what is told to be stored stays."""
    stored = {head.hash for head in stage.stored}
    gone = [head for head in stage.stored if not await _has(parts, head)]
    late = [head for head in stage.never if await _has(parts, head)]
    return [
        *(f"O6 position {at.position} was stored, and is not there" for at in gone),
        *(
            f"O4 position {at.position} was told not to be stored, and is there"
            for at in late
            if at.hash not in stored
        ),
    ]


async def _has(parts: Sequence[PostgresStore], head: Head) -> bool:
    """A head stands in one log: its hash goes on from those before it."""
    asked = partial(reads.contains_head, wanted=head)
    return any([await part._reading(asked) for part in parts])  # noqa: SLF001  the model looks inside


def _witness(stage: Stage, number: int, how: How | None) -> list[Acceptance] | None:
    """The platform's list for one shard."""
    if _may_double(stage, how):
        return None
    count = len(stage.numbers)
    listed = zip(_visible(stage), stage.platform.witness(), strict=True)
    return [a for m, a in listed if count == 1 or shard_of_id(m.entry, count) == number]


def _visible(stage: Stage) -> list[Message]:
    return [message for message in stage.platform.messages if not message.empty]


async def _log(
    stage: Stage, part: PostgresStore, witness: list[Acceptance] | None
) -> list[str]:
    """The audit, with the platform's list."""
    report = await audit_store(part, witness=witness, integrity=False)
    findings = [str(finding) for finding in report.findings]
    return [f"audit {text}" for text in findings if not _is_of_lost(stage, text)]


async def _turns(stage: Stage, parts: Sequence[PostgresStore]) -> list[str]:
    """O9."""
    found = [await part.list(Listing(prefix="turn:")) for part in parts]
    turns = sum(map(len, found))
    return (
        [] if turns == stage.turns else [f"O9 {stage.turns} messages are {turns} turns"]
    )


def _is_of_lost(stage: Stage, finding: str) -> bool:
    """Does a log that was lost announce the message that this one did not?"""
    named = any(key in finding for key in stage.of_lost)
    return stage.noted is not None and finding.startswith("INV-3") and named


async def _parked(part: PostgresStore) -> int:
    """Entries that are parked, and turns that are held."""
    rows = await part.list(Listing())
    turns = await part.list(Listing(prefix="turn:"))
    held = sum(row.person and row.phase != TurnPhase.ANSWERED for row in turns)
    return held + sum(row.phase == Phase.PARKED for row in rows)


def _shown(stage: Stage, parked: int, how: How | None) -> Iterable[str]:
    """O5, O7: each of the two is shown once, or parked in class `blind`."""
    counts = Counter(stage.platform.contents)
    lost = [text for text in stage.wanted if not counts[text]]
    if not _may_park(stage) and (parked or lost):
        yield f"O7 {len(lost)} not shown, {parked} parked"
    if len(lost) > parked:
        yield f"O7 {len(lost)} not shown, and {parked} parked"
    if stage.platform.doubled and not _may_double(stage, how):
        yield f"O5 {[message.content for message in stage.platform.doubled]} twice"


def _may_park(stage: Stage) -> bool:
    """Two deaths beside one placeholder park it, too: a third one is never shown."""
    of, twice = stage.scene.delivery, stage.scene.before is not None
    if stage.noted is not None:
        return True
    return of is DeliveryClass.BLIND or (of is DeliveryClass.EDITABLE and twice)


def _may_double(stage: Stage, how: How | None) -> bool:
    """A host that slept beyond `max_pause_ms` breaks an assumption of these classes."""
    late = how is How.PAUSED and stage.woke
    return bool(late) and stage.scene.delivery in _ALLOWED_DOUBLES
