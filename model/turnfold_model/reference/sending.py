"""The rules of everything on its way to the wire: plans, attempts, placeholders, parts.

As in `entry`, each takes the entry, the `data` of the event and its time.
"""

from dataclasses import replace

from turnfold_model.reference.kinds import Record, need, one_of, texts, whole, words
from turnfold_model.reference.parts import current, freed, kept, next_part, numbered
from turnfold_model.reference.shapes import (
    ACTS,
    CLASSES,
    DECORATIONS,
    ENDS,
    POLICIES,
    TRIAL_ENDS,
    TRIALS,
    Entry,
    Part,
)


def policy_of(data: Record) -> str | None:
    """The policy for an unknown outcome, if the event has one."""
    if data.get("policy") is None:
        return None
    return one_of(data, "policy", POLICIES)


def planned(entry: Entry, data: Record, at: int) -> Entry:
    """The facts of a placeholder that went out before go over to the first part."""
    del at
    need(not entry.planned, "INV-7", "the plan is frozen")
    raw = data.get("parts", ())
    need(bool(raw), "INV-7", "a plan without a part")
    new = not any(part.get("dropped") for part in raw)
    need(new, "INV-7", "a decoration was dropped before any was refused")
    keys = [words(part, "key") for part in raw]
    need(len(set(keys)) == len(keys), "INV-7", "two parts have one key")
    before = [*entry.parts, *[Part()] * len(raw)]
    parts = tuple(
        replace(
            known,
            kind=words(part, "kind"),
            key=words(part, "key"),
            classes=frozenset(texts(part, "classes")),
            window=None
            if part.get("key_window_ms") is None
            else whole(part, "key_window_ms"),
            policy=policy_of(part),
        )
        for known, part in zip(before, raw, strict=False)
    )
    ids = bool(data.get("ids", True))
    budget = whole(data, "budget", 1)
    return replace(entry, parts=parts, planned=True, budget=budget, ids=ids)


def _may_resend(entry: Entry, act: str, at: int) -> bool:
    """In doubt: the platform's key still protects, or a word in the log allows it. An
    edit that is made twice shows the same; an empty placeholder is made again once.

    The wall clock may lose half of a key's window across a restart, and a log does not
    show where the clock was set back. So nobody relies on more than half of a window.
    """
    part = entry.part
    if entry.grant or act == "edit":
        return True
    if act == "placeholder":
        return entry.act != "send" and not part.remade
    if "keyed" not in part.classes or part.first_at is None:
        return False
    return part.window is None or 2 * (at - part.first_at) < part.window


def _acts(entry: Entry, data: Record) -> str:
    """The platform call that an attempt makes must be one that its part allows."""
    act = one_of({"act": data.get("act", "send")}, "act", ACTS)
    placeholder = act == "placeholder"
    need(entry.planned or placeholder, "INV-7", "attempted before it was planned")
    part = entry.part
    classes = part.classes if entry.planned else frozenset(texts(data, "classes"))
    editable = act == "send" or "editable" in classes
    need(editable, "INV-2", f"{act} where nothing can be edited")
    need(part.placed == (act == "edit"), "INV-2", f"{act}, placed: {part.placed}")
    return act


def attempted(entry: Entry, data: Record, at: int) -> Entry:
    part, attempt = whole(data, "part"), whole(data, "attempt", 1)
    fence = whole(data, "fence")
    words(data, "owner")
    need(not entry.abort, "INV-11", "attempted after an abort was requested")
    need(at < entry.expires_at, "INV-12", "attempted after it expired")
    need(part == entry.at, "INV-4", f"part {part}, but {entry.at} is next")
    here = entry.part
    act = _acts(entry, data)
    need(attempt == here.attempts + 1, "INV-6", f"attempt {attempt} is not the next")
    room = here.used < entry.budget or not entry.planned
    need(room, "INV-6", "no budget left")
    need(fence >= entry.fence, "INV-5", f"fence {fence} is older than {entry.fence}")
    if entry.phase == "in_doubt":
        allowed = _may_resend(entry, act, at)
        need(allowed, "INV-2", "in doubt, and nothing allows it")
    if entry.grant and entry.marked:
        need(bool(data.get("marked")), "INV-2", "the duplicate must be marked")
    begun = _begin(entry, act, attempt, at)
    return replace(
        begun,
        phase="dispatched" if data.get("on_wire") else "attempted",
        act=act,
        fence=fence,
        granted=entry.grant,
        grant=False,
        marked=bool(data.get("marked")),
    )


def _begin(entry: Entry, act: str, attempt: int, at: int) -> Entry:
    here = entry.part
    remade = here.remade or (act == "placeholder" and here.doubt)
    begun = {"attempts": attempt, "used": here.used + 1, "remade": remade}
    if here.first_at is None:
        begun |= {"first_at": at}
    return kept(entry, entry.at, **begun)


def dispatched(entry: Entry, data: Record, at: int) -> Entry:
    current(entry, data)
    need(not entry.abort, "INV-11", "dispatched after an abort was requested")
    need(at < entry.expires_at, "INV-12", "dispatched after it expired")
    return replace(entry, phase="dispatched")


def placed(entry: Entry, data: Record, at: int) -> Entry:
    """A handle is no receipt: the part still has to be filled."""
    del at
    number, part = numbered(entry, data)
    need(bool(texts(data, "handle")), "INV-4", "placed without a handle")
    attempt = whole(data, "attempt", 1)
    need(attempt <= part.attempts, "INV-5", f"attempt {attempt} never began")
    if data.get("stray"):
        return entry
    out = entry.phase in ("dispatched", "in_doubt")
    need(out, "INV-5", "placed when no placeholder was out")
    editable = "editable" in part.classes or not entry.planned
    need(editable, "INV-2", "placed where nothing can be edited")
    need(part.end is None and not part.placed, "INV-4", "the part needs no placeholder")
    if entry.phase == "dispatched":
        current(entry, data)
        need(entry.act == "placeholder", "INV-5", f"placed by {entry.act}")
    used = max(0, part.used - 1)
    done = kept(entry, number, placed=True, doubt=False, used=used)
    return freed(done, "queued")


def tried(entry: Entry, data: Record, at: int) -> Entry:
    """A death in a plan or a look-up is told by a later worker, and only once."""
    del at
    one_of(data, "act", TRIALS)
    words(data, "owner")
    fence, ended = whole(data, "fence"), data.get("end") is not None
    died = ended and one_of(data, "end", TRIAL_ENDS) == "owner_died"
    need(entry.trying or not ended, "INV-5", "what never began has an end")
    need(not died or fence != entry.fence, "INV-5", f"fence {fence} died, and says so")
    return replace(entry, fence=fence, trying=not ended)


def part_refused(entry: Entry, data: Record, at: int) -> Entry:
    del at
    number, part = numbered(entry, data)
    failure = one_of(data, "failure", CLASSES)
    need(failure in ENDS, "INV-1", f"refused for {failure}, which may pass")
    need(part.end is None, "INV-4", f"part {number} has ended")
    need(not entry.doubt, "INV-2", "refused while an older attempt is in doubt")
    if entry.phase in ("attempted", "dispatched"):
        current(entry, data)
    return replace(next_part(kept(entry, number, end="refused")), phase="queued")


def amended_part(entry: Entry, data: Record, at: int) -> Entry:
    del at
    number, part = numbered(entry, data)
    words(data, "body")
    dropped = one_of(data, "dropped", DECORATIONS)
    need(entry.planned and part.end is None, "INV-7", f"part {number} cannot change")
    key = words(data, "key")
    need(dropped not in part.dropped, "INV-7", f"{dropped} was dropped before")
    if entry.phase == "in_doubt":
        need(number == entry.at, "INV-7", f"part {number} is not the one in doubt")
        need(key == part.key, "INV-2", "what is in doubt keeps its key")
        return kept(entry, number, dropped=part.dropped | {dropped})
    fresh = all(other.key != key for other in entry.parts)
    need(fresh, "INV-7", "a new body needs a new key")
    back = max(part.used - 1, 0) if number == entry.at else part.used
    lost = part.dropped | {dropped}
    return kept(entry, number, key=key, first_at=None, used=back, dropped=lost)
