"""Work for the tests of engines: each shard is a square, and a worker can be killed in the middle of one."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from probes.errors import DataError
from probes.shards.work import ShardFunction


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and notes in `folder` which it has computed. Some shards kill their worker, or fail.

    killed_by: shards that kill their worker, the first time only, or each time if `always`.
    """

    folder: Path
    n_shards: int
    killed_by: tuple[int, ...] = ()
    always: bool = False
    failing: int = -1

    def open(self, threads: int | None) -> ShardFunction:
        (self.folder / f"opened-{os.getpid()}").touch()
        return self._square

    def _square(self, number: int) -> bytes:
        marker = self.folder / f"killed-{number}"
        if number in self.killed_by and (self.always or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.failing:
            raise DataError(f"shard {number} cannot be squared")
        return str(number * number).encode()
