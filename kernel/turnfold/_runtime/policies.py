"""The arguments of `attach` for one account: the policy for a part with an unknown
outcome (`on_unknown`), and the time that an entry may wait.

There is no good silent default. So a caller of `attach` must name the policy, unless
every kind of part has a class that settles an unknown outcome.
"""

from collections.abc import Container, Mapping
from typing import TypeAlias

from turnfold.enums import BlindPolicy, DeliveryClass
from turnfold.errors import InvalidInputError
from turnfold.messages import check_enum, check_id, check_ms
from turnfold.ports.channel import KINDS, Capabilities, PartClass
from turnfold.settings import Settings

OnUnknown: TypeAlias = BlindPolicy | str | Mapping[str, BlindPolicy | str]
Policies: TypeAlias = Mapping[str, BlindPolicy]

_MEANINGS = {
    BlindPolicy.HOLD: "park the part until a person says what became of it",
    BlindPolicy.RESEND_MARKED: "send it once more, marked as a possible duplicate",
    BlindPolicy.RESEND: "send it once more; the reader may see it twice",
    BlindPolicy.DROP: "give it up; the reader may never see it",
}


def policies(given: OnUnknown | None, offers: Capabilities) -> Policies:
    """The policy by kind of part, without `hold`: a part without a policy is held.
    Raises InvalidInputError if one is missing, or if the channel cannot follow it."""
    chosen = _chosen(given)
    missing = [k for k in KINDS if k not in chosen and not _answers(offers.of(k))]
    if missing:
        raise InvalidInputError(field="on_unknown", problem=_explained(missing))
    if BlindPolicy.RESEND_MARKED in chosen.values() and not offers.marks:
        raise InvalidInputError(field="on_unknown", problem=NO_MARKS)
    return {k: said for k, said in chosen.items() if said is not BlindPolicy.HOLD}


NO_MARKS = (
    "resend_marked needs a channel that shows `attempt.marked` and declares "
    "Capabilities(marks=True)"
)


def _chosen(given: OnUnknown | None) -> Policies:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(KINDS, check_enum("on_unknown", given, BlindPolicy))
    odd = [kind for kind in given if kind not in KINDS]
    if odd:
        problem = f"{odd[0]!r:.80} is no kind of part: {', '.join(KINDS)}"
        raise InvalidInputError(field="on_unknown", problem=problem)
    return {k: check_enum("on_unknown", said, BlindPolicy) for k, said in given.items()}


def _answers(offer: PartClass) -> bool:
    """Does a class of this kind always settle the outcome, or allow a harmless
    repeat?"""
    keyed = DeliveryClass.KEYED in offer.classes and offer.key_window_ms is None
    asks = {DeliveryClass.LOOKUP, DeliveryClass.EDITABLE} & set(offer.classes)
    return keyed or bool(asks)


def _explained(missing: list[str]) -> str:
    lines = [f"  {policy}: {meaning}" for policy, meaning in _MEANINGS.items()]
    what = ", ".join(missing)
    head = f"say what happens when nobody can tell if a part ({what}) arrived:"
    return "\n".join([head, *lines])


def age_limit(own: int | None, settings: Settings) -> int | None:
    """How long an entry of an account may wait. `own`: the argument of `attach`."""
    limit = settings.max_entry_age_ms
    return limit if own is None else check_ms("max_entry_age_ms", own, least=1)


def check_place(there: Container[tuple[str, str]], name: str, account: str) -> None:
    """Raises InvalidInputError unless a channel can be attached there."""
    name, account = check_id("name", name), check_id("account", account)
    if (name, account) in there:
        problem = (
            f"{name}/{account} is attached already, and stays attached: swap the client "
            "inside of that channel, between disconnected() and connected()"
        )
        raise InvalidInputError(field="name", problem=problem)
