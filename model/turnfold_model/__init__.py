"""The model of turnfold, and the checks that others can run.

For authors of channels, stores and gateways:

- `checks`: the contracts of channels and stores; `check_channel` and `check_store`
- `testing`: a fake platform, a gateway that can crash, a clock, faults on purpose
- `plugin`: the plugin of pytest

Two readings of the contract that know nothing of the kernel's code:

- `machines`: the transition tables as data, and the statechart that draws them
- `reference`: judges any log by `specs/rules.md`
- `protocol_model`: workers, wire and platform, every state (`explore`)
- `tla`: TLC on the modules of `specs/`, and on logs of the kernel (`tlc`)

The checks that run the kernel itself:

- `edge_walks`: along every edge of its machines (`edges`)
- `crash`: a crash before and after each effect of its programs (`crash`)
- `stateful`: chance, on a real file (Hypothesis)
- `powerloss`: every image that a disk may have kept of a life (`powerloss`)
- `kill9`: real processes that are killed (`kill9`)
- `flow`: many lanes against a platform that limits its rate (`flow`)
- `readings`: its audit beside the reference, on damaged logs (`readings`)
- `mutants`: the product broken on purpose, and the checkers that notice (`mutants`)

`python -m turnfold_model` runs the commands in brackets. Names are loaded when they are first asked for: the model needs no third-party package,
but some of its tools do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnfold_model.checks.channel import check_channel as check_channel
    from turnfold_model.checks.store import check_store as check_store
    from turnfold_model.checks.store_kit import Place as Place

_WHERE = {
    "Place": "checks.store_kit",
    "check_channel": "checks.channel",
    "check_store": "checks.store",
}

__all__ = ["Place", "check_channel", "check_store"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
