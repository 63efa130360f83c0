"""The plan of a day, drawn from a seed: messages, outages, clocks, deaths."""

import random
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen

from turnfold.enums import DeliveryClass
from turnfold_model.testing.clock import START_MS

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
CLASSES: Final = (
    DeliveryClass.KEYED,
    DeliveryClass.LOOKUP,
    DeliveryClass.BLIND,
    DeliveryClass.EDITABLE,
)
ACCOUNTS: Final = ("a", "b")  # of each channel; a channel has the name of its class


@frozen(kw_only=True)
class Update:
    """Something that a person sends. `mood`: the handler's behaviour for some runs
    before it answers. `poison`: no gateway can read it."""

    at: int
    channel: str
    account: str
    conversation: str
    id: str
    mood: str = ""
    times: int = 0
    parts: int = 1
    block: bool = False
    think_ms: int = 500
    live: bool = False  # its answer is a live reply, if the channel can edit
    poison: bool = False


@frozen(kw_only=True)
class Outage:
    """An account does not work for a while. `how`: "down" refuses connections,
    "failing" answers with an error, "slow" takes one message a minute, "auth" refuses
    the token."""

    at: int
    until: int
    channel: str
    account: str
    how: str


@frozen(kw_only=True)
class Jump:
    """The wall clock is wrong by so much for a while."""

    at: int
    until: int
    by_ms: int


@frozen(kw_only=True)
class Death:
    """The process dies, `after` so many more commits and calls (0: at once, between
    them), and is away for a while. `reboots`: the machine, too. `orderly`: it is closed
    instead. `copies`: a copy of the store is made. `restores`: the copy is put back."""

    at: int
    after: int = 0
    away_ms: int = 5 * SECOND
    reboots: bool = False
    orderly: bool = False
    copies: bool = False
    restores: bool = False


@frozen(kw_only=True)
class Plan:
    """All of it. Times are ms from the beginning."""

    seed: int
    length_ms: int
    conversations: int
    updates: tuple[Update, ...]
    outages: tuple[Outage, ...]
    jumps: tuple[Jump, ...]
    deaths: tuple[Death, ...]
    skew_ms: int  # by how much the clock of the platform is ahead
    tells: bool  # the system says whether its clock is synchronised
    start_ms: int = START_MS
    _by_id: dict[str, Update] = field(factory=dict)

    def update(self, name: str) -> Update:
        return self._by_id[name]


def draw(seed: int, turns: int, conversations: int, length_ms: int = 24 * HOUR) -> Plan:
    """A day has about 25 deaths, 30 outages and 20 jumps; a part of a day has its share,
    and one restore at least."""
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    updates = tuple(_updates(rng, turns, conversations, length_ms))
    return Plan(
        seed=seed,
        length_ms=length_ms,
        conversations=conversations,
        updates=updates,
        outages=tuple(_outages(rng, length_ms)),
        jumps=tuple(_jumps(rng, length_ms)),
        deaths=tuple(_deaths(rng, length_ms)),
        skew_ms=rng.randint(-10 * MINUTE, 10 * MINUTE),
        tells=rng.random() < 0.5,
        by_id={update.id: update for update in updates},
    )


def _share(of_a_day: int, length_ms: int) -> int:
    return max(2, of_a_day * length_ms // (24 * HOUR))


def _updates(
    rng: random.Random, turns: int, conversations: int, length_ms: int
) -> Iterator[Update]:
    poison = max(2, turns // 100)
    times = sorted(rng.randrange(length_ms) for _ in range(turns + poison))
    poisoned = set(rng.sample(range(len(times)), poison))
    for number, at in enumerate(times):
        where = rng.randrange(conversations)
        mood, often = _mood(rng)
        yield Update(
            at=at,
            channel=CLASSES[where % len(CLASSES)].value,
            account=ACCOUNTS[where // len(CLASSES) % len(ACCOUNTS)],
            conversation=f"c{where}",
            id=f"m{number}",
            mood=mood,
            times=often,
            parts=rng.choice((1, 1, 1, 1, 2, 3)),
            block=rng.random() < 0.1,
            think_ms=rng.choice((50, 500, 5_000, 40_000)),
            live=rng.random() < 0.5,
            poison=number in poisoned,
        )


# One in so many messages meets this bug of the handler, so many times.
_MOODS = (
    ("raises", 0.015, (1, 2)),
    ("broken", 0.004, (1_000,)),
    ("hangs", 0.003, (1,)),
    ("not_now", 0.01, (1, 5)),
    ("never", 0.003, (1_000,)),
    ("kills_itself", 0.002, (1,)),
)


def _mood(rng: random.Random) -> tuple[str, int]:
    dice = rng.random()
    for mood, share, times in _MOODS:
        if dice < share:
            return mood, rng.choice(times)
        dice -= share
    return "", 0


# How long each kind of outage may last.
_OUTAGES = {
    "down": 2 * HOUR,
    "failing": 2 * HOUR,
    "slow": 20 * MINUTE,
    "auth": 30 * MINUTE,
}


def _outages(rng: random.Random, length_ms: int) -> Iterator[Outage]:
    for _ in range(_share(30, length_ms)):
        how = rng.choice(list(_OUTAGES))
        at = rng.randrange(length_ms)
        lasts = rng.randint(5 * SECOND, _OUTAGES[how])
        yield Outage(
            at=at,
            until=min(at + lasts, length_ms),
            channel=rng.choice(CLASSES).value,
            account=rng.choice(ACCOUNTS),
            how=how,
        )


_STEPS = (48 * HOUR, -48 * HOUR, 10 * MINUTE, -10 * MINUTE, HOUR, -365 * 24 * HOUR)
# A clock that stays wrong for 15 minutes looks right: that is an assumption of
# specs/design.md 2.
_LONGEST_JUMP = 14 * MINUTE


def _jumps(rng: random.Random, length_ms: int) -> Iterator[Jump]:
    at = 0
    for _ in range(_share(20, length_ms)):
        at += rng.randrange(90 * MINUTE)
        lasts = rng.choice((SECOND, 10 * SECOND, MINUTE, _LONGEST_JUMP))
        if at + lasts >= length_ms:
            return
        yield Jump(at=at, until=at + lasts, by_ms=rng.choice(_STEPS))
        at += lasts + SECOND


def _deaths(rng: random.Random, length_ms: int) -> Iterator[Death]:
    """One copy in the first half, put back up to three hours later."""
    copied = rng.randrange(length_ms // 10, length_ms // 2)
    back = copied + rng.randrange(length_ms // 100, length_ms // 8)
    times = [rng.randrange(length_ms) for _ in range(_share(24, length_ms))]
    plain = (_death(rng, at) for at in times)
    copy = Death(at=copied, copies=True, after=rng.choice((0, 1, 5)))
    restored = Death(at=back, restores=True, away_ms=10 * MINUTE)
    yield from sorted([*plain, copy, restored], key=lambda death: death.at)


def _death(rng: random.Random, at: int) -> Death:
    return Death(
        at=at,
        after=rng.choice((0, 1, 2, 3, 5, 8, 13)),
        away_ms=rng.choice((100, 5 * SECOND, 2 * MINUTE, 10 * MINUTE)),
        reboots=rng.random() < 0.2,
        orderly=rng.random() < 0.2,
    )
