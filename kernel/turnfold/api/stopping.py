"""Stops of a turn, of an entry, or of a whole lane, with the result of each."""

from collections.abc import Collection
from functools import partial
from typing import Any

from turnfold._decide import busy, operator
from turnfold._decide.busy import LaneAbortion
from turnfold._decide.operator import Abortion
from turnfold._log.ids import TURN
from turnfold._runtime.programs import Decision
from turnfold.enums import AbortReason, Waits
from turnfold.errors import InvalidInputError, RequestedError
from turnfold.messages import Route, check_enum, check_id, check_optional_id, check_text


class Stopping:
    """The stop commands of a Kernel; Commands implements the methods used here."""

    async def _do(
        self, decision: Decision, kind: str, stream: str, arguments: dict[str, Any]
    ) -> Any:
        raise NotImplementedError

    async def _whole(self, what: str, stream: str) -> str:
        raise NotImplementedError

    async def abort(
        self, stream: str, *, by: str | None = None, why: str = ""
    ) -> Abortion:
        """Stop a turn or an entry. The result says if it was too late."""
        return await self._stop(stream, AbortReason.USER, by, why)

    async def abort_lane(
        self,
        lane: Route | str,
        *,
        scope: Collection[Waits | str] = tuple(Waits),
        by: str | None = None,
        why: str = "",
    ) -> LaneAbortion:
        """Stop the turns of a lane, in one commit: a user's "stop". `lane`: a route, or
        `Inbound.lane`, where messages have lanes of their own.

        `scope`: the turns to stop: the one that is `running`, those that are `queued`
        or `debounced`, and those that are `answered` with an answer that has not
        arrived; all of them by default. The other turns go on, and are named in the
        result. Control input takes no lane, so a "stop" that is a turn itself does not
        stop itself. Raises RequestedError if no worker answered in time."""
        words = [str(check_enum("scope", word, Waits)) for word in _words(scope)]
        name = lane.lane if isinstance(lane, Route) else check_id("lane", lane)
        said: dict[str, Any] = {"scope": words, "by": check_optional_id("by", by)}
        said["why"] = check_text("why", why)
        decide = partial(busy.abort_lane, stream=name, **said)
        done = await self._do(decide, "abort_lane", name, said)
        if isinstance(done, LaneAbortion):
            return done
        return LaneAbortion(**{key: tuple(names) for key, names in done.items()})

    async def supersede(
        self, turn: str, *, by: str | None = None, why: str = ""
    ) -> Abortion:
        """Stop a turn because a newer message replaces it."""
        return await self._stop(turn, AbortReason.SUPERSEDED, by, why)

    async def _stop(
        self, stream: str, reason: AbortReason, by: str | None, why: str
    ) -> Abortion:
        stream = await self._whole("stream", stream)
        turn = stream.startswith(TURN)
        decision = operator.abort_turn if turn else operator.abort_entry
        by = check_optional_id("by", by)
        said: dict[str, Any] = {"reason": reason, "by": by}
        said["why"] = check_text("why", why)
        decide = partial(decision, stream=stream, **said)
        try:
            done = await self._do(decide, "abort", stream, said)
        except RequestedError:
            return Abortion(aborted=False, status="requested")
        return done if isinstance(done, Abortion) else Abortion(**done)


def _words(scope: Any) -> Collection[Any]:
    if isinstance(scope, str) or not isinstance(scope, Collection):
        kind = type(scope).__name__
        problem = f"expected several words, got {kind}"
        raise InvalidInputError(field="scope", problem=problem)
    return scope
