"""Typed and printed times. The zone is printed once, above the output."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from turnfold_cli import USAGE
from turnfold_cli.common import RefusedError
from turnfold_cli.output import ZONE, now_ms, zone

_AGO = re.compile(r"(\d{1,6})\s*(s|min|m|h|d|w)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def _choose(utc: bool) -> bool:
    ZONE.set(UTC if utc else None)
    return utc


Utc = Annotated[
    bool, typer.Option("--utc", callback=_choose, help="Times in UTC, not local ones.")
]
Since = Annotated[
    str | None,
    typer.Option(help="today, yesterday, 90m, 2h, 7d, 1w, 10:03, 2026-01-31T12:00"),
]
Until = Annotated[str | None, typer.Option(help="As --since; before that time.")]


def moment(text: str | None, field: str = "--since") -> int | None:
    """Milliseconds of a time: how long ago, a day by name, a clock time of the last 24
    hours, or a date."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now_ms() - int(ago[1]) * _UNIT_MS[ago[2][0]]
    try:
        return int(_of(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as exc:
        known = "today, yesterday, 90m, 2h, 7d, 1w, 10:03 or 2026-01-31T12:00"
        raise RefusedError(f"{field}: no time {text!r}; give {known}", USAGE) from exc


def span(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Both ends of a span. Raises RefusedError for one that ends before it begins."""
    low, high = moment(since), moment(until, "--until")
    if low is not None and high is not None and high <= low:
        raise RefusedError(f"--until {until} is not later than --since {since}", USAGE)
    return low, high


def length(text: str, field: str) -> int:
    """Milliseconds of a length of time."""
    found = _AGO.fullmatch(text.strip())
    if found is None:
        raise RefusedError(f"{field}: no length {text!r}; give 10min, 2h, 1d", USAGE)
    return int(found[1]) * _UNIT_MS[found[2][0]]


def _of(text: str) -> datetime:
    here = datetime.now(UTC).astimezone(zone())
    days = {"today": 0, "yesterday": 1}
    if text in days:
        day = (here - timedelta(days=days[text])).replace(tzinfo=None)
        return _local(day.replace(hour=0, minute=0, second=0, microsecond=0))
    clock = _CLOCK.fullmatch(text)
    if clock:
        hour, minute, second = (int(part or 0) for part in clock.groups())
        naive = here.replace(tzinfo=None, microsecond=0)
        at = _local(naive.replace(hour=hour, minute=minute, second=second))
        return at if at <= here else at - timedelta(days=1)
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else _local(at)


def _local(naive: datetime) -> datetime:
    """A wall time in the zone; without one in the zone of this process."""
    where = zone()
    return naive.astimezone() if where is None else naive.replace(tzinfo=where)
