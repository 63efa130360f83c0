"""The log lines of turnfold, for the module `logging`.

The handlers and filters of a logger are foreign code: one that raises would end whatever
says something. So its error goes to stderr, as `logging` itself does with the errors that
its own handlers meet, and is counted.
"""

import logging
import sys
import traceback
from typing import Any

NAME = "turnfold"


class Lines(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise."""

    failed = 0  # lines of this process that a handler or a filter broke at

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Say it, as by the place that called."""
        if not self.logger.isEnabledFor(level):
            return
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            self.logger.log(level, msg, *args, **kwargs)
        except KeyboardInterrupt:
            raise  # Ctrl-C
        except BaseException as exc:  # noqa: BLE001  a foreign handler may raise anything
            _not_said(exc)


def _not_said(error: BaseException) -> None:
    Lines.failed += 1
    if not logging.raiseExceptions or sys.stderr is None:
        return
    try:
        sys.stderr.write("turnfold: a line could not be logged:\n")
        traceback.print_exception(error, file=sys.stderr)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110  nothing is left that could be told
        pass


def lines(name: str = NAME) -> Lines:
    """The log lines under this name."""
    return Lines(logging.getLogger(name), {})
