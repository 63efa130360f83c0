"""Every event there is, with the name and schema version it is stored under.

Names are data, never Python paths: a class may move or be renamed and old logs still
read. A name is never given to another meaning.
"""

from types import MappingProxyType

from turnfold.events import ledger, outbox, turn

Event = (
    outbox.OutboxEvent
    | turn.TurnEvent
    | ledger.GateEvent
    | ledger.CursorEvent
    | ledger.StoreEvent
)

NAMES: MappingProxyType[type[Event], str] = MappingProxyType(
    {
        outbox.Queued: "outbox.queued",
        outbox.Planned: "outbox.planned",
        outbox.Attempted: "outbox.attempted",
        outbox.Dispatched: "outbox.dispatched",
        outbox.Placed: "outbox.placed",
        outbox.Tried: "outbox.tried",
        outbox.PartRefused: "outbox.part_refused",
        outbox.AmendedPart: "outbox.amended_part",
        outbox.PartDelivered: "outbox.part_delivered",
        outbox.Delivered: "outbox.delivered",
        outbox.Deferred: "outbox.deferred",
        outbox.FailedRetryable: "outbox.failed_retryable",
        outbox.OutcomeUnknown: "outbox.unknown",
        outbox.Reconciled: "outbox.reconciled",
        outbox.Parked: "outbox.parked",
        outbox.Resolved: "outbox.resolved",
        outbox.FailedTerminal: "outbox.failed_terminal",
        outbox.AbortRequested: "outbox.abort_requested",
        outbox.Aborted: "outbox.aborted",
        outbox.LateReceipt: "outbox.late_receipt",
        outbox.Rescheduled: "outbox.rescheduled",
        outbox.Redriven: "outbox.redriven",
        outbox.Acknowledged: "outbox.acknowledged",
        outbox.Bounced: "outbox.bounced",
        outbox.Imported: "outbox.imported",
        outbox.Doubted: "outbox.doubted",
        outbox.LaneYielded: "outbox.lane_yielded",
        outbox.Redacted: "outbox.redacted",
        turn.Accepted: "turn.accepted",
        turn.Dead: "turn.dead",
        turn.Joined: "turn.joined",
        turn.Started: "turn.started",
        turn.StepStarted: "turn.step_started",
        turn.StepDone: "turn.step_done",
        turn.LeftOpen: "turn.left_open",
        turn.Released: "turn.released",
        turn.RunFailed: "turn.run_failed",
        turn.Answered: "turn.answered",
        turn.Completed: "turn.completed",
        turn.Failed: "turn.failed",
        turn.TurnAbortRequested: "turn.abort_requested",
        turn.TurnAborted: "turn.aborted",
        turn.Amended: "turn.amended",
        turn.Held: "turn.held",
        turn.Unheld: "turn.unheld",
        turn.Resubmitted: "turn.resubmitted",
        turn.TurnRedacted: "turn.redacted",
        ledger.GateClosed: "gate.closed",
        ledger.GateOpened: "gate.opened",
        ledger.CursorAdvanced: "cursor.advanced",
        ledger.StoreCreated: "store.created",
        ledger.WorkerStarted: "store.worker_started",
        ledger.Restored: "store.restored",
        ledger.Pruned: "store.pruned",
        ledger.PrunedReceipt: "store.late_receipt",
        ledger.WallJumped: "store.wall_jumped",
    }
)
CLASSES: MappingProxyType[str, type[Event]] = MappingProxyType(
    {name: cls for cls, name in NAMES.items()}
)
# The newest schema of each event; older ones are raised step by step (upcasters.py).
SCHEMAS: MappingProxyType[str, int] = MappingProxyType(dict.fromkeys(CLASSES, 1))

__all__ = ["CLASSES", "NAMES", "SCHEMAS", "Event", "ledger", "outbox", "turn"]
