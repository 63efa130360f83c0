"""Figures as tables and a simple chart, for a terminal and as SVG."""

import os
import platform
from pathlib import Path
from typing import Any

import apsw

_Found = dict[str, dict[str, float]]


def machine() -> str:
    """What the absolute figures belong to."""
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, load {os.getloadavg()[0]:.1f}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def tables(found: _Found) -> str:
    lines = []
    for row, figures in found.items():
        lines.append(f"\n{row}")
        lines += [f"  {name:<36} {value:>12,.1f}" for name, value in figures.items()]
    return "\n".join(lines)


def _rates(figures: dict[str, float]) -> dict[str, float]:
    return {n: v for n, v in figures.items() if not n.endswith(("ms", "us"))}


def chart(figures: dict[str, float]) -> str:
    """Lifecycles a second, as bars."""
    rates = _rates(figures)
    if not rates:
        return ""
    top = max(rates.values())
    bars = [
        f"  {name:<22} {'#' * max(1, round(40 * value / top))} {value:,.0f}"
        for name, value in rates.items()
    ]
    return "\nlifecycles/s at FULL\n" + "\n".join(bars)


def svg(figures: dict[str, float]) -> str:
    rates = _rates(figures)
    top = max(rates.values(), default=1)
    rows = "".join(
        f'<text x="0" y="{y + 14}">{name}</text>'
        f'<rect x="170" y="{y + 2}" width="{400 * value / top:.0f}" height="15" fill="#47a"/>'
        f'<text x="{176 + 400 * value / top:.0f}" y="{y + 14}">{value:,.0f}</text>'
        for y, (name, value) in zip(
            range(0, 20 * len(rates), 20), rates.items(), strict=True
        )
    )
    height = 20 * len(rates) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{height}" '
        f'font-family="sans-serif" font-size="12">{rows}</svg>\n'
    )


def target_table(judged: list[dict[str, Any]]) -> str:
    lines = ["\ntargets" + " " * 40 + "value      must   stretch"]
    for row in judged:
        value = "-" if row["value"] is None else f"{row['value']:,.2f}"
        met = {None: "", True: "met", False: "MISSED"}[row["met"]]
        must, stretch = f"{row['must']:,g}", f"{row['stretch']:,g}"
        lines.append(f"  {row['name']:<42} {value:>10} {must:>9} {stretch:>9}  {met}")
    return "\n".join(lines)
