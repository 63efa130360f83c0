"""Keeping a channel's secrets out of logs and of stored failures.

A receiver may send a token back in its refusal, and an error of a client may name a URL
with a token in it. Both end in the log of a message and on the screen of `show`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from turnfold.ports.channel import CannotTell, Rejected, Unknown

_SHORT = 4  # characters: a shorter value would remove words from every text
_SEGMENT = 12  # a shorter segment is a word, such as "webhooks"
_CUT = "[secret]"

T = TypeVar("T")


class Secrets:
    """Values that are cut out of texts: those of `headers`, of credentials, queries and
    long path segments of `urls`, and `others`."""

    def __init__(
        self,
        headers: Mapping[str, str],
        urls: Iterable[str],
        others: Iterable[str] = (),
    ) -> None:
        found = {*others, *_in_headers(headers)}
        for url in urls:
            found.update(_in_url(url))
        known = (value for value in found if len(value) >= _SHORT)
        self._values = sorted(known, key=len, reverse=True)  # longer ones first

    def cut(self, text: str) -> str:
        """The text without the secrets."""
        for value in self._values:
            text = text.replace(value, _CUT)
        return text

    def cut_from(self, result: T) -> T:
        """The result of a call, with its detail cut."""
        match result:
            case Rejected() | Unknown() | CannotTell() if result.detail:
                return attrs.evolve(result, detail=self.cut(result.detail))
            case _:
                return result


def _in_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Whole values, and the credentials after the name of a scheme, as in `Bearer
    TOKEN`."""
    for value in headers.values():
        yield value
        yield from value.split(" ", 1)[1:]


def _in_url(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    secret = [parts.password or "", *(v for _, v in parse_qsl(parts.query))]
    secret += [s for s in parts.path.split("/") if len(s) >= _SEGMENT]
    for value in secret:
        yield from (value, unquote(value))


# --- the log of the client library ---


_OURS: ContextVar[bool] = ContextVar("turnfold_request", default=False)


class _NotOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        del record
        return not _OURS.get()


_FILTER = _NotOurs()


def quiet(name: str) -> None:
    """Make the logger `name` drop lines inside of `unlogged`. May be repeated."""
    logging.getLogger(name).addFilter(_FILTER)


@contextmanager
def unlogged() -> Iterator[None]:
    """Log no lines of the library in this block: the library logs each URL."""
    token = _OURS.set(True)
    try:
        yield
    finally:
        _OURS.reset(token)
