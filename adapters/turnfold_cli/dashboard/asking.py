"""The query of an address, and errors for a page."""

import re
import shlex
from collections.abc import Callable, Sequence

from attrs import field, frozen
from starlette.datastructures import QueryParams

from turnfold.errors import CorruptLogError, NotFoundError, TurnfoldError, UsageError
from turnfold_cli import NO_STORE, USAGE
from turnfold_cli.common import RefusedError, SeveralError
from turnfold_cli.dashboard.looks import link
from turnfold_cli.filters import Wanted

PLACES = ("channel", "account", "conversation")
ENTRIES = ("status", "reason", "kind", *PLACES, "turn", "parked", "dead", "unseen")
TURNS = ("status", "reason", *PLACES, "held")
TIMES = ("since", "until")
VERDICTS = ("delivered", "not_sent", "resend", "give_up")
_FLAGS = ("parked", "dead", "unseen", "held", "accept_duplicate", "turns")
_ALWAYS = ("live", "limit", "before")
READS = (
    "status",
    "stats",
    "list",
    "turns",
    "find",
    "show",
    "gates",
    "worker",
    "channels",
    "inbox",
    "audit",
)
ACTS = (
    "retry",
    "resolve",
    "discard",
    "ack",
    "abort",
    "open",
    "close",
    "unhold",
    "redact",
    "resubmit",
)


@frozen
class Query:
    """The parameters of an address. `known`: the parameters of its page."""

    given: QueryParams
    known: Sequence[str] = field(default=())

    def check(self, *known: str) -> "Query":
        """Raises RefusedError for a parameter that the page does not know."""
        odd = [name for name in self.given if name not in (*known, *_ALWAYS)]
        if odd:
            text = f"no {odd[0]!r:.80}; there are: {', '.join(known) or 'none'}"
            raise RefusedError(text, USAGE)
        return Query(self.given, known)

    def one(self, name: str, default: str | None = None) -> str | None:
        return self.given.get(name, "").strip() or default

    def flag(self, name: str) -> bool:
        return self.one(name) not in (None, "0", "no")

    def number(self, name: str, default: int | None, most: int) -> int | None:
        word = self.one(name)
        if word is None:
            return default
        found = int(word) if re.fullmatch("[0-9]{1,18}", word) else 0
        if not 1 <= found <= most:
            text = f"{name}: {word!r:.40} is no number from 1 to {most}"
            raise RefusedError(text, USAGE)
        return found

    def filters(self) -> dict[str, str]:
        """The set filters, for use in another address."""
        names = (*ENTRIES, *TURNS, *TIMES, "open")
        return {n: value for n in names if (value := self.one(n)) and n in self.known}

    def wanted(self, *, turns: bool) -> Wanted:
        def many(name: str) -> list[str] | None:
            return [word for word in self.given.getlist(name) if word.strip()] or None

        opened = self.one("open")
        return Wanted(
            turns=turns,
            parked=self.flag("parked"),
            dead=self.flag("dead"),
            unseen=self.flag("unseen"),
            held=self.flag("held"),
            status=many("status"),
            reason=many("reason"),
            kind=many("kind"),
            channel=self.one("channel"),
            account=self.one("account"),
            conversation=self.one("conversation"),
            turn=self.one("turn"),
            sender=self.one("sender"),
            since=self.one("since"),
            until=self.one("until"),
            open_=None if opened is None else opened != "no",
        )


# --- commands, as addresses -----------------------------------------------------------


def address_of(command: str, seen: Callable[[str], int | None]) -> str | None:
    """The page with the same effect as a command; None: there is none. `seen`: the
    version of each id on the page."""
    try:
        program, name, *words = shlex.split(command)
    except ValueError:
        return None
    if program != "turnfold" or name not in (*READS, *ACTS):
        return None
    said, ids = _options(words)
    if name in READS:
        first = "place" if name == "find" else "id"
        return link(f"/{name}", {**said, **dict(zip([first], ids, strict=False))})
    if name == "resolve":
        *ids, said["verdict"] = ids or [""]
    query = {"do": name, **said}
    if ids:
        query |= {"id": ids[0], "seen": str(seen(ids[0]) or "")}
    return link("/act", query)


def _options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    said: dict[str, str] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--"):
            others.append(word)
        elif name in ("open", "closed"):
            said["open"] = "yes" if name == "open" else "no"
        else:
            said[name] = "1" if name in _FLAGS else next(rest, "")
    return said, others


# --- errors ---------------------------------------------------------------------------


@frozen
class Trouble:
    status: int
    code: str
    text: str


KNOWN = (RefusedError, SeveralError, TurnfoldError)


def trouble(exc: Exception) -> Trouble:
    """An error of KNOWN in the words of the command line."""
    match exc:
        case SeveralError():
            text = f"{exc.several.wanted!r} fits several"
            return Trouble(400, exc.several.code, text)
        case RefusedError():
            status = 503 if exc.code == NO_STORE else 400
            return Trouble(status, exc.kind, exc.text)
        case NotFoundError():
            return Trouble(404, exc.code, str(exc))
        case CorruptLogError():
            return Trouble(500, exc.code, f"{exc}; see: turnfold audit")
        case UsageError():
            return Trouble(400, exc.code, str(exc))
        case _:
            return Trouble(503, getattr(exc, "code", "store"), str(exc))
