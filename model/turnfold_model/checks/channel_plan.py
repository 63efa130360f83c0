"""Checks of a channel before and beside the wire: its methods, its plan, its outcomes
for exceptions."""

import asyncio
import inspect
from collections.abc import Iterator

from turnfold._decide.plan import MEASURES
from turnfold._runtime.channel import AttachedChannel
from turnfold.messages import Text
from turnfold.ports.channel import Accepted, Rejected
from turnfold_model.checks.channel_kit import Bench, NotApplicableError, same, true
from turnfold_model.checks.store_kit import checks_in


async def it_can_be_attached_and_declares_the_same_each_time(bench: Bench) -> None:
    one, other = bench.desk(), bench.desk()
    same(other.capabilities, one.capabilities, "capabilities of another instance")
    for name in ("aclose", "prepare", "reconcile"):
        method = getattr(one.channel, name, None)
        fit = method is None or inspect.iscoroutinefunction(method)
        true(fit, f"{name}() must be an `async def` method")


async def a_plan_is_the_same_each_time(bench: Bench) -> None:
    one, other = bench.desk(), bench.desk()
    for payload in [*bench.payloads(one), Text(_long(_limit(one)))]:
        first = bench.parts(one, payload, entry="entry:kit")
        for again in (one, other):
            made = bench.parts(again, payload, entry="entry:kit")
            same(made, first, f"the plan of {payload!r:.60}")
        keys = {part.key for part in first}
        same(len(keys), len(first), "different keys in a plan")


async def no_text_of_a_plan_is_longer_than_the_limit(bench: Bench) -> None:
    desk = bench.desk()
    limit, measure = desk.capabilities.limit, MEASURES[desk.capabilities.unit]
    if limit is None:
        raise NotApplicableError("the channel declares no limit")
    for text in (_long(limit), "x" * (3 * limit), "字🎈" * limit):
        made = [part.payload for part in bench.parts(desk, Text(text))]
        sizes = [measure(piece.text) for piece in made if isinstance(piece, Text)]
        true(max(sizes) <= limit, f"a part of {max(sizes)} where {limit} is the limit")
        kept = "".join(piece.text for piece in made if isinstance(piece, Text))
        same(_visible(kept), _visible(text), "what the parts say together")


async def a_text_as_long_as_the_limit_is_accepted(bench: Bench) -> None:
    desk = bench.desk()
    limit, unit = desk.capabilities.limit, desk.capabilities.unit
    if limit is None:
        raise NotApplicableError("the channel declares no limit")
    mark = bench.text().text
    for filling in ("x", '"', "字"):
        size = MEASURES[unit](filling)
        fits = mark + filling * ((limit - MEASURES[unit](mark)) // size)
        part = bench.part(desk, Text(fits))
        outcome = await bench.deliver(desk, part)
        true(isinstance(outcome, Accepted), f"{limit} {unit} came to {outcome!r:.300}")


# --- classify ---


class _WrapperError(Exception):
    """The error that a client library puts around an error of the network."""


async def no_error_after_the_connect_is_called_unsent(bench: Bench) -> None:
    """A false proof is the dangerous mistake; `Unknown` is always allowed."""
    classify = getattr(bench.desk().channel, "classify", None)
    if classify is None:
        raise NotApplicableError("the channel has no classify()")
    for error in _later_errors():
        meant = classify(error)
        honest = not isinstance(meant, Rejected | Accepted)
        true(honest, f"classify({_chain(error)}) is {meant!r:.200}")


def _later_errors() -> Iterator[BaseException]:
    lost: list[BaseException] = [
        ConnectionResetError(104, "reset by peer"),
        ConnectionAbortedError(103, "aborted"),
        BrokenPipeError(32, "broken pipe"),
        TimeoutError("no answer"),
        OSError("odd"),
        EOFError("the answer ends"),
        asyncio.IncompleteReadError(b"HTTP/1.1 200", None),
        asyncio.CancelledError(),
        RuntimeError("odd"),
    ]
    for error in lost:
        yield error
        yield _caused(_WrapperError("wrapped"), error)
        # First refused, then tried again by the client and lost: the message may have
        # arrived.
        refused = ConnectionRefusedError(111, "refused")
        yield _in_context(_caused(_WrapperError("second try"), error), refused)
    yield _in_context(_WrapperError("opaque"), ConnectionRefusedError(111, "refused"))
    both = [ConnectionRefusedError(111, "v6"), ConnectionResetError(104, "v4")]
    yield ExceptionGroup("one refused, one lost", both)


def _caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def _in_context(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__context__ = inner
    return outer


def _chain(error: BaseException) -> str:
    inner = error.__cause__ or error.__context__
    return f"{error!r}" + (f" from {_chain(inner)}" if inner is not None else "")


# --- helpers ---


def _limit(desk: AttachedChannel) -> int:
    return desk.capabilities.limit or 1_000


def _long(limit: int) -> str:
    """Words that fill the limit more than twice."""
    words = [f"word{number}" for number in range(limit // 2)]
    return " ".join(words)[: 2 * limit + limit // 2]


def _visible(text: str) -> str:
    return "".join(text.split())


CHECKS = checks_in(globals())
