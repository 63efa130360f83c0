"""A mutant: one function of the product with one piece of its source replaced."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any

from attrs import frozen


@frozen
class Edit:
    """`where`: module:qualified name. `old` must stand in the source of that function;
    an empty `old` puts `new` at the beginning of its body."""

    where: str
    old: str
    new: str


@frozen
class Mutant:
    """`area`: guard, program, decision, recovery or store. `killers`: the checkers that
    must notice it, by name (see mutants_checks)."""

    name: str
    area: str
    edits: tuple[Edit, ...]
    killers: tuple[str, ...]


def one(name: str, area: str, where: str, old: str, new: str, *killers: str) -> Mutant:
    """A mutant with a single edit."""
    return Mutant(name, area, (Edit(where, old, new),), killers)


class StaleMutantError(Exception):
    """The source has moved on; the mutant must be written anew."""


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The product is broken inside, and whole again after it."""
    with ExitStack() as stack:
        sources: dict[str, str] = {}
        for edit in mutant.edits:
            function = _find(edit.where)
            source = sources.get(edit.where) or inspect.getsource(function)
            sources[edit.where] = _edited(textwrap.dedent(source), edit)
            stack.callback(_restore, function, function.__code__)
            function.__code__ = _compiled(function, sources[edit.where], edit.where)
        yield


def _restore(function: FunctionType, code: CodeType) -> None:
    function.__code__ = code


def _find(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if isinstance(found, property):
        found = found.fget
    function = inspect.unwrap(found)
    if not isinstance(function, FunctionType):
        raise StaleMutantError(where)
    return function


def _edited(source: str, edit: Edit) -> str:
    if edit.old:
        count = source.count(edit.old)
        if count != 1:
            message = f"{edit.where}: {edit.old!r} stands there {count} times"
            raise StaleMutantError(message)
        return source.replace(edit.old, edit.new)
    tree = _definition(source, edit.where)
    documented = ast.get_docstring(tree) is not None
    tree.body[documented:documented] = ast.parse(edit.new).body
    return ast.unparse(tree)


def _definition(source: str, where: str) -> ast.FunctionDef:
    tree = ast.parse(source).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise StaleMutantError(where)
    return tree


def _compiled(function: FunctionType, source: str, where: str) -> CodeType:
    """The new code runs in the function's own module, whoever refers to it."""
    tree = _definition(source, where)
    tree.decorator_list = []
    module = ast.Module([tree], [])
    names: dict[str, Any] = {}
    code = compile(module, f"<mutant of {where}>", "exec")
    exec(code, function.__globals__.copy(), names)  # noqa: S102  our own source
    made: FunctionType = names[tree.name]
    return made.__code__
