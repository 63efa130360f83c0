"""The results of queries about many messages. Times are milliseconds UTC."""

from collections.abc import Mapping

from attrs import frozen

from turnfold.inspect.views import Row, TurnView


@frozen(kw_only=True)
class Tally:
    """Turns and entries of one group. `turns`: accepted. `out`: entries of any kind;
    each is delivered, waiting, parked, dead (ended without delivery) or aborted. `why`:
    dead and parked entries by failure class, else by reason."""

    group: Mapping[str, str]
    turns: int = 0
    out: int = 0
    delivered: int = 0
    waiting: int = 0
    parked: int = 0
    dead: int = 0
    aborted: int = 0
    why: Mapping[str, int] = {}


@frozen(kw_only=True)
class Page:
    """Rows, and the beginning of the next page (`Filter.before`); None: there is
    none."""

    rows: tuple[Row, ...]
    before: int | None = None


@frozen(kw_only=True)
class GateView:
    """A closed gate. `waiting`: open entries behind it. `until`: it opens by itself."""

    id: str
    place: str
    reason: str | None
    since: int
    until: int | None
    waiting: int
    oldest: Row | None
    person: bool
    next: str


@frozen(kw_only=True)
class WorkerView:
    """The last worker. `alive` is None where this host cannot know. `stopped`: its
    process stands still, by SIGSTOP or a debugger. `since`: when it began. `heard`: when
    the last record was written. `sending`: calls on the wire."""

    alive: bool | None
    stopped: bool
    id: str | None
    pid: int | None
    host: str | None
    epoch: int
    since: int | None
    heard: int | None
    sending: int
    sending_since: int | None


@frozen(kw_only=True)
class ChannelView:
    """An account with its counts since `Filter.since`. `classes`: the delivery classes
    of the latest planned part; none counts as blind. `ids`: its adapter gives message
    ids; without one an acceptance is only the adapter's claim."""

    channel: str
    account: str
    tally: Tally
    classes: tuple[str, ...] | None
    ids: bool | None
    last: int | None  # the time of the latest queued entry
    gate: GateView | None


@frozen(kw_only=True)
class Found:
    """One turn that `find` found."""

    at: int
    text: str | None
    turn: TurnView


@frozen(kw_only=True)
class Overview:
    """Is a person needed? `needed` lists the reasons, each with the command to type.
    `as_of`: on a standby the time of the last commit that it has."""

    address: str
    as_of: int | None = None
    position: int
    since: int | None
    worker: WorkerView
    turns: int  # open
    runs: int  # open turns without an answer
    waiting: int
    oldest: Row | None
    parked: int
    oldest_parked: Row | None
    dead: int  # of the last 7 days
    unseen: int  # dead letters and bounces that no person has seen yet
    held: int  # turns
    failed: int  # turns of the last 7 days; also those with a dead answer
    gates: tuple[GateView, ...]
    inbox: int
    inbox_since: int | None
    hour: Tally
    needed: tuple[tuple[str, str], ...]
