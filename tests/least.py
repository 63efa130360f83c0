"""The figures that each checker must reach: the table of specs/guarantees.md."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "specs" / "guarantees.md"
_ROW = re.compile(r"^\| ([^|]+?)(?: \*)? \| `[^`|]+` \| ([\d,]+) \|$", re.MULTILINE)
LEAST = {
    name: int(figure.replace(",", ""))
    for name, figure in _ROW.findall(PAGE.read_text("utf-8"))
}
