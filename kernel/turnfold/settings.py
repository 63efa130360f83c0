"""The limits and waits of a kernel (specs/design.md 10), with their defaults.

All durations are milliseconds. A setting affects later decisions only; it never changes
the meaning of a log.
"""

from typing import Annotated, TypeAlias

from attrs import field, frozen

from turnfold.arguments import Some, check_fields
from turnfold.enums import Kind, OldTurns
from turnfold.errors import InvalidInputError
from turnfold.notices import DEFAULTS, Notices, copied
from turnfold.wrong_calls import explained

HOUR = 3_600_000
_LONG = (Kind.FINAL, Kind.NOTICE)  # the kinds that live as long as a final
_MOST = 2**52  # a time that is added to now stays below 2^53, which the log can carry


def _short(name: str, value: int) -> int:
    if value >= _MOST:
        problem = f"{value} is not in range; below 2^52"
        raise InvalidInputError(field=name, problem=problem)
    return value


_Any: TypeAlias = Annotated[int, _short]  # 0 or more
_One: TypeAlias = Annotated[Some, _short]  # 1 or more: 0 would stop all work


@explained
@frozen(kw_only=True)
class Settings:
    """The limits and waits of a kernel. Each is checked when the object is made, and
    InvalidInputError names the wrong one. Names that end in `_ms` are milliseconds.
    "per part": of one visible message.

    The end of a part or an entry:
    - `max_failures` (8): failures because of the message itself, per part; at least 1
    - `max_resends` (1): repeated sends by a policy, per part, before it parks
    - `max_deaths_alone` (3): deaths of the process with nothing else under way, before
      an entry is not sent any more and a person decides
    - `max_lookups` (8): look-ups that cannot tell, before the part parks
    - `final_ttl_ms` (86,400,000): life of answers and notices without one of their own
    - `block_ttl_ms` (600,000): life of blocks and tool messages
    - `max_entry_age_ms` (None): an entry that has waited longer, and that nobody can
      have seen, is not sent any more; `attach` may set it for one account; None: an
      entry may be sent until it expires

    Attempts:
    - `attempt_deadline_ms` (60,000): wait for one call of a channel; a file gets more
    - `settle_ms` (120,000): until a request of a dead sender cannot take effect any
      more
    - `backoff_base_ms` (1,000): the first wait after a failure; it doubles
    - `backoff_cap_ms` (900,000): the longest such wait
    - `probe_ms` (10,000): not connected: wait before one message tries again; longer
      for an account that has failed for long
    - `auth_probe_ms` (600,000): a refused token: wait before one message tries again
    - `rate_limit_ms` (5,000): a rate limit that names no time
    - `yield_retryable` (False): a head of a lane that waits for a retry lets others pass
    - `yield_closed` (True): a head of a lane that is parked lets others pass

    Turns:
    - `max_runs` (3): runs of the handler per turn that fail; at least 1
    - `max_deaths_alone` (3): deaths of the process with nothing but a turn under way,
      before that turn waits for a person
    - `max_turn_age_ms` (None): an older message is not run any more, and its sender
      gets a notice; None: a message of any age is run
    - `old_turns` (expire): the end of such a message; ask: it is held, and a person
      lets it run (`unhold`) or aborts it
    - `run_deadline_ms` (1,800,000): of one run; None: a run may take for ever
    - `hook_deadline_ms` (60,000): of one call of a hook; None: no deadline
    - `notices`: words to the reader by cause: text, texts by locale, or a function of
      the Notice; or one function for all. For a missing cause no notice is sent

    Limits:
    - `stall_ms` (600,000): a head of a lane that has not moved for so long is reported
    - `max_lane_turns` (1,000): turns of a lane without an answer, before `accept` is
      refused
    - `concurrent_runs` (100): handlers that run at the same time
    - `concurrent_sends` (1,000): calls of channels that are under way
    - `max_payload_bytes` (104,857,600): of the payloads of one call, stored; None: any
    - `max_open_entries` (1,000,000): open entries of an account before `enqueue` is refused
    - `drain_ms` (10,000): how long closing waits for calls that are under way

    Keeping (specs/keep.md):
    - `dedupe_ms` (2,592,000,000): how long a dedupe key is kept, at least: 30 days; take
      no less than the time in which a platform repeats a message
    - `prune_after_ms` (None): the worker prunes turns and entries that have been closed
      for so long; None: nothing is pruned unasked
    - `prune_dead` (False): it also prunes dead letters that nobody has seen
    - `max_store_bytes` (None): of the database with its log; above it `accept` and
      `enqueue` raise StoreFullError, and accepted turns go on; None: no limit
    - `min_free_bytes` (None): of the disk; below it the same
    - `archive_first` (False): nothing is pruned that is not in an archive
    """

    max_failures: _One = 8
    max_resends: _Any = 1
    backoff_base_ms: _Any = 1_000
    backoff_cap_ms: _One = 900_000
    attempt_deadline_ms: _One = 60_000
    settle_ms: _Any = 120_000
    final_ttl_ms: _One = 24 * HOUR
    block_ttl_ms: _One = 600_000
    max_entry_age_ms: _One | None = None
    max_runs: _One = 3
    max_turn_age_ms: _Any | None = None
    old_turns: OldTurns = OldTurns.EXPIRE
    run_deadline_ms: _Any | None = HOUR // 2
    hook_deadline_ms: _Any | None = 60_000
    drain_ms: _Any = 10_000
    max_deaths_alone: _One = 3
    max_lookups: _Any = 8
    probe_ms: _Any = 10_000
    auth_probe_ms: _Any = 600_000
    stall_ms: _One = 600_000
    rate_limit_ms: _Any = 5_000
    yield_retryable: bool = False
    yield_closed: bool = True
    concurrent_runs: _One = 100
    concurrent_sends: _One = 1_000
    max_payload_bytes: _One | None = 100 * 2**20
    max_open_entries: _One = 1_000_000
    max_lane_turns: _One = 1_000
    dedupe_ms: _Any = 30 * 24 * HOUR
    prune_after_ms: _Any | None = None
    prune_dead: bool = False
    max_store_bytes: _Any | None = None
    min_free_bytes: _Any | None = None
    archive_first: bool = False
    notices: Notices = field(converter=copied, factory=lambda: DEFAULTS)

    def __attrs_post_init__(self) -> None:
        check_fields(self)

    def ttl_ms(self, kind: Kind) -> int:
        """The time to live of an entry of this kind."""
        return self.final_ttl_ms if kind in _LONG else self.block_ttl_ms
