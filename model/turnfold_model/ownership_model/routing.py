"""The world between shards: where messages, keys, cursors and replies go.

Two shards, and hosts that die between any two statements and begin again. A source
brings one message twice at most, its cursor lies in the other shard. A caller sends
under one key into both shards. A turn of shard 0 answers into shard 1. The owners of
the shards do not matter here: a statement is stored once, in one shard (`world.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_DEATHS = 2
HOME, OTHER = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules that keep shards consistent."""

    message_before_cursor: bool = True
    sources_have_keys: bool = True  # of the message, or of the cursor that came with it
    one_table_of_keys: bool = True
    number_is_fixed: bool = True  # every host counts as many shards as the tables do
    replies_stay: bool = True  # a turn answers within its shard


class World(NamedTuple):
    """`hand`: the statement that the host has still to make. `held`: the shards that hold
    the message of the source. `sent`: the shards with an entry under the key. `talk`:
    the shards with messages of one conversation."""

    deaths: int = 0
    hand: str = ""  # or message, cursor, answer, entry
    cursor: bool = False
    held: int = 0
    sent: frozenset[int] = frozenset()
    talk: frozenset[int] = frozenset()
    answered: bool = False
    entries: int = 0


Step = tuple[str, World]


def start() -> World:
    return World()


def broken(world: World) -> str:
    if world.cursor and not world.held and not world.hand:
        return "R1: the cursor has passed a message that nobody holds"
    if world.held > 1:
        return "R2: one message of a source, two turns"
    if len(world.sent) > 1:
        return "R3: one key, two entries"
    if len(world.talk) > 1:
        return "R4: one conversation, two shards"
    if world.entries > 1 or (world.answered and not world.entries and not world.hand):
        return "R5: a turn was answered, and not just one answer is queued"
    return ""


def steps(world: World, rules: Rules) -> Iterator[Step]:
    if world.hand and world.deaths < MAX_DEATHS:
        yield "dies", world._replace(hand="", deaths=world.deaths + 1)
    yield from _source(world, rules)
    for shard in (HOME, OTHER):
        taken = bool(world.sent) if rules.one_table_of_keys else shard in world.sent
        if not taken:
            yield (
                f"sends by key into {shard}",
                world._replace(sent=world.sent | {shard}),
            )
    yield "somebody writes", world._replace(talk=world.talk | {OTHER})
    if not rules.number_is_fixed:
        yield "somebody writes elsewhere", world._replace(talk=world.talk | {HOME})
    if not rules.replies_stay:
        yield from _reply(world)


def _source(world: World, rules: Rules) -> Iterator[Step]:
    first, then = ("message", "cursor")
    if not rules.message_before_cursor:
        first, then = then, first
    if not world.hand and not world.cursor:
        yield f"{first} of the source", _done(world, first, rules)._replace(hand=then)
    if world.hand in ("message", "cursor"):
        yield (
            f"then its {world.hand}",
            _done(world, world.hand, rules)._replace(hand=""),
        )


def _done(world: World, what: str, rules: Rules) -> World:
    if what == "cursor":
        return world._replace(cursor=True)
    known = world.held and rules.sources_have_keys
    return world if known else world._replace(held=world.held + 1)


def _reply(world: World) -> Iterator[Step]:
    """Two commits in two shards, in one order or the other."""
    if not world.hand and not world.answered:
        yield "answers", world._replace(answered=True, hand="entry")
        queued = world.entries + 1
        yield "queues an answer", world._replace(entries=queued, hand="answer")
    if world.hand == "entry":
        yield "then queues it", world._replace(entries=world.entries + 1, hand="")
    if world.hand == "answer":
        yield "then has answered", world._replace(answered=True, hand="")
