"""What must hold when a life has come to rest, whatever happened before."""

from collections import Counter
from collections.abc import Mapping

from turnfold.errors import CorruptLogError
from turnfold.fold import State, family, fold, summarize
from turnfold.machines.entry import Entry
from turnfold.machines.turn import Turn
from turnfold.words import Phase, TurnPhase
from turnfold_adapters.stores.memory import MemoryDisk
from turnfold_model.crash.world import World


def broken(world: World) -> list[str]:
    """The rules that do not hold, in words; nothing if all is well."""
    try:
        states = {s: fold(records) for s, records in world.disk.streams.items()}
    except CorruptLogError as exc:
        return [f"INV-13 the log does not replay: {exc}"]
    entries = [s for s in states.values() if isinstance(s, Entry)]
    turns = [s for s in states.values() if isinstance(s, Turn)]
    return [
        *_projections(world.disk, states),
        *_doubles(world, entries),
        *_losses(world, entries, turns),
        *_order(world, entries),
        *_turns(world, turns, {e.stream: e for e in entries}),
    ]


def _projections(disk: MemoryDisk, states: Mapping[str, State | None]) -> list[str]:
    return [
        f"INV-13 {stream}: projection differs from the fold"
        for stream, state in states.items()
        if state is not None
        and family(stream) in ("entry", "turn")
        and disk.summaries[stream] != summarize(state)
    ]


def _doubles(world: World, entries: list[Entry]) -> list[str]:
    counts = Counter((r.entry, r.part) for r in world.platform.accepted)
    allowed = set() if world.scenario.safe else {e.stream for e in entries}
    return [
        f"INV-2 {entry} part {part} was accepted {count} times"
        for (entry, part), count in counts.items()
        if count > 1 and entry not in allowed
    ]


def _losses(world: World, entries: list[Entry], turns: list[Turn]) -> list[str]:
    seen = {(r.entry, r.part) for r in world.platform.accepted}
    known = {t.message_id for t in turns}
    out = [
        f"INV-1 {name} was acknowledged but there is no turn"
        for name in world.acked
        if name.removeprefix("in") not in known
    ]
    for e in entries:
        for part in range(e.part):
            if (e.stream, part) not in seen:
                out.append(f"INV-1 {e.stream} part {part} counts as delivered")
        at_rest = e.phase in (Phase.OK, Phase.F, Phase.X, Phase.P)
        if not at_rest:
            out.append(f"INV-14 {e.stream} rests in {e.phase}, due {e.due}")
        if e.phase is Phase.F and world.scenario.classes and not world.aborted:
            out.append(f"INV-1 {e.stream} failed: {e.reason}")
    return out


def _order(world: World, entries: list[Entry]) -> list[str]:
    """First acceptances of a lane follow the order of queueing, but for what yielded."""
    order = {e.stream: e.order for e in entries}
    yielded = {e.stream for e in entries if e.yielded}
    last: dict[str, tuple[int, int]] = {}
    out = []
    seen = set()
    for r in world.platform.accepted:
        if r.entry in yielded or (r.entry, r.part) in seen or r.entry not in order:
            continue
        seen.add((r.entry, r.part))
        place = (order[r.entry], r.part)
        if place < last.get(r.lane, (0, 0)):
            out.append(f"INV-8 {r.entry} part {r.part} came out of order")
        last[r.lane] = place
    return out


def _turns(world: World, turns: list[Turn], entries: dict[str, Entry]) -> list[str]:
    out = []
    for turn in turns:
        parked = any(entries[f].phase is Phase.P for f in turn.finals)
        if turn.open and not (turn.phase is TurnPhase.ANSWERED and parked):
            out.append(f"INV-14 {turn.stream} rests in {turn.phase}")
        if not turn.open and any(entries[f].open for f in turn.finals):
            out.append(f"INV-10 {turn.stream} is over but owes a reply")
    return out
