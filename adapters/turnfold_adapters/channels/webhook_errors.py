"""The proof "not sent" in an exception of a webhook request. Only one thing counts as
"not sent": a failure of the connect phase, before a byte of the request could leave.

A library above httpx may wrap that failure, so the *cause* chain (`raise .. from ..`)
is walked for the proof. The implicit context is not proof: a client that catches a
failed connect and then tries again raises its second error in the context of the first,
and that second request may have arrived. So a context can only remove the proof, if it
has an exception from after the connect.
"""

import socket
from collections.abc import Iterator
from functools import cache

from turnfold.enums import FailureClass
from turnfold.ports.channel import Outcome, Rejected, Unknown

Types = tuple[type[BaseException], ...]


@cache
def _types() -> tuple[Types, Types, Types]:
    """(connect phase, after it, any of the client), of httpx and the httpcore in it."""
    import httpcore  # noqa: PLC0415  an extra: this module imports without it
    import httpx  # noqa: PLC0415  as above

    connect: Types = (
        *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout),
        *(httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout),
        # Raised while the tunnel through the proxy is set up, before our request.
        *(httpx.ProxyError, httpcore.ProxyError),
        *(ConnectionRefusedError, socket.gaierror),
    )
    after: Types = (
        *(httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError),
        *(httpx.WriteError, httpx.WriteTimeout, httpx.CloseError),
        *(httpcore.ReadError, httpcore.ReadTimeout, httpcore.RemoteProtocolError),
        *(httpcore.WriteError, httpcore.WriteTimeout),
    )
    return connect, after, (httpx.HTTPError, httpx.StreamError)


def classify(exception: BaseException) -> Outcome | None:
    """The outcome for an exception of a send.

    Rejected(NOT_CONNECTED) only for proven connect-phase failures: an outage spends no
    budget. Unknown for any other error of a client or the network; None for errors of
    another origin, such as a cancellation or a programming error.
    """
    if not isinstance(exception, Exception):
        return None
    connect, after, client = _types()
    seen = list(_graph(exception))
    detail = f"{type(exception).__name__}: {exception}".rstrip(": ")
    if any(isinstance(e, after) for e in seen):
        return Unknown(cause="no_answer", detail=detail)
    if _proves(exception, connect):
        return Rejected(failure=FailureClass.NOT_CONNECTED, detail=detail)
    if any(isinstance(e, TimeoutError) for e in seen):
        return Unknown(cause="deadline", detail=detail)
    if any(isinstance(e, (*client, OSError)) for e in seen):
        return Unknown(cause="no_answer", detail=detail)
    return None


def _proves(exception: BaseException | None, connect: Types) -> bool:
    """Do the causes prove "not sent"? In a group, every member has to."""
    seen: set[int] = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        if isinstance(exception, connect):
            return True
        if isinstance(exception, BaseExceptionGroup):
            return all(_proves(member, connect) for member in exception.exceptions)
        exception = exception.__cause__
    return False


def _graph(exception: BaseException) -> Iterator[BaseException]:
    """All exceptions reachable by cause, context and group membership, once each."""
    todo: list[BaseException | None] = [exception]
    seen: set[int] = set()
    while todo:
        found = todo.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        todo += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            todo += found.exceptions
