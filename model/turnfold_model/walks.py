"""The walks that take the kernel over every edge of its machines, and what is left.

`WALKS` is generated where the model gives a pattern: the route to each phase, times
what may happen there. The rest is written by hand. `UNTAKEN` says of each remaining
edge why the kernel never takes it; other gateways may.
"""

from itertools import product
from types import MappingProxyType
from typing import Final

from attrs import evolve

from turnfold_model.edges import ALL, Edge
from turnfold_model.walk_stage import Walk

# How an entry gets into each phase on a keyed channel, and stays there.
_TO: Final = {
    "Q": Walk("queue"),
    "A": Walk("queue go", prepares=True),
    "D": Walk("queue go"),
    "U": Walk("queue go lose"),
    "P": Walk("queue go lose", kind="blind"),
    "R": Walk("queue go refuse"),
    "OK": Walk("queue go accept"),
    "F": Walk("queue expire"),
    "X": Walk("queue abort"),
}
# The same with a first call that still hangs.
_LATE: Final = {
    "Q": Walk("queue go hang not_sent go limit"),
    "A": Walk("queue go dispatch hang go", prepares=True),
    "D": Walk("queue go hang go"),
    "U": Walk("queue go hang"),
    "P": Walk("queue go hang", kind="blind"),
    "R": Walk("queue go hang not_sent"),
    "F": Walk("queue go hang give_up"),
    "X": Walk("queue go hang not_sent abort"),
}
# What may happen in these phases, whatever came before.
_THERE: Final = {
    "Q": ("go", "expire", "abort", "reschedule", "restore"),
    "A": ("dispatch", "refuse", "limit", "bar", "abort", "abort crash", "crash"),
    "D": ("accept", "refuse", "limit", "bar", "lose", "abort", "crash"),
    "U": ("go", "delivered", "not_sent", "resend", "expire", "abort", "reschedule"),
    "P": ("delivered", "not_sent", "resend", "give_up", "abort", "expire"),
    "R": ("go", "expire", "abort", "reschedule", "restore"),
    "OK": ("bounce", "redact"),
    "F": ("redrive", "acknowledge", "redact"),
    "X": ("redact",),
}


def _on(walk: Walk, words: str, parts: int = 1, *, hangs: bool = False) -> Walk:
    return evolve(walk, words=f"{walk.words} {words}", parts=parts, hangs=hangs)


WALKS: Final = (
    *(_on(_TO[phase], word) for phase in _THERE for word in _THERE[phase]),
    *(
        _on(walk, "late", parts, hangs=True)
        for walk, parts in product(_LATE.values(), (1, 2))
    ),
    # through `prepare`
    Walk("queue go refuse go dispatch", prepares=True),
    # in doubt, and before the wire
    Walk("queue go dispatch lose go refuse", prepares=True),
    # a part of several
    Walk("queue go accept go accept", parts=2),
    Walk("queue go lose delivered", parts=2),
    Walk("queue go lose delivered", kind="blind", parts=2),
    # a look-up
    *(Walk(f"queue go lose go {said}", "lookup") for said in ("find", "miss", "shrug")),
    Walk("queue go lose go find", "lookup", parts=2),
    # lanes
    Walk("remind"),
    Walk("queue go refuse", yields=True),
    # turns
    Walk("ask step reply go accept stop redact"),
    Walk("ask silent stop"),
    Walk("ask fail run_again reply"),
    Walk("ask shut"),
    Walk("ask fail", runs=1),
    Walk("ask block go accept shut"),  # somebody has seen a part: it is not said again
    Walk("ask fail resubmit", runs=1),
    Walk("ask fail go accept redact", runs=1),
    Walk("ask reply go bar"),
    Walk("ask abort redact"),
    Walk("ask_nobody abort"),
    Walk("ask reply abort"),
    Walk("ask restore unhold"),
    Walk("ask_nobody restore unhold"),
    Walk("ask reply expire redrive go accept"),
    Walk("ask reply expire redrive go bar"),  # another reason than before
    Walk("ask reply go accept bounce"),
    Walk("ask reply go accept go bar redrive go accept", parts=2),
    Walk("ask reply go hang not_sent abort late", hangs=True),
    Walk("ask reply go hang expire late", kind="blind", hangs=True),
)

_NO_CODE: Final = "the kernel has no code for it yet"
_SETTLED: Final = (
    "a receipt for a part that is settled brings nothing new, and is not logged"
)
_AT_ONCE: Final = "what is surely unsent is `aborted` in the commit of the request"
_BEFORE: Final = (
    "nothing of this attempt is on the wire; an older one's receipt is `late_receipt`"
)
_PARKED: Final = "what is parked is for a person: nobody looks it up any more"


def _all(machine: str, event: str, *sources: str, to: str = "") -> frozenset[Edge]:
    """`to`: the next phase; without, the phase stays."""
    known = [e for e in ALL if (e.machine, e.event) == (machine, event)]
    return frozenset(
        e for e in known if e.source in sources and e.target == (to or e.source)
    )


UNTAKEN: Final = MappingProxyType(
    {
        edge: why
        for edges, why in (
            (
                frozenset(e for e in ALL if e.event == "imported"),
                f"{_NO_CODE}: import and bridge",
            ),
            (_all("turn", "joined", "accepted"), f"{_NO_CODE}: merging inbound"),
            (_all("outbox", "late_receipt", *"ADURP", "OK"), _SETTLED),
            (_all("outbox", "abort_requested", *"QR"), _AT_ONCE),
            (_all("turn", "abort_requested", "accepted", "running"), _AT_ONCE),
            (_all("outbox", "part_delivered", "A", to="Q"), _BEFORE),
            (_all("outbox", "delivered", "A", to="OK"), _BEFORE),
            (_all("outbox", "reconciled", "P"), _PARKED),
            (_all("outbox", "reconciled", "P", to="R"), _PARKED),
            (
                _all("outbox", "unknown", "U"),
                "a look-up that fails is `reconciled`; nothing adds doubt to doubt",
            ),
            (
                _all("turn", "amended", "aborted", to="failed"),
                "what was aborted is unsent, and can only turn out delivered",
            ),
        )
        for edge in edges
    }
)
