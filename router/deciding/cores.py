"""Count the CPU cores that this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least 1.

    That is the number of cores in its affinity mask, but at most the whole cores in the CPU quota of its control group.
    A container with a quota sees every core of its host. If it runs more threads than the quota allows, they use the
    quota up early in each period, and then all of them stand still until the next one, the event loop included.

    root: the folder of `proc` and `sys`, for tests. The quotas of cgroup v2 (`cpu.max`) are read, with its ancestors'.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> list[int]:
    """Return the whole cores in each quota that holds for this process."""
    found: list[int] = []
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    own_groups = [groups / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    for group in (group for own in own_groups for group in (own, *own.parents) if group.is_relative_to(groups)):
        try:
            quota, _, period = (group / "cpu.max").read_text().partition(" ")
            found.append(int(quota) // int(period))
        except (OSError, ValueError):
            # The root group has no such file, and a group without a quota says "max".
            continue
    return found
