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
from sys import intern
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from turnfold.events import outbox as o
from turnfold.events import turn as t
from turnfold.frozen import frozen

# Control characters are always escaped. Text with an escape is matched by a pattern of
# its own: it is rare, and the other one is quicker without it.
_PLAIN = r'[^"\\\x00-\x1f]*+'
_ESCAPE = r'\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))'
_ESCAPED = rf"{_PLAIN}(?:{_ESCAPE}{_PLAIN})*"
# 16 digits can be 2^53 or more, which is refused; the strict reader looks at those.
_INTEGER = r"0|-?[1-9][0-9]{0,14}"

# What a worker says of each message in the same words; read once, and then known.
_ALIKE = frozenset({o.Attempted, o.Dispatched, t.Started, t.Completed})
_KNOWN = 1_000

# Texts that many streams have in common are kept once.
_COMMON = frozenset({"account", "conversation", "lane"})

Reader = Callable[[bytes], Any]  # None: not just what would be written
_decode = json.JSONDecoder().decode
# Foreign bytes: not UTF-8, a word that is none, no bytes at all.
_ODD = (UnicodeDecodeError, KeyError, AttributeError, TypeError)


@cache
def reader(cls: Any) -> Reader:
    """The reader of a class: gives the event, if writing it gives just these bytes,
    else nothing. Generated on first use."""

    def otherwise(data: bytes) -> Any:  # seldom asked, so not made before
        return _with_escapes(cls)(data)

    read = _reader(cls, otherwise)
    return _remembering(read) if cls in _ALIKE else read


@cache
def _with_escapes(cls: Any) -> Reader:
    return _reader(cls, lambda _: None, escapes=True)


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


def _reader(cls: Any, otherwise: Reader, *, escapes: bool = False) -> Reader:
    shape = _Shape(cls, escapes=escapes)
    source = [
        "def read(_data):",
        "    try:",
        "        _found = _match(_data.decode())",
        "        if _found is not None:",
        f"            ({shape.caught}) = _found.groups()",
        *(f"            {line}" for line in shape.lines),
        "            return _event",
        "    except _odd:",
        "        pass",
        "    return _otherwise(_data)",
    ]
    match = re.compile(shape.pattern).fullmatch
    names = {"_match": match, "_otherwise": otherwise, "_odd": _ODD}
    return _made("read", source, names | shape.names)


def _made(name: str, source: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    exec("\n".join(source), names)  # noqa: S102  made of the names of our own fields
    made: Callable[..., Any] = names[name]
    return made


@frozen
class _Value:
    """How a kind of value is written, the names of what is caught of it, and the
    expression that makes these the value."""

    pattern: str
    caught: tuple[str, ...]
    expression: str
    names: dict[str, Any]


class _Shape:
    """The pattern of a class, what it catches, and the lines that make one of it. The
    classes neither convert nor validate, so setting the fields is all there is to
    making one, in half the time of a call with so many names."""

    def __init__(self, cls: Any, *, escapes: bool, within: str = "") -> None:
        hints = get_type_hints(cls)
        fields = sorted(attrs.fields(cls), key=lambda field: field.name)
        values = {
            a.name: _value(hints[a.name], a, within + a.name, escapes=escapes)
            for a in fields
        }
        self.pattern = rf"\{{{_joined(fields, values)}\}}"
        self.names_caught = [n for value in values.values() for n in value.caught]
        self.caught = "".join(f"{name}, " for name in self.names_caught)
        self.lines = ["_event = _new(_cls)"]
        self.lines += [f"_event.{n} = {v.expression}" for n, v in values.items()]
        self.names = {k: v for value in values.values() for k, v in value.names.items()}
        self.names |= {"_new": object.__new__, "_cls": cls}


def _joined(fields: list[Any], values: dict[str, _Value]) -> str:
    """Members with their commas: after each before the first one that is always there,
    before each after it. (`(?:x|)` is matched quicker than `(?:x)?`.)"""
    out, begun = [], False
    for a in fields:
        member = f'"{a.name}":{values[a.name].pattern}'
        if a.default is attrs.NOTHING:
            out.append(f",{member}" if begun else member)
            begun = True
        else:
            out.append(f"(?:,{member}|)" if begun else f"(?:{member},|)")
    assert begun, fields  # noqa: S101  each event has a field that is always there
    return "".join(out)


def _value(hint: Any, a: Any, name: str, *, escapes: bool) -> _Value:
    """A field's value. What is left out is caught as None, and is the default."""
    if get_origin(hint) is UnionType:
        (hint,) = (arg for arg in get_args(hint) if arg is not NoneType)
        assert a.default is None, a  # noqa: S101  else null would have to be read
    value = _of_type(hint, a, name, escapes=escapes)
    if a.default in (attrs.NOTHING, ()) or hint is bool:
        return attrs.evolve(value, pattern=_unless(a.default) + value.pattern)
    default = f"_default_{name}"
    made = f"{default} if {name} is None else {value.expression}"
    if a.default is None and value.expression == name:
        made = name
    names = value.names | {default: a.default}
    return _Value(_unless(a.default) + value.pattern, value.caught, made, names)


def _unless(default: Any) -> str:
    """Nobody spells out a default."""
    if type(default) is int:
        return rf"(?!{default}[,}}])"
    if isinstance(default, str):
        return f'(?!"{re.escape(default)}")'
    return r"(?!\[\])" if default == () else ""


def _of_type(hint: Any, a: Any, name: str, *, escapes: bool) -> _Value:
    text = _ESCAPED if escapes else _PLAIN
    if get_origin(hint) is tuple:
        return _many(get_args(hint)[0], name, escapes=escapes)
    if issubclass(hint, StrEnum):
        words = f"_words_{name}"
        return _Value(f'"({text})"', (name,), f"{words}[{name}]", {words: _words(hint)})
    if hint is str:
        if escapes:
            read = {"_text_of": _unescaped}
            return _Value(f'("{text}")', (name,), f"_text_of({name})", read)
        made = f"_intern({name})" if a.name in _COMMON else name
        return _Value(f'"({text})"', (name,), made, {"_intern": intern})
    if hint is int:
        return _Value(f"({_INTEGER})", (name,), f"int({name})", {})
    assert hint is bool, hint  # noqa: S101  no event has any other field
    if a.default is attrs.NOTHING:
        return _Value("(true|false)", (name,), f'{name} == "true"', {})
    other, absent = ("false", "is") if a.default else ("true", "is not")
    return _Value(f"({other})", (name,), f"{name} {absent} None", {})


def _words(cls: type[StrEnum]) -> dict[str, StrEnum]:
    return {word.value: word for word in cls}


def _unescaped(quoted: str | None) -> Any:
    return None if quoted is None else _decode(quoted)


# --- arrays: left out or empty, nothing is caught of them -------------------------


def _many(item: Any, name: str, *, escapes: bool) -> _Value:
    if attrs.has(item):
        return _records(item, name, escapes=escapes)
    text = _ESCAPED if escapes else _PLAIN
    pattern = rf'\[(?:"({text}(?:","{text})*)"|)\]'
    # No plain text has a quote, so the quotes are those between. Most arrays have one.
    split = f"_texts({name})" if escapes else f"""tuple({name}.split('","'))"""
    made = split if escapes else f"""({name},) if '"' not in {name} else {split}"""
    names: dict[str, Any] = {"_texts": _escaped_texts} if escapes else {}
    if item is not str:
        made = f"tuple([_words_{name}[word] for word in {split}])"
        names[f"_words_{name}"] = _words(item)
    return _Value(pattern, (name,), f"() if {name} is None else {made}", names)


def _escaped_texts(inner: str) -> tuple[str, ...]:
    return tuple(_decode(f'["{inner}"]'))


def _records(cls: Any, name: str, *, escapes: bool) -> _Value:
    """Most arrays have one record, which is matched with all the rest. Of more, what
    is caught may be any text: they are matched one by one, up to the end."""
    first = _Shape(cls, escapes=escapes, within=f"{name}_")
    lines = [f"    {line}" for line in (*first.lines, "return _event")]
    one = _made("one", [f"def one({first.caught}):", *lines], first.names)

    def several(text: str) -> tuple[Any, ...]:
        match = re.compile(first.pattern + r"(?:,(?=\{)|\Z)").match
        made, at = [], 0
        while at < len(text):
            found = match(text, at)
            if found is None:
                raise KeyError(text)
            made.append(one(*found.groups()))
            at = found.end()
        return tuple(made)

    return _Value(
        rf"\[(?:{first.pattern}|(.*))\]",
        (*first.names_caught, name),
        f"(_one_{name}({first.caught}),) if {name} is None else _several_{name}({name})",
        {f"_one_{name}": one, f"_several_{name}": several},
    )
