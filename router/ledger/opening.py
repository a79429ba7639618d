"""Open a ledger, or say which packages are missing. This file alone may be imported without the extra `ledger`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

from probes.bounded.text import not_there
from router.errors import ConfigError
from router.ledger.settings import DatabaseSettings, LedgerSettings

if TYPE_CHECKING:
    from router.ledger.reader import LedgerReader
    from router.ledger.recorder import Ledger


def require_installed(settings: DatabaseSettings) -> None:
    """Raise ConfigError if a package that this ledger needs is not installed."""
    for name in ("sqlalchemy", "alembic", *(() if settings.is_sqlite else ("psycopg",))):
        if not _is_installed(name):
            raise ConfigError(
                f"a ledger or store in a database needs {name}, which is not installed; install it with "
                "`pip install 'elle-router[ledger]'`."
            )


def _is_installed(name: str) -> bool:
    """Return whether a package is there. All but one are not imported for that, because it takes a while."""
    if name != "psycopg":
        return importlib.util.find_spec(name) is not None
    try:
        # It may be there without the library of PostgreSQL, which it needs.
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def open_ledger(settings: LedgerSettings) -> Ledger:
    """Return the ledger of a serving process. Raises ConfigError; see `router.ledger.recorder.Ledger`."""
    require_installed(settings)
    from router.ledger.recorder import Ledger

    return Ledger(settings)


def require_exists(settings: LedgerSettings) -> None:
    """Raise ConfigError if there is no file of an SQLite ledger, because opening one would make it."""
    from pathlib import Path

    settings.require_no_folder()
    if settings.is_sqlite and not Path(settings.place).is_file():
        fault = not_there(Path(settings.place))
        raise ConfigError(f"the ledger {settings.place} {fault}; `elle serve --ledger {settings.place}` makes one.")


def migrate_ledger(settings: LedgerSettings) -> tuple[str, str]:
    """Bring the tables of a ledger up to date. Return their versions before and after; before may be empty.

    Raises ConfigError if the database cannot be used or a newer program made the tables.
    """
    require_installed(settings)
    from router.ledger.insertion import DatabaseSink
    from router.ledger.writer import LedgerDownError

    sink = DatabaseSink(settings)
    try:
        return sink.migrate()
    except LedgerDownError as error:
        raise ConfigError(settings.unusable(str(error))) from None
    finally:
        sink.close()


@contextlib.contextmanager
def opened_reader(settings: LedgerSettings) -> Iterator[LedgerReader]:
    """Yield a reader of a ledger that exists. Raises ConfigError if it does not exist or cannot be read."""
    require_installed(settings)
    from router.ledger.reader import LedgerReader

    require_exists(settings)
    with LedgerReader.opened(settings) as reader:
        yield reader
