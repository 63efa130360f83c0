"""The mutants of Discord, webhooks and the bridge to ASGI: keys, limits, bodies."""

from typing import Final

from turnfold_model.mutants.code import Mutant, one

_C = "turnfold_adapters.channels"
_ASGI = "turnfold_adapters.bridges.asgi"
_DISCORD = "test:contract/test_discord_channel.py"
_WEB = "test:contract/test_asgi_bridge.py"
_HOOK = "test:contract/test_webhook_editing.py"


def _broken(name: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    return one(name, "program", where, old, new, *killers)


CHANNELS: Final = (
    _broken(
        "a message to Discord carries no key",
        f"{_C}.discord_content:message_of",
        "if attempt.act is not PartAct.PLACEHOLDER:",
        "if False:",
        f"{_DISCORD}::answered_with_the_first",
    ),
    _broken(
        "a placeholder on Discord carries the key of its part",
        f"{_C}.discord_content:message_of",
        "if attempt.act is not PartAct.PLACEHOLDER:",
        "if True:",
        f"{_DISCORD}::edit_may_be_made_again",
    ),
    _broken(
        "a rate limit of the whole bot holds back one channel of Discord",
        f"{_C}.discord_errors:_slow_down",
        "exception.whole_account",
        "False",
        f"{_DISCORD}::rate_limit_is_told",
    ),
    _broken(
        "an event of Matrix has other bytes each time that it is read",
        f"{_C}.matrix_content:inbound_of",
        "{name: event[name] for name in _LASTING if name in event}",
        "event",
        "test:fast/test_matrix_content.py::read_again",
    ),
    _broken(
        "a misspelt kind of part is taken for an offer",
        "turnfold._runtime.channel:capabilities_problem",
        "kind not in KINDS",
        "False",
        "test:fast/test_attach.py::no_channel_is_refused",
    ),
    _broken(
        "any 404 says that the message of a webhook is gone",
        f"{_C}.webhook_wire:is_gone",
        "json_object(reply.body).get('found') is False",
        "True",
        f"{_HOOK}::404_of_a_proxy",
    ),
    _broken(
        "a body whose sender hung up is taken",
        f"{_ASGI}:_body",
        "return None",
        "return bytes(body)",
        f"{_WEB}::hangs_up",
    ),
    _broken(
        "a large body without a length is read to its end",
        f"{_ASGI}:_body",
        "_check_size(len(body), most)",
        "pass",
        f"{_WEB}::large_body",
    ),
)
