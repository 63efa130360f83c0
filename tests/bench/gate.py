"""The regression gate: ratios to raw apsw in the same run, wide enough not to flake.

Times are bounded at about a fifth of what a quiet machine gives, syncs and growth closely:
it catches what adds a commit, grows with history or multiplies the work of a message,
not a slow neighbour.
"""

import tempfile
from pathlib import Path

from tests.bench import figures

_ROUNDS, _SECONDS = 5, 0.4


def main() -> int:
    """0 if every bound holds; a run that fails is repeated once."""
    for again in (True, False):
        broken = _broken()
        for line in broken:
            print(line)
        if not broken:
            print("gate: all bounds hold")
            return 0
        if again:
            print("gate: once more")
    return 1


def _broken() -> list[str]:
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        found = figures.against_raw(folder, _ROUNDS, _SECONDS)
        found |= figures.syncs(folder)
        found |= _growth(figures.history(folder, (2_000, 10_000)))
    problems = []
    for row, least, most in _BOUNDS:
        value = found[row]
        print(f"gate: {row:<44} {value:8.2f}  ({least:g} to {most:g})")
        if not least <= value <= most:
            problems.append(f"gate: {row} is {value:.2f}, not in {least:g} to {most:g}")
    return problems


def _growth(claims: dict[str, float]) -> dict[str, float]:
    first, last = claims.values()
    return {"claim, 10,000 / 2,000 of history": last / first}


_BOUNDS = (
    ("messages / raw commits, 1 sender", 0.08, 99),
    ("messages / raw commits, 100 senders", 0.25, 99),
    ("processor time / raw commit's, 100 senders", 0, 8),
    ("lone message", 0, 2.1),
    ("busy lane", 0, 1.2),
    ("claim, 10,000 / 2,000 of history", 0, 1.6),
)
