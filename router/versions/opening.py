"""Open the store of versions at a path or at a URL (`store_at`)."""

from __future__ import annotations

from pathlib import Path

from router.ledger.opening import require_installed
from router.ledger.settings import LedgerSettings
from router.versions.directory_store import DirectoryStore
from router.versions.store import VersionStore


def store_at(place: Path | str) -> VersionStore:
    """Return the store at a place: the path of a directory, or the URL `postgresql://...` of a database.

    Raises ConfigError for another kind of URL, and if a package for the database is not installed.
    """
    settings = LedgerSettings(str(place))
    if settings.is_sqlite:
        return DirectoryStore(Path(place))
    settings.url  # noqa: B018  It raises the error about other kinds of databases.
    require_installed(settings)
    from router.versions.postgres_store import PostgresStore

    return PostgresStore(str(place))
