"""State that is not in memory: a decision asks for it, and is made again."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from turnfold.ports.store import Wanted

T = TypeVar("T")


class NotLoaded(Exception):  # noqa: N818  a request to the journal, not an error
    """A decision asked for state that is not in memory: fetch `wanted`, decide again."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted)
        self.wanted = wanted


def all_of(questions: Iterable[Callable[[], T]]) -> list[T]:
    """The answers to all of these, with one fetch for all that is not in memory."""
    answers: list[T] = []
    missing: list[Wanted] = []
    for question in questions:
        try:
            answers.append(question())
        except NotLoaded as miss:
            missing.append(miss.wanted)
    if missing:
        raise NotLoaded(together(missing))
    return answers


def together(wanted: Sequence[Wanted]) -> Wanted:
    """One question to the store for all of these."""
    if len(wanted) == 1:
        return wanted[0]
    none: frozenset[Any] = frozenset()
    return Wanted(
        streams=none.union(*[w.streams for w in wanted]),
        summaries=none.union(*[w.summaries for w in wanted]),
        keys=none.union(*[w.keys for w in wanted]),
        bodies=none.union(*[w.bodies for w in wanted]),
        children=none.union(*[w.children for w in wanted]),
        answers=none.union(*[w.answers for w in wanted]),
    )
