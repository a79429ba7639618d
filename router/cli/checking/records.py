"""Check what a service keeps: the ledger and its spool, the store of versions, and the state of drift."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from router.cli.checking.finding import Finding, WantedService, fail, ok, warn
from router.cli.checking.installation import is_writable
from router.ledger.opening import opened_reader, require_installed
from router.ledger.settings import DatabaseSettings, LedgerSettings
from router.versions.opening import store_at

#: Bytes that a ledger should find free besides its spool.
_LEAST_FREE = 10**9

#: Seconds that a connection to a database may take.
_CONNECT_S = 3


def check_ledger(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look whether the ledger can be read and written, and who may read its key. It connects to a database by URL."""
    settings = wanted.settings.ledger
    if settings is None:
        yield ok(name, "no ledger is kept (--ledger), so there is no feedback.")
        return
    require_installed(settings)
    if settings.is_sqlite and not Path(settings.place).exists():
        yield _of_folder(name, Path(settings.place).absolute().parent, f"{settings.place} is made at the first start")
    else:
        yield from _of_database(name, settings)
    yield from _of_key(name, settings)
    yield from _of_spool(name, settings)


def _of_database(name: str, settings: LedgerSettings) -> Iterator[Finding]:
    with opened_reader(settings) as reader:
        yield ok(name, f"{settings.name} can be read, and holds {reader.count():,} decisions.")
    place = Path(settings.place)
    if settings.is_sqlite and not (os.access(place, os.W_OK) and os.access(place.absolute().parent, os.W_OK)):
        yield fail(name, f"{place} or its folder cannot be written to.", "Give both to the user of the service.")


def _of_key(name: str, settings: DatabaseSettings) -> Iterator[Finding]:
    path = settings.key_file or Path(f"{settings.place}.key")
    if settings.key_file is None and settings.is_sqlite and not path.exists():
        # The service makes it; a check writes nothing.
        return
    settings.key()
    if path.stat().st_mode & stat.S_IRWXO:
        yield warn(name, f"everybody on this machine may read the key {path}.", f"Run `chmod 600 {path}`.")


def _of_spool(name: str, settings: LedgerSettings) -> Iterator[Finding]:
    folder = settings.spool_folder.absolute()
    yield _of_folder(name, folder, f"the spool {settings.spool_folder} can be written to")
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    free = shutil.disk_usage(existing).free if existing is not None else 0
    if free < settings.spool_bytes + _LEAST_FREE:
        yield warn(
            name,
            f"{free / 1e9:.1f} GB are free on the disk of {folder}.",
            "Make room, set --ledger-keep-days, or take another disk (--ledger-spool).",
        )


def check_state(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look whether the database of shared sessions and limits can be used. It connects to a database by URL."""
    settings = wanted.settings.state
    if settings is None:
        yield ok(name, "sessions and limits are shared by the workers of this service alone (--state).")
        return
    place = Path(settings.place)
    if settings.is_sqlite and not place.exists():
        yield _of_folder(name, place.absolute().parent, f"{place} is made at the first start")
        return
    if trouble := _trouble_with(settings):
        yield fail(name, f"{settings.name} cannot be used: {trouble}.", "Till then each process goes on alone.")
    else:
        yield ok(name, f"{settings.name} can be used.")
    yield from _of_key(name, settings)


def _trouble_with(settings: DatabaseSettings) -> str:
    """Return why a database cannot be read; an empty text if it can. Nothing is written."""
    if settings.is_sqlite:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{settings.place}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT count(*) FROM elle_sessions_1").fetchone()
        except sqlite3.Error as error:
            return str(error)
        return ""
    require_installed(settings)
    import psycopg

    try:
        psycopg.connect(settings.url.replace("+psycopg", "", 1), connect_timeout=_CONNECT_S).close()
    except psycopg.Error as error:
        return type(error).__name__
    return ""


def check_store(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look whether the store of versions can be read and written. It connects to a database by URL."""
    place = wanted.settings.store
    if place is None:
        yield ok(name, "policies come from files, not from a store (--store).")
        return
    active = store_at(place).trail().active
    shown = LedgerSettings(str(place)).name
    yield ok(name, f"{shown} can be read; active are {', '.join(active) or 'no policies'}.")
    if "://" not in str(place) and not is_writable(Path(place)):
        yield warn(
            name, f"{shown} cannot be written to, so nobody can activate a version from here.", "Change its owner."
        )


def check_drift(name: str, wanted: WantedService) -> Iterator[Finding]:
    """Look whether the baseline of drift can be kept."""
    settings = wanted.settings
    if settings.drift_state is not None:
        yield _of_folder(name, settings.drift_state.absolute().parent, "the baseline of drift can be kept")
    elif settings.drift is not None:
        yield ok(name, "the baseline of drift is lost at a restart (--drift-state keeps it).")


def _of_folder(name: str, folder: Path, praise: str) -> Finding:
    if is_writable(folder):
        return ok(name, f"{praise}.")
    return fail(name, f"{folder} cannot be written to.", "Make it, or give it to the user of the service.")
