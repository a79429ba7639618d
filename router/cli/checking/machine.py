"""Check the machine: its clock, the cores and the memory that a control group leaves, and the limit on open files."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from router.cli.checking.finding import Finding, WantedService, ok, warn
from router.deciding.cores import usable_cores

#: Megabytes that one process needs to decide, and to serve HTTP too; measured resident memory with some room.
_MEGABYTES, _MEGABYTES_WITH_HTTP = 250, 450

#: Open files below which a flood of connections uses them up.
_LEAST_FILES = 4096

#: What `adjtimex` returns if nothing sets the clock.
_UNSYNCHRONISED = 5


def check_clock(name: str, _: WantedService) -> Iterator[Finding]:
    """Look whether the clock can be right: tokens and certificates expire by it."""
    installed = Path(__file__).stat().st_mtime
    if time.time() < installed - 86_400:
        yield warn(
            name,
            "the clock is earlier than the files of this program.",
            "Set it: tokens and certificates expire by it.",
        )
        return
    if _clock_state() == _UNSYNCHRONISED:
        yield warn(
            name,
            "the kernel says that nothing keeps the clock right.",
            "Run a time service, such as chrony, unless the host of this machine does.",
        )
        return
    yield ok(name, "the clock is kept right.")


def _clock_state() -> int | None:
    """Return the state of the kernel's clock, or None where it cannot be asked."""
    with contextlib.suppress(OSError, AttributeError):
        # The structure has less than 512 bytes, and zeros ask without changing anything.
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)))
    return None


def check_cores(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Compare the encoder threads of all processes with the cores that they may use."""
    cores, workers = usable_cores(), wanted.workers
    threads = workers * (wanted.settings.threads or max(1, cores // workers))
    says = f"{threads} encoder threads in {workers} {'process' if workers == 1 else 'processes'} on {cores} cores"
    if threads > cores:
        yield warn(name, f"{says}: they take turns, and answers come later.", "Take fewer --workers or --threads.")
    else:
        yield ok(name, f"{says}.")


def check_memory(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Compare what the processes need with the limit of the control group and with what is free."""
    each = _MEGABYTES_WITH_HTTP if wanted.settings.http is not None else _MEGABYTES
    needed = each * wanted.workers + (each if wanted.workers > 1 else 0)
    available = min((one for one in (*_memory_limits(), _free_memory()) if one is not None), default=None)
    if available is None:
        yield ok(name, f"this machine does not say how much memory is free; the service needs about {needed} MB.")
    elif available < needed:
        yield warn(
            name,
            f"{available:,.0f} MB of memory are free, and the service needs about {needed:,} MB.",
            "Raise the limit on memory, or take fewer --workers.",
        )
    else:
        yield ok(name, f"{available:,.0f} MB of memory are free, and the service needs about {needed:,} MB.")


def _memory_limits(root: Path = Path("/")) -> Iterator[float]:
    """Yield the limits in megabytes of the control group of this process (cgroup v2) and of those around it."""
    groups = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        own = [groups / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
        for group in (group for one in own for group in (one, *one.parents) if group.is_relative_to(groups)):
            with contextlib.suppress(OSError, ValueError):
                yield int((group / "memory.max").read_text()) / 1e6


def _free_memory() -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1e3
    return None


def check_files(name: str, _: WantedService) -> Iterator[Finding]:
    """Look how many files and connections may be open."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_FILES:
        yield warn(
            name,
            f"{soft:,} files and connections may be open; each caller needs one, and each answer another.",
            "Raise it: `ulimit -n 65536` in a shell, `LimitNOFILE=65536` in a systemd unit.",
        )
    else:
        yield ok(name, f"{'any number of' if soft == resource.RLIM_INFINITY else f'{soft:,}'} files may be open.")
