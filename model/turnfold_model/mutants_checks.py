"""The checkers that kill mutants, each a function that says what it found.

`crash:<scenario>` explores a row of the crash matrix, `power:<scenario>` loses power in
a life of the real store, `disk:<scenario>` makes its disk fail, `store` is the contract
of stores, `refused` what a store says of a commit that failed, `stateful` the
Hypothesis machine, `answers` what counts as an answer, `test:<file>` a file of tests.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

import apsw

from turnfold.answers import outcome_of
from turnfold.errors import DiskError, StoreError
from turnfold.ports.channel import Accepted, Receipt, Unknown
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.crash import verdict
from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import named
from turnfold_model.powerloss import PATH, SCENARIOS, VFS, Harness
from turnfold_model.store_checks import CHECKS, Place, run_check
from turnfold_model.store_kit import put

_SECONDS = 30.0  # for one scenario; a healthy one needs fewer


def check(name: str) -> str | None:
    """What the checker found, or none if all looks well to it."""
    kind, _, what = name.partition(":")
    look = _KINDS[kind]
    if kind == "crash":
        named(what)  # a name that is not there is no kill
    verdict.forget()
    try:
        return look(what)
    except Exception as exc:  # noqa: BLE001  whatever a broken kernel raises is a find
        return f"{type(exc).__name__}: {exc}"[:300]
    finally:
        verdict.forget()


def _crash(what: str) -> str | None:
    done = explore(named(what), seconds=_SECONDS, most=1)
    return done.violations[0].rule if done.violations else None


def _power(what: str) -> str | None:
    return _harness(what, "lose_power")


def _disk(what: str) -> str | None:
    return _harness(what, "fail_everywhere")


def _harness(what: str, how: str) -> str | None:
    scenario = next(s for s in SCENARIOS if s.name == what)
    harness = Harness()
    harness.until = lambda: bool(harness.found.violations)
    try:
        getattr(harness, how)(scenario, "mutant", 1)
    finally:
        harness.close()
    found = harness.found.violations
    return found[0].rule if found else None


def _store(_: str) -> str | None:
    for one in CHECKS:
        folder = tempfile.mkdtemp(prefix="turnfold-")
        path = Path(folder) / "s.db"
        try:
            run_check(one, partial(_place, path))
        except Exception as exc:  # noqa: BLE001  the check that found it is the answer
            return f"{one.__name__}: {type(exc).__name__}"
        finally:
            shutil.rmtree(folder)
    return None


def _place(path: Path) -> Place:
    return Place(handle=lambda: SqliteStore(path))


def _refused(_: str) -> str | None:
    """A disk that fails at each operation of a commit: what the store calls surely not
    stored is not there."""
    harness = Harness()
    try:
        return next(filter(None, map(partial(_refusal, harness), range(60))), None)
    finally:
        harness.close()


def _refusal(harness: Harness, at: int) -> str | None:
    harness.disk.load({})
    store = SqliteStore(PATH, vfs=VFS, exclusive=True)
    store.open()
    put(store, "entry:a")
    harness.disk.fail(harness.disk.operations + at, 1, apsw.IOError)
    try:
        put(store, "entry:a")
    except DiskError as exc:
        harness.disk.fail(0, 0, apsw.IOError)
        with harness.disk.gone():  # killed: its last words do not count
            store.close()
        store.open()
        stored = store.head.position
        return None if stored == 1 else f"{exc}, but the log ends at {stored}"
    except StoreError:
        return None  # of unknown fate, and it says so
    else:
        return None
    finally:
        harness.disk.fail(0, 0, apsw.IOError)
        store.close()


def _test(what: str) -> str | None:
    """A file of the test suite, in this process, for it is the one that is broken."""
    import pytest  # noqa: PLC0415  as for hypothesis

    root = Path(__file__).parents[2]
    words = ["-q", "-x", "-p", "no:cacheprovider", f"--rootdir={root}"]
    words += ["-c", str(root / "pyproject.toml"), str(root / "tests" / what)]
    with redirect_stdout(StringIO()):
        code = pytest.main(words)
    return None if code == pytest.ExitCode.OK else f"{what}: {code!r}"


def _stateful(_: str) -> str | None:
    from turnfold_model import stateful  # noqa: PLC0415  the only one that needs hypothesis

    stateful.run(150, 40, shrink=False)
    return None


def _answers(_: str) -> str | None:
    given = Accepted(receipt=Receipt())
    held = outcome_of(given, gives_ids=True)
    if isinstance(held, Unknown):
        return None
    return "an acceptance without a receipt counts as one"


_KINDS: Final[dict[str, Callable[[str], str | None]]] = {
    "crash": _crash,
    "power": _power,
    "disk": _disk,
    "store": _store,
    "stateful": _stateful,
    "answers": _answers,
    "refused": _refused,
    "test": _test,
}
