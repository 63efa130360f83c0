"""Every constructor and every bridge with odd arguments: taken, or one typed error.

A wrong type, and a value that is none of its type (NaN, a lone surrogate, a word that is
no word of its enum), is refused at the call, by the name of the argument. Arguments are
read from the signatures, so that a new one is tried, too. What an adapter answers
(Accepted, Rejected, Found ...) is judged where it comes in, not where it is made:
tests/contract/test_foreign_code.py.
"""

import copy
import inspect
import pickle
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any

import attrs
import pytest
from slack_bolt.async_app import AsyncApp
from telegram.ext import Application
from tests.odd import ODD, fits, parameters

from turnfold import (
    BlockingKernel,
    Capabilities,
    Clock,
    DeliveryClass,
    File,
    Filter,
    Inbound,
    InvalidInputError,
    Kernel,
    Native,
    Never,
    NotNow,
    PartClass,
    Rate,
    Route,
    Settings,
    SourceCursor,
    Text,
    TurnfoldError,
    Unreadable,
    WrongCallError,
)
from turnfold.inspect.places import Place
from turnfold.wrong_calls import explained_call
from turnfold_adapters.bridges import asgi, bolt, ptb
from turnfold_adapters.bridges.first_contract import FirstContract
from turnfold_adapters.channels.discord import DiscordChannel
from turnfold_adapters.channels.matrix import MatrixChannel
from turnfold_adapters.channels.slack import SlackChannel
from turnfold_adapters.channels.telegram import TelegramChannel
from turnfold_adapters.channels.webhook import WebhookChannel
from turnfold_adapters.channels.webhook_http import Limits
from turnfold_adapters.channels.webhook_inbound import WebhookInbox
from turnfold_adapters.channels.webhook_reception import Reception
from turnfold_adapters.telemetry import Telemetry

TOKEN = "123:abc"
PLACE = {"channel": "t", "conversation": "1"}


class Sends:
    """A channel, and an adapter of the first contract."""

    capabilities = Capabilities(marks=True)

    async def send(self, part: Any, key: str, attempt: Any) -> None: ...
    async def send_text(self, conversation: str, text: str) -> None: ...


async def _takes(inbound: Inbound) -> None: ...
async def _brings(cursor: str | None) -> Any: ...


def _kernel() -> Kernel:
    return Kernel("memory:")


@cache
def _application() -> Any:
    return Application.builder().token(TOKEN).build()


@cache
def _app() -> AsyncApp:
    return AsyncApp(token="xoxb-1", signing_secret="x")


# The call, and the least that it needs.
CALLS: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {
    "Kernel": (Kernel, lambda: {"store": "memory:"}),
    "BlockingKernel": (BlockingKernel, lambda: {"kernel": _kernel()}),
    "Settings": (Settings, dict),
    "Clock": (Clock, dict),
    "Inbound": (Inbound, lambda: {**PLACE, "message_id": "1"}),
    "Unreadable": (Unreadable, lambda: {"channel": "t", "raw": b"", "error": "x"}),
    "SourceCursor": (
        SourceCursor,
        lambda: {"channel": "t", "account": "a", "value": "1"},
    ),
    "Route": (Route, lambda: PLACE),
    "Text": (Text, lambda: {"text": "x"}),
    "File": (File, lambda: {"data": b"x"}),
    "Native": (Native, lambda: {"body": {}}),
    "Rate": (Rate, dict),
    "PartClass": (PartClass, dict),
    "Capabilities": (Capabilities, dict),
    "Filter": (Filter, dict),
    "Place": (Place, dict),
    "NotNow": (NotNow, dict),
    "Never": (Never, dict),
    "Kernel.attach": (
        lambda **how: _kernel().attach(**how),
        lambda: {"name": "t", "channel": Sends(), "on_unknown": "hold"},
    ),
    "Kernel.source": (
        lambda **how: _kernel().source(**how),
        lambda: {"name": "t", "stream": _brings},
    ),
    "TelegramChannel": (TelegramChannel, lambda: {"token": TOKEN}),
    "SlackChannel": (SlackChannel, lambda: {"token": "xoxb-1"}),
    "DiscordChannel": (DiscordChannel, lambda: {"token": "x"}),
    "MatrixChannel": (
        MatrixChannel,
        lambda: {
            "homeserver": "https://m.invalid",
            "user_id": "@a:m.invalid",
            "device_id": "D",
            "token": "x",
        },
    ),
    "WebhookChannel": (WebhookChannel, lambda: {"url": "https://w.invalid"}),
    "WebhookInbox": (WebhookInbox, lambda: {"accept": _takes}),
    "Reception": (
        Reception,
        lambda: {"accept": _takes, "channel": "t", "account": "a"},
    ),
    "Limits": (Limits, dict),
    "FirstContract": (FirstContract, lambda: {"adapter": Sends()}),
    "asgi.webhook": (
        asgi.webhook,
        lambda: {"kernel": _kernel(), "channel": "t", "check": asgi.anybody},
    ),
    "ptb.durable": (
        ptb.durable,
        lambda: {"application": _application(), "kernel": _kernel()},
    ),
    "bolt.durable": (bolt.durable, lambda: {"app": _app(), "kernel": _kernel()}),
    "bolt.socket_mode": (bolt.socket_mode, lambda: {"app": _app(), "app_token": "x"}),
    "Telemetry": (Telemetry, lambda: {"kernel": _kernel()}),
}
# The signature of a call that is made on a kernel of its own.
SIGNATURES: dict[str, Callable[..., Any]] = {
    "Kernel.attach": Kernel.attach,
    "Kernel.source": Kernel.source,
}
# Arguments that take more than their annotation says, each with its reason.
WIDER = {
    ("Unreadable", "raw"): "evidence: whatever came, as it came",
    ("WebhookChannel", "client"): "its type belongs to an extra",
}
# What an adapter has not, it says by a ContractError.
CONTRACTS = {
    ("Kernel.attach", "channel"),
    ("FirstContract", "adapter"),
    ("FirstContract", "claims"),
}
# Of two arguments that contradict each other, the error names one.
ALSO_NAMED = {("File", "data"): "path", ("MatrixChannel", "password"): "token"}


def _held(made: Any, name: str, given: Any) -> Any:
    """The argument as an attrs object keeps it; else as it was given."""
    if not attrs.has(type(made)):
        return given
    named = {one.alias: one.name for one in attrs.fields(type(made))}
    return getattr(made, named[name])


def _asked(name: str) -> list[tuple[inspect.Parameter, Any]]:
    signature = SIGNATURES.get(name) or CALLS[name][0]
    return [(one, value) for one in parameters(signature) for value in ODD]


@pytest.mark.case("X20", "Z03")
@pytest.mark.parametrize("name", list(CALLS))
async def test_every_argument_of_a_constructor_is_taken_or_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = ssl.create_default_context()  # read once: it takes 20 ms
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: certificates)
    call, least = CALLS[name]
    wrong = []
    for one, value in _asked(name):
        said = f"{name}({one.name}={value!r:.30})"
        try:
            made = call(**{**least(), one.name: value})
        except InvalidInputError as exc:
            names = exc.field.partition(".")[0].partition("[")[0]
            if names not in (one.name, ALSO_NAMED.get((name, one.name))):
                wrong.append(f"{said}: names {exc.field}: {exc.problem}")
        except TurnfoldError as exc:
            if (name, one.name) not in CONTRACTS:
                wrong.append(f"{said}: {exc!r:.100}")
        except BaseException as exc:  # noqa: BLE001  this is what is looked for
            wrong.append(f"{said}: {type(exc).__name__}: {exc}"[:160])
        else:
            held = _held(made, one.name, value)
            if not fits(held, one.annotation) and (name, one.name) not in WIDER:
                wrong.append(f"{said}: taken")
    assert wrong == [], "\n".join(wrong[:60])


# Python's own TypeError is left: a text is made a few times for each message, and has one
# argument that anybody forgets.
UNEXPLAINED = {"Text"}
EXPLAINED = [name for name in CALLS if name not in UNEXPLAINED]


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_argument_that_does_not_exist_is_named_and_is_a_type_error(
    name: str,
) -> None:
    call, least = CALLS[name]
    with pytest.raises(TypeError, match="has no such argument") as caught:
        call(**least(), no_such_argument=1)
    assert isinstance(caught.value, WrongCallError)
    assert caught.value.field == "no_such_argument"


@pytest.mark.case("Z06")
@pytest.mark.parametrize("name", [n for n in EXPLAINED if n not in SIGNATURES])
def test_a_missing_argument_and_one_by_position_too_many_are_named(name: str) -> None:
    call, least = CALLS[name]
    needed = [p.name for p in parameters(call) if p.default is p.empty]
    for one in needed:
        with pytest.raises(WrongCallError, match="needs it") as caught:
            call(**{key: value for key, value in least().items() if key != one})
        assert caught.value.field == one
    with pytest.raises(TypeError) as caught_too:
        call(*[None] * 40)
    assert isinstance(caught_too.value, WrongCallError)
    assert "by position" in str(caught_too.value)


@pytest.mark.case("Z06")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: Inbound("tg", "42", "1"),  # type: ignore[call-arg, misc]  # the mistake
            "conversation: Inbound takes 1 argument(s) by position, got 3; pass the others",
        ),
        (
            lambda: Inbound("tg", conversation="42"),  # type: ignore[call-arg]  # as above
            "message_id: Inbound needs it: ",
        ),
        (
            lambda: Settings(max_failure=3),  # type: ignore[call-arg]  # as above
            "max_failure: Settings has no such argument; did you mean max_failures?",
        ),
        (
            lambda: _kernel().attach(Sends()),  # type: ignore[call-arg, arg-type]  # as above
            "channel: Kernel.attach needs it: Kernel.attach(name, channel, ...)",
        ),
    ],
)
def test_a_wrong_call_is_answered_in_the_words_of_the_caller(
    call: Callable[[], Any], says: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert str(caught.value).startswith(says)


def test_a_type_error_from_inside_of_a_right_call_is_left_as_it_is() -> None:
    @explained_call
    def works(one: object) -> None:
        raise TypeError("a bug inside")

    with pytest.raises(TypeError, match="a bug inside") as caught:
        works(1)
    assert not isinstance(caught.value, WrongCallError)


_IDS = {"channel", "account", "conversation", "token", "app_token", "user_id"}
_ADDRESSES = {"url", "homeserver", "base_url", "lookup_url", "message_url", "gateway"}
_ADDRESSES |= {"proxy", "store", "import_from"}


def _texts(name: str, named: set[str]) -> set[str]:
    """The channel of `attach` is an object."""
    object_ones = {"channel"} if name.endswith("attach") else set()
    return named & (_IDS | _ADDRESSES) - object_ones


@pytest.mark.case("X20", "Z03")
@pytest.mark.parametrize("name", [n for n in CALLS if n not in ("Filter", "Place")])
@pytest.mark.parametrize("value", ["", "nul\0nul", "sur\udcffogate"])
def test_an_id_and_an_address_are_text_that_can_be_one(name: str, value: str) -> None:
    call, least = CALLS[name]
    named = {one.name for one in parameters(SIGNATURES.get(name) or call)}
    for argument in sorted(_texts(name, named)):
        with pytest.raises(InvalidInputError) as caught:
            call(**{**least(), argument: value})
        assert caught.value.field == argument


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("postgres://u@h/db", "there are memory, postgresql, sqlite"),
        ("mysql://h/db", "there are memory, postgresql, sqlite"),
        ("memory:x", "no address"),
        ("postgresql:", "no address"),
        ("postgresql://h:port/db", "port"),
        ("postgresql://h/db?shards=0", "shards"),
    ],
)
async def test_an_address_that_no_store_has_is_refused(address: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        await Kernel(address).open()
    assert caught.value.field == "address"


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    notices: dict[str, Any] = {"late": {"de": "zu spaet"}}
    parts = {"text": PartClass()}
    classes = [DeliveryClass.KEYED]
    body: dict[str, Any] = {"a": 1}
    settings, offers = Settings(notices=notices), Capabilities(parts=parts)
    offer, native = PartClass(classes=classes), Native(body)  # type: ignore[arg-type]  a list is copied, too
    notices["late"]["de"] = "x"
    for given in (notices, parts, classes, body):
        given.clear()
    assert settings.notices == {"late": {"de": "zu spaet"}}
    assert (offers.parts, offer.classes) == (
        {"text": PartClass()},
        (DeliveryClass.KEYED,),
    )
    assert dict(native.body) == {"a": 1}
    assert copy.deepcopy(settings) == pickle.loads(pickle.dumps(settings)) == settings
