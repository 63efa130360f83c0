"""Where a model puts files that no power loss threatens."""

import os
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108  only as a folder to make a private one in
# A dead process cannot make a disk forget, so a disk for deaths may be memory: it is
# quicker, and does not wait for other users of the real one. None: the usual place.
ROOM = _MEMORY if os.access(_MEMORY, os.W_OK) else None
