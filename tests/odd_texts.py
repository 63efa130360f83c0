"""Odd texts, and how a channel takes them: for the fakes and for a real server."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from turnfold import Kind, Route
from turnfold.ports.channel import Accepted, Attempt, Part, PlanContext, PlannedPart

MARK = "(may be a duplicate) "
PIECES = [
    *(
        "a",
        "word ",
        "\n",
        "\r\n",
        "\t",
        " ",
        "\u00a0",
        "\u200b",
        "\u2028",
        "\x00",
        "\x1b",
    ),
    *(
        "👨\u200d👩\u200d👧",
        "🇫🇷",
        "👍🏽",
        "🏽",
        "e\u0301",
        "\u0301",
        "क्षि",
        "각",
        "字",
        "\u202eabc",
    ),
    *(
        "<",
        ">",
        "&",
        "&amp;",
        "<b>",
        "</b>",
        "<blockquote>",
        "<pre>",
        "*",
        "_",
        "`",
        "```",
    ),
    *(
        "~",
        "|",
        "||",
        "\\",
        "[x](http://e.org)",
        "<@U1>",
        "<!channel>",
        "@everyone",
        "# ",
    ),
]
TEXTS = st.builds(
    lambda pieces, times: "".join(pieces) * times,
    st.lists(st.sampled_from(PIECES), max_size=12),
    st.sampled_from([1, 1, 2, 60, 300]),
)
FORMATS = st.sampled_from(["plain", "html", "markdown"])
many = settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],  # each try talks to a server
    suppress_health_check=[HealthCheck.too_slow],
)


async def send(channel: Any, place: str, planned: Sequence[PlannedPart]) -> None:
    route = Route(channel="chat", conversation=place)
    for index, one in enumerate(planned):
        part = Part(
            entry_id="e",
            index=index,
            count=len(planned),
            kind=one.kind,
            payload=one.payload,
            key=uuid4().hex,
            route=route,
        )
        kinds = channel.capabilities.prepares
        prepares = hasattr(channel, "prepare") and (kinds is None or one.kind in kinds)
        prepared = await channel.prepare(part) if prepares else None
        attempt = Attempt(number=1, at_ms=0, marked=index == 1, prepared=prepared)
        outcome = await channel.send(part, part.key, attempt)
        assert isinstance(outcome, Accepted), (one.payload, outcome)


def plan(channel: Any, payload: Any, place: str) -> Sequence[PlannedPart]:
    route = Route(channel="chat", conversation=place)
    found: Sequence[PlannedPart] = channel.plan(
        payload, route, Kind.FINAL, PlanContext(entry_id="e", kind=Kind.FINAL)
    )
    return found


def shown(text: str) -> str:
    return "".join(c for c in text if not c.isspace())
