"""The stop of a whole lane, with a truthful answer."""

from collections.abc import Collection
from functools import partial
from typing import Any, cast

from turnfold._decide import busy
from turnfold._decide.busy import LaneAbortion
from turnfold._runtime.programs import Decision
from turnfold.enums import Waits
from turnfold.errors import InvalidInputError
from turnfold.messages import (
    Route,
    check_enum,
    check_kind,
    check_optional_id,
    check_text,
    check_why,
    control_problem,
    is_a,
    items,
    lane_of,
    shown,
)


class Stopping:
    """The command of a Kernel that stops a lane; Commands brings the means."""

    async def _do(
        self, decision: Decision, kind: str, stream: str, arguments: dict[str, Any]
    ) -> Any:
        raise NotImplementedError

    async def abort_lane(
        self,
        lane: Route | str,
        *,
        scope: Collection[Waits | str] = tuple(Waits),
        by: str | None = None,
        why: str = "",
    ) -> LaneAbortion:
        """Stop the turns of a lane, in one commit: a user's "stop". `lane`: a route, or
        `Inbound.lane`, where messages have lanes of their own. A text that can be no
        lane is refused; a lane in which nothing waits has nothing to stop.

        `scope`: the turns to stop: the one that is `running`, those that are `queued`
        or `debounced`, and those that are `answered` with an answer that has not
        arrived; all of them by default. The other turns go on, and are named in the
        result. Control input takes no lane, so a "stop" that is a turn itself does not
        stop itself. Raises RequestedError if no worker answered in time."""
        words = [str(word) for word in _words(scope)]
        name = cast("Route", lane).lane if is_a(lane, Route) else _lane(lane)
        said: dict[str, Any] = {"scope": words, "by": check_optional_id("by", by)}
        said["why"] = check_why(why)
        decide = partial(busy.abort_lane, stream=name, **said)
        done = await self._do(decide, "abort_lane", name, said)
        if isinstance(done, LaneAbortion):
            return done
        return LaneAbortion(**{key: tuple(names) for key, names in done.items()})


def _lane(name: object) -> str:
    """A name that a lane may have: channel, account, conversation, thread, and perhaps a
    name of its own. A slash inside of a part is escaped, so the number tells."""
    check_kind("lane", name, Route, str)
    text = check_text("lane", name)
    parts = text.split("/")
    if len(parts) not in _PARTS or not all(parts[:3]) or control_problem(text):
        problem = (
            f"{shown(name)} is no name of a lane; pass a Route, or `Inbound.lane`, such as "
            f"{lane_of('telegram', 'default', '42', None)!r}"
        )
        raise InvalidInputError(field="lane", problem=problem)
    return text


_PARTS = (4, 5)


def _words(scope: Any) -> Collection[Waits]:
    if is_a(scope, str) or not is_a(scope, Collection):
        kind = type(scope).__name__
        problem = f"expected several words, got {kind}"
        raise InvalidInputError(field="scope", problem=problem)
    return [check_enum("scope", word, Waits) for word in items("scope", scope)]
