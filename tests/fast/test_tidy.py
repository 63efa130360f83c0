"""The tree keeps its shape: sizes, imports, words. Read as rules, not as style."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("kernel", "adapters", "model")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# A longer file or function stands here with its reason.
LONGER: dict[str, str] = {
    "_state/entry_fold.py:_moved": "one case per event; splitting it would hide a gap",
    "_state/turn.py:_moved": "as above",
    "_state/entry.py:copied": "one line per field: the quickest copy there is",
}
MAY_IMPORT = {
    "turnfold": {"turnfold"},
    "turnfold_adapters": {"turnfold", "turnfold_adapters"},
    "turnfold_model": {
        "turnfold",
        "turnfold_adapters",
        "turnfold_cli",
        "turnfold_model",
    },
    "turnfold_cli": {"turnfold", "turnfold_adapters", "turnfold_cli", "turnfold_model"},
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_source_file_has_at_most_600_lines() -> None:
    """400 is the habit. A file is split where an idea ends, not where a number does."""
    long = {_name(path): _lines(path) for path in SOURCES if _lines(path) > 600}
    assert not long


def test_a_test_file_has_at_most_800_lines() -> None:
    assert not {_name(path): _lines(path) for path in TESTS if _lines(path) > 800}


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_a_function_has_at_most_50_lines() -> None:
    long = [
        f"{_name(path)}:{node.name} has {length} lines"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 50
    ]
    assert not [line for line in long if not any(known in line for known in LONGER)]


def test_imports_go_one_way() -> None:
    assert not [
        f"{_name(path)} imports {name}"
        for path in SOURCES
        for name in _imported(path)
        if name.startswith("turnfold")
        and name.partition(".")[0] not in MAY_IMPORT[path.relative_to(ROOT).parts[1]]
    ]


# The kernel's layers, from the caller down to the stored bytes. A layer imports what
# stands behind it; ports, audit and inspect stand beside, the words below all.
LAYERS = ("api", "_runtime", "_decide", "_state", "_log")
BESIDE = {
    "ports": {"_log", "ports"},
    "audit": {"_state", "_log", "ports", "audit"},
    "inspect": {"_decide", "_state", "_log", "ports", "inspect"},
    "": set[str](),  # enums, errors, messages, settings, clock
}


def _layer(module: str) -> str:
    part = module.split(".")[1] if "." in module else ""
    return part if part in LAYERS or part in BESIDE else ""


def _below(layer: str) -> set[str]:
    if layer in BESIDE:
        return BESIDE[layer] | {""}
    if layer == "_log":  # a port speaks of records and bodies
        return {"_log", ""}
    rest = {"ports", ""} | ({"audit", "inspect"} if layer == "api" else set())
    return {*LAYERS[LAYERS.index(layer) :]} | rest


def _kernel_modules() -> Iterator[tuple[str, Path]]:
    root = ROOT / "kernel"
    for path in sorted(root.rglob("*.py")):
        if path != root / "turnfold" / "__init__.py":
            yield ".".join(path.relative_to(root).with_suffix("").parts), path


def test_imports_in_the_kernel_go_down() -> None:
    assert not [
        f"{module} imports {name}"
        for module, path in _kernel_modules()
        for name in _imported(path)
        if name.startswith("turnfold.") and _layer(name) not in _below(_layer(module))
    ]


def test_adapters_import_no_private_package_of_the_kernel() -> None:
    """An adapter or a tool needs no more than others can have. The model and the tests
    may look inside."""
    assert not [
        f"{_name(path)} imports {name}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "adapters")
        for name in _imported(path)
        if name.startswith("turnfold._")
    ]


# Who sets fields of others: the fold those of states, a decision those of its draft.
MAY_SET = {"self", "draft", "new", "counted"}
FOLD = {"entry.py", "entry_fold.py", "turn.py"}


def test_events_and_states_are_set_by_the_fold_alone() -> None:
    """States are not frozen at run time (specs/decisions/0019)."""
    assert not [
        f"{module}:{target.lineno} sets {ast.unparse(target)}"
        for module, path in _kernel_modules()
        if _layer(module) in {"_decide", "_state", "_log", "audit", "inspect"}
        for target in _fields_set(path)
        if ast.unparse(target.value).partition(".")[0] not in MAY_SET
        and not (_layer(module) == "_state" and path.name in FOLD)
    ]


def _fields_set(path: Path) -> Iterator[ast.Attribute]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node


def test_every_path_of_the_touch_lists_exists() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", page)
    roots = (ROOT, ROOT / "kernel" / "turnfold", ROOT / "specs", ROOT / "model")
    assert len(paths) > 10
    assert not [p for p in paths if not any((r / p).exists() for r in roots)]


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_no_source_is_generated() -> None:
    """A reader and an editor find every function in a file."""
    assert not [
        f"{_name(path)}:{node.lineno} calls {node.func.id}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "kernel")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"exec", "eval", "compile"}
    ]


def test_nothing_is_left_to_do() -> None:
    marks = ("FIX" + "ME", "TO" + "DO", "XX" + "X")
    assert not [
        _name(path)
        for path in SOURCES + TESTS
        if any(mark in path.read_text() for mark in marks)
    ]


def _bare(code: str, *folders: str) -> subprocess.CompletedProcess[str]:
    """Run code with only these source roots and the base dependencies."""
    site = next(p for p in sys.path if p.endswith("site-packages"))
    path = ":".join([*(str(ROOT / f) for f in folders), site])
    return subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path[:0]={path.split(':')!r}\n{code}",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_the_kernel_needs_nothing_but_itself_and_its_base_dependencies() -> None:
    code = (
        "import turnfold; turnfold.Kernel; turnfold.Text\n"
        "bad = [m for m in sys.modules if m.startswith(('turnfold_', 'typer', 'rich',"
        " 'httpx', 'nio', 'hypothesis', 'transitions', 'pytest'))]\n"
        "assert not bad, bad"
    )
    done = _bare(code, "kernel")
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_quick() -> None:
    """Under 150 ms of processor time, best of five: other work may be going on."""
    code = (
        "import time; a = time.process_time(); import turnfold\n"
        "print(time.process_time() - a)"
    )
    best = min(float(_bare(code, "kernel").stdout) for _ in range(5))
    assert best < 0.15, f"{best * 1000:.0f} ms"


def test_importing_the_package_configures_nothing() -> None:
    code = (
        "import logging, threading; import turnfold; turnfold.Kernel\n"
        "assert not logging.root.handlers\n"
        "assert not logging.getLogger('turnfold').handlers\n"
        "assert threading.active_count() == 1"
    )
    done = _bare(code, "kernel")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there() -> None:
    import turnfold

    for name in turnfold.__all__:
        assert getattr(turnfold, name) is not None, name
