"""Keep versions of policies in a PostgreSQL database, which all replicas follow (`PostgresStore`).

The trail holds the same lines as that of a directory. A change is written under a lock of the database, and announced
by NOTIFY. Policies are loaded from files, so the files of a version are copied to a private folder when it is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from router.errors import ConfigError, UnknownVersionError
from router.ledger.database import open_engine
from router.ledger.settings import LedgerSettings
from router.policies.loading import ServedPolicy
from router.quoting import quoted
from router.versions.directory_store import DirectoryStore, manifest_of
from router.versions.store import OpenedVersion
from router.versions.trail import Change, Trail
from router.versions.version import Contents, PolicyVersion, version_from, version_of

log = logging.getLogger(__name__)

#: The channel of NOTIFY, and the number by which writers take turns.
_CHANNEL, _LOCK = "elle_trail", 0x656C6C66

#: Seconds that a connection for LISTEN may take.
_CONNECT_S = 3

_tables = sa.MetaData()
_versions = sa.Table(
    "elle_versions",
    _tables,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.LargeBinary, nullable=False),
    sa.Column("policy", sa.LargeBinary, nullable=False),
)
_probe_files = sa.Table(
    "elle_probe_files",
    _tables,
    sa.Column("probe_id", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
_trail = sa.Table(
    "elle_trail",
    _tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("line", sa.LargeBinary, nullable=False),
)


class PostgresStore:
    """Keeps versions of policies in a database, in tables that it makes when they are missing.

    Every method raises ConfigError if the database cannot be used, but for `marks` and `wait`: while the database is
    gone, a service goes on with what it has.

    url: the URL of the database, as in `postgresql://user:password@host/name`.
    """

    def __init__(self, url: str) -> None:
        settings = LedgerSettings(url)
        self._name = settings.name
        self._engine = open_engine(settings)
        self._conninfo = settings.url.replace("+psycopg", "", 1)
        self._is_ready = False
        self._marks: tuple[object, ...] = ()
        self._fault = ""
        self._listener: psycopg.AsyncConnection[Any] | None = None
        folder = tempfile.mkdtemp(prefix="elle-store-")
        self._copies = DirectoryStore(Path(folder))
        weakref.finalize(self, _release, self._engine, folder)

    def add(self, contents: Contents, policy: ServedPolicy) -> PolicyVersion:
        """Keep a version and return it. A version that is there already stays as it is. `policy`: loaded from it."""
        version = version_of(contents, policy)
        files = [{"probe_id": version.probe_id, "name": name, "data": data} for name, data in contents.probe.items()]
        with self._begun() as connection:
            if files:
                connection.execute(insert(_probe_files).on_conflict_do_nothing(), files)
            row = {"id": version.id, "manifest": manifest_of(version), "policy": contents.policy}
            connection.execute(insert(_versions).on_conflict_do_nothing(), row)
        return version

    def versions(self) -> Sequence[PolicyVersion]:
        """Return all versions, by their names and ids."""
        with self._begun() as connection:
            found = connection.execute(sa.select(_versions.c.manifest, _versions.c.id)).all()
        return sorted((_version_from(*one) for one in found), key=lambda one: (one.name, one.id))

    def open(self, version_id: str) -> OpenedVersion:
        """Return the files of a version, after checking that they are what was kept.

        Raises UnknownVersionError, and ConfigError if they were changed.
        """
        with contextlib.suppress(UnknownVersionError):
            return self._copies.open(version_id)
        with self._begun() as connection:
            row = connection.execute(sa.select(_versions).where(_versions.c.id == version_id)).first()
            if row is None:
                raise UnknownVersionError(f"the store {self._name} has no version {quoted(version_id)}.")
            version = _version_from(row.manifest, row.id)
            of_probe = _probe_files.c.probe_id == version.probe_id
            files = connection.execute(sa.select(_probe_files.c.name, _probe_files.c.data).where(of_probe)).all()
        probe = {name: bytes(data) for name, data in files if name in version.probe}
        if set(probe) != set(version.probe):
            raise ConfigError(f"the store {self._name} lacks files of a probe; restore it from a backup.")
        self._copies.keep(version, Contents(bytes(row.policy), probe))
        return self._copies.open(version_id)

    def trail(self) -> Trail:
        """Return the trail as it is now. Raises ConfigError if it was edited."""
        with self._begun() as connection:
            return _trail_of(connection)

    def append(self, change: Change) -> Change:
        """Write a change to the end of the trail, and return it as written.

        Raises VersionConflictError, and writes nothing, if another version than `change.before` is active by now.
        """
        with self._begun() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            written = _trail_of(connection).next(change)
            connection.execute(sa.insert(_trail), {"number": written.number, "line": written.line()})
            connection.execute(sa.select(sa.func.pg_notify(_CHANNEL, str(written.number))))
        return written

    def marks(self) -> tuple[object, ...]:
        """Return the number of changes; what it was before, if the database cannot be asked now."""
        try:
            with self._begun() as connection:
                self._marks = (connection.execute(sa.select(sa.func.max(_trail.c.number))).scalar(),)
        except ConfigError as error:
            if str(error) != self._fault:
                log.warning("%s The policies that decide now go on.", error)
            self._fault = str(error)
        else:
            self._fault = ""
        return self._marks

    async def wait(self, seconds: float) -> None:
        """Wait for a change, at most for this many seconds. Without LISTEN it is always that long."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        try:
            if self._listener is None:
                self._listener = await self._listening()
            async for _ in self._listener.notifies(timeout=seconds, stop_after=1):
                return
        except psycopg.Error:
            self._stop_listening()
            await asyncio.sleep(max(0.0, ends - loop.time()))
        except asyncio.CancelledError:
            self._stop_listening()
            raise

    async def _listening(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=_CONNECT_S, application_name="elle-router"
        )
        await connection.execute(f"LISTEN {_CHANNEL}")
        return connection

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.pgconn.finish()
            self._listener = None

    @contextlib.contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        """Run a transaction, after making the tables if they are missing."""
        try:
            with self._engine.begin() as connection:
                if not self._is_ready:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                    _tables.create_all(connection)
                yield connection
            self._is_ready = True
        except sa.exc.SQLAlchemyError as error:
            kind = type(getattr(error, "orig", None) or error).__name__
            raise ConfigError(
                f"the store {self._name} cannot be used ({kind}); check that the database runs, and that its user may "
                "make and write tables."
            ) from error


def _release(engine: sa.Engine, folder: str) -> None:
    engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)


def _trail_of(connection: sa.Connection) -> Trail:
    lines = connection.execute(sa.select(_trail.c.line).order_by(_trail.c.number)).scalars()
    return Trail(b"".join(bytes(line) for line in lines))


def _version_from(manifest: bytes, version_id: str) -> PolicyVersion:
    try:
        return version_from(bytes(manifest), version_id)
    except ValueError as error:
        raise ConfigError(
            f"the manifest of a version was changed: {error}. Restore the store from a backup."
        ) from error
