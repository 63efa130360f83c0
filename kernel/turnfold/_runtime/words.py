"""Calling the embedder's functions for the words of notices. They are foreign code."""

from turnfold._log.bodies import pack
from turnfold._runtime.calls import answered, report
from turnfold.messages import Native, Text
from turnfold.notices import Notice, WordsFunction


class Wording:
    """Calls functions for words. If one fails, that is a bug of foreign code, and the
    default words are used."""

    def __init__(self) -> None:
        self.bugs = 0

    def ask(self, function: WordsFunction, notice: Notice) -> Text | Native | None:
        """The payload of a notice; None for no notice. Never raises."""
        end = answered(_payload_of, function, notice)
        if end.error is None:
            said: Text | Native | None = end.value
            return said
        self.bugs += 1
        report(f"the words for the notice {notice.cause}", end.error)
        return Text(notice.text)


def _payload_of(function: WordsFunction, notice: Notice) -> Text | Native | None:
    end = answered(function, notice)
    if end.error is not None:
        raise end.error
    if end.value is None or end.value == "":
        return None
    said = Text(end.value) if isinstance(end.value, str) else end.value
    if not isinstance(said, Text | Native):
        problem = f"expected text, Text, Native or None, got {said!r:.160}"
        raise TypeError(problem)
    pack(said)  # raises for words that cannot be stored
    return said
