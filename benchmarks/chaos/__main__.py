"""Break the service in every way that is asked for, and print the table."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.attack.target import Found
from benchmarks.bench_probe import commit, hardware
from benchmarks.chaos import disks, faults
from benchmarks.chaos.trial import SkippedError, Trial, sqlite_trial

#: Faults of a service with a ledger in SQLite, and those that run a service of their own.
OF_SQLITE: tuple[Callable[[Trial], Found], ...] = (
    *faults.FAULTS,
    *(disks.full_disk, disks.full_disks, disks.read_only_disk),
)
OF_THEIR_OWN: tuple[Callable[[float, float], Found], ...] = (disks.postgres_killed, disks.clock_jump)

#: The cheapest faults.
QUICK = ("worker_killed", "corrupt_policy", "full_disk")

SECONDS, QUICK_SECONDS = 4.0, 1.5


def main() -> None:
    """Run the faults that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults; all unless given")
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--factor", type=float, default=1.0, help="how much wider the limits on time are")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a fault lasts that lasts")
    parser.add_argument("--list", action="store_true", help="list the faults")
    asked = parser.parse_args()
    every: list[Callable[..., Found]] = [*OF_SQLITE, *OF_THEIR_OWN]
    wanted = set(asked.names or (QUICK if asked.quick else [fault.__name__ for fault in every]))
    if unknown := wanted - {fault.__name__ for fault in every}:
        sys.exit(f"no such fault: {', '.join(sorted(unknown))}; see --list.")
    if asked.list:
        print("\n".join(f"{fault.__name__:24} {_about(fault)}" for fault in every))
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    table = run(wanted, QUICK_SECONDS if asked.quick else asked.seconds, asked.factor)
    kept = all(row["kept"] for row in table)
    print(json.dumps({"commit": commit(), "hardware": hardware(), "kept": kept, "faults": table}, indent=2))
    sys.exit(0 if kept else 1)


def run(wanted: set[str], seconds: float, factor: float) -> list[dict[str, Any]]:
    """Run faults, and return their rows of the table."""
    rows = []
    if of_sqlite := [fault for fault in OF_SQLITE if fault.__name__ in wanted]:
        with sqlite_trial(seconds, factor) as trial:
            for fault in of_sqlite:
                rows.append(_row(fault, trial))
                trial.load.start()
    return rows + [_row(fault, seconds, factor) for fault in OF_THEIR_OWN if fault.__name__ in wanted]


def _row(fault: Callable[..., Found], *arguments: Any) -> dict[str, Any]:
    """Break the service in one way, say on stderr how that went, and return the row of the result."""
    began = time.monotonic()
    about = {"fault": fault.__name__, "about": _about(fault)}
    try:
        found = fault(*arguments)
    except SkippedError as error:
        print(f"skipped {fault.__name__}: {error}", file=sys.stderr)
        return {**about, "skipped": str(error), "kept": True}
    print(f"{'ok     ' if found.kept else 'BROKEN '} {fault.__name__} {found.broken or ''}", file=sys.stderr)
    seconds = round(time.monotonic() - began, 1)
    return {**about, "seconds": seconds, "measured": found.measured, "limits": found.limits, "kept": found.kept}


def _about(fault: Callable[..., Found]) -> str:
    return (fault.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    main()
