"""turnfold: no message is lost and none is sent twice, where the platform allows it.

Every name that a gateway or a channel needs is here. Names are loaded at their first
use, so importing the package is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnfold._decide.accepting import SourceCursor
    from turnfold._decide.busy import LaneAbortion
    from turnfold._decide.operator import Abortion
    from turnfold.api.blocking import BlockingKernel, BlockingTurn
    from turnfold.api.callbacks import Handler
    from turnfold.api.ends import Never, NotNow
    from turnfold.api.handle import AcceptedTurn, TurnHandle
    from turnfold.api.health import Wellness
    from turnfold.api.kernel import Kernel
    from turnfold.api.live import Live
    from turnfold.api.portal import Portal
    from turnfold.api.sent import Said, Sent, current_turn
    from turnfold.api.threads import BlockingHandle, BlockingSent
    from turnfold.clock import Clock
    from turnfold.enums import (
        AbortReason,
        BlindPolicy,
        Busy,
        DeliveryClass,
        FailureClass,
        Flush,
        Format,
        GateScope,
        Kind,
        OldTurns,
        PartAct,
        Phase,
        Reason,
        Status,
        TurnOutcome,
        TurnPhase,
        Waits,
    )
    from turnfold.errors import (
        AlreadyRepliedError,
        AmbiguousIdError,
        BackPressureError,
        BusyError,
        ChannelError,
        ConflictError,
        ContractError,
        CorruptLogError,
        DamagedError,
        DiskError,
        FateUnknownError,
        IllegalTransitionError,
        InvalidInputError,
        KeyTakenError,
        LostStoreError,
        MissingBodyError,
        MissingExtraError,
        MissingKeyError,
        NewerSchemaError,
        NoAccessError,
        NotAStoreError,
        NotAwaitedError,
        NotDeliveredError,
        NotEncryptedError,
        NotFoundError,
        NotOpenError,
        NoTurnError,
        NotYetError,
        OlderSchemaError,
        OtherShardError,
        OwnedError,
        ReadOnlyError,
        RequestedError,
        RuleBrokenError,
        ShardedStoreError,
        StaleRunError,
        StepInDoubtError,
        StillOpenError,
        StoreError,
        StoreFullError,
        StoreKeyError,
        TurnfoldError,
        UnknownRefusalError,
        UnsafeStoreError,
        UsageError,
        WrongCallError,
        WrongKeyError,
        WrongThreadError,
    )
    from turnfold.inbound import Inbound, Unreadable
    from turnfold.inspect import Inspect
    from turnfold.inspect.lookup import Filter
    from turnfold.messages import File, Native, Payload, Route, Text
    from turnfold.notices import Notice
    from turnfold.ports.channel import (
        Absent,
        Accepted,
        Attempt,
        CannotTell,
        Capabilities,
        Channel,
        Found,
        FullChannel,
        Outcome,
        Part,
        PartClass,
        PlanContext,
        PlannedPart,
        Rate,
        Receipt,
        Rejected,
        Source,
        Unknown,
        Verdict,
    )
    from turnfold.settings import Settings

# The module of each public name.
_NAMES = {
    "_decide.accepting": "SourceCursor",
    "_decide.busy": "LaneAbortion",
    "_decide.operator": "Abortion",
    "api.blocking": "BlockingKernel BlockingTurn",
    "api.callbacks": "Handler",
    "api.ends": "Never NotNow",
    "api.handle": "AcceptedTurn TurnHandle",
    "api.health": "Wellness",
    "api.kernel": "Kernel",
    "api.live": "Live",
    "api.portal": "Portal",
    "api.sent": "Said Sent current_turn",
    "api.threads": "BlockingHandle BlockingSent",
    "clock": "Clock",
    "enums": """
        AbortReason BlindPolicy Busy DeliveryClass FailureClass Flush Format GateScope
        Kind OldTurns PartAct Phase Reason Status TurnOutcome TurnPhase Waits
    """,
    "errors": """
        AlreadyRepliedError AmbiguousIdError BackPressureError BusyError ChannelError
        ConflictError ContractError CorruptLogError DamagedError DiskError
        FateUnknownError IllegalTransitionError InvalidInputError KeyTakenError
        LostStoreError MissingBodyError MissingExtraError MissingKeyError
        NewerSchemaError NoAccessError NoTurnError NotAStoreError NotAwaitedError
        NotDeliveredError NotEncryptedError NotFoundError NotOpenError NotYetError
        OlderSchemaError OtherShardError OwnedError ReadOnlyError RequestedError
        RuleBrokenError ShardedStoreError StaleRunError StepInDoubtError StillOpenError
        StoreError StoreFullError StoreKeyError TurnfoldError UnknownRefusalError
        UnsafeStoreError UsageError WrongCallError WrongKeyError WrongThreadError
    """,
    "inbound": "Inbound Unreadable",
    "inspect": "Inspect",
    "inspect.lookup": "Filter",
    "messages": "File Native Payload Route Text",
    "notices": "Notice",
    "ports.channel": """
        Absent Accepted Attempt CannotTell Capabilities Channel Found FullChannel
        Outcome Part PartClass PlanContext PlannedPart Rate Receipt Rejected Source
        Unknown Verdict
    """,
    "settings": "Settings",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__version__ = "0.1.0"
__all__ = [
    "AbortReason",
    "Abortion",
    "Absent",
    "Accepted",
    "AcceptedTurn",
    "AlreadyRepliedError",
    "AmbiguousIdError",
    "Attempt",
    "BackPressureError",
    "BlindPolicy",
    "BlockingHandle",
    "BlockingKernel",
    "BlockingSent",
    "BlockingTurn",
    "Busy",
    "BusyError",
    "CannotTell",
    "Capabilities",
    "Channel",
    "ChannelError",
    "Clock",
    "ConflictError",
    "ContractError",
    "CorruptLogError",
    "DamagedError",
    "DeliveryClass",
    "DiskError",
    "FailureClass",
    "FateUnknownError",
    "File",
    "Filter",
    "Flush",
    "Format",
    "Found",
    "FullChannel",
    "GateScope",
    "Handler",
    "IllegalTransitionError",
    "Inbound",
    "Inspect",
    "InvalidInputError",
    "Kernel",
    "KeyTakenError",
    "Kind",
    "LaneAbortion",
    "Live",
    "LostStoreError",
    "MissingBodyError",
    "MissingExtraError",
    "MissingKeyError",
    "Native",
    "Never",
    "NewerSchemaError",
    "NoAccessError",
    "NoTurnError",
    "NotAStoreError",
    "NotAwaitedError",
    "NotDeliveredError",
    "NotEncryptedError",
    "NotFoundError",
    "NotNow",
    "NotOpenError",
    "NotYetError",
    "Notice",
    "OldTurns",
    "OlderSchemaError",
    "OtherShardError",
    "Outcome",
    "OwnedError",
    "Part",
    "PartAct",
    "PartClass",
    "Payload",
    "Phase",
    "PlanContext",
    "PlannedPart",
    "Portal",
    "Rate",
    "ReadOnlyError",
    "Reason",
    "Receipt",
    "Rejected",
    "RequestedError",
    "Route",
    "RuleBrokenError",
    "Said",
    "Sent",
    "Settings",
    "ShardedStoreError",
    "Source",
    "SourceCursor",
    "StaleRunError",
    "Status",
    "StepInDoubtError",
    "StillOpenError",
    "StoreError",
    "StoreFullError",
    "StoreKeyError",
    "Text",
    "TurnHandle",
    "TurnOutcome",
    "TurnPhase",
    "TurnfoldError",
    "Unknown",
    "UnknownRefusalError",
    "Unreadable",
    "UnsafeStoreError",
    "UsageError",
    "Verdict",
    "Waits",
    "Wellness",
    "WrongCallError",
    "WrongKeyError",
    "WrongThreadError",
    "current_turn",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'turnfold' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"turnfold.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
