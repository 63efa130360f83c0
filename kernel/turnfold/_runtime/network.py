"""Which errors of foreign code come from the network or from a platform that is down.
Cuts, timeouts, failed look-ups of names and 5xx are ordinary life: they get one line in
the log, and count as no bug.

Most client libraries raise errors of their own, without an `OSError` in them. The names of
the common ones stand here, since the kernel imports none of these libraries.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from turnfold._runtime.calls import answered, chain

_HTTPX: Final = frozenset(
    {"NetworkError", "TimeoutException", "RemoteProtocolError", "ProxyError"}
)
_NAMES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "httpx": _HTTPX,
        "httpcore": _HTTPX,
        "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
        "websockets": frozenset({"ConnectionClosed"}),
    }
)
# Errors that hold an answer, of `raise_for_status`.
_ANSWERS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "httpx": frozenset({"HTTPStatusError"}),
        "aiohttp": frozenset({"ClientResponseError"}),
    }
)


def is_of_network(error: BaseException) -> bool:
    """Also an error that was raised from one of the network. The context of an error
    does not count: a bug may come up while such an error is handled."""
    causes = chain(error, context=False)
    return any(answered(_tells, found).value is True for found in causes)


def _tells(found: BaseException) -> bool:
    """Reads attributes of foreign code, which may raise."""
    return isinstance(found, OSError) or _is_named(found, _NAMES) or _is_5xx(found)


def _is_named(error: BaseException, names: Mapping[str, frozenset[str]]) -> bool:
    return any(
        one.__name__ in names.get(str(one.__module__).partition(".")[0], ())
        for one in type(error).__mro__
    )


def _is_5xx(error: BaseException) -> bool:
    if not _is_named(error, _ANSWERS):
        return False
    status = getattr(error, "status", None)  # of aiohttp
    status = status or getattr(getattr(error, "response", None), "status_code", None)
    return type(status) is int and status >= 500
