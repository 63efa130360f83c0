"""What is explored: one delivery class, a few messages, and what may go wrong."""

from attrs import frozen

from turnfold.ports.channel import Capabilities, PartClass
from turnfold.settings import Settings
from turnfold.words import BlindPolicy, DeliveryClass

SETTLE_MS = 5_000
WINDOW_MS = 3_600_000


@frozen(kw_only=True)
class Scenario:
    """`faults`: how many answers of the platform go wrong. `abort`: a user stops the
    first turn at some step, any step. `parts`: of each reply. `blocks` before it."""

    name: str
    classes: tuple[DeliveryClass, ...] = (DeliveryClass.KEYED,)
    policy: BlindPolicy = BlindPolicy.HOLD
    messages: int = 1
    parts: int = 1
    blocks: int = 0
    prepares: bool = False
    abort: bool = False
    resumes: bool = True
    crashes: int = 1
    faults: int = 0
    interleave: bool = False
    client: bool = False  # a second process enqueues, too
    lanes: int = 1
    attempts: int = 8

    @property
    def capabilities(self) -> Capabilities:
        offer = PartClass(
            classes=self.classes, key_window_ms=WINDOW_MS, settle_ms=SETTLE_MS
        )
        kinds = ("text", "file", "native")
        return Capabilities(parts=dict.fromkeys(kinds, offer))

    @property
    def settings(self) -> Settings:
        return Settings(blind=self.policy, attempts=self.attempts, deaths=100, runs=100)

    @property
    def safe(self) -> bool:
        """True if the class promises that nothing is ever accepted twice."""
        return bool(self.classes) or self.policy in (
            BlindPolicy.HOLD,
            BlindPolicy.DROP,
        )
