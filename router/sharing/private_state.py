"""Make a database for the workers of one service, which is deleted when the service ends (`private_state`)."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from router.errors import ConfigError
from router.ledger.settings import DatabaseSettings

log = logging.getLogger(__name__)

#: Where the database is, if it can be: in memory.
_MEMORY = Path("/dev/shm")  # noqa: S108

#: The folder of a service, which names its process.
_NAME = re.compile(r"elle-state-(\d+)-")


@dataclass(frozen=True)
class PrivateDatabase(DatabaseSettings):
    """Says where the workers of one service share what callers have used. Their sessions are in memory anyway."""


@contextlib.contextmanager
def private_state() -> Iterator[PrivateDatabase | None]:
    """Yield the place of a new database in memory, or else in the folder for temporary files; None if neither can be.

    What services have left that were killed is deleted.
    """
    with contextlib.ExitStack() as held:
        try:
            root = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
            _delete_left(root)
            prefix = f"elle-state-{os.getpid()}-"
            # Only its owner can look into it.
            folder = tempfile.TemporaryDirectory(prefix=prefix, dir=root, ignore_cleanup_errors=True)
            state = PrivateDatabase(str(Path(held.enter_context(folder)) / "state.db"))
            state.key()
        except (OSError, ConfigError) as error:
            log.warning("no folder can be written (%s), so each worker holds callers to their limits by itself", error)
            yield None
        else:
            yield state


def _delete_left(root: Path) -> None:
    for left in root.glob("elle-state-*"):
        named = _NAME.match(left.name)
        with contextlib.suppress(OSError):
            if named and not Path(f"/proc/{named[1]}").exists() and left.lstat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
