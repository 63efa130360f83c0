"""From payloads to the frozen list of parts (INV-7): their bodies, order, keys and
delivery classes. Runs the adapter's own `plan`, or a plain one that gives every payload
a part and splits text at the adapter's limit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from unicodedata import category

from attrs import evolve
from msgspec import Struct

from turnfold._log.bodies import EncodedPayload, pack
from turnfold._log.ids import part_key
from turnfold._state.entry import Entry
from turnfold.enums import BlindPolicy, Kind
from turnfold.errors import ContractError, InvalidInputError
from turnfold.messages import File, Native, Payload, Route, Text
from turnfold.ports.channel import Capabilities, PartClass, PlanContext, PlannedPart


class PlanPart(Struct):
    packed: EncodedPayload
    key: str
    offer: PartClass
    policy: BlindPolicy | None = None  # of the channel, for an unknown outcome


class Plan(Struct):
    """The parts that `planned` will freeze. No parts: suppressed by the channel."""

    parts: tuple[PlanPart, ...]
    ids: bool = True
    marks: bool = False  # the channel shows that an attempt is marked


def new_key(entry: Entry, part: int) -> str:
    """A key for a part that the platform has refused under its old one. Its letters are
    those of the old key, so it is in the platform's alphabet."""
    old = entry.parts[part].key
    name = f"{entry.stream}+{entry.version}"
    return part_key(name, part, "".join(sorted(set(old))), len(old))


Planner = Callable[..., Sequence[PlannedPart]]


def make_plan(
    planner: Planner | None,
    capabilities: Capabilities,
    payloads: Sequence[Payload],
    route: Route,
    kind: Kind,
    entry: str,
    packed: Sequence[EncodedPayload] = (),
    policies: Mapping[str, BlindPolicy] = MappingProxyType({}),
) -> Plan:
    """`planner`: the channel's own, if it has one. Raises ContractError if its answer
    is no plan. `packed`: the packed payloads, if the caller has them; a part that is a
    whole payload shares its packed form. `policies`: by kind of part."""
    ready = {id(p): made for p, made in zip(payloads, packed, strict=False)}
    parts: list[PlanPart] = []
    for payload in _captions_apart(payloads, capabilities):
        if type(payload) is Native:
            _check_files(payload, capabilities)
        if planner is None:
            pieces: Sequence[PlannedPart] = default_plan(payload, capabilities)
        else:
            context = PlanContext(entry_id=entry, kind=kind)
            pieces = _checked(planner(payload, route, kind, context), route)
        most = capabilities.max_parts
        if most is not None and len(parts) + len(pieces) > most:
            problem = f"it would become more than {most} messages"
            raise InvalidInputError(field="payload", problem=problem)
        for piece in pieces:
            made = ready.get(id(piece.payload)) or pack(piece.payload)
            said = policies.get(piece.kind)
            parts.append(_part(piece.kind, made, capabilities, entry, len(parts), said))
    return Plan(tuple(parts), capabilities.gives_ids, capabilities.marks)


def _check_files(payload: Native, capabilities: Capabilities) -> None:
    """Files that the channel would leave out are refused, not lost."""
    if payload.files and not capabilities.native_files:
        problem = "this channel sends no files in a Native"
        raise InvalidInputError(field="payload", problem=problem)


def _captions_apart(
    payloads: Sequence[Payload], capabilities: Capabilities
) -> Sequence[Payload]:
    for payload in payloads:
        if type(payload) is File and payload.caption:
            return [*_with_captions(payloads, capabilities)]
    return payloads


def _with_captions(
    payloads: Sequence[Payload], capabilities: Capabilities
) -> Iterator[Payload]:
    """A caption that the channel cannot send with its file becomes a text before it."""
    for payload in payloads:
        if isinstance(payload, File) and payload.caption:
            caption, most = payload.caption, capabilities.captions
            if not most or len(list(split_text(caption, most, capabilities.unit))) > 1:
                yield Text(caption)
                yield evolve(payload, caption="")
                continue
        yield payload


def _part(
    kind: str,
    packed: EncodedPayload,
    capabilities: Capabilities,
    entry: str,
    index: int,
    policy: BlindPolicy | None,
) -> PlanPart:
    c = capabilities
    key = part_key(entry, index, c.key_alphabet, c.key_length)
    return PlanPart(packed, key, c.of(kind), policy)


def _checked(pieces: object, route: Route) -> Sequence[PlannedPart]:
    good = isinstance(pieces, list | tuple) and all(map(_is_planned, pieces))
    if not good:
        problem = (
            "plan() must return a list of PlannedPart, each of the kind of its payload, "
            f"got {pieces!r:.160}"
        )
        raise ContractError(channel=route.channel, problem=problem)
    return pieces  # type: ignore[return-value]  # just checked


def _is_planned(piece: object) -> bool:
    """The log stores a payload, which fixes the kind of the part, so the plan may not
    name another kind."""
    if not isinstance(piece, PlannedPart):
        return False
    payload: object = piece.payload
    return isinstance(payload, Payload) and piece.kind == _kind_of(payload)


def default_plan(payload: Payload, capabilities: Capabilities) -> list[PlannedPart]:
    """One part for a payload; text without visible characters is nothing to send."""
    if isinstance(payload, Text):
        if not shows_something(payload.text):
            return []
        if capabilities.limit is None:
            return [PlannedPart(payload=payload, kind="text")]
        chunks = split_text(payload.text, capabilities.limit, capabilities.unit)
        return [
            PlannedPart(
                payload=payload
                if chunk == payload.text
                else evolve(payload, text=chunk),
                kind="text",
            )
            for chunk in chunks
        ]
    return [PlannedPart(payload=payload, kind=_kind_of(payload))]


def _kind_of(payload: Payload) -> str:
    if isinstance(payload, Text):
        return "text"
    return "file" if isinstance(payload, File) else "native"


_UNSEEN_KINDS = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # of Unicode
# Letters and marks by their kind, and yet every font shows nothing: fillers, variation
# selectors, the braille blank.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    chr(code) for code in range(0xFE00, 0xFE10)
)


def shows_something(text: str) -> bool:
    r"""Does a text have a visible character? Platforms refuse one without as empty.

    >>> shows_something("\u200b\u2060 \u2800"), shows_something(".")
    (False, True)
    """
    for c in text:  # noqa: SIM110  `any` would leave a generator, costly to end
        if category(c) not in _UNSEEN_KINDS and c not in _UNSEEN:
            return True
    return False


MEASURES: dict[str, Callable[[str], int]] = {
    "chars": len,
    "utf16": lambda s: len(s.encode("utf-16-le")) // 2,
    "bytes": lambda s: len(s.encode()),
}


def split_text(text: str, limit: int | None, unit: str = "chars") -> Iterator[str]:
    """Chunks of at most `limit` units, cut at a line end, else a space, else anywhere.
    Nothing but the white space at a cut is lost.

    >>> list(split_text("one two three", 8))
    ['one two', 'three']
    """
    if limit is None:
        if text.strip():
            yield text
        return
    measure, start, size = MEASURES[unit], 0, len(text)
    while start < size:
        end = _longest(text, start, limit, measure)
        cut = size if end == size else _cut(text, start, end)
        chunk = text[start:cut]
        if cut < size and text[cut].isspace():
            chunk = chunk.rstrip()
            cut = _past_space(text, cut)
        if chunk.strip():
            yield chunk
        start = cut


def _cut(text: str, start: int, end: int) -> int:
    """Where to cut a piece that may go up to `end`: before white space, if there is
    something to read before it."""
    for mark in "\n ":
        cut = text.rfind(mark, start, end + 1)
        if cut > start and not text[start:cut].isspace():
            return cut
    return end


def _past_space(text: str, index: int) -> int:
    while index < len(text) and text[index].isspace():
        index += 1
    return index


def _longest(text: str, start: int, limit: int, measure: Callable[[str], int]) -> int:
    """The end of the longest piece from `start` that fits; at least one character."""
    low, high = start + 1, min(len(text), start + limit)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[start:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return low
