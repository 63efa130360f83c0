"""A mutant: one function of the product with one piece of its code replaced.

A piece is looked for in the syntax tree, so layout, comments and line breaks do not
matter. It must stand there exactly once. If it does not, or if its function is gone,
the mutant is stale: an error with the text that was looked for, never a silent pass.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import CodeType, FunctionType
from typing import Any, cast

from attrs import frozen

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = ("body", "orelse", "finalbody", "handlers")


@frozen
class Edit:
    """`where`: module:qualified name. `old`: an expression, a statement, or the first
    line of a compound statement (then its block stays); empty: `new` is put before the
    first statement. `new` is of the same sort; for a statement it may be several."""

    where: str
    old: str
    new: str


@frozen
class Mutant:
    """`area`: guard, program, decision, recovery, store, shards or sql. `killers`: checkers that
    notice it, by name (see `checkers`). `world`: the switch of the world model that
    takes the same rule out of the protocol, if it has one."""

    name: str
    area: str
    edits: tuple[Edit, ...]
    killers: tuple[str, ...]
    world: str = ""


class StaleMutantError(Exception):
    """The product has moved on; the mutant must be written anew."""


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The product is broken inside, and whole again after it. Raises StaleMutantError,
    and then nothing was changed."""
    with ExitStack() as stack:
        for function, code in _changes(mutant):
            stack.callback(_put, function, function.__code__)
            _put(function, code)
        yield


def _put(function: FunctionType, code: CodeType) -> None:
    function.__code__ = code


def _changes(mutant: Mutant) -> list[tuple[FunctionType, CodeType]]:
    """The functions of the mutant, each with its new code."""
    trees: dict[str, tuple[FunctionType, _Function]] = {}
    for edit in mutant.edits:
        if edit.where not in trees:
            function = _find(edit.where)
            trees[edit.where] = function, _definition(function, edit.where)
        _change(trees[edit.where][1], edit)
    return [
        (function, _compiled(function, tree, where))
        for where, (function, tree) in trees.items()
    ]


def _find(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as exc:
        raise StaleMutantError(f"{where}: there is no such function ({exc})") from exc
    if isinstance(found, property):
        found = found.fget
    function = inspect.unwrap(found)
    if not isinstance(function, FunctionType):
        raise StaleMutantError(f"{where}: is no function but {found!r}")
    return function


def _definition(function: FunctionType, where: str) -> _Function:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    if not isinstance(tree, _Function):
        raise StaleMutantError(f"{where}: is not defined by `def`")
    return tree


def _change(tree: _Function, edit: Edit) -> None:
    if not edit.old:
        documented = ast.get_docstring(tree) is not None
        tree.body[documented:documented] = ast.parse(edit.new).body
        return
    piece = _Piece(edit)
    piece.visit(tree)
    if piece.found != 1:
        message = f"{edit.where}: looked for `{edit.old}`, found it {piece.found} times"
        raise StaleMutantError(message)


class _Piece(ast.NodeTransformer):
    """Replaces a piece wherever it stands, and counts."""

    def __init__(self, edit: Edit) -> None:
        self.found = 0
        self._old, self._new = _parsed(edit.old, edit.new)
        self._header = _is_header(self._old[0])
        self._looks = self._shape(self._old[0])

    def _shape(self, node: ast.AST) -> str:
        """Equal for equal code, wherever it stands."""
        return _first_line(node) if self._header else ast.dump(node)

    def visit(self, node: ast.AST) -> Any:
        alike = type(node) is type(self._old[0])
        if not alike or self._shape(node) != self._looks:
            return self.generic_visit(node)
        self.found += 1
        if not self._header:
            return self._new if isinstance(node, ast.stmt) else self._new[0]
        for name, value in ast.iter_fields(self._new[0]):
            if name not in _BLOCKS:
                setattr(node, name, value)
        return node


def _parsed(*texts: str) -> list[list[ast.AST]]:
    """Each as one expression if all are, else as statements; a first line gets `...`
    for its block."""
    blocks = [f"{text} ..." if text.rstrip().endswith(":") else text for text in texts]
    bodies = [ast.parse(textwrap.dedent(block)).body for block in blocks]
    if all(len(body) == 1 and isinstance(body[0], ast.Expr) for body in bodies):
        return [[cast("ast.Expr", body[0]).value] for body in bodies]
    return cast("list[list[ast.AST]]", bodies)


def _is_header(node: ast.AST) -> bool:
    """A first line that got `...` for its block."""
    body = getattr(node, "body", None)
    return isinstance(body, list) and [ast.unparse(line) for line in body] == ["..."]


def _first_line(node: ast.AST) -> str:
    """The parts of a compound statement beside its blocks."""
    fields = [(n, v) for n, v in ast.iter_fields(node) if n not in _BLOCKS]
    parts = [(n, v if isinstance(v, list) else [v]) for n, v in fields]
    return repr([(n, [_dumped(item) for item in items]) for n, items in parts])


def _dumped(value: object) -> str:
    return ast.dump(value) if isinstance(value, ast.AST) else repr(value)


def _compiled(function: FunctionType, tree: _Function, where: str) -> CodeType:
    """The new code runs in the function's own module."""
    _strip(tree)
    module = ast.fix_missing_locations(ast.Module([tree], []))
    names: dict[str, Any] = {}
    code = compile(module, f"<mutant of {where}>", "exec")
    exec(code, function.__globals__.copy(), names)  # noqa: S102  our own source
    made: FunctionType = names[tree.name]
    if made.__code__.co_freevars != function.__code__.co_freevars:
        raise StaleMutantError(f"{where}: is a closure, which cannot be replaced")
    return made.__code__


def _strip(tree: _Function) -> None:
    """Only the code is taken; the text around it need not be evaluated again."""
    tree.decorator_list, tree.returns = [], None
    given = tree.args
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs):
        argument.annotation = None
    for rest in (given.vararg, given.kwarg):
        if rest is not None:
            rest.annotation = None
    given.defaults, given.kw_defaults = [], [None] * len(given.kwonlyargs)
