"""How many cores this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Cores by affinity, and no more than the quota of CPU time of the control group has whole ones; at least 1.

    A container with a quota sees every core of its host. Threads beyond the quota use it up early in each period, and
    then all of them, the loop that answers included, stand still until the next.

    root: where `proc` and `sys` are, for tests. Quotas of cgroup v2 (`cpu.max`) are read, its ancestors' included.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> list[int]:
    """Whole cores of every quota that holds for this process."""
    found: list[int] = []
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    ours = [groups / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    for group in (group for one in ours for group in (one, *one.parents) if group.is_relative_to(groups)):
        try:
            quota, _, period = (group / "cpu.max").read_text().partition(" ")
            found.append(int(quota) // int(period))
        except (OSError, ValueError):
            # No such file in the root group; "max" is no number.
            continue
    return found
