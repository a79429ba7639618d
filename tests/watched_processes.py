"""Watch processes natively: every connection, look-up of a name and file opened for writing is noted."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "tests" / "native" / "recorder.c"

#: Written to by the C library and Python themselves; nothing is kept there.
EPHEMERAL = ("/dev/null", "/dev/tty", "/dev/shm/", "/proc/self/", "/proc/thread-self/")  # noqa: S108


@dataclass
class WatchedProcesses:
    """A workspace and a home directory, both fresh, and what was seen of the processes that ran there."""

    folder: Path
    library: Path
    seen: list[str] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def start(self, *argv: str, **more: object) -> subprocess.Popen[str]:
        """Run a process with the variables that everybody has set, and no others."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_PRELOAD": str(self.library),
            "ELLE_TEST_RECORD": str(self.folder / "record"),
        }
        return subprocess.Popen(argv, cwd=self.work, env=env, text=True, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]

    def foreign(self) -> list[str]:
        """Return what was done since the last look and should not have been done."""
        record = self.folder / "record"
        lines = record.read_text(errors="replace").splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        self.seen += lines
        return sorted({line for line in lines if not self._is_ours(line)})

    def _is_ours(self, line: str) -> bool:
        what, _, which = line.partition(" ")
        if what in {"connect", "route"}:
            # Also the address that a socket is disconnected by.
            return _is_here(which)
        if what == "lookup":
            return which in {"", "localhost"} or _is_here(which)
        if what == "unix":
            return which == "" or which.startswith(str(self.folder))
        places = (self.work, self.folder / "tmp", self.folder / "home" / ".cache" / "elle")
        return which.startswith(EPHEMERAL) or any(Path(which).is_relative_to(place) for place in places)


def _is_here(text: str) -> bool:
    """Return whether a text is an address of this machine alone, or the address that stands for all of its own."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def watched_in(folder: Path) -> WatchedProcesses:
    """Return a fresh workspace in the folder whose processes are watched; skip the test without a C compiler."""
    if (compiler := shutil.which("gcc") or shutil.which("cc")) is None:
        pytest.skip("a C compiler is needed to watch processes")
    library = folder / "recorder.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    for name in ("work", "home", "tmp"):
        (folder / name).mkdir()
    # The one directory above ours that everybody has.
    (folder / "home" / ".cache").mkdir()
    return WatchedProcesses(folder, library)
