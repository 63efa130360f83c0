"""Every error the library raises: what was refused, which id, what to do next.

Three families by fault: `UsageError` (the embedder), `ChannelError` (the platform or
its adapter), `StoreError` (the disk or the database). Facts are fields; the text is
made from them; all of them pickle. The catalogue is `specs/errors.md`.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar


class TurnfoldError(Exception):
    """The base of them all. `code` is stable; fields are keyword-only facts."""

    code: ClassVar[str] = "turnfold"
    template: ClassVar[str] = "{self.code}"

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.template.format(self=self, **self.facts)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_rebuild, (type(self), self.facts))


def _rebuild(cls: type[TurnfoldError], facts: dict[str, Any]) -> TurnfoldError:
    return cls(**facts)


def error_of(code: str, facts: dict[str, Any]) -> TurnfoldError:
    """The error with a code and its facts, as another process has met it."""
    for cls in _all(TurnfoldError):
        if cls.code == code:
            return cls(**facts)
    return TurnfoldError(**facts)


def _all(cls: type[TurnfoldError]) -> Iterator[type[TurnfoldError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _all(below)


class UsageError(TurnfoldError):
    """The caller asked for something that cannot be done as asked."""

    code = "usage"


class ChannelError(TurnfoldError):
    """An adapter broke its contract."""

    code = "channel"


class StoreError(TurnfoldError):
    """The store could not do what was asked. Nothing was half done."""

    code = "store"


class InvalidInputError(UsageError):
    code = "usage.invalid_input"
    template = "{field}: {problem}"
    field: str
    problem: str


class IllegalTransitionError(UsageError):
    code = "machine.illegal_transition"
    template = "{event} cannot follow {phase} in {stream}; legal here: {legal}"
    stream: str
    phase: str
    event: str
    legal: str


class RuleBrokenError(UsageError):
    """A guard of the transition table said no; `rule` is its name in guards.py."""

    code = "machine.rule_broken"
    template = "{stream}: rule {rule} forbids this: {why}"
    stream: str
    rule: str
    why: str


class NotFoundError(UsageError):
    code = "usage.not_found"
    template = "there is no {what} {id}; `turnfold list` shows what there is"
    what: str
    id: str


class StaleRunError(UsageError):
    """The run was aborted or replaced; whatever it computes is no longer wanted."""

    code = "turn.stale_run"
    template = "run {run} of turn {turn} is over ({why}); stop and return"
    turn: str
    run: int
    why: str


class StepInDoubtError(UsageError):
    """An earlier run began this step and died; only the embedder knows if it is safe
    to do it again."""

    code = "turn.step_in_doubt"
    template = (
        "step {key} of turn {turn} was begun by an earlier run and may have happened; "
        "pass repeat=True if doing it twice is harmless"
    )
    turn: str
    key: str


class MissingExtraError(UsageError):
    """An optional part of turnfold was asked for that is not installed."""

    code = "usage.missing_extra"
    template = "{package} is not installed; pip install 'turnfold[{extra}]'"
    extra: str
    package: str


class StillOpenError(UsageError):
    """What is asked for can be done only to what is over."""

    code = "usage.still_open"
    template = "{stream} is {phase}; wait for its end, or abort or resolve it first"
    stream: str
    phase: str


class NotOpenError(UsageError):
    code = "kernel.not_open"
    template = "the kernel is {state}; use it inside `async with kernel:`"
    state: str


class BackPressureError(UsageError):
    """More is waiting than `limits` allows. Nothing was written; try again later."""

    code = "kernel.back_pressure"
    template = "{waiting} {what} are waiting (limit {limit}); try again later"
    what: str
    waiting: int
    limit: int


class ContractError(ChannelError):
    """What was attached as a channel is not one."""

    code = "channel.contract"
    template = "channel {channel}: {problem}"
    channel: str
    problem: str


class ConflictError(StoreError):
    """Somebody else appended to the stream first. Read again and decide again."""

    code = "store.conflict"
    template = "{stream} is at version {actual}, not {expected}; decide again"
    stream: str
    expected: int
    actual: int


class KeyTakenError(ConflictError):
    """A dedupe key is held by a stream already; `stream` is that stream and `actual`
    its version."""

    code = "store.key_taken"
    template = "key {key} is held by {stream}; decide again"
    key: str


class BusyError(StoreError):
    code = "store.busy"
    template = "{path} stayed locked by another process for {waited_ms} ms; try again"
    path: str
    waited_ms: int


class CorruptLogError(StoreError):
    """A stored row cannot be what was written. The rest of the log still works."""

    code = "store.corrupt"
    template = "position {position} of the log, {stream}: {problem}"
    position: int
    stream: str
    problem: str


class DamagedError(CorruptLogError):
    """A page or a body is not what was written; what it held cannot be placed in the
    log. Everything that lies elsewhere still works."""

    code = "store.damaged"
    template = "{path} is damaged: {problem}; audit it, or restore a backup"
    path: str
    position = 0
    stream = ""


class NewerSchemaError(StoreError):
    code = "store.newer_schema"
    template = (
        "{path} has schema {found}, this turnfold knows up to {known}; upgrade turnfold"
    )
    path: str
    found: int
    known: int


class NotAStoreError(StoreError):
    code = "store.not_a_store"
    template = "{path} is not a turnfold store: {problem}"
    path: str
    problem: str


class UnsafeStoreError(StoreError):
    """The place or its settings cannot keep the promise (network disk, no fsync)."""

    code = "store.unsafe"
    template = "{path} cannot hold a store safely: {problem}"
    path: str
    problem: str


class DiskError(StoreError):
    """Full, read-only or failing disk. What was not confirmed was not written."""

    code = "store.disk"
    template = "{path}: {problem}; nothing of this call was stored"
    path: str
    problem: str


class ReadOnlyError(StoreError):
    """The store was opened for reading only."""

    code = "store.read_only"
    template = "{path} is open for reading only; open it for writing to change it"
    path: str


class FateUnknownError(StoreError):
    """A COMMIT failed in a way that may or may not have reached the disk."""

    code = "store.fate_unknown"
    template = "{path}: the fate of a commit is unknown ({problem}); reopen and read"
    path: str
    problem: str


class RequestedError(StoreError):
    """A command is durable in the inbox, and no worker has answered it yet. It is not
    lost: a worker will do it. Waiting longer is the remedy, or starting a worker."""

    code = "store.requested"
    template = (
        "{command} lies in the inbox of {path}; no worker answered within "
        "{waited_ms} ms, and the next one will do it"
    )
    path: str
    command: str
    waited_ms: int


class OwnedError(StoreError):
    """Another process or kernel is the worker of this store."""

    code = "store.owned"
    template = "{path} has a worker: {owner}"
    path: str
    owner: str


class MissingBodyError(StoreError):
    code = "store.missing_body"
    template = "the body {digest} is not in the store (erased, or lost from disk)"
    digest: str
