"""Every error of the library: the refused act, its id, and the next thing to do.

Three families by fault: `UsageError` (the embedder), `ChannelError` (the platform or its
adapter), `StoreError` (the disk or the database). The facts of an error are typed,
keyword-only fields; the text is made from them. Every error pickles. The catalogue is
`specs/errors.md`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from attrs import define, fields


@define(kw_only=True, slots=False)
class TurnfoldError(Exception):
    """The base of all errors of turnfold. `code` is stable, for programs to compare."""

    code: ClassVar[str] = "turnfold"
    template: ClassVar[str] = "{self.code}"

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of this error by name."""
        return {a.name: getattr(self, a.name) for a in fields(type(self))}

    def __repr__(self) -> str:
        facts = ", ".join(
            f"{name}={value!r:.200}" for name, value in self.facts.items()
        )
        return f"{type(self).__name__}({facts})"

    def __str__(self) -> str:
        return self.template.format(self=self, **self.facts)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (_rebuild, (type(self), self.facts))


def _rebuild(cls: type[TurnfoldError], facts: dict[str, Any]) -> TurnfoldError:
    return cls(**facts)


def error_of(code: str, facts: Mapping[str, Any]) -> TurnfoldError:
    """The error with this code and these facts, which another process has raised.

    For a code or facts of another version of turnfold, a UnknownRefusalError.
    """
    for cls in _all(TurnfoldError):
        if cls.code == code and {a.name for a in fields(cls)} == facts.keys():
            return cls(**facts)
    told = ", ".join(f"{name}={value}" for name, value in sorted(facts.items()))
    return UnknownRefusalError(refusal=code, told=told)


def _all(cls: type[TurnfoldError]) -> Iterator[type[TurnfoldError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _all(below)


class UsageError(TurnfoldError):
    """The base of errors of the caller: an impossible request."""

    code = "usage"


class ChannelError(TurnfoldError):
    """The base of errors of adapters, which broke their contract."""

    code = "channel"


class StoreError(TurnfoldError):
    """The base of errors of the store. Unless the class says otherwise, the call stored
    nothing."""

    code = "store"


@define(kw_only=True, slots=False)
class InvalidInputError(UsageError):
    """Raised for an argument of a wrong type or out of range, before anything is
    written. `field`: the argument. The codec raises it for values, too."""

    code = "usage.invalid_input"
    template = "{field}: {problem}"
    field: str
    problem: str


@define(kw_only=True, slots=False)
class WrongCallError(InvalidInputError, TypeError):
    """Raised for an argument too few or too many, by a constructor; a TypeError, too."""

    code = "usage.wrong_call"


@define(kw_only=True, slots=False)
class AmbiguousIdError(UsageError):
    """Raised for a piece of an id that fits several turns, entries or messages."""

    code = "usage.ambiguous_id"
    template = "{wanted} fits several: {streams}"
    wanted: str
    streams: tuple[str, ...]


@define(kw_only=True, slots=False)
class IllegalTransitionError(UsageError):
    """Raised when a command does not fit the phase of its turn or entry, such as a
    redrive of a delivered entry. `legal`: the events that the phase allows; `event`
    would have been the next one."""

    code = "machine.illegal_transition"
    template = (
        "{stream} is {phase}, so it cannot be {self.act}; `turnfold show {stream}` says "
        "what can be done"
    )
    stream: str
    phase: str
    event: str
    legal: str

    @property
    def act(self) -> str:
        """The command in a word, such as "redriven"."""
        return self.event.rpartition(".")[2].replace("_", " ")


@define(kw_only=True, slots=False)
class RuleBrokenError(UsageError):
    """Raised when a rule forbids a command that the phase allows. `rule`: the name of a
    function in `turnfold._decide.rules`, listed in specs/rules.md."""

    code = "machine.rule_broken"
    template = "{stream}: rule {rule} forbids this: {why}"
    stream: str
    rule: str
    why: str


@define(kw_only=True, slots=False)
class NotFoundError(UsageError):
    """Raised when an id, or a piece of one, names nothing in the store."""

    code = "usage.not_found"
    template = "there is no {what} {id:.100}; `turnfold list` shows what there is"
    what: str
    id: str


@define(kw_only=True, slots=False)
class UnknownRefusalError(UsageError):
    """Raised when the worker refused a command with an error that this version of
    turnfold does not know. `refusal`: the code of that error."""

    code = "usage.refused"
    template = (
        "the worker refused the command with {refusal} ({told}), which is not known "
        "here; run the same version of turnfold in every process"
    )
    refusal: str
    told: str


@define(kw_only=True, slots=False)
class StaleRunError(UsageError):
    """Raised in a handler after its run was aborted or replaced: it should return."""

    code = "turn.stale_run"
    template = "run {run} of turn {turn} is over ({why}); stop and return"
    turn: str
    run: int
    why: str


@define(kw_only=True, slots=False)
class AlreadyRepliedError(UsageError):
    """Raised by a second `reply` of a turn with another payload, which is not sent. The
    same payload again returns the first entry."""

    code = "turn.already_replied"
    template = (
        "turn {turn} has its reply, {entry}; this one is not sent: say more with "
        "turn.block() before the reply, or with kernel.enqueue() after it"
    )
    turn: str
    entry: str


@define(kw_only=True, slots=False)
class NotAwaitedError(UsageError):
    """Raised at the end of a run if its handler called a method of its turn without
    `await`, or did not leave the block of its live reply."""

    code = "turn.not_awaited"
    template = "turn.{call}() was not awaited to its end in turn {turn}: no effect"
    turn: str
    call: str


@define(kw_only=True, slots=False)
class NotDeliveredError(UsageError):
    """Raised by a wait for a receipt that will not come: the entry ended undelivered,
    or it is parked, and a person decides. `status`: `failed`, `aborted` or `parked`.
    `reason`: the code in the log."""

    code = "entry.not_delivered"
    template = (
        "{entry} was not delivered: it is {status}, {reason}; `turnfold show {entry}` "
        "says what can be done"
    )
    entry: str
    status: str
    reason: str | None


@define(kw_only=True, slots=False)
class NotYetError(UsageError, TimeoutError):
    """Raised by a wait when its time is over; it is a TimeoutError, too. The work goes on.
    `what`: the awaited thing. `state`: its state now. `see`: a command that shows more."""

    code = "usage.not_yet"
    template = (
        "{what} is not over after {waited_ms} ms: {state}; nothing is lost: wait again, "
        "or look with `{see}`"
    )
    what: str
    waited_ms: int
    state: str
    see: str


@define(kw_only=True, slots=False)
class NoTurnError(UsageError):
    """Raised by `turnfold.current_turn()` outside of a handler."""

    code = "turn.none"
    template = "no turn is being handled here; call this in a handler, or in its tasks"


@define(kw_only=True, slots=False)
class StepInDoubtError(UsageError):
    """Raised by `TurnHandle.step` if an earlier run began this step and died. Only the
    embedder knows if the step may be done again."""

    code = "turn.step_in_doubt"
    template = (
        "step {key} of turn {turn} was begun by an earlier run and may have happened; "
        "pass repeat=True if doing it twice is harmless"
    )
    turn: str
    key: str


@define(kw_only=True, slots=False)
class MissingExtraError(UsageError):
    """Raised by an optional part of turnfold that is not installed."""

    code = "usage.missing_extra"
    template = "{package} is not installed; pip install 'turnfold[{extra}]'"
    extra: str
    package: str


@define(kw_only=True, slots=False)
class StillOpenError(UsageError):
    """Raised when a command needs a closed turn or entry, as erasing does."""

    code = "usage.still_open"
    template = "{stream} is {phase}; wait for its end, or abort or resolve it first"
    stream: str
    phase: str


@define(kw_only=True, slots=False)
class NotOpenError(UsageError):
    """Raised by every call to a kernel or store that is not open. `state`: its state."""

    code = "kernel.not_open"
    template = "the kernel is {state}; use it inside `async with kernel:`"
    state: str


@define(kw_only=True, slots=False)
class WrongThreadError(UsageError):
    """Raised for a call of a kernel from another thread or loop than the one that opened
    it. `thread`: the name of the caller's thread."""

    code = "kernel.wrong_thread"
    template = (
        "thread {thread} does not run the event loop that opened this kernel; use "
        "kernel.portal().call(kernel.enqueue, ...)"
    )
    thread: str


@define(kw_only=True, slots=False)
class BackPressureError(UsageError):
    """Raised when more work is open than the settings allow. Nothing was written."""

    code = "kernel.back_pressure"
    template = "{waiting} {what} are waiting (limit {limit}); try again later"
    what: str
    waiting: int
    limit: int


@define(kw_only=True, slots=False)
class ContractError(ChannelError):
    """Raised when an attached object is no channel, or when its plan is no plan."""

    code = "channel.contract"
    template = "channel {channel}: {problem}; repair the adapter"
    channel: str
    problem: str


@define(kw_only=True, slots=False)
class ConflictError(StoreError):
    """Raised when another writer appended to the stream first. The kernel decides again
    by itself; a caller sees this error when the second decision met a conflict, too."""

    code = "store.conflict"
    template = "{stream} is at version {actual}, not {expected}; decide again"
    stream: str
    expected: int
    actual: int


@define(kw_only=True, slots=False)
class KeyTakenError(ConflictError):
    """Raised when another stream holds a dedupe key already. `stream` is that stream
    and `actual` its version."""

    code = "store.key_taken"
    template = "key {key} is held by {stream}; decide again"
    key: str


@define(kw_only=True, slots=False)
class BusyError(StoreError):
    """Raised when another process held the database for longer than the busy timeout."""

    code = "store.busy"
    template = "{path} stayed locked by another process for {waited_ms} ms; try again"
    path: str
    waited_ms: int


@define(kw_only=True, slots=False)
class CorruptLogError(StoreError):
    """Raised when a stored record cannot be read or does not fit its place. Its stream
    is set aside; all other streams still work."""

    code = "store.corrupt"
    template = "position {position} of the log, {stream}: {problem}"
    position: int
    stream: str
    problem: str


@define(kw_only=True, slots=False)
class DamagedError(CorruptLogError):
    """Raised when a page of the database or a body differs from the written bytes. It has
    no place in the log: `position` is 0, `stream` empty. Data outside of it still works."""

    code = "store.damaged"
    template = "{path} is damaged: {problem}; audit it, or restore a backup"
    path: str
    position: int = 0
    stream: str = ""


@define(kw_only=True, slots=False)
class NewerSchemaError(StoreError):
    """Raised on opening a store that a newer turnfold wrote."""

    code = "store.newer_schema"
    template = (
        "{path} has schema {found}, this turnfold knows up to {known}; upgrade turnfold"
    )
    path: str
    found: int
    known: int


@define(kw_only=True, slots=False)
class OlderSchemaError(StoreError):
    """Raised on opening a store in a database whose tables an older turnfold made."""

    code = "store.older_schema"
    template = (
        "{path} has schema {found}, this turnfold needs {known}; run turnfold migrate"
    )
    path: str
    found: int
    known: int


@define(kw_only=True, slots=False)
class NotAStoreError(StoreError):
    """Raised on opening a path that holds something else, or nothing."""

    code = "store.not_a_store"
    template = "{path} is not a turnfold store: {problem}; check the path"
    path: str
    problem: str


@define(kw_only=True, slots=False)
class NoAccessError(StoreError):
    """Raised when a server refuses the user, the password, the connection or a right."""

    code = "store.no_access"
    template = "{path}: the server gives no access: {problem}; {advice}"
    path: str
    problem: str
    advice: str


@define(kw_only=True, slots=False)
class UnsafeStoreError(StoreError):
    """Raised on opening a store that may lose a commit: a network disk, or no sync."""

    code = "store.unsafe"
    template = "{path} cannot hold a store safely: {problem}"
    path: str
    problem: str


@define(kw_only=True, slots=False)
class DiskError(StoreError):
    """Raised when the disk is full, read-only or failing. The call stored nothing."""

    code = "store.disk"
    template = "{path}: {problem}; nothing of this call was stored"
    path: str
    problem: str


@define(kw_only=True, slots=False)
class ReadOnlyError(StoreError):
    """Raised by every write to a store that can only be read."""

    code = "store.read_only"
    template = "{path} is {problem}"
    path: str
    problem: str = "open for reading only; open it for writing to change it"


@define(kw_only=True, slots=False)
class FateUnknownError(StoreError):
    """Raised when a COMMIT failed in a way that may or may not have reached the disk.
    The same call with the same key or message id is safe: it finds what was stored."""

    code = "store.fate_unknown"
    template = "{path}: the fate of a commit is unknown ({problem}); reopen and read"
    path: str
    problem: str


@define(kw_only=True, slots=False)
class RequestedError(StoreError):
    """Raised when a durable command has no answer of a worker yet. One will do it."""

    code = "store.requested"
    template = (
        "{command} lies in the inbox of {path}; no worker answered in {waited_ms} ms, "
        "and the next one will do it (this process cannot: {problem})"
    )
    path: str
    command: str
    waited_ms: int
    problem: str = "it does not own the store"


@define(kw_only=True, slots=False)
class OwnedError(StoreError):
    """Raised when another process or kernel is the worker of this store."""

    code = "store.owned"
    template = "{path} has a worker: {owner}; wait as standby, or stop that worker"
    path: str
    owner: str


@define(kw_only=True, slots=False)
class ShardedStoreError(StoreError):
    """Raised for a call that works only on a store of one shard. `instead`: the advice
    in its text."""

    code = "store.sharded"
    template = "{path} has {shards} shards, and {what} works on one; {instead}"
    path: str
    shards: int
    what: str
    instead: str


@define(kw_only=True, slots=False)
class OtherShardError(UsageError):
    """Raised when a turn answers into a conversation of another shard: that could not
    be one commit with the turn."""

    code = "usage.other_shard"
    template = (
        "{route} lies in shard {other}, the turn in shard {shard}; send it with "
        "kernel.enqueue(route, ..., key=...)"
    )
    route: str
    shard: int
    other: int


@define(kw_only=True, slots=False)
class LostStoreError(OwnedError):
    """Raised when a file of an open store was moved, replaced, deleted or truncated. The
    call counts as not stored. The worker stands down."""

    code = "store.lost"
    template = (
        "{path}: {problem}; nothing more is stored here: put the file back or restore "
        "a backup, then restart this process"
    )
    path: str
    problem: str
    owner: str = ""  # empty: the open files have no name


@define(kw_only=True, slots=False)
class StoreKeyError(StoreError):
    """Raised when the given key opens no store, or none can be used. It is in no text."""

    code = "store.key"
    template = "{path}: {problem}"
    path: str
    problem: str


@define(kw_only=True, slots=False)
class WrongKeyError(StoreKeyError):
    """Raised when the key does not fit the store."""

    code = "store.key_wrong"
    problem: str = (
        "the key does not fit this store; give the key file that it was made with, or the "
        "backup that belongs to this key"
    )


@define(kw_only=True, slots=False)
class MissingKeyError(StoreKeyError):
    """Raised when the store is encrypted and no key is given."""

    code = "store.key_missing"
    problem: str = (
        "it is encrypted and no key is given; name the key file: --key-file, "
        "TURNFOLD_KEY_FILE, or ?key_file=FILE behind the path"
    )


@define(kw_only=True, slots=False)
class NotEncryptedError(StoreKeyError):
    """Raised when a key is given and the store is not encrypted. It is left as it is."""

    code = "store.not_encrypted"
    problem: str = (
        "a key is given and this store is not encrypted; leave the key out, or make an "
        "encrypted copy: turnfold copy PLAIN 'NEW?key_file=FILE'"
    )


@define(kw_only=True, slots=False)
class MissingBodyError(StoreError):
    """Raised when a needed body was erased, or is lost from the disk."""

    code = "store.missing_body"
    template = (
        "the body {digest} is not in the store (erased, or lost from disk); restore "
        "it from a backup, or give the entry up"
    )
    digest: str


@define(kw_only=True, slots=False)
class StoreFullError(StoreError):
    """Raised by `accept` and `enqueue` while the store has reached a limit of Settings;
    accepted turns go on. `limit`: the setting, `bytes`: measured, `allowed`: its value."""

    code = "store.full"
    template = (
        "{path}: {bytes} bytes, and {limit} is {allowed}: nothing new is taken; prune it "
        "(turnfold prune), or make room"
    )
    path: str
    limit: str
    bytes: int
    allowed: int
