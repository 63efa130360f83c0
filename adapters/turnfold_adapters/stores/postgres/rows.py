"""Rows of PostgreSQL to values of the port, and back.

PostgreSQL stores no NUL in a text. `kept` writes NUL, and the escape sign itself, as
two characters; `shown` reads them back.

In a statement `SHARD` stands for the number of the shard (`Session`). A record has the
shard 0 in any shard: each shard is a whole log of its own, and its kernel knows no
other.
"""

from __future__ import annotations

from typing import overload

import asyncpg

from turnfold.errors import CorruptLogError
from turnfold.ports.store import Body, Command, Head, Record, Summary
from turnfold_adapters.stores.packing import unpacked
from turnfold_adapters.stores.postgres.connection import Session

_SIGN = "\x1a"  # "substitute", which no platform sends

SUMMARY = (
    "s.name, s.version, s.open, s.phase, s.id, s.created, s.updated, s.lane, s.parent,"
    " s.kind, s.due, s.expires, s.reason, s.failure, s.person"
)
RECORD = (
    "l.position, coalesce(s.name, '?') AS name, l.version, l.count, l.at, l.events,"
    " l.hash, l.wall, 0 AS shard"
)
COMMAND = "id, kind, stream, at, data, key, bodies, answer"

_END = "SELECT position, head, token FROM shard WHERE shard = SHARD"
Row = asyncpg.Record


@overload
def kept(text: str) -> str: ...
@overload
def kept(text: str | None) -> str | None: ...
def kept(text: str | None) -> str | None:
    if text is None or ("\0" not in text and _SIGN not in text):
        return text
    return text.replace(_SIGN, f"{_SIGN}1").replace("\0", f"{_SIGN}0")


@overload
def shown(text: str) -> str: ...
@overload
def shown(text: str | None) -> str | None: ...
def shown(text: str | None) -> str | None:
    if text is None or _SIGN not in text:
        return text
    return text.replace(f"{_SIGN}0", "\0").replace(f"{_SIGN}1", _SIGN)


async def end_of_log(connection: Session) -> tuple[Head, int]:
    """The head of the log, and the token that a commit must have."""
    row = await connection.fetchrow(_END)
    if row is None:
        problem = "the row with the head of the log is missing"
        raise CorruptLogError(position=0, stream="log", problem=problem)
    position, digest, token = row
    return Head(position, digest), token


def summary_of(row: Row) -> Summary:
    name, version, is_open, phase, order, created, updated, *rest = row.values()
    lane, parent, kind, due, expires, reason, failure, person, *_ = rest
    return Summary(
        stream=shown(name),
        version=version,
        open=is_open,
        phase=shown(phase),
        order=order,
        created=created,
        updated=updated,
        lane=shown(lane),
        parent=shown(parent),
        kind=shown(kind),
        due=due,
        expires=expires,
        reason=shown(reason),
        failure=shown(failure),
        person=person,
    )


def record_of(row: Row) -> Record:
    position, name, *rest = row.values()
    return Record(position, shown(name), *rest)


def command_of(row: Row) -> Command:
    return Command(
        id=shown(row["id"]),
        kind=shown(row["kind"]),
        stream=shown(row["stream"]),
        at=row["at"],
        data=row["data"],
        key=shown(row["key"]),
        bodies=() if row["bodies"] is None else unpacked(row["bodies"]),
        answer=row["answer"],
    )


def body_of(row: Row) -> Body:
    return Body(
        stream=shown(row["name"]),
        number=row["number"],
        salt=row["salt"],
        data=row["data"],
    )
