"""The filters that `list`, `turns` and every act understand, declared once.

A command names its filters: `@filtered("dead", "since")` puts these options into its
signature and passes the values as one argument, `want`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any

import typer
from attrs import evolve, fields, frozen

from turnfold.enums import Kind, Phase, Status, TurnPhase
from turnfold.inspect import Filter
from turnfold_cli import USAGE
from turnfold_cli.common import RefusedError, ask
from turnfold_cli.times import Since, Until, span

_OF_ENTRIES = {*Status, *Phase, "parked"}
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="One or more, as a,b.")
]
Name = Annotated[str | None, typer.Option(show_default=False)]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="final, block, ...")]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="expired, permission, ...: a reason or a failure."),
]
Parked = Annotated[bool, typer.Option("--parked", help="In doubt; a person decides.")]
Dead = Annotated[bool, typer.Option("--dead", help="Ended without delivery.")]
Unseen = Annotated[bool, typer.Option("--unseen", help="A person is needed.")]
Held = Annotated[bool, typer.Option("--held", help="A person must let it run.")]
OpenOnly = Annotated[
    bool | None, typer.Option("--open/--closed", help="What may still move by itself.")
]
Turns = Annotated[
    bool, typer.Option("--turns", help="The filters speak of turns, not of entries.")
]

Sender = Annotated[
    str | None,
    typer.Option(
        "--sender",
        help="Whoever wrote, by the platform's id: their turns, or what answers them.",
        show_default=False,
    ),
]

PLACES = ("channel", "account", "conversation")
TIMES = ("since", "until")
ENTRIES = ("parked", "dead", "unseen", "status", "reason", "kind", *PLACES, "turn")
TURNS = ("held", "status", "reason", *PLACES)


@frozen
class Wanted:
    """The typed filters."""

    parked: Parked = False
    dead: Dead = False
    unseen: Unseen = False
    held: Held = False
    turns: Turns = False
    status: Statuses = None
    reason: Reasons = None
    kind: Kinds = None
    channel: Name = None
    account: Name = None
    conversation: Name = None
    turn: Name = None
    open_: OpenOnly = None
    since: Since = None
    until: Until = None
    sender: Sender = None

    @property
    def any(self) -> bool:
        """Was any filter typed?"""
        return evolve(self, turns=False) != Wanted()

    @property
    def words(self) -> tuple[str, ...]:
        """The words of `--status` and of the short options."""
        if self.turns and (self.parked or self.dead or self.kind or self.turn):
            text = "--parked, --dead, --kind and --turn speak of entries, not of turns"
            raise RefusedError(text, USAGE)
        known = {*TurnPhase} if self.turns else _OF_ENTRIES
        words = split("--status", self.status, known)
        words += ("parked",) * self.parked
        return words + (str(Status.FAILED_TERMINAL),) * self.dead

    def filter(self, address: str, **page: Any) -> Filter:
        """The filters as a query of the store at this address."""
        turn, (since, until) = self.turn, span(self.since, self.until)
        return Filter(
            what="turn" if self.turns else "entry",
            status=self.words,
            person=self.unseen or self.held or None,
            channel=self.channel,
            account=self.account,
            conversation=self.conversation,
            kind=split("--kind", self.kind, {*Kind}),
            reason=split("--reason", self.reason),
            turn=None if turn is None else ask(address, lambda i: i.resolve(turn)),
            open=self.open_,
            since=since,
            until=until,
            **page,
        )


def split(
    option: str, values: Sequence[str] | None, known: set[str] | None = None
) -> tuple[str, ...]:
    """The words of an option that may be repeated and may hold commas."""
    words = tuple(w.strip() for value in values or () for w in value.split(",") if w)
    odd = [word for word in words if known is not None and word not in known]
    if odd:
        there = ", ".join(sorted(map(str, known or ())))
        raise RefusedError(f"{option}: no {odd[0]!r}; there are: {there}", USAGE)
    return words


def filtered(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these filters; it gets them as `want`."""
    return options(want=(Wanted, names))


def options(
    **groups: tuple[type, Sequence[str]],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Each named argument is one object; on the command line it is one option for each
    of the given fields of its class."""

    def around(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def called(**given: Any) -> None:
            whole = {
                name: kind(**{field: given.pop(field) for field in names})
                for name, (kind, names) in groups.items()
            }
            command(**whole, **given)

        signature = _signature(command, groups)
        called.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
        called.__annotations__ = {
            n: p.annotation for n, p in signature.parameters.items()
        }
        return called

    return around


def _signature(
    command: Callable[..., None], groups: Mapping[str, tuple[type, Sequence[str]]]
) -> inspect.Signature:
    """The signature of the command, with the options in the place of each group."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters: list[inspect.Parameter] = []
    for parameter in own:
        if parameter.name in groups:
            kind, names = groups[parameter.name]
            parameters += [_option(kind, name) for name in names]
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
    return inspect.Signature(parameters)


def _option(kind: type, name: str) -> inspect.Parameter:
    declared = getattr(fields(kind), name)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=declared.default,
        annotation=declared.type,
    )
