"""Tests of the suite as checkers of mutants, run in a fork of the process with the
broken code: a failed test may hang in its teardown, so the fork ends with the failure.
A test of `real/` has a server that its teardown ends: it gets some seconds for that."""

import os
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from turnfold_model.command_kit import UnavailableError

_TESTS: Final = Path(__file__).parents[3] / "tests"
_SERVERS: Final = "real/"
_TEARDOWN_S: Final = 10.0
_SMALL: Final = "fast/test_tidy.py"  # any file would do


def run(what: str, seconds: float) -> str | None:
    """`what`: <file>::<word>. The first test that failed, or none. Raises TimeoutError, and
    LookupError if no test could be run."""
    if not _TESTS.is_dir():
        raise UnavailableError("the mutants need a checkout with its tests")
    fork = get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_child, args=(what, theirs))
    child.start()
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise TimeoutError
        code, told = ours.recv()
        child.join(_TEARDOWN_S)
    except EOFError:
        return "its process died"
    finally:
        child.kill()
        child.join()
    if code not in (0, 1):
        raise LookupError(told)
    return f"{told} failed" if code else None


def make_ready() -> None:
    """Import pytest, its plugins and what all tests share: forks of this process need not."""
    if _TESTS.is_dir():
        _pytest(_SMALL, "--collect-only")


def _child(what: str, there: Connection) -> None:
    import pytest  # noqa: PLC0415  the other commands do without it

    class Tell:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                there.send((1, report.nodeid.rpartition("::")[2]))
                if not file.startswith(_SERVERS):
                    os._exit(1)

    file, _, word = what.partition("::")
    try:
        there.send(_pytest(file, *(["-k", word] if word else []), plugin=Tell()))
    except Exception as exc:  # noqa: BLE001  no test failed: nothing was noticed
        there.send((-1, repr(exc)))


def _pytest(file: str, *words: str, plugin: Any = None) -> tuple[int, str]:
    """Asserts are not rewritten: nobody reads more than the name of the test."""
    import pytest  # noqa: PLC0415  as above

    root = _TESTS.parent
    words = ("-q", "-x", "-p", "no:cacheprovider", "--assert=plain", *words)
    words += (f"--rootdir={root}", "-c", str(root / "pyproject.toml"))
    with redirect_stdout(StringIO()) as told:
        code = pytest.main([*words, str(_TESTS / file)], [plugin] if plugin else [])
    return int(code), f"{code!r} {told.getvalue()[-200:]}"
