"""The checkers of mutants: each looks at the kernel as it is now and reports its findings.

`crash:<scenario>` explores a row of the crash matrix, `power:<scenario>` loses power in
a life of the real store, `disk:<scenario>` makes its disk fail, `store` is the contract
of stores, `refused` the error of a store for a commit that failed, `stateful` the
Hypothesis machine, `answers` the values that count as an answer, `test:<file>::<word>` the tests
of a file with this word in their name.

`world:<switch>` is not about the kernel: it searches the world model without the same
rule, which must break, too. It confirms that a mutant is worth killing.
"""

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import apsw

from turnfold._runtime.channel import outcome_of
from turnfold.errors import DiskError, StoreError
from turnfold.ports.channel import Accepted, Receipt, Unknown
from turnfold.ports.store import now
from turnfold_adapters.stores.sqlite import SqliteStore
from turnfold_model.checks.store import CHECKS, Place, run_check
from turnfold_model.checks.store_kit import put
from turnfold_model.command_kit import UnavailableError
from turnfold_model.crash import verdict
from turnfold_model.crash.explore import explore
from turnfold_model.crash.matrix import MATRIX
from turnfold_model.mutants import server, tests
from turnfold_model.powerloss.harness import PATH, SCENARIOS, VFS, Harness
from turnfold_model.protocol_model import explorer, matrix

_SECONDS = 30.0  # for one scenario; a healthy one needs fewer
# A checker without an end has noticed something, too. `stateful` has so long for each
# example: all of them together may take any time on a busy machine.
_PATIENCE_S = 240
# Cheapest first: a mutant is dead at the first that notices it.
_PRICES: Final = (
    *("world", "answers", "refused", "crash", "store"),
    *("server", "test", "power", "stateful", "disk"),
)


class NoCheckerError(Exception):
    """The name of a checker means nothing here: no kill, but a hole in the table."""


class _EndlessError(BaseException):
    """Nothing in between may take this for an error of its own."""


def price(name: str) -> int:
    """For sorting."""
    return _PRICES.index(name.partition(":")[0])


def check(name: str) -> str | None:
    """The finding of the checker, or none if it sees nothing wrong. Raises NoCheckerError."""
    kind, _, what = name.partition(":")
    if kind not in _KINDS:
        raise NoCheckerError(name)
    return _told(partial(_KINDS[kind], what))


def _told(look: Callable[[], str | None]) -> str | None:
    verdict.forget()
    try:
        with _patience():
            return look()
    except (NoCheckerError, UnavailableError):
        raise
    except _EndlessError:
        return f"no end after {_PATIENCE_S} s"
    except Exception as exc:  # noqa: BLE001  any error of a broken kernel is a find
        return f"{type(exc).__name__}: {exc}"[:300]
    finally:
        verdict.forget()


@contextmanager
def _patience() -> Iterator[None]:
    """Raises _EndlessError when the time is up, in the place of any other error:
    Hypothesis reports a play that is cut short as flaky data. A destructor may swallow
    the first one, so there are more."""
    rung = False

    def ring(*_: object) -> None:
        nonlocal rung
        rung = True
        raise _EndlessError

    before = signal.signal(signal.SIGALRM, ring)
    _wait_anew()
    try:
        yield
    except BaseException as exc:
        if rung:
            raise _EndlessError from exc
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _wait_anew() -> None:
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S, _PATIENCE_S)


def _one_of(rows: Any, what: str, kind: str) -> Any:
    for row in rows:
        if row.name == what:
            return row
    raise NoCheckerError(f"{kind}:{what}")


def _crash(what: str) -> str | None:
    done = explore(_one_of(MATRIX, what, "crash"), seconds=_SECONDS, most=1)
    return done.violations[0].rule if done.violations else None


def _world(what: str) -> str | None:
    config = _one_of(matrix.unguarded(), f"unguarded-{what}", "world")
    return explorer.explore(config).broken or None


def _power(what: str) -> str | None:
    return _harness(what, "lose_power")


def _disk(what: str) -> str | None:
    return _harness(what, "fail_everywhere")


def _harness(what: str, how: str) -> str | None:
    scenario = _one_of(SCENARIOS, what, how)
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
    """A disk that fails at each operation of a commit: commits that the store calls surely not
    stored are not there."""
    harness = Harness()
    try:
        return next(filter(None, map(partial(_refusal, harness), range(60))), None)
    finally:
        harness.close()


def _refusal(harness: Harness, at: int) -> str | None:
    harness.disk.load({})
    store = SqliteStore(PATH, vfs=VFS, exclusive=True)
    now(store.open())
    now(put(store, "entry:a"))
    harness.disk.fail(harness.disk.operations + at, 1, apsw.IOError)
    try:
        now(put(store, "entry:a"))
    except DiskError as exc:
        harness.disk.fail(0, 0, apsw.IOError)
        with harness.disk.gone():  # killed: its last words do not count
            now(store.close())
        now(store.open())
        stored = now(store.load()).head.position
        return None if stored == 1 else f"{exc}, but the log ends at {stored}"
    except StoreError:
        return None  # of unknown fate, and it says so
    else:
        return None
    finally:
        harness.disk.fail(0, 0, apsw.IOError)
        now(store.close())


def _test(what: str) -> str | None:
    try:
        return tests.run(what, _PATIENCE_S)
    except TimeoutError:
        raise _EndlessError from None
    except LookupError as exc:
        raise NoCheckerError(f"test:{what}: {exc}") from exc


def _stateful(_: str) -> str | None:
    from turnfold_model.stateful import gateway_machine  # noqa: PLC0415  the only one that needs hypothesis

    gateway_machine.BEGINS.append(_wait_anew)
    try:
        gateway_machine.run(80, 40, shrink=False)  # as the tests do
    finally:
        gateway_machine.BEGINS.remove(_wait_anew)
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
    "server": server.check,
    "test": _test,
    "world": _world,
}
