"""The model of turnfold and the checks that others can run; see each module.

Names are loaded when they are first asked for: the model needs no third-party package,
but some of its tools do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnfold_model.channel_checks import check_channel as check_channel
    from turnfold_model.store_checks import check_store as check_store
    from turnfold_model.store_kit import Place as Place

_WHERE = {
    "Place": "store_kit",
    "check_channel": "channel_checks",
    "check_store": "store_checks",
}

__all__ = ["Place", "check_channel", "check_store"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
