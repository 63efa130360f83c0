"""The quick way to read an event: one regular expression per class.

What canonical JSON allows for a class of events is a regular language: the fields in
order of their names, those at their default left out, no white space, one way to write
each value. So a match is the proof of types and canonical form at once, and nothing is
written again to be compared. Whatever does not match - and whatever is rare - comes out
as nothing, and the strict reader of the codec says what it is. The tests hold both to
the writer. See specs/decisions/0014.
"""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.frozen import frozen

# Control characters are always escaped. Text with an escape is matched by a pattern of
# its own: it is rare, and the other one is quicker without it.
_PLAIN = r'[^"\\\x00-\x1f]*'
_ESCAPE = r'\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_ESCAPED = rf"{_PLAIN}(?:{_ESCAPE}{_PLAIN})*"
# 16 digits can be 2^53 or more, which is refused; the strict reader looks at those.
_INTEGER = r"0|-?[1-9][0-9]{0,14}"

# What a worker says of each message in the same words; read once, and then known.
_ALIKE = frozenset({o.Attempted, o.Dispatched, t.Started, t.Completed})
_KNOWN = 1_000

Reader = Callable[[bytes], Any]  # None: not just what would be written
_decode = json.JSONDecoder().decode
# Foreign bytes: not UTF-8, a word that is none, no bytes at all.
_ODD = (UnicodeDecodeError, KeyError, AttributeError, TypeError)


@cache
def reader(cls: Any) -> Reader:
    """The reader of a class: gives the event, if writing it gives just these bytes,
    else nothing. Generated on first use."""
    plain, escaped = _read(cls, escapes=False), _read(cls, escapes=True)

    def read(data: bytes) -> Any:
        try:
            text = data.decode()
            return escaped(text) if "\\" in text else plain(text)
        except _ODD:
            return None

    return _remembering(read) if cls in _ALIKE else read


def _remembering(read: Reader) -> Reader:
    """Events are frozen, so streams may share them."""
    known: dict[bytes, Any] = {}

    def remembered(data: bytes) -> Any:
        event = known.get(data)
        if event is None:
            event = read(data)
            if event is not None and len(known) < _KNOWN:
                known[data] = event
        return event

    return remembered


@frozen
class _Value:
    """How a kind of value is written, what of it is caught, and the expression that
    makes the caught text the value. `{0}` stands for the caught text."""

    pattern: str
    expression: str
    names: dict[str, Any]


def _read(cls: Any, *, escapes: bool) -> Callable[[str], Any]:
    shape = _Shape(cls, escapes=escapes)
    match = re.compile(shape.pattern).fullmatch
    source = [
        "def read(_text):",
        "    _found = _match(_text)",
        "    if _found is None:",
        "        return None",
        *(f"    {line}" for line in shape.lines),
        "    return _event",
    ]
    return _made("read", source, _match=match, **shape.names)


def _made(name: str, source: list[str], **names: Any) -> Callable[..., Any]:
    exec("\n".join(source), names)  # noqa: S102  made of the names of our own fields
    made: Callable[..., Any] = names[name]
    return made


class _Shape:
    """The pattern of a class, and the lines that make one of what was caught. The
    classes neither convert nor validate, so setting the fields is all there is to
    making one, in half the time of a call with so many names."""

    def __init__(self, cls: Any, *, escapes: bool) -> None:
        hints = get_type_hints(cls)
        fields = sorted(attrs.fields(cls), key=lambda field: field.name)
        values = {a.name: _value(hints[a.name], a, escapes=escapes) for a in fields}
        self.pattern = rf"\{{{_joined(fields, values)}\}}"
        caught = "".join(f"{name}, " for name in values)
        self.lines = [f"({caught}) = _found.groups()", "_event = _new(_cls)"]
        self.lines += [
            f"_event.{name} = {value.expression.format(name)}"
            for name, value in values.items()
        ]
        self.names = {k: v for value in values.values() for k, v in value.names.items()}
        self.names |= {"_new": object.__new__, "_cls": cls}


def _joined(fields: list[Any], values: dict[str, _Value]) -> str:
    """Members with their commas: after each before the first one that is always there,
    before each after it."""
    out, begun = [], False
    for a in fields:
        member = f'"{a.name}":{values[a.name].pattern}'
        if a.default is attrs.NOTHING:
            out.append(f",{member}" if begun else member)
            begun = True
        else:
            out.append(f"(?:,{member})?" if begun else f"(?:{member},)?")
    assert begun, fields  # noqa: S101  each event has a field that is always there
    return "".join(out)


def _value(hint: Any, a: Any, *, escapes: bool) -> _Value:
    """A field's value. What is left out is caught as None, and is the default."""
    if get_origin(hint) is UnionType:
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
        assert a.default is None, a  # noqa: S101  else null would have to be read
    value = _of_type(hint, a, escapes=escapes)
    if a.default is attrs.NOTHING or hint is bool:
        return value
    default = f"_default_{a.name}"
    made = f"{default} if {{0}} is None else {value.expression}"
    if a.default is None:
        made = value.expression if value.expression == "{0}" else made
    return _Value(
        _unless(a.default) + value.pattern, made, value.names | {default: a.default}
    )


def _unless(default: Any) -> str:
    """Nobody spells out a default."""
    if type(default) is int:
        return rf"(?!{default}[,}}])"
    if isinstance(default, str):
        return f'(?!"{re.escape(default)}")'
    return r"(?!\[\])" if default == () else ""


def _of_type(hint: Any, a: Any, *, escapes: bool) -> _Value:
    text = _ESCAPED if escapes else _PLAIN
    if get_origin(hint) is tuple:
        return _many(get_args(hint)[0], a.name, escapes=escapes)
    if issubclass(hint, StrEnum):
        words = f"_words_{a.name}"
        return _Value(f'"({text})"', words + "[{0}]", {words: _words(hint)})
    if hint is str:
        if escapes:
            return _Value(f'("{text}")', "_text_of({0})", {"_text_of": _unescaped})
        return _Value(f'"({text})"', "{0}", {})
    if hint is int:
        return _Value(f"({_INTEGER})", "int({0})", {})
    assert hint is bool, hint  # noqa: S101  no event has any other field
    if a.default is attrs.NOTHING:
        return _Value("(true|false)", '{0} == "true"', {})
    other = "false" if a.default else "true"
    return _Value(f"({other})", "{0} is " + ("None" if a.default else "not None"), {})


def _words(cls: type[StrEnum]) -> dict[str, StrEnum]:
    return {word.value: word for word in cls}


def _unescaped(quoted: str | None) -> Any:
    return None if quoted is None else _decode(quoted)


# --- arrays ----------------------------------------------------------------------


def _many(item: Any, name: str, *, escapes: bool) -> _Value:
    if attrs.has(item):
        records = f"_records_{name}"
        return _Value(
            r"(\[.*\])", records + "({0})", {records: _records(item, escapes=escapes)}
        )
    text = f'"{_ESCAPED if escapes else _PLAIN}"'
    names: dict[str, Any] = {"_texts": _escaped_texts if escapes else _texts}
    made = "_texts({0})"
    if item is not str:
        words = f"_words_{name}"
        made = f"tuple([{words}[word] for word in {made}])"
        names[words] = _words(item)
    return _Value(rf"(\[(?:{text}(?:,{text})*)?\])", made, names)


def _texts(array: str) -> tuple[str, ...]:
    """No text in it has a quote, so the quotes are those between."""
    return tuple(array[2:-2].split('","')) if array != "[]" else ()


def _escaped_texts(array: str) -> tuple[str, ...]:
    return tuple(_decode(array))


def _records(cls: Any, *, escapes: bool) -> Callable[[str], Any]:
    """What is caught may be any text in brackets: here each record is matched, up to
    the closing bracket."""
    shape = _Shape(cls, escapes=escapes)
    match = re.compile(shape.pattern + r"(?:,(?!\])|\]\Z)").match
    source = [
        "def records(_array):",
        "    _made, _at, _end = [], 1, len(_array) if _array != '[]' else 0",
        "    while _at < _end:",
        "        _found = _match(_array, _at)",
        "        if _found is None:",
        "            raise KeyError(_array)",
        *(f"        {line}" for line in shape.lines),
        "        _made.append(_event)",
        "        _at = _found.end()",
        "    return tuple(_made)",
    ]
    return _made("records", source, _match=match, **shape.names)
