"""The mutants, read from the texts beside this file: one text for each part of the product.

    [area]
    what the user or operator would see, in words
      in module:qualified name
      - the code that is replaced
      + the code that stands there instead
      by checker, another checker
      world the switch of the world model

`in` with its lines may come several times; without `-` the new code begins the function;
`world` is left out where the world model knows no such rule. See `code` for the meaning.
`python -m turnfold_model mutants` runs them; a mutant that no longer fits the code is an
error, not a pass.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from turnfold_model.mutants.code import Edit, Mutant


def read(text: str) -> Iterator[Mutant]:
    """The mutants of one text. Raises ValueError for a line that is none of these."""
    area, name, facts = "", "", list[str]()
    for line in text.splitlines():
        if line.startswith("  "):
            facts.append(line[2:])
            continue
        if name:
            yield _mutant(area, name, facts)
        name, facts = "", []
        if line.startswith("["):
            area = line.strip("[]")
        elif not line.startswith("#"):
            name = line
    if name:
        yield _mutant(area, name, facts)


def _mutant(area: str, name: str, facts: Iterable[str]) -> Mutant:
    places: list[tuple[str, list[str], list[str]]] = []
    killers, world = "", ""
    for fact in facts:
        match fact.partition(" "):
            case "in", _, where:
                places.append((where, [], []))
            case "-", _, code:
                places[-1][1].append(code)
            case "+", _, code:
                places[-1][2].append(code)
            case "by", _, killers:
                pass
            case "world", _, world:
                pass
            case _:
                raise ValueError(f"mutant {name!r}: a line that means nothing: {fact}")
    edits = [Edit(where, "\n".join(o), "\n".join(n)) for where, o, n in places]
    return Mutant(name, area, tuple(edits), tuple(killers.split(", ")), world)


_TEXTS: Final = sorted(Path(__file__).parent.glob("*.txt"))
MUTANTS: Final = tuple(m for text in _TEXTS for m in read(text.read_text("utf-8")))
