"""The plan of a demo: its messages, and the moments of its kills. The same seed, counts
and class give the same plan."""

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import cycle, pairwise

from attrs import frozen

from turnfold_cli.demo_gateway import block_text, part_text
from turnfold_model.testing.failpoints import Stop

STORE = "gateway.db"  # in the folder of a demo
SOCKETS = "pg"  # the same for a store in PostgreSQL


class Class(StrEnum):
    """The delivery class of the platform; as DeliveryClass, for the command line."""

    KEYED = "keyed"
    LOOKUP = "lookup"
    EDITABLE = "editable"
    BLIND = "blind"


class Again(StrEnum):
    """The time of a second delivery of a message, as by a platform without a 200."""

    NEVER = "never"
    AT_ONCE = "at once"
    LATER = "later"  # after the gateway was killed and restarted


@frozen(kw_only=True)
class Message:
    """One message, with its expected answer."""

    name: str
    conversation: str
    blocks: int
    texts: int
    file: bool
    think_ms: int
    live: bool  # the answer is a live reply, if the platform can edit
    again: Again

    @property
    def pieces(self) -> Sequence[str]:
        """The texts that the platform must get, in order."""
        blocks = [block_text(self.name, n + 1) for n in range(self.blocks)]
        return [*blocks, *(part_text(self.name, n + 1) for n in range(self.texts))]

    @property
    def request(self) -> dict[str, object]:
        """The body of the POST to the gateway."""
        order = {
            "name": self.name,
            "blocks": self.blocks,
            "texts": self.texts,
            "file": self.file,
            "think_ms": self.think_ms,
            "live": self.live,
        }
        return {
            "conversation": self.conversation,
            "message_id": self.name,
            "text": f"please answer {self.name}",
            "body": order,
        }


@frozen(kw_only=True)
class Kill:
    """The gateway dies at `stop`, or it is killed `after_s` after it listens, which
    also ends the wait for a point that is never reached."""

    stop: Stop | None = None
    after_s: float


@frozen(kw_only=True)
class Plan:
    messages: Sequence[Message]
    kills: Sequence[Kill]
    cuts: int

    def batches(self) -> Sequence[Sequence[Message]]:
        """The messages of each life of the gateway: one more life than kills."""
        lives = len(self.kills) + 1
        total = len(self.messages)
        bounds = [total * n // lives for n in range(lives + 1)]
        return [self.messages[a:b] for a, b in pairwise(bounds)]

    @property
    def parts(self) -> int:
        return sum(len(m.pieces) + m.file for m in self.messages)


PATH = (
    "commit turn.accepted",
    "CallHandler",
    "commit outbox.queued",
    "commit turn.answered",
    "Send",
    "Append settle",
    "commit outbox.part_delivered",
    "commit outbox.delivered",
    "commit turn.completed",
    "Append returned",
)
RECOVERY = {
    Class.KEYED: ("Append bury", "Append attempt_now"),
    Class.LOOKUP: ("Append bury", "Reconcile", "Append look_up"),
    Class.EDITABLE: ("Append bury", "commit outbox.placed", "Append attempt_now"),
    Class.BLIND: ("Append bury", "Append settle_doubt"),
}
# Seconds after the gateway listens. By then it has done its work, so it reaches no
# further point.
_PATIENCE_S = 1.5


def make_plan(messages: int, kills: int, seed: int, mode: Class) -> Plan:
    # The seed does not hold the class, so all classes get the same messages. The kills
    # may differ: each class has its own points of recovery.
    rng = random.Random(seed)  # noqa: S311  repeatable on purpose
    conversations = max(1, messages // 8)
    made = [_message(rng, n + 1, conversations) for n in range(messages)]
    return Plan(
        messages=made, kills=list(_kills(rng, kills, mode)), cuts=max(1, messages // 20)
    )


def _message(rng: random.Random, number: int, conversations: int) -> Message:
    return Message(
        name=f"m{number}",
        conversation=f"c{rng.randrange(conversations) + 1}",
        blocks=rng.choice((0, 0, 0, 1, 2)),
        texts=rng.choice((1, 1, 2, 2, 3)),
        file=rng.random() < 0.25,
        think_ms=rng.randrange(12),
        live=rng.random() < 0.4,
        again=rng.choices((Again.NEVER, Again.AT_ONCE, Again.LATER), (16, 2, 2))[0],
    )


def _kills(rng: random.Random, count: int, mode: Class) -> Iterator[Kill]:
    """The kills, in turn: at a point of normal work, at a point of the recovery after a
    kill, at any moment."""
    path = cycle(_shuffled(rng, PATH))
    recovery = cycle(_shuffled(rng, RECOVERY[mode]))
    for number in range(count):
        match number % 3:
            case 0:
                stop = Stop(rng.randint(1, 6), next(path))
                yield Kill(stop=stop, after_s=_PATIENCE_S)
            case 1:
                stop = Stop(rng.randint(1, 2), next(recovery))
                yield Kill(stop=stop, after_s=_PATIENCE_S)
            case _:
                yield Kill(after_s=rng.uniform(0.0, 0.35))


def _shuffled(rng: random.Random, names: Sequence[str]) -> list[str]:
    both = [f"{when} {name}" for name in names for when in ("before", "after")]
    rng.shuffle(both)
    return both
