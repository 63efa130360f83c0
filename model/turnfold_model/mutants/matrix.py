"""The whole table: every mutant against every checker, not only until the first kill.

A column is a sort of checker, and a cell counts those that noticed the mutant. Finds of
crash exploration are split: by the platform's list and the rules of `verdict`, by the
kernel's own audit of the log, and by the reference, which reads only the log.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from turnfold.ports.store import Store, now
from turnfold_model.crash import verdict
from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import SMALL, named
from turnfold_model.crash.world import World
from turnfold_model.mutants.checkers import check
from turnfold_model.mutants.code import Mutant
from turnfold_model.powerloss.harness import SCENARIOS
from turnfold_model.reference import Log, as_events
from turnfold_model.testing.peek import Peek

Found = Mapping[str, str]  # column -> the word of its checker
COLUMNS: Final = (
    *("world", "reference", "audit", "crash", "stateful"),
    *("power", "disk", "store", "test", "other"),
)
_SECONDS = 30.0  # for one scenario of the crash matrix, on a machine that is busy
_MOST = 20  # violations of it: the first ones may all be of one sort


def checkers(mutant: Mutant) -> list[str]:
    """All there are for it: those with scenarios over all small ones."""
    wide = [f"crash:{scenario.name}" for scenario in SMALL]
    wide += [f"{how}:{s.name}" for how in ("power", "disk") for s in SCENARIOS[:3]]
    wide += ["store", "refused", "answers", "stateful", "test:fast/test_guards.py"]
    twin = [f"world:{mutant.world}"] if mutant.world else []
    return list(dict.fromkeys([*twin, *wide, *mutant.killers]))


def survey(name: str) -> Found:
    """The word of one checker, by column."""
    kind, _, what = name.partition(":")
    if kind == "crash":
        return _crash(what)
    text = check(name)
    return {kind if kind in COLUMNS else "other": text} if text else {}


def _crash(what: str) -> Found:
    verdict.forget()
    seen: dict[bytes, list[str]] = {}
    try:
        done = explore(
            named(what), seconds=_SECONDS, most=_MOST, check=partial(_judged, seen)
        )
    except Exception as exc:  # noqa: BLE001  any error of a broken kernel is a find
        return {"crash": f"{type(exc).__name__}: {exc}"[:300]}
    finally:
        verdict.forget()
    found: dict[str, str] = {}
    for violation in done.violations:
        sort = violation.rule.partition(" ")[0]
        found.setdefault(sort if sort in COLUMNS else "crash", violation.rule)
    return found


def _judged(seen: dict[bytes, list[str]], world: World) -> list[str]:
    """The verdict, and the reference's reading of the log; equal logs are read once."""
    store = world.handle()
    now(store.open())
    try:
        head = Peek(store).head.hash
        if head not in seen:
            seen[head] = _read(store)
    finally:
        now(store.close())
    return [*verdict.broken(world), *seen[head]]


def _read(store: Store) -> list[str]:
    log = Log()
    events = [e for record in Peek(store).log() for e in as_events(record)]
    found = [v for event in events for v in log.feed(event)]
    return [f"reference {violation}" for violation in [*found, *log.finish()]]


def table(rows: Iterable[tuple[Mutant, Iterable[tuple[str, Found]]]]) -> list[str]:
    """One line for each mutant: how many checkers of each column noticed it."""
    lines = [f"{'':52}" + "".join(f"{name:>10}" for name in COLUMNS)]
    for mutant, cells in rows:
        counts = dict.fromkeys(COLUMNS, 0)
        for _, found in cells:
            for column in found:
                counts[column] += 1
        shown = [f"{count or '.':>10}" for count in counts.values()]
        lines.append(f"{mutant.name[:51]:52}" + "".join(shown))
    return lines
