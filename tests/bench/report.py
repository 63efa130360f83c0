"""Figures as tables and a simple chart, for a terminal and as SVG."""

import os
import platform
from pathlib import Path
from typing import Any

import apsw

_Found = dict[str, dict[str, float]]


def machine() -> str:
    """The machine that the absolute figures belong to, and its load now."""
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
        pass  # other systems have no such file
    return platform.machine()


def tables(found: _Found, missing: dict[str, str]) -> str:
    lines = []
    for row, figures in found.items():
        lines.append(f"\n{row}")
        lines += [f"  {name:<46} {value:>12,.2f}" for name, value in figures.items()]
    if missing:
        lines.append("\nnot measured")
        lines += [f"  {name}: {reason}" for name, reason in missing.items()]
    return "\n".join(lines)


def _rates(figures: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in figures.items()
        if " / " not in name and not name.endswith(("ms", "us"))
    }


def chart(figures: dict[str, float]) -> str:
    """Messages a second, as bars."""
    rates = _rates(figures)
    if not rates:
        return ""
    top = max(rates.values())
    bars = [
        f"  {name:<24} {'#' * max(1, round(40 * value / top))} {value:,.0f}"
        for name, value in rates.items()
    ]
    return "\nmessages a second at FULL\n" + "\n".join(bars)


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
    lines = ["\n" + "targets".ljust(62) + "     value      must   stretch"]
    for row in judged:
        value = "-" if row["value"] is None else f"{row['value']:,.2f}"
        met = {None: row.get("reason", ""), True: "met", False: "MISSED"}[row["met"]]
        must, stretch = f"{row['must']:,g}", f"{row['stretch']:,g}"
        lines.append(f"  {row['name']:<60} {value:>9} {must:>9} {stretch:>9}  {met}")
    return "\n".join(lines)
