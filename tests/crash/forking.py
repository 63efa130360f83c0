"""A piece of work in a child process that may be killed."""

import os
import traceback
from collections.abc import Callable
from typing import Any


def forked(work: Callable[..., Any], *args: Any) -> int:
    """The exit code of a fork that does the work; minus the number of a signal that
    killed it, 99 for an error."""
    pid = os.fork()
    if pid == 0:
        try:
            work(*args)
        except SystemExit as exc:
            os._exit(exc.code or 0)  # type: ignore[arg-type]  a command ends with a number
        except BaseException:  # noqa: BLE001  printed here, and the parent sees the code
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
