"""Run a real PostgreSQL on loopback for tests and benches; skip with the reason if the machine has none."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def missing() -> str:
    """Return why PostgreSQL cannot be run here; an empty text if it can."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        return "PostgreSQL (initdb, postgres) is not on this machine"
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL refuses to run as root, and there is no user postgres"
    return ""


@dataclass
class Postgres:
    """A server that can be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://tester:hunter2@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = ["-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        command = [*_as_postgres(), shutil.which("postgres") or "", *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=self.folder)

    def kill(self) -> None:
        """Kill the server and all that it started, as a crash does."""
        assert self.process is not None
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0]), signal.SIGINT)
            self.process.wait(20)


def _as_postgres() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []


@contextlib.contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    """Yield a new server that accepts connections."""
    import psycopg

    password = folder / "password"
    password.write_text("hunter2")
    if os.getuid() == 0:
        # Folders of pytest are closed to others.
        shutil.chown(folder, "postgres")
        for parent in [folder, *folder.parents][:4]:
            if parent.stat().st_uid == 0 and parent != Path("/tmp") and parent != Path("/"):  # noqa: S108
                parent.chmod(parent.stat().st_mode | 0o055)
        shutil.chown(password, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = ["initdb", "-D", str(folder / "data"), "-U", "tester", "--auth=scram-sha-256", f"--pwfile={password}"]
    subprocess.run([*_as_postgres(), *made], check=True, capture_output=True, cwd=folder)
    server = Postgres(folder, port)
    server.start()
    try:
        for _ in range(200):
            try:
                psycopg.connect(server.url, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                if server.process is None or server.process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield server
    finally:
        server.stop()
