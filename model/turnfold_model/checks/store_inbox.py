"""Checks of the inbox: each command is there once, and gone with the commit that logs
it."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from turnfold.errors import InvalidInputError, KeyTakenError
from turnfold.ports.store import Answer, Posted, Store, Wanted
from turnfold_model.checks.store_kit import (
    Place,
    checks_in,
    command,
    conflict,
    head_of,
    holder,
    noise,
    put,
    record,
    refused,
    same,
    true,
    write,
)


async def a_command_waits_as_it_was_posted(place: Place) -> None:
    store = await place.store()
    commands = [
        command("1", "turn:a", key="k", bodies=(b"", b"text", noise(200_000))),
        command("2", "entry:\u00e9", kind="abort", answer=True, at=2**53),
        command("3", data=b'{"n":[1,null]}', bodies=(b"",)),
    ]
    posted = await store.post(commands)
    wanted = [Posted(stream=item.stream, new=True) for item in commands]
    true(all(p.new is not False for p in posted), "all of them are new")
    same([p.stream for p in posted], [p.stream for p in wanted], "their streams")
    for _ in range(2):
        same(list(await store.inbox()) == commands, True, "the inbox")
        same(list(await store.inbox(2)) == commands[:2], True, "the oldest two")
        same((await head_of(store)).position, 0, "nothing is logged")
        store = await place.reopened(store)


async def a_command_is_posted_once(place: Place) -> None:
    store = await place.store()
    first = command("1", "turn:a", key="k")
    same(await _news(store, first), [True], "the first")
    same(await _news(store, first), [False], "the same again")
    again = evolve(first, id="2", stream="turn:b")
    same(await _news(store, again), [False], "another with its key")
    (posted,) = await store.post([again])
    same(posted.stream, "turn:a", "the stream that holds the key")
    both = [command("3", "turn:c", key="l"), command("4", "turn:d", key="l")]
    posts = await store.post(both)
    same([(p.stream, p.new) for p in posts], [("turn:c", True), ("turn:c", False)], "")
    same(await _news(store, command("5"), command("5")), [True, False], "an id twice")
    same(await _ids(store), ["1", "3", "5"], "the inbox")
    same(list(await store.post([])), [], "no command")


async def a_key_of_the_log_is_not_posted_again(place: Place) -> None:
    store = await place.store()
    await put(store, "turn:a")
    await write(store, keys=[("k", "turn:a")])
    (posted,) = await store.post([command("1", "turn:b", key="k")])
    same((posted.stream, posted.new), ("turn:a", False), "who holds the key")
    same(await _ids(store), [], "the inbox")


async def the_key_of_a_command_that_waits_is_taken(place: Place) -> None:
    store = await place.store()
    await store.post([command("1", "turn:a", key="k"), command("2", "turn:c", key="l")])
    same(await holder(store, "k"), "turn:a", "who holds the key")
    same(list(await store.keys()), [], "the keys of the log")
    why = await conflict(
        store,
        records=[record(1, "turn:b", 1)],
        keys=[("new", "turn:b"), ("k", "turn:b")],
    )
    true(isinstance(why, KeyTakenError), "the key is named")
    facts = getattr(why, "key", None), why.stream, why.actual
    same(facts, ("k", "turn:a", 0), "the key and its stream")
    same(
        (await holder(store, "new"), await _ids(store)), (None, ["1", "2"]), "the rest"
    )
    logged: dict[str, Any] = {"keys": [("k", "turn:a")], "done": ["1", "2"]}
    await write(store, records=[record(1, "turn:a", 1)], **logged)
    same(list(await store.keys()), [("k", "turn:a")], "the keys of the log")
    same(await holder(store, "l"), None, "a key of a command that ended unlogged")
    same(await _news(store, command("3", "turn:d", key="l")), [True], "posted again")


async def a_command_that_ends_gives_its_key_to_another_stream(place: Place) -> None:
    """As for a message that joins the turn of an earlier one."""
    store = await place.store()
    await put(store, "turn:a")
    await store.post([command("1", "turn:b", key="k"), command("2", "turn:c", key="l")])
    grown: dict[str, Any] = {"records": [record(2, "turn:a", 2)], "done": ["1"]}
    why = await conflict(store, **grown, keys=[("k", "turn:a"), ("l", "turn:a")])
    true(isinstance(why, KeyTakenError), "the key of the one that still waits is named")
    same(
        (getattr(why, "key", None), why.stream), ("l", "turn:c"), "the key, the stream"
    )
    await write(store, **grown, keys=[("k", "turn:a")])
    same((await holder(store, "k"), await _ids(store)), ("turn:a", ["2"]), "afterwards")
    same(list(await store.keys()), [("k", "turn:a")], "the keys of the log")
    (posted,) = await store.post([command("3", "turn:d", key="k")])
    same((posted.stream, posted.new), ("turn:a", False), "posted again")


async def a_command_leaves_in_the_commit_that_logs_it(place: Place) -> None:
    store = await place.store()
    await store.post([command(str(n), "turn:a", key=f"k{n}") for n in range(3)])
    logged: dict[str, Any] = {
        "records": [record(1, "turn:a", 1)],
        "keys": [("k1", "turn:a")],
        "done": ["1", "never posted"],
    }
    old = await head_of(store)
    await write(store, **logged)
    same(await _ids(store), ["0", "2"], "the inbox")
    (posted,) = await store.post([command("1", "turn:b", key="k1")])
    same((posted.stream, posted.new), ("turn:a", False), "posted again afterwards")
    same(await _ids(store), ["0", "2"], "the inbox after that")
    await conflict(store, base=old, done=["0"])
    same(await _ids(store), ["0", "2"], "the inbox after a refused write")
    await write(store, done=["0", "2", "1"])
    same(await _ids(store), [], "the empty inbox")


async def the_inbox_keeps_its_order(place: Place) -> None:
    store = await place.store()
    for number in (5, 3, 9, 1):
        await store.post([command(f"c{number}", at=10 - number)])
    same(await _ids(store), ["c5", "c3", "c9", "c1"], "as they were posted")
    await write(store, done=["c5", "c1"])
    await store.post([command("c0", at=0)])
    store = await place.reopened(store)
    same(await _ids(store), ["c3", "c9", "c0"], "after some have gone")
    many = [command(f"m{number}") for number in range(300)]
    await store.post(many)
    first = [c.id for c in await store.inbox(100)]
    same(first, ["c3", "c9", "c0", *(c.id for c in many[:97])], "a hundred of many")


async def answers_are_kept_for_their_caller(place: Place) -> None:
    store = await place.store()
    await store.post([command("1", answer=True), command("2", answer=True)])
    wanted = Wanted(answers=frozenset({"1", "2", "3"}))
    found = await store.fetch(wanted)
    same(dict(found.answers), {"1": None, "2": None, "3": None}, "no answers yet")
    same(found.waiting, frozenset({"1", "2"}), "those that wait")
    answer = Answer(id="1", at=5, data=b'{"ok":true}')
    await write(store, done=["1"], answers=[answer])
    for _ in range(2):
        found = await store.fetch(wanted)
        same(dict(found.answers), {"1": answer, "2": None, "3": None}, "the answers")
        same(found.waiting, frozenset({"2"}), "the one that waits")
        store = await place.reopened(store)
    same(await _news(store, command("1", answer=True)), [False], "posted again")
    await write(store, answers=[evolve(answer, data=b"{}")])
    found = await store.fetch(wanted)
    same(found.answers["1"], answer, "an answer is written once")


async def a_command_that_cannot_be_kept_is_refused(place: Place) -> None:
    store = await place.store()
    good = command("good")
    odd: list[Any] = [
        command("\ud800"),
        command("1", key="\udfff"),
        command("1", at=2**63),
        command("1", data="text"),
        command("1", data=None),
    ]
    for item in odd:
        with refused(InvalidInputError, what=f"{item}"):
            await store.post([good, item])
        same(await _ids(store), [], "the inbox")
    await store.post([good])
    same(await _ids(store), ["good"], "the good one alone")


async def an_owner_dies_between_reading_and_logging(place: Place) -> None:
    store = await place.store()
    await store.ownership().take()
    await store.post([command("1", "turn:a", key="k")])
    same(await _ids(store), ["1"], "read by the owner")
    await place.killed(store)
    store = await place.store()
    true(await store.ownership().take() is not None, "the next owner")
    same(await _ids(store), ["1"], "read by the next owner")
    keys = [("k", "turn:a")]
    await write(store, records=[record(1, "turn:a", 1)], keys=keys, done=["1"])
    await place.killed(store)
    store = await place.store()
    same(await _ids(store), [], "the one after that finds nothing")
    same((await head_of(store)).position, 1, "it is logged once")


async def clients_post_while_the_owner_commits(place: Place) -> None:
    if not place.several:
        return
    owner, client = await place.store(), await place.store()
    posted: list[str] = []
    logged: list[str] = []
    for number in range(30):
        name = str(number)
        await client.post([command(name, f"turn:{number}", key=f"k{number}")])
        posted.append(name)
        waiting = [c.id for c in await owner.inbox(5)]
        position = (await head_of(owner)).position
        records = [
            record(position + at, f"turn:{item}", 1)
            for at, item in enumerate(waiting, 1)
        ]
        keys = [(f"k{item}", f"turn:{item}") for item in waiting]
        await write(owner, records=records, keys=keys, done=waiting)
        logged += waiting
        again = await client.post([command(name, f"turn:{number}", key=f"k{number}")])
        same(again[0].new, False, "posted again after it was logged")
    same((logged, await _ids(client)), (posted, []), "each is logged once, in order")


async def _news(store: Store, *commands: Any) -> list[bool | None]:
    return [posted.new for posted in await store.post(commands)]


async def _ids(store: Store) -> list[str]:
    return [item.id for item in await store.inbox(1000)]


CHECKS = checks_in(globals())
