"""The kernel's own notices to a reader: causes, default words, and words of the
embedder (the setting `notices`)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias, cast

from attrs import frozen

from turnfold.errors import InvalidInputError
from turnfold.messages import Native, Text, is_a, shown, unreadable

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "runs_exhausted": "Something went wrong and there is no answer. "
        "Please try again.",
        "stopped": "This answer was stopped.",
        "superseded": "This answer was stopped for a newer message.",
        "too_old": "This message came too late to be answered. Please send it again.",
        "late": "An answer waited too long to be delivered. Please ask again.",
        "interrupted": "The answer was interrupted and may be incomplete.",
        "undeliverable": "An answer could not be delivered.",
        "incomplete": "{missing} of {parts} parts of the answer could not be delivered.",
    }
)


@frozen(kw_only=True)
class Notice:
    """A notice that is about to be queued. `text`: the default words. `locale`: of the
    message that the turn answers, as its platform said it. `missing` of `parts` parts of
    the answer were not delivered, where that is known."""

    cause: str
    text: str
    channel: str = ""
    account: str = ""
    conversation: str = ""
    locale: str | None = None
    missing: int = 0
    parts: int = 0

    def filled(self, words: str) -> str:
        """The words with the numbers in their places."""
        counted = words.replace("{missing}", str(self.missing))
        return counted.replace("{parts}", str(self.parts))


Said: TypeAlias = str | Text | Native | None
WordsFunction: TypeAlias = Callable[[Notice], Said]
Words: TypeAlias = str | Mapping[str, str] | WordsFunction
Notices: TypeAlias = Mapping[str, Words] | WordsFunction

AskWords: TypeAlias = Callable[[WordsFunction, Notice], Text | Native | None]


def default_words(_: WordsFunction, notice: Notice) -> Text | Native | None:
    """The default words, for decisions outside of a kernel: only a kernel calls foreign
    code."""
    return Text(notice.text)


def words_for(notices: Notices, notice: Notice) -> str | WordsFunction:
    """The words of the setting for a notice; with empty words no notice is sent."""
    if callable(notices):
        return notices
    words = notices.get(notice.cause, "")
    if isinstance(words, Mapping):
        words = _of_locale(words, notice.locale, notice.text)
    return words if callable(words) else notice.filled(words)


def _of_locale(table: Mapping[str, str], locale: str | None, default: str) -> str:
    """The words of a locale, else of its language, else those under "", else the
    default ones."""
    wanted = (locale or "").replace("_", "-").casefold()
    known = {name.replace("_", "-").casefold(): words for name, words in table.items()}
    for name in (wanted, wanted.partition("-")[0], ""):
        if name in known:
            return known[name]
    return default


def copied(notices: Notices) -> Notices:
    """The setting as it is kept, whatever becomes of the caller's mapping. Raises
    InvalidInputError."""
    _check(notices)
    if callable(notices):
        return notices
    return {
        cause: dict(words) if isinstance(words, Mapping) else words
        for cause, words in notices.items()
    }


def _check(notices: object) -> None:
    """Raises InvalidInputError, which names the problem."""
    if callable(notices):
        return
    if not is_a(notices, Mapping):
        problem = f"expected a mapping by cause or a callable, got {shown(notices)}"
        raise InvalidInputError(field="notices", problem=problem)
    try:
        _check_causes(cast("Mapping[str, object]", notices))
    except InvalidInputError:
        raise
    except Exception as exc:  # a mapping of foreign code may raise anything
        raise unreadable("notices", exc) from exc


def _check_causes(notices: Mapping[str, object]) -> None:
    for cause, words in notices.items():
        if cause not in DEFAULTS:
            problem = f"no cause {shown(cause)}; there are: {', '.join(DEFAULTS)}"
            raise InvalidInputError(field="notices", problem=problem)
        if not (callable(words) or _are_words(words)):
            problem = f"{cause}: expected text, texts by locale or a callable"
            raise InvalidInputError(field="notices", problem=problem)


def _are_words(words: object) -> bool:
    if isinstance(words, Mapping):
        pairs = [text for pair in words.items() for text in pair]
        return all(isinstance(text, str) for text in pairs)
    return isinstance(words, str)
