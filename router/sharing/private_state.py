"""Make a database for the workers of one service, which is deleted when the service ends (`private_state`)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from router.ledger.settings import DatabaseSettings

#: Where the database is, if it can be: in memory.
_MEMORY = Path("/dev/shm")  # noqa: S108

#: The folder of a service, which names its process.
_NAME = re.compile(r"elle-state-(\d+)-")


@contextlib.contextmanager
def private_state() -> Iterator[DatabaseSettings]:
    """Yield the place of a new database in memory, or else in the folder for temporary files.

    What services have left that were killed is deleted.
    """
    root = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for left in root.glob("elle-state-*"):
        named = _NAME.match(left.name)
        if named and not Path(f"/proc/{named[1]}").exists() and left.lstat().st_uid == os.getuid():
            shutil.rmtree(left, ignore_errors=True)
    # Only its owner can look into it.
    with tempfile.TemporaryDirectory(prefix=f"elle-state-{os.getpid()}-", dir=root, ignore_cleanup_errors=True) as name:
        yield DatabaseSettings(str(Path(name) / "state.db"))
