"""The configurations that are searched, and those that must break when one thing is dropped.

A guard can be pointless in one configuration and vital in the next, so the matrix goes
over delivery classes, policies, parts, lanes, turns and kinds of trouble.
"""

from dataclasses import fields, replace
from typing import Final

from turnfold_model.protocol_model.words import Assumptions, Config

_CLASSES: Final = [
    ("keyed", "hold"),
    ("lookup", "hold"),
    ("blind", "hold"),
    ("blind", "resend"),
    ("blind", "drop"),
]


def _named(cls: str, policy: str, tail: str) -> str:
    return f"{cls}-{tail}" if policy == "hold" else f"{cls}-{policy}-{tail}"


def _alone() -> list[Config]:
    """One entry, every class and policy, much trouble."""
    return [
        Config(
            name=_named(cls, policy, "alone" + ("-prepared" if prepare else "")),
            cls=cls,
            policy=policy,
            parts=2,
            prepare=prepare,
            gates=True,
            hung=cls == "lookup",
            crashes=2,
            faults=2,
            hands=2,
            pauses=1,
        )
        for cls, policy in _CLASSES
        for prepare in (False, True)
    ]


def _lanes() -> list[Config]:
    """Two entries, in one lane or in two."""
    return [
        Config(
            name=_named(cls, policy, "one-lane" if one_lane else "two-lanes"),
            cls=cls,
            policy=policy,
            columns=2,
            one_lane=one_lane,
            gates=True,
            crashes=1,
            faults=2 if one_lane else 1,
            hands=1,
        )
        for cls, policy in _CLASSES
        for one_lane in (True, False)
    ]


def _turns() -> list[Config]:
    """Turns from the inbound message to the end, alone and two in a lane."""
    one = [
        Config(
            name=_named(cls, policy, "turn"),
            cls=cls,
            policy=policy,
            turns=True,
            parts=2,
            crashes=2,
            faults=2,
            hands=2,
        )
        for cls, policy in _CLASSES
    ]
    two = [
        Config(
            name=f"{cls}-{'superseded' if supersede else 'two-turns'}",
            cls=cls,
            turns=True,
            columns=2,
            supersede=supersede,
            crashes=1,
            faults=1,
            hands=1,
            pauses=1,
        )
        for cls in ("keyed", "lookup", "blind")
        for supersede in (False, True)
    ]
    return one + two


def _redriven() -> list[Config]:
    """An answer that is sent again, stopped, and sent again."""
    return [
        Config(
            name=f"{cls}-redriven", cls=cls, turns=True, crashes=1, faults=3, hands=4
        )
        for cls in ("keyed", "blind")
    ]


def _deep() -> list[Config]:
    """Corners that need depth: three parts, ageing keys, an owner that is stopped."""
    return [
        Config(name="keyed-three-parts", parts=3, crashes=2, faults=3, hands=1),
        Config(
            name="lookup-three-parts",
            cls="lookup",
            parts=3,
            hung=True,
            crashes=2,
            faults=3,
            hands=1,
        ),
        Config(name="keyed-ageing", ages=True, parts=2, crashes=2, faults=3, hands=2),
        Config(
            name="keyed-ageing-lanes",
            ages=True,
            columns=2,
            crashes=1,
            faults=2,
            hands=1,
        ),
        Config(
            name="lookup-turns-lanes",
            cls="lookup",
            turns=True,
            columns=2,
            one_lane=False,
            parts=2,
            crashes=1,
            faults=1,
        ),
    ]


def _hosts() -> list[Config]:
    """Across hosts a living owner can lose its lease: safe for these two classes."""
    return [
        Config(
            name="keyed-leases",
            parts=2,
            prepare=True,
            hung=True,
            crashes=1,
            faults=2,
            pauses=2,
            assume=Assumptions(lock=False),
        ),
        Config(
            name="blind-leases",
            cls="blind",
            parts=2,
            prepare=True,
            crashes=1,
            faults=2,
            pauses=2,
            assume=Assumptions(lock=False),
        ),
    ]


def _editable() -> list[Config]:
    """Placeholders, edits and live replies."""
    return [
        Config(
            name="editable-alone",
            cls="editable",
            parts=2,
            gates=True,
            crashes=1,
            faults=2,
            hands=1,
        ),
        Config(
            name="editable-hung",
            cls="editable",
            hung=True,
            budget=3,
            crashes=2,
            faults=2,
            hands=1,
        ),
        Config(
            name="editable-lanes",
            cls="editable",
            columns=2,
            gates=True,
            crashes=1,
            faults=1,
            hands=1,
        ),
        Config(name="editable-turn", cls="editable", turns=True, crashes=2, faults=2),
        Config(
            name="live-alone",
            cls="editable",
            live=True,
            hung=True,
            crashes=2,
            faults=2,
            hands=1,
        ),
        Config(
            name="live-lanes", cls="editable", live=True, columns=2, crashes=1, faults=1
        ),
    ]


def _second_class() -> list[Config]:
    """A key for a window, and edits after it."""
    return [
        Config(
            name="keyed-editable-alone",
            cls="keyed-editable",
            ages=True,
            parts=2,
            crashes=1,
            faults=2,
            hands=1,
        )
    ]


MATRIX: Final = [
    *(*_alone(), *_lanes(), *_turns(), *_redriven(), *_deep(), *_hosts()),
    *_editable(),
    *_second_class(),
]

# For each assumption the smallest world in which it is needed.
_NEEDED_IN: Final = {
    "fsync": Config(name="fsync", cls="blind"),
    "key": Config(name="key"),
    "clock": Config(name="clock", ages=True, crashes=2),
    "settle": Config(name="settle", cls="lookup"),
    "hung": Config(name="hung", cls="lookup", hung=True),
    "lock": Config(name="lock", cls="lookup", pauses=1),
    "skew": Config(name="skew", cls="lookup"),
    "prompt": Config(name="prompt", ages=True, pauses=1),
    "quiet": Config(name="quiet", cls="editable", live=True),
}

# For each guard of the protocol a small world in which it is needed.
_GUARDED: Final = {
    "write_ahead": Config(name=""),
    "doubt": Config(name="", faults=2),
    "honesty": Config(name="", cls="blind", hands=1),
    "age": Config(name="", cls="blind", hands=1),
    "abort": Config(name="", hands=1),
    "owed": Config(name="", turns=True),
    "parts": Config(name="", parts=2),
    "one_commit": Config(name="", turns=True),
    "timeout": Config(name="", cls="blind"),
    "proof": Config(name="", cls="blind"),
    "orphan": Config(name="", cls="blind"),
    "lane": Config(name="", columns=2),
    "blind": Config(name="", cls="blind"),
    "consent": Config(name="", cls="blind", policy="drop", hands=1),
    "stale_run": Config(name="", turns=True, hands=1),
    "recovery": Config(name="", prepare=True),
    "step": Config(name="", cls="lookup", faults=2),
    "suspend": Config(name="", ages=True),
    "edit": Config(name="", cls="editable"),
    "handle": Config(name="", cls="editable", hung=True, faults=2, budget=3),
    "remade": Config(name="", cls="editable", faults=2, budget=3),
    "seal": Config(name="", cls="editable", live=True),
    "reopen": Config(name="", turns=True, hands=1),
    "beside": Config(name="", cls="keyed-editable", ages=True, faults=2),
}


def unguarded() -> list[Config]:
    """One world per guard, without it: an invariant must break."""
    return [
        replace(config, name=f"unguarded-{guard}", without=guard)
        for guard, config in _GUARDED.items()
    ]


def guarded() -> list[Config]:
    """The same worlds with their guards in place."""
    return [
        replace(config, name=f"guarded-{guard}") for guard, config in _GUARDED.items()
    ]


def kept() -> list[Config]:
    """The small worlds of `dropped`, with every assumption in place: nothing breaks."""
    return list(_NEEDED_IN.values())


def dropped() -> list[Config]:
    """One world per assumption, without it: an invariant must break."""
    return [
        replace(
            _NEEDED_IN[item.name],
            name=f"without-{item.name}",
            assume=Assumptions(**{item.name: False}),
        )
        for item in fields(Assumptions)
    ]
