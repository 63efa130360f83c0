"""A PostgreSQL for one bench, which ends with it, also at SIGTERM (as `timeout` sends)."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tests.real.postgres import Postgres


@contextmanager
def own_server() -> Iterator[Postgres]:
    """The server is ended by the process id in its folder."""
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        server = Postgres(Path(folder) / "pg")
        try:
            yield server
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # let it end in order
            server.stop()


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
