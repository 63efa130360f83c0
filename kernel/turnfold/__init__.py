"""turnfold: no message is lost and none is sent twice, where the platform allows it.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnfold.blocking import BlockingKernel
    from turnfold.decide.accepting import SourceCursor
    from turnfold.errors import TurnfoldError
    from turnfold.kernel import Kernel
    from turnfold.payloads import File, Inbound, Native, Route, Text
    from turnfold.ports.channel import (
        Absent,
        Accepted,
        CannotTell,
        Capabilities,
        Found,
        PartClass,
        Receipt,
        Rejected,
        Unknown,
    )
    from turnfold.settings import Settings
    from turnfold.words import BlindPolicy, DeliveryClass, FailureClass, Kind

_HOMES = {
    "Absent": "ports.channel",
    "Accepted": "ports.channel",
    "BlindPolicy": "words",
    "BlockingKernel": "blocking",
    "CannotTell": "ports.channel",
    "Capabilities": "ports.channel",
    "DeliveryClass": "words",
    "FailureClass": "words",
    "File": "payloads",
    "Found": "ports.channel",
    "Inbound": "payloads",
    "Kernel": "kernel",
    "Kind": "words",
    "Native": "payloads",
    "PartClass": "ports.channel",
    "Receipt": "ports.channel",
    "Rejected": "ports.channel",
    "Route": "payloads",
    "Settings": "settings",
    "SourceCursor": "decide.accepting",
    "Text": "payloads",
    "TurnfoldError": "errors",
    "Unknown": "ports.channel",
}
__version__ = "0.1.0"
__all__ = [
    "Absent",
    "Accepted",
    "BlindPolicy",
    "BlockingKernel",
    "CannotTell",
    "Capabilities",
    "DeliveryClass",
    "FailureClass",
    "File",
    "Found",
    "Inbound",
    "Kernel",
    "Kind",
    "Native",
    "PartClass",
    "Receipt",
    "Rejected",
    "Route",
    "Settings",
    "SourceCursor",
    "Text",
    "TurnfoldError",
    "Unknown",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'turnfold' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"turnfold.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
