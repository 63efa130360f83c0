"""The walks that take the kernel over every edge of its machines, and the edges left over.

`WALKS` is generated where the model gives a pattern: the route to each phase, times
what may happen there. The rest is written by hand. `UNTAKEN` says of each remaining
edge why the kernel never takes it; other gateways may.
"""

from itertools import product
from types import MappingProxyType
from typing import Final

from attrs import evolve

from turnfold_model.edge_walks.edges import ALL, Edge
from turnfold_model.edge_walks.stage import Walk

# How an entry gets into each phase on a keyed channel, and stays there.
_TO: Final = {
    "queued": Walk("queue"),
    "attempted": Walk("queue go", prepares=True),
    "dispatched": Walk("queue go"),
    "in_doubt": Walk("queue go lose"),
    "parked": Walk("queue go lose", kind="blind"),
    "retryable": Walk("queue go refuse"),
    "delivered": Walk("queue go accept"),
    "failed": Walk("queue expire"),
    "aborted": Walk("queue abort"),
}
# The same with a first call that still hangs.
_LATE: Final = {
    "queued": Walk("queue go hang not_sent go limit"),
    "attempted": Walk("queue go dispatch hang go", prepares=True),
    "dispatched": Walk("queue go hang go"),
    "in_doubt": Walk("queue go hang"),
    "parked": Walk("queue go hang", kind="blind"),
    "retryable": Walk("queue go hang not_sent"),
    "failed": Walk("queue go hang give_up"),
    "aborted": Walk("queue go hang not_sent abort"),
}
# These may happen in these phases after any history.
_THERE: Final = {
    "queued": ("go", "expire", "abort", "reschedule", "restore"),
    "attempted": (
        "dispatch",
        "refuse",
        "limit",
        "bar",
        "shun",
        "abort",
        "abort crash",
        "crash",
    ),
    "dispatched": (
        "accept",
        "refuse",
        "limit",
        "bar",
        "shun",
        "lose",
        "abort",
        "crash",
    ),
    "in_doubt": (
        "go",
        "delivered",
        "not_sent",
        "resend",
        "expire",
        "abort",
        "reschedule",
    ),
    "parked": ("delivered", "not_sent", "resend", "give_up", "abort", "expire"),
    "retryable": ("go", "expire", "abort", "reschedule", "restore"),
    "delivered": ("bounce", "redact"),
    "failed": ("redrive", "acknowledge", "redact"),
    "aborted": ("redact",),
}


def _on(walk: Walk, words: str, parts: int = 1, *, hangs: bool = False) -> Walk:
    return evolve(walk, words=f"{walk.words} {words}", parts=parts, hangs=hangs)


def _two_lost(words: str, kind: str = "keyed", *, prepares: bool = False) -> Walk:
    """Two parts of a store that was restored, and their fates."""
    hangs = "late" in words
    return Walk(f"queue restore {words}", kind, parts=2, prepares=prepares, hangs=hangs)


def _half(words: str, kind: str = "keyed") -> Walk:
    """The first of two parts is accepted; it bounces after the second has its outcome."""
    return Walk(f"queue go accept {words} bounce", kind, parts=2)


def _bounced_then_late(words: str, kind: str = "keyed") -> Walk:
    """The first of two parts bounced; a receipt for the second comes late."""
    middle = f"{words} " if words else ""
    return Walk(
        f"queue go accept bounce go hang {middle}late", kind, parts=2, hangs=True
    )


def _edited(words: str, *, prepares: bool = False) -> Walk:
    """One part of class editable."""
    hangs = "late" in words.split()
    return Walk(f"queue {words}", "editable", prepares=prepares, hangs=hangs)


def _grown(words: str, after: str = "") -> Walk:
    """A live reply. `words` come before its seal."""
    return Walk(f"ask grow {words} seal {after}", "editable", hangs="late" in after)


# The first placeholder was given up and made again; its answer comes in this phase.
_OF_TWO_PLACEHOLDERS: Final = (
    "go hang wait go accept",
    "go hang wait go accept go",
    "go hang wait go accept go lose",
    "go hang wait go accept go refuse",
    "go hang wait go accept go accept",
    "go hang wait go accept go shun",
    "go hang wait go accept expire",
    "go hang wait go accept abort",
    "go hang wait go lose",
    "go hang wait go lose give_up",
)

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
    # a deferral leaves an older doubt as it was
    Walk("queue go lose go limit"),
    Walk("queue go dispatch lose go limit", prepares=True),
    # a part of several
    Walk("queue go accept go accept", parts=2),
    Walk("queue go lose delivered", parts=2),
    Walk("queue go lose delivered", kind="blind", parts=2),
    # a part that is refused; the others go
    Walk("queue go bar go accept", parts=2),
    Walk("queue go bar go bar", parts=2),
    Walk("queue go bar go accept redrive go accept", parts=2),
    Walk("queue go undress go accept"),
    Walk("queue go lose go undress go accept"),
    # a look-up
    *(Walk(f"queue go lose go {said}", "lookup") for said in ("find", "miss", "shrug")),
    Walk("queue go lose go find", "lookup", parts=2),
    # two parts in doubt: the answer for one leaves the other
    *(_two_lost(words) for words in ("delivered", "not_sent", "resend go accept")),
    *(_two_lost(f"resend go lose {word}") for word in ("delivered", "not_sent")),
    _two_lost("resend go lose go miss", "lookup"),
    *(_two_lost(f"resend go hang{words} late") for words in ("", " go")),
    _two_lost("resend go dispatch hang go late", prepares=True),
    Walk("queue go lose give_up redrive"),
    # a part that bounced: the rest goes on, and the entry fails in the end
    *(
        _half(word)
        for word in ("go", "go accept", "go lose", "go refuse", "go limit", "go bar")
    ),
    _half("go refuse abort"),
    _half("go lose", kind="blind"),
    Walk("queue go dispatch accept go bounce", parts=2, prepares=True),
    *(
        _bounced_then_late(words)
        for words in ("", "not_sent", "not_sent go limit", "go")
    ),
    _bounced_then_late("", kind="blind"),
    Walk(
        "queue go dispatch accept bounce go dispatch hang go late",
        parts=2,
        prepares=True,
        hangs=True,
    ),
    # a gate that a person closes and opens
    Walk("queue pause resume go accept"),
    # from the queue of another gateway
    *(Walk(f"bring {word}") for word in ("delivered", "give_up redrive go accept")),
    *(Walk(f"bring {word} go accept", parts=2) for word in ("not_sent", "resend")),
    Walk("bring not_sent restore"),
    # a placeholder, its edits, and the end of the message
    *(_edited(words) for words in ("go accept go accept", "go lose go lose")),
    *(
        _edited(f"go accept go {words}")
        for words in ("lose go accept", "gone go accept go accept", "shun", "abort")
    ),
    *(_edited(f"go accept {words}") for words in ("expire", "abort")),
    _edited("go limit"),
    _edited("go lose abort wait"),
    _edited("go accept go hang late"),
    _edited("go accept" + 8 * " wait go refuse"),
    *(_edited(f"{words} late") for words in _OF_TWO_PLACEHOLDERS),
    *(
        _edited(f"go hang {words}")
        for words in ("late", "late go accept", "wait go late")
    ),
    _edited("go hang wait go accept go late", prepares=True),
    _two_lost("resend go accept", "editable"),
    # a live reply, sealed wherever its placeholder stands
    *(_grown(words) for words in ("", "go", "go lose", "go lose go lose", "go refuse")),
    _grown("go accept", "go accept"),
    _grown("go hang wait go lose", "late"),
    Walk("ask grow go accept stop", "editable"),
    Walk("ask grow go accept abort", "editable"),
    Walk("ask grow go accept crash grow seal go accept", "editable"),
    # lanes
    Walk("remind"),
    Walk("queue go refuse", yields=True),
    # turns
    Walk("ask step reply go accept stop redact"),
    Walk("ask silent stop"),
    Walk("ask leave_open answer go accept"),
    Walk("ask fail run_again reply"),
    Walk("ask shut"),
    Walk("ask fail", runs=1),
    Walk("ask block go accept shut"),  # somebody has seen a part: it is not said again
    Walk("ask fail resubmit", runs=1),
    Walk("unreadable"),
    Walk("ask fail go accept redact", runs=1),
    Walk("ask reply go bar"),
    Walk("ask abort redact"),
    Walk("ask_nobody abort"),
    Walk("ask_nobody join"),
    Walk("ask reply abort"),
    Walk("ask restore unhold"),
    # alone in three deaths: it waits for a person
    Walk("ask crash crash run_again crash"),
    *(
        Walk(f"ask crash crash run_again crash unhold {words}", runs=1)
        for words in ("abort", "run_again stop")
    ),
    Walk("ask_nobody restore unhold"),
    Walk("ask reply expire redrive go accept"),
    Walk("ask reply expire redrive go bar"),
    Walk("ask reply go accept go hang expire late", "blind", parts=2, hangs=True),
    Walk("ask reply go accept bounce"),
    Walk("ask reply go accept go bar go accept redrive go accept", parts=2),
    Walk("ask reply go hang not_sent abort late", hangs=True),
    Walk("ask reply go hang expire late", kind="blind", hangs=True),
)

_SETTLED: Final = (
    "a receipt for a part that is settled brings nothing new, and is not logged"
)
_AT_ONCE: Final = "what is surely unsent is `aborted` in the commit of the request"
_BEFORE: Final = (
    "nothing of this attempt is on the wire; an older one's receipt is `late_receipt`"
)
_BY_ATTEMPT: Final = "the platform refuses in answer to an attempt"
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
            (_all("outbox", "part_refused", "queued"), _BY_ATTEMPT),
            (_all("outbox", "amended_part", "queued"), _BY_ATTEMPT),
            (_all("outbox", "part_refused", "retryable", to="queued"), _BY_ATTEMPT),
            (_all("outbox", "tried", "parked"), _PARKED),
            (
                _all("turn", "amended", "aborted", to="answered"),
                "a turn with a dead letter for a final is not aborted, but failed",
            ),
            (
                _all("turn", "amended", "failed"),
                "only a redrive changes the word of a failure: the turn is answered again",
            ),
            (
                _all(
                    "outbox",
                    "late_receipt",
                    *("attempted", "dispatched", "parked", "delivered"),
                ),
                _SETTLED,
            ),
            (
                _all("outbox", "planned", "attempted"),
                "a live reply is sealed on its placeholder, which nobody prepares",
            ),
            (
                _all("outbox", "placed", "in_doubt", to="parked"),
                "with another part in doubt its placeholder was made again: it is parked",
            ),
            (_all("outbox", "abort_requested", *("queued", "retryable")), _AT_ONCE),
            (_all("turn", "abort_requested", "accepted", "running"), _AT_ONCE),
            (_all("outbox", "part_delivered", "attempted", to="queued"), _BEFORE),
            (_all("outbox", "part_delivered", "attempted", to="parked"), _BEFORE),
            (_all("outbox", "delivered", "attempted", to="delivered"), _BEFORE),
            (_all("outbox", "reconciled", "parked"), _PARKED),
            (_all("outbox", "reconciled", "parked", to="retryable"), _PARKED),
            (
                _all("outbox", "unknown", "in_doubt"),
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
