"""The turn for plain functions, which run in a thread: each call waits for its
result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnfold.api.portal import Portal
from turnfold.api.sent import Said, Sent
from turnfold.enums import Status
from turnfold.messages import Payload
from turnfold.ports.channel import Receipt

if TYPE_CHECKING:
    from turnfold.api.handle import TurnHandle


class BlockingSent:
    """A Sent for a thread: the same facts, and blocking calls."""

    def __init__(self, sent: Sent, portal: Portal) -> None:
        self._portal, self.sent = portal, sent
        self.entry_id, self.status = sent.entry_id, sent.status
        self.new, self.differs = sent.new, sent.differs

    def receipt(self, timeout_ms: int | None = None) -> Receipt:
        """As `Sent.receipt`."""
        got: Receipt = self._portal.call(self.sent.receipt, timeout_ms)
        return got

    def settled(self, timeout_ms: int | None = None) -> Status:
        """As `Sent.settled`."""
        end: Status = self._portal.call(self.sent.settled, timeout_ms)
        return end


class BlockingHandle:
    """A turn for a plain handler: `turn.blocking.send("one moment")`. Every call takes
    the arguments of its twin in TurnHandle, waits, and raises the same errors. In the
    kernel's own thread it raises InvalidInputError."""

    def __init__(self, turn: "TurnHandle", portal: Portal) -> None:
        self._turn, self._portal = turn, portal

    def send(self, *payloads: Payload | str, **how: Any) -> BlockingSent:
        """As `TurnHandle.send`: once over all runs."""
        return self._call(self._turn.send, payloads, how)

    def reply(self, *payloads: Payload | str, **how: Any) -> BlockingSent:
        """As `TurnHandle.reply`: the answer."""
        return self._call(self._turn.reply, payloads, how)

    def block(self, *payloads: Payload | str, **how: Any) -> BlockingSent:
        """As `TurnHandle.block`: a piece of the answer."""
        return self._call(self._turn.block, payloads, how)

    def tool(self, *payloads: Payload | str, **how: Any) -> BlockingSent:
        """As `TurnHandle.tool`: a message about a tool's work."""
        return self._call(self._turn.tool, payloads, how)

    def silent(self, reason: str) -> None:
        """As `TurnHandle.silent`: end the turn without a reply."""
        self._portal.call(self._turn.silent, reason)

    def later(self, within_ms: int) -> None:
        """As `TurnHandle.later`: the answer comes by the turn's id."""
        self._portal.call(self._turn.later, within_ms)

    def previous(self) -> Sequence[Said]:
        """As `TurnHandle.previous`: the messages of the turn so far."""
        found: Sequence[Said] = self._portal.call(self._turn.previous)
        return found

    def _call(
        self, call: Any, payloads: Sequence[Payload | str], how: Any
    ) -> BlockingSent:
        return BlockingSent(self._portal.call(call, *payloads, **how), self._portal)
