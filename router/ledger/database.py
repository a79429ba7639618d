"""Open the database of a ledger, and bring its tables to the version that this program knows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from router.errors import ConfigError
from router.ledger.settings import LedgerSettings
from router.ledger.tables import VERSION

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

#: Seconds that an SQLite connection waits for another process to finish writing.
_BUSY_S = 10.0

#: Seconds that a connection to PostgreSQL may take, and that one statement may take.
_CONNECT_S, _STATEMENT_S = 3, 30

#: A number by which processes agree in PostgreSQL that only one of them migrates.
_MIGRATION_LOCK = 0x656C6C65


def open_engine(settings: LedgerSettings) -> sa.Engine:
    """Return an engine for the database of a ledger. It connects when it is first used.

    SQLite is used in WAL mode with `synchronous=FULL`: a commit is on the disk when it returns, also if the power
    fails. With `NORMAL`, which does not wait for the disk, the last commits could be lost after they were acknowledged.
    """
    if settings.is_sqlite:
        url = sa.URL.create("sqlite", database=str(Path(settings.place).absolute()))
        _adapt_quickly()
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S}, json_deserializer=_read_json)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        return engine
    options = f"-c statement_timeout={_STATEMENT_S * 1000}"
    return sa.create_engine(
        settings.url,
        pool_pre_ping=True,
        pool_size=2,
        # A change of the host's clock must not make a connection look old.
        pool_recycle=-1,
        connect_args={"connect_timeout": _CONNECT_S, "options": options, "application_name": "elle-router"},
    )


def _read_json(text: str) -> Any:
    """Return what a column of JSON holds. Raises ConfigError for a text that nobody of ours wrote."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"a row of the ledger is damaged ({error}); restore the file from a backup.") from None


def _adapt_quickly() -> None:
    """Tell sqlite3 how it sends None and booleans: as NULL, and as 0 and 1, which is what it does anyway.

    Without that it looks for methods of an old protocol on each of them.
    """
    import sqlite3

    sqlite3.register_adapter(type(None), {None: None}.get)
    sqlite3.register_adapter(bool, int)


def _set_up_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={int(_BUSY_S * 1000)}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def driver_words(error: sa.exc.SQLAlchemyError) -> str:
    """Return the message of the database driver in one line, as in `no such table: decisions`."""
    cause = getattr(error, "orig", None)
    if cause is None:
        # SQLAlchemy's own message quotes the statement and its values; that of the driver does not.
        return type(error).__name__
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)


def migrate(engine: sa.Engine) -> tuple[str, str]:
    """Bring the tables to the newest version. Return the versions before and after; before may be empty.

    Processes that start together take turns. Raises ConfigError if a newer program made the tables.
    """
    with engine.connect() as connection:
        _take_turn(connection)
        if (before := _version(connection)) != VERSION:
            _upgrade(connection, before)
        connection.commit()
    return before, VERSION


def check_version(engine: sa.Engine) -> None:
    """Raise ConfigError unless the tables have the version that this program knows."""
    with engine.connect() as connection:
        found = _version(connection)
    if found != VERSION:
        _require_known(found)
        state = f"has tables of version {found}" if found else "has no tables of a ledger"
        raise ConfigError(f"the database {state}; run `elle ledger migrate`, or `elle serve --ledger`, which does so.")


def _take_turn(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    else:
        # Without this, sqlite3 begins a transaction at the first change only, and two processes would both change.
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _version(connection: sa.Connection) -> str:
    """Return the version of the tables, which Alembic has noted in a table of its own; empty if there are none."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or "")


def _upgrade(connection: sa.Connection, before: str) -> None:
    # Most services start with tables that are up to date, and do without the import, which takes a while.
    from alembic import command

    _require_known(before)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _require_known(found: str) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found and found not in known:
        raise ConfigError(
            f"the ledger's tables have version {found}, which this program does not know (it knows {VERSION}); update "
            "elle-router."
        )


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
