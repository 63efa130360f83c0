"""Files that only the user of the gateway may read."""

import os

from turnfold.errors import DiskError


def make_private(path: str) -> None:
    """Make an empty database that no other user may read, unless there is one. SQLite
    gives its other files the same rights."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        return
    except OSError as exc:
        raise DiskError(path=path, problem=str(exc)) from exc
