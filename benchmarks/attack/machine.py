"""Describe the machine that attacks are measured on, so that whoever reads the table can tell a noisy run."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

#: The columns of the first line of /proc/stat that add up to all processor time, and which of them was stolen.
_COLUMNS, _STOLEN = 8, 7


class Noise:
    """Measures which share of the processors other virtual machines took since this object was made."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._before = self._ticks()

    def _ticks(self) -> list[int]:
        return [int(number) for number in self._stat.read_text().split("\n")[0].split()[1 : _COLUMNS + 1]]

    def stolen(self) -> float:
        """Return the share, from 0 to 1."""
        passed = [after - before for before, after in zip(self._before, self._ticks(), strict=True)]
        return round(passed[_STOLEN] / max(1, sum(passed)), 3)


def machine() -> dict[str, Any]:
    """Return what the machine is, and its load: how many programs wanted to run, in the mean of the last minute."""
    return {
        "processors": len(os.sched_getaffinity(0)),
        "kind": platform.machine(),
        "python": platform.python_version(),
        "load_of_a_minute": round(os.getloadavg()[0], 2),
    }
