"""Open a ledger, or say which packages are missing. This file alone may be imported without the extra `ledger`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from router.errors import ConfigError
from router.ledger.settings import LedgerSettings

if TYPE_CHECKING:
    from router.ledger.reader import LedgerReader
    from router.ledger.recorder import Ledger


def require_installed(settings: LedgerSettings) -> None:
    """Raise ConfigError if a package that this ledger needs is not installed."""
    for name in ("sqlalchemy", "alembic", *(() if settings.is_sqlite else ("psycopg",))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"--ledger needs {name}, which is not installed; install it with `pip install 'elle-router[ledger]'`."
            ) from error


def open_ledger(settings: LedgerSettings) -> Ledger:
    """Return the ledger of a serving process. Raises ConfigError; see `router.ledger.recorder.Ledger`."""
    require_installed(settings)
    from router.ledger.recorder import Ledger

    return Ledger(settings)


@contextlib.contextmanager
def opened_reader(settings: LedgerSettings) -> Iterator[LedgerReader]:
    """Yield a reader of a ledger that exists. Raises ConfigError if it does not exist or cannot be read."""
    require_installed(settings)
    from pathlib import Path

    from router.ledger.reader import LedgerReader

    if settings.is_sqlite and not Path(settings.place).is_file():
        raise ConfigError(f"there is no ledger {settings.place}; `elle serve --ledger {settings.place}` makes one.")
    with LedgerReader.opened(settings) as reader:
        yield reader
