"""A scenario: one delivery class, a few messages, and the faults that may occur."""

from enum import StrEnum
from functools import cached_property

from attrs import define

from turnfold.enums import BlindPolicy, Busy, DeliveryClass
from turnfold.ports.channel import KINDS, Capabilities, PartClass
from turnfold.settings import Settings

SETTLE_MS = 5_000
LATEST_MS = 3 * SETTLE_MS  # when a request of an untrusted sender lands
WINDOW_MS = 3_600_000
HOUR = 3_600_000
# The fates of a request, besides that all goes well.
FATES = ("landed", "lost", "late", "refused", "limited")


class Assumption(StrEnum):
    """The assumptions of specs/design.md 2. A scenario may drop one of them."""

    FSYNC = "fsync"  # a commit is still there after a crash
    KEY = "key"  # the platform honours its key inside the window
    CLOCK = "clock"  # a restart loses at most half of a key's window
    SETTLE = "settle"  # a dead sender's request lands in `settle_ms`, or never
    HUNG = "hung"  # a hung call of our own process counts as alive
    LOCK = "lock"  # a living worker is not replaced
    PROMPT = "prompt"  # a keyed request reaches the platform inside its window


@define(kw_only=True, slots=False, eq=False, repr=False)
class Scenario:
    """Read only. `faults`: how many answers of the platform go wrong, each in one of
    `fates`. `store_faults`: how many commits fail, before or after they are durable.
    `abort`: a user stops the first turn at some step, any step. `parts`: of each reply.
    `blocks` before it, and `sends`: messages under keys over all runs. `live`: it grows
    first, and is sealed last. `busy`: the plan for a message in a busy lane, and
    `debounce_ms` how long its turn waits for more. `silent`: the handler says nothing. `later`: it leaves the turn open, without an answer.
    `down_ms`: how long a crashed process stays away. `client`: a second process
    enqueues, and makes the abort. `zombies`: how often a worker loses its place to
    another and lives on, as it may where hosts have leases. `pauses`: it is stopped
    first, and goes on at any later step, when its successor has done anything, or all.
    `weaker`: after a crash the channel claims these classes, and the platform gives no
    more. `poison`: the handler of the first message kills its process before it
    replies. `unholds`: how often a person lets its turn run once it is held; after the
    last time it kills no more. `dropped`: an assumption that does not hold; then
    something must break."""

    name: str
    classes: tuple[DeliveryClass, ...] = (DeliveryClass.KEYED,)
    policy: BlindPolicy = BlindPolicy.HOLD
    weaker: tuple[DeliveryClass, ...] | None = None
    messages: int = 1
    parts: int = 1
    blocks: int = 0
    sends: int = 0
    busy: Busy = Busy.QUEUE
    debounce_ms: int = 0
    silent: bool = False
    later: bool = False
    live: bool = False
    prepares: bool = False
    prepare_ms: int = 0
    abort: bool = False
    abort_reply: bool = False  # it stops the reply alone, not its turn
    resumes: bool = True
    crashes: int = 1
    faults: int = 0
    fates: tuple[str, ...] = FATES
    store_faults: int = 0
    interleave: bool = False
    client: bool = False
    zombies: int = 0
    pauses: bool = False
    lanes: int = 1
    attempts: int = 8
    resends: int = 1
    deaths: int = 100
    poison: bool = False
    unholds: int = 0
    runs: int = 100
    window_ms: int = WINDOW_MS
    ttl_ms: int = 24 * HOUR
    age_ms: int | None = None
    down_ms: int = 1
    dropped: Assumption | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def drops(self, assumption: Assumption) -> bool:
        return self.dropped is assumption

    @cached_property
    def capabilities(self) -> Capabilities:
        return self._claims(self.classes)

    @cached_property
    def weaker_capabilities(self) -> Capabilities:
        return self._claims(self.weaker or ())

    def _claims(self, classes: tuple[DeliveryClass, ...]) -> Capabilities:
        offer = PartClass(
            classes=classes, key_window_ms=self.window_ms, settle_ms=SETTLE_MS
        )
        return Capabilities(parts=dict.fromkeys(KINDS, offer), marks=True)

    @cached_property
    def settings(self) -> Settings:
        return Settings(
            max_failures=self.attempts,
            max_resends=self.resends,
            max_deaths_alone=self.deaths,
            max_runs=self.runs,
            final_ttl_ms=self.ttl_ms,
            block_ttl_ms=self.ttl_ms,
            max_entry_age_ms=self.age_ms,
        )

    @property
    def safe(self) -> bool:
        """True if the class promises that nothing is ever accepted twice. While a
        sender lives on, the answer to a look-up proves nothing. A key does, and without
        a second send no proof is needed."""
        if self.classes:
            replaced = self.zombies and self.dropped is not Assumption.LOCK
            return not (replaced and DeliveryClass.LOOKUP in self.classes)
        return self.policy in (BlindPolicy.HOLD, BlindPolicy.DROP)

    @property
    def certain(self) -> bool:
        """True if every reply must arrive: the class allows it, nothing cuts it short."""
        ends = self.busy in (Busy.SUPERSEDE, Busy.DROP)
        short_lived = self.ttl_ms < HOUR or self.age_ms is not None
        limited = ends or self.later or self.abort or short_lived or self.attempts < 8
        unlucky = set(self.fates) & {"barred", "gone"} if self.faults else set()
        stops = self.blocks > 0 and not self.resumes
        short = self.deaths < 100 or self.runs < 100 or stops
        short = short or self.weaker is not None
        keyed = self.classes[:1] == (DeliveryClass.KEYED,)
        asks = DeliveryClass.LOOKUP in self.classes
        windowed = keyed and not asks and self.window_ms < WINDOW_MS
        # A placeholder is made again once; in doubt a second time it is for a person.
        first = self.classes[:1] == (DeliveryClass.EDITABLE,)
        edits = first or (self.live and DeliveryClass.EDITABLE in self.classes)
        twice = edits and self.crashes + self.faults > 1
        narrow = limited or unlucky or short or windowed or twice
        return bool(self.classes) and not narrow
