"""Rate limits that name a conversation while the limit of the account is meant.

Most platforms do not say with a 429 which of their limits was met, and an adapter that
does not know says "this conversation". One or two busy conversations meet a limit of
their own, and the others go on. The third conversation in a row is no coincidence:
with nothing delivered in between, the account is limited.

From then on a single refusal is enough, since most messages are delivered at a pace
near the limit. It is not enough for one of the last two conversations that were
refused: those may be busy. The account's pace ends this, when nothing slows the account
any more. All of this is memory of one process: it delays attempts and permits none.
"""

from attrs import define, field, frozen

from turnfold._decide import rules
from turnfold._log.ids import gates_of
from turnfold._state.entry import Entry

TOGETHER_MS = 10_000  # refusals further apart do not count as one after the other


@frozen
class Refusal:
    """Of the newest attempt of a conversation: was it the account's limit?"""

    entry: str
    attempt: int
    at: int
    of_account: bool


@define
class Row:
    """Refusals of one account, one after the other: the conversations that were
    refused last, the newest at the end."""

    found: bool = False  # the account's limit was met, and its pace still holds
    refusals: dict[str, Refusal] = field(factory=dict)

    def add(self, entry: Entry, now: int) -> bool:
        """Take one refusal in. True if it was the account's limit. A decision that is
        made again gets the same answer."""
        conversation = gates_of(entry.lane)[1]
        old = self.refusals.get(conversation)
        if old is not None and (old.entry, old.attempt) == (
            entry.stream,
            entry.attempt,
        ):
            return old.of_account
        if not self.found:
            self._forget(now - TOGETHER_MS)
        of_account = rules.account_is_limited(self.refusals, conversation)
        self.refusals.pop(conversation, None)
        while len(self.refusals) >= rules.BUSY:
            del self.refusals[next(iter(self.refusals))]
        refusal = Refusal(entry.stream, entry.attempt, now, of_account)
        self.refusals[conversation] = refusal
        self.found = self.found or of_account
        return of_account

    def _forget(self, before: int) -> None:
        self.refusals = {c: r for c, r in self.refusals.items() if r.at >= before}


class Limits:
    """The rows of all accounts that are refused."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}  # account's gate -> its row

    def __bool__(self) -> bool:
        return bool(self._rows)

    def refused(self, entry: Entry, now: int, *, probe: bool) -> bool:
        """A conversation was refused. True if it was its account's limit. `probe`: one
        lane is tried for the whole account."""
        row = self._rows.setdefault(gates_of(entry.lane)[0], Row())
        return row.add(entry, now) or (probe and row.found)

    def delivered(self, account: str) -> None:
        """A delivery ends a row, unless the account's limit is known."""
        row = self._rows.get(account)
        if row is not None and not row.found:
            del self._rows[account]

    def over(self, account: str) -> None:
        """Nothing slows the account any more."""
        self._rows.pop(account, None)
