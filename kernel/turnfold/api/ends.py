"""Exceptions by which a handler ends a run without an answer. Any other one is a bug of
the handler."""

from turnfold.messages import check_ms, check_text
from turnfold.wrong_calls import explained

LONGEST_WAIT_MS = 24 * 3_600_000


@explained
class NotNow(Exception):  # noqa: N818  the handler's choice, not an error
    """Run this turn again later: a model is overloaded, a service is down.

    The run is not counted. `retry_after_ms`: how long to wait; a wait over 24 hours is
    cut to 24 hours; None leaves it to the kernel. The turn keeps its lane."""

    def __init__(self, why: str = "", *, retry_after_ms: int | None = None) -> None:
        super().__init__(check_text("why", why))
        wait = retry_after_ms
        self.why = why
        if wait is not None:
            wait = min(check_ms("retry_after_ms", wait), LONGEST_WAIT_MS)
        self.retry_after_ms = wait

    def __reduce__(self) -> tuple[object, ...]:
        return (_not_now, (self.why, self.retry_after_ms))


def _not_now(why: str, retry_after_ms: int | None) -> NotNow:
    return NotNow(why, retry_after_ms=retry_after_ms)


@explained
class Never(Exception):  # noqa: N818  as above
    """No run of this turn can succeed: the turn fails at once, and the user gets a
    notice."""

    def __init__(self, why: str = "") -> None:
        super().__init__(check_text("why", why))
        self.why = why
