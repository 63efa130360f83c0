"""Every public call with odd arguments: an answer, or one typed error (X20).

Each argument of each public method is replaced by values that no caller should pass, and
every command is called for ids in every state. Nothing but answers and errors of
turnfold may come out, nothing may hang, and the log still keeps every rule.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from tests.odd import ODD, fits

from turnfold import (
    AlreadyRepliedError,
    BlockingKernel,
    Inbound,
    InvalidInputError,
    Kernel,
    NotYetError,
    Settings,
    SourceCursor,
    StaleRunError,
    TurnfoldError,
    TurnHandle,
)
from turnfold.audit import audit_store
from turnfold.enums import FailureClass, Kind, Phase
from turnfold.inspect import Inspect
from turnfold.inspect.places import Place
from turnfold_adapters.stores.memory import MemoryStore
from turnfold_model.testing.gateway import Gateway, entry, inbound, route, spin, until
from turnfold_model.testing.platform import reject, unknown

# Calls that end a life, and those that take a function of the caller, whose errors are
# its own. `append`, `intend` and `preview` are the machinery below the commands.
_LEFT_OUT = {"open", "close", "run", "append", "look", "sent"}
_LEFT_OUT |= {name for name in dir(Kernel) if name.startswith(("intend", "preview"))}
_MS = 300


async def _effect() -> str:
    return "done"


class _Sends:
    async def send(self, part: Any, key: str, attempt: Any) -> None: ...


# What the same name means elsewhere.
_NUMBERS = count()
_OF: dict[str, dict[str, Any]] = {
    "attach": {"channel": _Sends(), "on_unknown": "hold", "name": ""},
    "hold_back": {"place": "t/default"},
    "stats": {"by": ("channel",)},
}


def _base(name: str, ids: dict[str, str]) -> dict[str, Any]:
    """Arguments that a caller could pass."""
    entry_id, turn_id = ids["failed"], ids["turn"]
    stream = turn_id if name in ("resubmit", "unhold", "supersede") else entry_id
    return {
        "stream": stream,
        "entry": entry_id,
        "turn": turn_id,
        "by": "me",
        "why": "",
        "inbound": Inbound("t", conversation="1", message_id="m"),
        "cursor": SourceCursor(channel="t", account="default", value="1"),
        "route": route("odd"),
        "payloads": "x",
        "key": "k" if name == "step" else None,
        "kind": Kind.NOTICE,
        "policy": None,
        "ttl_ms": None,
        "not_before": None,
        "channel": "t",
        "account": "default",
        "accept_duplicate": False,
        "verdict": "delivered",
        "marked": True,
        "due_ms": 10**12,
        "part": 0,
        "detail": "",
        "timeout_ms": _MS,
        "wanted": entry_id,
        "after": 0,
        "want": None,
        "records": (),
        "name": "u",
        "handler": None,
        "resume": False,
        "question": lambda view: None,
        "on_unknown": "hold",
        "reason": "none",
        "effect": _effect,
        "streams": (),
        "place": Place(),
        "text": "t",
        "words": "" if name == "find" else False,
        "zone": None,
        "message_id": "m",
        "conversation": "1",
        "event": "message",
        "lane": "t/default/9/",
        "act": "retry",
        "targets": (),
        "older_ms": 10**12,
        "folder": ".",
        "directory": "no such folder",
    } | _OF.get(name, {})


_IDS = {"channel", "account", "conversation", "message_id", "event", "revision"}
_IDS |= {"reply_to", "thread"}


def _is_id(name: str, value: object) -> bool:
    """Many platforms have integers for ids."""
    return name in _IDS and type(value) is int


def _methods(owner: type) -> Iterator[str]:
    for name in dir(owner):
        found = inspect.getattr_static(owner, name)
        plain = inspect.isfunction(found) and not name.startswith("_")
        if plain and name not in _LEFT_OUT:
            yield name


def _calls(
    owner: Any, name: str, ids: dict[str, str]
) -> Iterator[tuple[str, bool, Callable[[], Any]]]:
    method = getattr(owner, name)
    known = _base(name, ids)
    parameters = inspect.signature(method).parameters.values()
    by_place = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        by_place.add(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    always = {"timeout_ms", *_OF.get(name, {})}
    needed = [p for p in parameters if p.default is p.empty or p.name in always]
    for odd_one in parameters:
        for value in ODD:
            plain, named = [], {}
            for p in {p.name: p for p in (*needed, odd_one)}.values():
                given = value if p is odd_one else known.get(p.name)
                if name == "attach" and p.name == "name" and p is not odd_one:
                    given = f"u{next(_NUMBERS)}"  # each name is taken once
                if p.kind in by_place:
                    plain.append(given)
                elif p.kind is not p.VAR_KEYWORD:
                    named[p.name] = given
            said = f"{name}({odd_one.name}={value!r:.30})"
            typed = fits(value, odd_one.annotation) or _is_id(odd_one.name, value)
            yield said, typed, lambda m=method, a=plain, n=named: m(*a, **n)


async def _outcome(said: str, typed: bool, call: Callable[[], Any]) -> str | None:
    """What is wrong with the end of a call; None if nothing is. `typed`: the argument is
    of its type, so that the call may do it."""
    try:
        async with asyncio.timeout(3):
            answer = call()
            if inspect.isawaitable(answer):
                await answer
            elif hasattr(answer, "__anext__"):
                await anext(answer, None)
    except TurnfoldError as exc:
        text = str(exc)
        name = said.partition("(")[2].partition("=")[0]
        of = exc.field if isinstance(exc, InvalidInputError) else ""
        name = "text" if name == "payloads" and of == "text" else name  # of a Text
        if not typed and not of.startswith(name):
            return f"{said}: {exc!r:.100} in place of its type"
        return (
            None if len(text) < 1_000 else f"{said}: an error of {len(text)} characters"
        )
    except TimeoutError:
        for_ever = said.endswith("(timeout_ms=None)")  # as it was asked to
        return None if for_ever else f"{said}: hangs"
    except BaseException as exc:  # noqa: BLE001  this is what is looked for
        return f"{said}: {type(exc).__name__}: {exc}"[:200]
    return None if typed else f"{said}: taken"


async def _stage(gateway: Gateway) -> tuple[Kernel, dict[str, str]]:
    """Entries and turns in every state that a person may meet."""
    gateway.platform.plays(reject(FailureClass.PERMISSION), unknown())
    kernel = await gateway.start()
    failed = (await kernel.enqueue(route("1"), "x")).entry_id
    await kernel.settled(failed, 2_000)
    parked = (await kernel.enqueue(route("2"), "x")).entry_id
    await until(lambda: entry(kernel, parked).phase is Phase.PARKED)
    sent = (await kernel.enqueue(route("3"), "x")).entry_id
    await kernel.settled(sent, 2_000)
    queued = (await kernel.enqueue(route("4", "not here"), "x")).entry_id
    turn = (await kernel.accept(inbound("1"))).turn_id
    ids = {
        "failed": failed,
        "parked": parked,
        "sent": sent,
        "queued": queued,
        "turn": turn,
    }
    return kernel, ids


_COMMANDS: dict[str, dict[str, Any]] = {
    "abort": {},
    "supersede": {},
    "retry": {"by": "me"},
    "discard": {"by": "me"},
    "let_go": {"by": "me"},
    "redrive": {"by": "me"},
    "acknowledge": {"by": "me"},
    "reschedule": {"by": "me", "due_ms": 10**12},
    "bounced": {"part": 0},
    "resubmit": {"by": "me"},
    "unhold": {"by": "me"},
    "redact": {"by": "me"},
    "resolve": {"by": "me", "verdict": "resend"},
}


async def _judged(gateway: Gateway, kernel: Kernel) -> None:
    report = await audit_store(kernel.store)
    assert report.passed, report.findings[:5]


@pytest.mark.case("X20")
async def test_every_argument_of_a_kernel_has_an_answer_or_one_typed_error(
    lone: Gateway,
) -> None:
    kernel, ids = await _stage(lone)
    wrong = []
    for name in _methods(Kernel):
        wrong += [await _outcome(*one) for one in _calls(kernel, name, ids)]
    assert [w for w in wrong if w] == [], "\n".join(filter(None, wrong))
    await _judged(lone, kernel)


@pytest.mark.case("X20")
async def test_every_argument_of_a_query_has_an_answer_or_one_typed_error(
    lone: Gateway,
) -> None:
    kernel, ids = await _stage(lone)
    wrong = []
    for name in _methods(Inspect):
        wrong += [await _outcome(*one) for one in _calls(kernel.inspect, name, ids)]
    assert [w for w in wrong if w] == [], "\n".join(filter(None, wrong))


@pytest.mark.case("X20", "Z06")
@pytest.mark.parametrize("command", list(_COMMANDS))
async def test_every_command_for_an_id_in_any_state_and_form(
    lone: Gateway, command: str
) -> None:
    """An id goes without its prefix, too. An error speaks of no event of the log."""
    kernel, ids = await _stage(lone)
    forms = [f for name in ids.values() for f in (name, name.partition(":")[2])]
    errors: list[TurnfoldError] = []
    strange = ["gate:t/default", "store", "t/default", "entry:none", "none", "x/y/z"]
    for stream in [*forms, *strange]:
        try:
            async with asyncio.timeout(3):
                await getattr(kernel, command)(stream, **_COMMANDS[command])
        except TurnfoldError as exc:
            errors.append(exc)
    assert [str(e) for e in errors if "outbox." in str(e)] == []
    assert [e for e in errors if "=" not in repr(e)] == []
    await _judged(lone, kernel)


@pytest.mark.case("X20", "V05")
@pytest.mark.parametrize("part", [-1, 1, 1_000_000])
async def test_no_part_bounces_that_does_not_exist(lone: Gateway, part: int) -> None:
    kernel, ids = await _stage(lone)
    for stream in ids.values():
        before = kernel.health()["position"]
        with pytest.raises(TurnfoldError):
            await kernel.bounced(stream, part=part)
        assert kernel.health()["position"] == before


@pytest.mark.case("X20")
@pytest.mark.parametrize(
    "call",
    ["reply", "send", "block", "tool", "live", "silent", "later", "step", "previous"],
)
async def test_every_argument_of_a_handle_has_an_answer_or_one_typed_error(
    lone: Gateway, call: str
) -> None:
    wrong: list[str | None] = []
    ended = asyncio.Event()

    async def odd(turn: TurnHandle) -> None:
        tried = _calls(turn, call, {"failed": "x", "turn": "x"})
        wrong.extend([await _outcome(*one) for one in tried])
        ended.set()

    lone.handler = odd
    lone.settings = Settings(max_runs=1)
    kernel = await lone.start()
    await kernel.accept(inbound("1"))
    async with asyncio.timeout(20):
        await ended.wait()
    assert [w for w in wrong if w] == [], "\n".join(filter(None, wrong))


@pytest.mark.case("X20")
@pytest.mark.parametrize("call", ["reply", "send", "block", "tool", "silent", "later"])
async def test_every_argument_of_a_blocking_handle_has_an_answer_or_one_typed_error(
    lone: Gateway, call: str
) -> None:
    """The handler is a plain function, in a thread. A call of a wrong name, too."""
    wrong: list[str] = []
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def odd(turn: TurnHandle) -> None:
        twin = inspect.signature(getattr(turn, call)).parameters.values()
        named = [p.name for p in twin if p.kind is p.KEYWORD_ONLY]
        for value in ODD:
            for words in ({}, *({name: value} for name in named)):
                try:
                    getattr(turn.blocking, call)("x" if words else value, **words)
                except TurnfoldError:
                    pass
                except BaseException as exc:  # noqa: BLE001  this is what is looked for
                    wrong.append(f"{call}({words or value!r:.30}): {exc!r}"[:200])
        loop.call_soon_threadsafe(ended.set)

    lone.handler = odd
    lone.settings = Settings(max_runs=1)
    kernel = await lone.start()
    await kernel.accept(inbound("1"))
    async with asyncio.timeout(30):
        await ended.wait()
    assert wrong == []


@pytest.mark.case("X20")
def test_every_argument_of_the_blocking_kernels_own_methods_has_one_typed_error() -> (
    None
):
    """`call` and `ask` take what a caller wrote; its errors are its own."""
    with BlockingKernel(Kernel(MemoryStore())) as blocking:
        portal = blocking.kernel.portal()
        for value in ODD:
            for takes in (blocking.call, portal.call, portal.submit, blocking.ask):
                if not callable(value):
                    with pytest.raises(InvalidInputError, match="expected"):
                        takes(value)
            for wait in (blocking.settled, blocking.receipt):
                with pytest.raises(TurnfoldError):
                    wait("entry:none", 50, key=value)
    with pytest.raises(TurnfoldError):
        blocking.ask(lambda kernel: kernel)


@pytest.mark.case("U17")
async def test_a_caller_that_gives_up_waiting_leaves_nothing_behind(
    lone: Gateway,
) -> None:
    kernel, ids = await _stage(lone)
    for _ in range(3):
        with pytest.raises(NotYetError):
            await kernel.settled(ids["queued"], 1)
    task = asyncio.create_task(kernel.settled(ids["turn"]))
    await spin()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert kernel._waiters == {}


@pytest.mark.case("Z06")
async def test_a_refusal_names_the_mistyped_word_and_the_state(lone: Gateway) -> None:
    kernel, ids = await _stage(lone)
    with pytest.raises(TurnfoldError, match="'resned' is none of delivered, not_sent"):
        await kernel.resolve(ids["sent"], "resned", by="me")
    with pytest.raises(TurnfoldError, match="is delivered, so it cannot be redriven"):
        await kernel.redrive(ids["sent"], by="me")
    with pytest.raises(TurnfoldError, match="no part of it is in doubt"):
        await kernel.resolve(ids["sent"], "resend", by="me")
    with pytest.raises(TurnfoldError, match="expected Kernel, got str"):
        BlockingKernel("gateway.db")  # type: ignore[arg-type]  the mistake itself


@pytest.mark.case("Y03", "Z06")
async def test_a_wait_that_ends_says_what_for_how_long_and_where_it_stands(
    lone: Gateway,
) -> None:
    kernel, ids = await _stage(lone)
    queued, parked, turn = ids["queued"], ids["parked"], ids["turn"]
    for wait in (kernel.settled(queued, 1), kernel.receipt(queued, 1)):
        with pytest.raises(
            NotYetError, match=f"{queued} .* 1 ms: it is queued; .*show"
        ):
            await wait
    with pytest.raises(TimeoutError, match=f"{parked} .* it is parked"):
        await kernel.settled(parked, 1)
    with pytest.raises(TimeoutError, match=f"{turn} .* it is accepted"):
        await kernel.settled(turn, 1)
    with pytest.raises(NotYetError, match=r"open, such as .*; .*turnfold status"):
        await kernel.at_rest(1)
    told = await asyncio.gather(kernel.settled(queued, 1), return_exceptions=True)
    assert isinstance(told[0], NotYetError)
    assert (told[0].what, told[0].waited_ms) == (queued, 1)


@pytest.mark.case("X20", "Y06")
@pytest.mark.parametrize(
    "lane", ["1", "t", "t/default/1", "/default/1/", "a/b/c/d/e/f"]
)
async def test_a_lane_that_cannot_be_is_refused(lone: Gateway, lane: str) -> None:
    kernel = await lone.start()
    with pytest.raises(InvalidInputError, match=r"no name of a lane; pass a Route"):
        await kernel.abort_lane(lane)
    nothing = await kernel.abort_lane(route("7").lane)
    assert not nothing.stopped


@pytest.mark.case("X20")
async def test_a_live_reply_says_when_it_takes_no_more(lone: Gateway) -> None:
    """Before its block, after its seal, and after an error that ended its block."""
    wrong: list[str | None] = []
    ended = asyncio.Event()

    async def odd(turn: TurnHandle) -> None:
        live = turn.live()
        for call in (live.append, live.replace):
            with pytest.raises(InvalidInputError, match=r"async with turn\.live"):
                call("x")
        with pytest.raises(InvalidInputError, match=r"async with turn\.live"):
            await live.seal()
        with pytest.raises(ValueError, match="mine"):
            async with turn.live() as broken:
                raise ValueError("mine")
        with pytest.raises(StaleRunError, match="an error ended the block"):
            broken.append("x")
        async with live:
            for name in ("append", "replace"):
                tried = _calls(live, name, {"failed": "x", "turn": "x"})
                wrong.extend([await _outcome(*one) for one in tried])
            await live.seal("the end")
            with pytest.raises(AlreadyRepliedError, match="has its reply"):
                live.append("x")
        with pytest.raises(AlreadyRepliedError, match="has its reply"):
            live.replace("x")
        with pytest.raises(InvalidInputError, match="entered before"):
            await live.__aenter__()
        ended.set()

    lone.handler = odd
    kernel = await lone.start()
    await kernel.accept(inbound("1"))
    async with asyncio.timeout(20):
        await ended.wait()
    assert [w for w in wrong if w] == []
