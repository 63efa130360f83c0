"""Who imports whom in the kernel, by group: a package of the kernel, or a module of its top.

Imports may go down only: `api -> _runtime -> _decide -> _state -> _log`. `ports`,
`audit` and `inspect` stand beside these layers, and the files of words are below all. An
import inside a function counts, one for the type checker alone does not.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from attrs import frozen

LAYERS = ("api", "_runtime", "_decide", "_state", "_log")
WORDS = ("messages", "settings", "enums", "errors", "clock")
_TOP = "turnfold"  # its __init__ gives every public name, so it is above all

Graph = Mapping[str, frozenset[str]]


@frozen
class Imports:
    """`files`: each module with the modules that it imports."""

    files: Graph

    def groups(self) -> Graph:
        """The same between groups; `__init__` of the kernel is left out as an importer,
        because it names the others without loading them."""
        found: dict[str, set[str]] = {}
        for module, others in self.files.items():
            if module == _TOP:
                continue
            mine = group_of(module)
            found.setdefault(mine, set()).update(
                group_of(other) for other in others if group_of(other) != mine
            )
        return {name: frozenset(others) for name, others in found.items()}

    def arrows(self) -> list[str]:
        return [
            f"{one} -> {other}"
            for one, others in sorted(self.groups().items())
            for other in sorted(others)
        ]

    def upward(self) -> list[str]:
        """Imports between files that point up, as `importer -> imported`."""
        return [
            f"{module} -> {other}"
            for module, others in sorted(self.files.items())
            for other in sorted(others)
            if module != _TOP and _points_up(group_of(module), group_of(other))
        ]

    def circles(self) -> list[str]:
        return [" <-> ".join(circle) for circle in circles_of(self.groups())]

    def circles_of_files(self) -> list[str]:
        files = {name: others for name, others in self.files.items() if name != _TOP}
        return [" <-> ".join(circle) for circle in circles_of(files)]


def group_of(module: str) -> str:
    """`turnfold._log.codec` -> `_log`; `turnfold.errors` -> `errors`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else _TOP


def _points_up(one: str, other: str) -> bool:
    return one != other and _height(other) > _height(one) >= 0


def _height(group: str) -> int:
    """Words are lowest, then the layers from below; -1: beside them."""
    if group in WORDS:
        return 0
    if group in LAYERS:
        return len(LAYERS) - LAYERS.index(group)
    return len(LAYERS) + 1 if group == _TOP else -1


def read(folder: Path) -> Imports:
    """All modules below a package's folder."""
    names = {_module(path, folder): path for path in folder.rglob("*.py")}
    return Imports(
        {
            name: frozenset(_imported(path, name, names)) - {name}
            for name, path in names.items()
        }
    )


def _module(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, module: str, names: Iterable[str]) -> Iterator[str]:
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in _at_run_time(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in names:
                    yield inner
                elif base in names:
                    yield base


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, node.module] if node.module else above)


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _at_run_time(other)
            continue
        yield child
        yield from _at_run_time(child)


def circles_of(graph: Graph) -> list[list[str]]:
    """Sets of nodes that reach each other (Tarjan's algorithm), sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            cut = stack.index(node)
            circle = sorted(stack[cut:])
            del stack[cut:]
            if len(circle) > 1:
                found.append(circle)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)
