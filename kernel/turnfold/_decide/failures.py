"""The consequences of each failure class, in one table. Documented in
specs/failures.md.

`counts`: the failure spends a unit of the budget. `ends`: retrying cannot help.
`alone`: the failure ends this part, and the other parts still go. `gate`: the place
that is held back besides this part. `backs_off`: the part waits for a time of its own,
longer after each such failure; if several lanes of an account fail so, the account is
held back instead.
"""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from turnfold.enums import FailureClass, GateScope
from turnfold.settings import Settings


@frozen
class Rule:
    counts: bool
    ends: bool = False
    alone: bool = False
    gate: GateScope | None = None
    backs_off: bool = False


_RETRY = Rule(counts=True)
_FREE = Rule(counts=False)
_END = Rule(counts=True, ends=True)
_END_PART = Rule(counts=True, ends=True, alone=True)

RULES: Mapping[FailureClass, Rule] = MappingProxyType(
    {
        FailureClass.TRANSIENT: Rule(counts=False, backs_off=True),
        FailureClass.RATE_LIMITED: Rule(counts=False, gate=GateScope.CONVERSATION),
        FailureClass.NOT_CONNECTED: Rule(counts=False, gate=GateScope.ACCOUNT),
        FailureClass.AUTH: Rule(counts=False, gate=GateScope.ACCOUNT),
        FailureClass.PERMISSION: _END,
        FailureClass.TARGET_GONE: _END,
        FailureClass.TARGET_MOVED: _RETRY,
        FailureClass.HANDLE_GONE: _RETRY,
        FailureClass.DECORATION: _RETRY,
        FailureClass.TOO_LONG: _END_PART,
        FailureClass.INVALID_PAYLOAD: _END_PART,
        FailureClass.CANCELLED: _RETRY,
        FailureClass.OWNER_DIED: _FREE,
        FailureClass.DRAIN: _FREE,
        FailureClass.STOPPED: _FREE,
        FailureClass.ABSENT: _RETRY,
        FailureClass.NOT_SENT: _RETRY,
    }
)


def backoff_ms(settings: Settings, used: int, jitter: int) -> int:
    """The wait after the `used`-th failure: full jitter under a doubling cap.

    `jitter` is 0 to 1000 and an argument, so that the decision stays pure.

    >>> [backoff_ms(Settings(), n, 1000) for n in (1, 2, 3, 20)]
    [1000, 2000, 4000, 900000]
    """
    doubled = settings.backoff_base_ms << min(max(used, 1) - 1, 40)
    return min(doubled, settings.backoff_cap_ms) * jitter // 1000
