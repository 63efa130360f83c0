"""The site of a dashboard: its store, its access rules, and its memory between two
requests: sessions and previews. It keeps no files."""

import secrets
import threading
import time
from collections.abc import Callable
from hmac import compare_digest
from ipaddress import ip_address
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from attrs import define, field, frozen

from turnfold_cli import USAGE
from turnfold_cli.common import RefusedError

T = TypeVar("T")
LEAST_TOKEN = 16  # characters
_SESSION_S = 12 * 3600
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  refused without --url
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@frozen
class Session:
    """A logged-in person or program. `csrf`: a secret in each of its forms. `bearer`:
    the token came with the request itself, which no browser does on its own."""

    name: str
    key: str = field(factory=lambda: secrets.token_urlsafe(32), repr=False)
    csrf: str = field(factory=lambda: secrets.token_urlsafe(32), repr=False)
    bearer: bool = False


@define
class Kept(Generic[T]):
    """A few values by name, for a while; the oldest go first."""

    seconds: float
    most: int
    clock: Callable[[], float] = time.monotonic
    _values: dict[str, tuple[float, T]] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock, repr=False)

    def put(self, name: str, value: T) -> None:
        with self._lock:
            self._values.pop(name, None)
            self._values[name] = self.clock() + self.seconds, value
            while len(self._values) > self.most:
                del self._values[next(iter(self._values))]

    def get(self, name: str) -> T | None:
        with self._lock:
            ends, value = self._values.get(name, (0.0, None))
            return value if ends > self.clock() else None

    def take(self, name: str) -> T | None:
        """The value, once."""
        found = self.get(name)
        with self._lock:
            return found if self._values.pop(name, None) else None


@define
class Site:
    """`token`: None if every client of the port may read. `url`: the address that
    people type, if it differs from the listening address."""

    address: str = field(repr=False)  # may hold a password
    shown: str = ""  # the address for people
    token: str | None = field(default=None, repr=False)
    acts: bool = False
    url: str | None = None
    port: int = 0
    host: str = "127.0.0.1"
    made: bool = False  # the token is only on the screen
    sessions: Kept[Session] = field(factory=lambda: Kept(_SESSION_S, 200))
    stopping: threading.Event = field(factory=threading.Event)

    @property
    def prefix(self) -> str:
        """The path under which a proxy shows the pages."""
        return "" if self.url is None else urlsplit(self.url).path.rstrip("/")

    @property
    def local(self) -> bool:
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        return self.url is not None and self.url.startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the cookie, with the port: cookies ignore ports, and one machine
        may have two dashboards."""
        return f"turnfold-{self.port}"

    def hosts(self) -> set[str]:
        """The values of `Host` for this site."""
        names = {*_LOOPBACK} if self.local else {_bracketed(self.host)}
        found = {f"{name}:{self.port}" for name in names}
        if self.url is not None:
            found.add(_netloc(self.url))
        return found

    # --- who is it? ---

    def session(self, cookie: str | None, bearer: str | None) -> Session | None:
        if bearer is not None and self.knows(bearer):
            return Session(name="", key="bearer", bearer=True)
        return self.sessions.get(cookie) if cookie else None

    def knows(self, token: str) -> bool:
        """Is this the token? A wrong one takes the same time."""
        if self.token is None:
            return False
        given = token.encode("utf-8", "replace")
        return compare_digest(given, self.token.encode("utf-8", "replace"))

    def log_in(self, name: str) -> Session:
        session = Session(name=name)
        self.sessions.put(session.key, session)
        return session


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _netloc(url: str) -> str:
    """Host and port in a browser's form: the port only if it is not the default."""
    parts = urlsplit(url)
    usual = ":443" if parts.scheme == "https" else ":80"
    return parts.netloc.lower().removesuffix(usual)


def check(site: Site) -> None:
    """Raises RefusedError, with the next step, for a site that anybody could enter."""
    if site.token is not None and len(site.token) < LEAST_TOKEN:
        text = f"the token has fewer than {LEAST_TOKEN} characters; make one: "
        raise RefusedError(f"{text}openssl rand -hex 32", USAGE)
    if site.token is None and not site.local:
        text = (
            f"{site.host} can be reached from elsewhere, and any client could "
            "read every message: give --token-file FILE (openssl rand -hex 32 > FILE), "
            "or listen on 127.0.0.1"
        )
        raise RefusedError(text, USAGE)
    if site.url is None and site.host in _EVERYWHERE:
        text = f"{site.host} is no address to type: give --url http://NAME:PORT"
        raise RefusedError(text, USAGE)
    if site.url is not None and urlsplit(site.url).scheme not in ("http", "https"):
        text = f"--url: {site.url!r:.80} is no address like https://ops.example.org"
        raise RefusedError(text, USAGE)
